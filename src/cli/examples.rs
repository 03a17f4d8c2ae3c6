//! What `--help` and the manual pages show of each command in addition to its flags: examples and exit
//! codes.

use clap::Command;

use super::{Exit, help};

/// The examples and exit codes of a command. `of` is the command as it is typed after `cohortd`.
pub(super) struct Page {
    of: &'static str,
    /// Command lines, each with its purpose.
    pub examples: &'static [(&'static str, &'static str)],
    exits: &'static [Exit],
}

use Exit::{BadUsage, Behind, Done, Internal, Interrupted, Rejected, Unavailable};

const LOCAL: &[Exit] = &[Done, BadUsage];
const ASKING: &[Exit] = &[Done, BadUsage, Unavailable];
const WAITING: &[Exit] = &[Done, BadUsage, Unavailable, Interrupted];
const OF_LEDGER: &[Exit] = &[Done, BadUsage, Unavailable, Internal];

const PAGES: &[Page] = &[
    page(
        "",
        &[
            ("cohortd sandbox", "see it work, without an account and without a file"),
            (
                "cohortd check",
                "how ./cohortd.toml is understood, or everything that is wrong with it",
            ),
            ("cohortd run", "the daemon"),
            ("cohortd status", "the state of each destination"),
        ],
        &[Done, Rejected, BadUsage, Unavailable, Internal, Behind, Interrupted],
    ),
    page(
        "run",
        &[
            ("cohortd run", "with ./cohortd.toml, else /etc/cohortd/cohortd.toml"),
            (
                "cohortd run --config /etc/cohortd/cohortd.toml",
                "with this file; relative paths in it are relative to it",
            ),
        ],
        OF_LEDGER,
    ),
    page(
        "sandbox",
        &[
            ("cohortd sandbox", "until Ctrl-C"),
            ("cohortd sandbox --events 100000", "this many sample events, then the comparison"),
        ],
        OF_LEDGER,
    ),
    page(
        "check",
        &[
            ("cohortd check", "before a start"),
            ("cohortd check --online", "also whether LaunchDarkly knows the ID and the token"),
            (
                "cohortd check --json",
                "for a program: which file and variables were read, and every fault",
            ),
        ],
        ASKING,
    ),
    page("healthcheck", &[("cohortd healthcheck", "as the HEALTHCHECK of a container")], ASKING),
    page(
        "reload",
        &[("cohortd reload", "after the file or a secret has changed, without waiting")],
        ASKING,
    ),
    page(
        "status",
        &[
            ("cohortd status", "the state of each destination, and what to do"),
            ("cohortd status --watch", "again and again, until Ctrl-C"),
            ("cohortd status --url http://127.0.0.1:8081", "from any directory"),
            (
                "cohortd status --behind-s 60 || page-somebody",
                "in a script: 75 if a member has waited for a minute",
            ),
        ],
        &[Done, BadUsage, Unavailable, Behind, Interrupted],
    ),
    page(
        "audiences",
        &[
            ("cohortd audiences", "of every destination"),
            ("cohortd audiences production --json", "of one, for a program"),
        ],
        ASKING,
    ),
    page(
        "member",
        &[
            ("cohortd member ada", "of the only destination"),
            ("cohortd member production ada", "of this one"),
        ],
        ASKING,
    ),
    page(
        "parked list",
        &[
            ("cohortd parked list", "members that LaunchDarkly refused, with its messages"),
            ("cohortd parked list aud_vip", "in one audience"),
        ],
        ASKING,
    ),
    page(
        "parked requeue",
        &[
            ("cohortd parked requeue", "all of them, once the cause is fixed"),
            ("cohortd parked requeue --audience aud_vip --key ada", "one of them"),
        ],
        ASKING,
    ),
    page(
        "parked discard",
        &[
            ("cohortd parked discard --all --dry-run", "how many would be discarded"),
            ("cohortd parked discard --audience aud_vip --key ada", "one of them"),
        ],
        WAITING,
    ),
    page(
        "rejected list",
        &[
            ("cohortd rejected list", "numbers and reasons"),
            ("cohortd rejected list --json > events.jsonl", "with the events"),
        ],
        ASKING,
    ),
    page(
        "rejected replay",
        &[
            (
                "cohortd rejected replay --wait",
                "after the mapping was fixed, until LaunchDarkly has been told",
            ),
            ("cohortd rejected replay --id 17", "one of them"),
        ],
        WAITING,
    ),
    page(
        "rejected discard",
        &[
            ("cohortd rejected discard --all --dry-run", "how many would be discarded"),
            ("cohortd rejected discard --id 17", "one of them"),
        ],
        WAITING,
    ),
    page("guard list", &[("cohortd guard list", "what is held, and what is usual")], ASKING),
    page(
        "guard release",
        &[("cohortd guard release aud_vip", "so many were meant to leave")],
        ASKING,
    ),
    page(
        "guard discard",
        &[
            ("cohortd guard discard --dry-run", "how many would be entered again"),
            ("cohortd guard discard production aud_vip", "those who left are in again"),
        ],
        WAITING,
    ),
    page(
        "reconcile",
        &[
            ("cohortd reconcile aud_vip --file vip.csv --dry-run", "what it would change"),
            (
                "cohortd reconcile aud_vip --file vip.csv --column user_id",
                "as of the file's modification time",
            ),
            (
                "cohortd reconcile production aud_vip --file - --as-of 2026-01-31T12:00:00Z",
                "from standard input",
            ),
        ],
        WAITING,
    ),
    page(
        "resync",
        &[
            ("cohortd resync aud_vip --wait", "an audience of the only destination"),
            ("cohortd resync production --all", "every audience of this one"),
            (
                "cohortd resync --retract-stale",
                "remove members that the present mapping did not bring",
            ),
        ],
        WAITING,
    ),
    page(
        "pause",
        &[("cohortd pause", "the only destination"), ("cohortd pause production", "this one")],
        ASKING,
    ),
    page(
        "resume",
        &[("cohortd resume", "the only destination"), ("cohortd resume production", "this one")],
        ASKING,
    ),
    page(
        "forget",
        &[
            ("cohortd forget ada --dry-run", "where she is known"),
            (
                "cohortd forget production ada",
                "out of every audience of this destination, and erased",
            ),
        ],
        WAITING,
    ),
    page(
        "drop",
        &[
            (
                "cohortd drop production aud_vip --retract --wait",
                "everybody leaves the segment, and the audience is forgotten",
            ),
            ("cohortd drop aud_vip --dry-run", "how many members would be affected"),
            ("cohortd drop old_name", "rows of a destination that is no longer configured"),
        ],
        WAITING,
    ),
    page(
        "send",
        &[
            (
                "cohortd send --user ada --audience vip --enter",
                "as if Segment said that she entered",
            ),
            ("cohortd send production --file event.json", "an event from a file"),
            (
                "cohortd send --url https://your-host/segment/production --file event.json",
                "through the proxy or load balancer in front",
            ),
        ],
        ASKING,
    ),
    page("ledger check", &[("cohortd ledger check", "70 if it is damaged")], OF_LEDGER),
    page(
        "ledger export",
        &[
            ("cohortd ledger export > members.jsonl", "every member"),
            ("cohortd ledger export production", "of one destination"),
        ],
        OF_LEDGER,
    ),
    page(
        "ledger backup",
        &[
            ("cohortd ledger backup /backups/cohortd-1", "into a new file"),
            ("kubectl exec cohortd-0 -- cohortd ledger backup - > cohortd-1", "out of a container"),
        ],
        OF_LEDGER,
    ),
    page(
        "ledger restore",
        &[
            ("cohortd ledger restore /backups/cohortd-1", "while no daemon runs"),
            ("cohortd ledger restore - < /backups/cohortd-1", "from a stream"),
            (
                "cohortd ledger restore data/ledger/before-restore-1",
                "back to what was there before",
            ),
        ],
        OF_LEDGER,
    ),
    page(
        "ledger rename",
        &[
            (
                "cohortd ledger rename old_name production",
                "a destination that was renamed in the configuration",
            ),
            (
                "cohortd ledger rename aud_1 aud_2 --destination production",
                "an audience whose id has changed",
            ),
        ],
        OF_LEDGER,
    ),
    page(
        "ledger copy",
        &[
            (
                "cohortd ledger copy --from data/ledger --to @ledger-url",
                "from a directory into the database whose URL is in that file",
            ),
            (
                "cohortd ledger copy --from @ledger-url --to data/ledger",
                "back into a directory that is empty or not there",
            ),
        ],
        OF_LEDGER,
    ),
    page(
        "ledger reset-clock",
        &[("cohortd ledger reset-clock", "once the clock is right, while no daemon runs")],
        OF_LEDGER,
    ),
    page(
        "explain",
        &[
            ("cohortd explain --file event.json", "what happens to an event, and why"),
            ("cohortd explain production --json < event.json", "for a program"),
        ],
        &[Done, Rejected, BadUsage],
    ),
    page(
        "eval mapping",
        &[("cohortd eval mapping < cases.jsonl", "a line of JSON for each")],
        LOCAL,
    ),
    page(
        "eval subscription",
        &[("cohortd eval subscription < cases.jsonl", "a line of JSON for each")],
        LOCAL,
    ),
    page("eval sync", &[("cohortd eval sync < requests.jsonl", "a line of JSON for each")], LOCAL),
    page(
        "completions",
        &[
            ("cohortd completions bash > /etc/bash_completion.d/cohortd", "for every user of bash"),
            ("source <(cohortd completions zsh)", "for this shell"),
        ],
        LOCAL,
    ),
    page(
        "help",
        &[
            ("cohortd help troubleshooting", "a page of the manual"),
            ("cohortd help configuration | less", "a long one"),
            ("cohortd help parked requeue", "what a command takes"),
        ],
        LOCAL,
    ),
    page(
        "man",
        &[
            ("cohortd man | man -l -", "to read it"),
            ("cohortd man --all /usr/local/share/man/man1", "a page for each command"),
        ],
        LOCAL,
    ),
];

const fn page(
    of: &'static str,
    examples: &'static [(&'static str, &'static str)],
    exits: &'static [Exit],
) -> Page {
    Page { of, examples, exits }
}

/// The page of a command, if it has one.
pub(super) fn of(typed: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.of == typed)
}

impl Page {
    /// The exit codes and their meanings.
    pub fn exits(&self) -> impl Iterator<Item = (u8, &'static str)> {
        self.exits.iter().map(|exit| match exit {
            Done => (0, "done"),
            Rejected => (1, "the event is rejected"),
            BadUsage => (
                64,
                "the command line or the configuration is wrong, or what was asked for does not \
                 exist",
            ),
            Unavailable => {
                (69, "something it needs cannot be reached or used; a retry may succeed")
            }
            Internal | Exit::Service(_) => (70, "an internal fault, or a damaged ledger"),
            Behind => (75, "a destination is held or behind, or the ledger's clock is ahead"),
            Interrupted => (130, "Ctrl-C, or the question was answered with no"),
        })
    }

    fn text(&self) -> String {
        let widest = self.examples.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
        let examples =
            self.examples.iter().map(|(line, what)| format!("  {line:widest$}   {what}\n"));
        let exits = self.exits().map(|(code, what)| format!("  {code:<4}{what}\n"));
        let examples: String = examples.collect();
        let exits: String = exits.collect();
        format!("Examples:\n{examples}\nExit codes:\n{}", exits.trim_end())
    }
}

/// The command line, with examples and exit codes added to its `--help`.
pub(super) fn shown_in(command: Command) -> Command {
    shown_below(command, "")
}

fn shown_below(mut command: Command, typed: &str) -> Command {
    if let Some(page) = of(typed) {
        let topics = if typed.is_empty() { help::topics() + "\n" } else { String::new() };
        command = command.after_long_help(topics + &page.text());
    }
    let below: Vec<String> = command.get_subcommands().map(|of| of.get_name().to_owned()).collect();
    below.into_iter().fold(command, |command, name| {
        let typed = format!("{typed} {name}").trim_start().to_owned();
        command.mut_subcommand(name, |below| shown_below(below, &typed))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::CommandLine;
    use crate::manual;

    /// Every command that can be typed, except those that only group others.
    fn typed(command: &Command, before: &str, all: &mut Vec<String>) {
        if !command.has_subcommands() || before.is_empty() {
            all.push(before.to_owned());
        }
        for below in command.get_subcommands() {
            typed(below, format!("{before} {}", below.get_name()).trim_start(), all);
        }
    }

    /// The commands in the manual, whether in code blocks or in the text, each with its page.
    fn in_the_manual() -> Vec<(&'static str, &'static str)> {
        let mut all = Vec::new();
        for topic in &manual::TOPICS {
            for line in topic.text.lines() {
                let typed = line.strip_prefix("    ").filter(|line| line.starts_with("cohortd "));
                let typed = typed.map(|line| line.split('#').next().unwrap_or(line));
                let said = manual::quoted(line).filter(|code| code.starts_with("cohortd "));
                all.extend(typed.into_iter().chain(said).map(|line| (topic.name, line)));
            }
        }
        all
    }

    #[test]
    fn the_manual_names_every_command_and_no_other_one() {
        let command = CommandLine::command();
        let all = in_the_manual();
        for (page, line) in &all {
            // placeholders and optional words count like any other word
            let words = line.split_whitespace().map(|word| word.trim_matches(['[', ']']));
            let words: Vec<&str> = words.take_while(|word| !matches!(*word, "|" | ">")).collect();
            let leads_on = command.find_subcommand(words[1]).is_some_and(Command::has_subcommands);
            if words.len() == 2 && leads_on {
                continue; // such as `cohortd ledger`
            }
            let alone = ["DESTINATION", "AUDIENCE_ID", "KEY", "USER_ID", "FILE"];
            let filled = words.iter().map(|word| match *word {
                "NUMBER" | "SECONDS" => "1",
                word if alone.contains(&word) => "x",
                word => word,
            });
            let taken = command.clone().try_get_matches_from(filled);
            let needs_more = taken.as_ref().err().is_some_and(|error| {
                error.kind() == clap::error::ErrorKind::MissingRequiredArgument
            });
            assert!(
                taken.is_ok() || needs_more,
                "{page}: {line}: {}",
                taken.expect_err("it is not taken")
            );
        }
        let mut typed_all = Vec::new();
        typed(&command, "", &mut typed_all);
        for name in typed_all.iter().filter(|name| !name.is_empty()) {
            let names_it = |(_, line): &(&str, &str)| {
                line.strip_prefix("cohortd ").is_some_and(|rest| {
                    rest.strip_prefix(name.as_str())
                        .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
                })
            };
            assert!(all.iter().any(names_it), "the manual never says cohortd {name}");
        }
    }

    #[test]
    fn the_manual_explains_every_exit_code() {
        let rows = manual::rows("operations", "exit-codes");
        let explained: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        let all = of("").expect("a page").exits().map(|(code, _)| code.to_string());
        assert_eq!(explained, all.collect::<Vec<_>>());
        let says_75 = |row: &Vec<&str>| row[0] == "75" && row[1].contains("held or behind");
        assert!(rows.iter().any(says_75));
    }

    #[test]
    fn every_command_has_examples_that_it_takes_and_says_its_exit_codes() {
        let command = CommandLine::command();
        let mut all = Vec::new();
        typed(&command, "", &mut all);
        assert!(all.len() > 20, "{all:?}");
        for name in &all {
            assert!(
                of(name).is_some_and(|page| !page.examples.is_empty()),
                "{name:?} has no example"
            );
        }
        for page in PAGES {
            assert!(all.iter().any(|name| name == page.of), "there is no command {:?}", page.of);
            for (line, _) in page.examples {
                let start = line.find("cohortd ").expect("it names the program");
                let words = line[start..].split_whitespace();
                let words: Vec<&str> = words
                    .take_while(|word| !matches!(*word, "|" | "||" | ">" | "<"))
                    .map(|word| word.trim_end_matches(')'))
                    .collect();
                // a command that the example passes on follows `--`
                let words = match words.iter().position(|word| *word == "--") {
                    Some(at) => &words[at + 1..],
                    None => &words[..],
                };
                let taken = command.clone().try_get_matches_from(words);
                assert!(taken.is_ok(), "{line}: {}", taken.expect_err("it is not taken"));
            }
        }
    }
}
