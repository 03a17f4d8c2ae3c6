//! What `--help` and the manual pages show of each command beside its flags: lines to type, and what the exit
//! code of each says.

use clap::Command;

use super::Exit;

/// Of a command, named as it is typed behind `cohortd`.
pub(super) struct Page {
    of: &'static str,
    /// What is typed, and what that is for.
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
                "what is understood of ./cohortd.toml, or everything that is wrong with it",
            ),
            ("cohortd run", "the daemon"),
            ("cohortd status", "how each destination stands"),
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
            ("cohortd sandbox --events 100000", "so many sample events, and then the comparison"),
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
            ("cohortd status", "how each destination stands, and what to do"),
            ("cohortd status --watch", "again and again, until Ctrl-C"),
            ("cohortd status --url http://127.0.0.1:8081", "from any directory"),
            (
                "cohortd status --behind-s 60 || page-somebody",
                "in a script: 75 if anybody has waited for a minute",
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
            ("cohortd parked list", "whom LaunchDarkly refused, and its words"),
            ("cohortd parked list aud_vip", "in one audience"),
        ],
        ASKING,
    ),
    page(
        "parked requeue",
        &[
            ("cohortd parked requeue", "everybody, once the cause is mended"),
            ("cohortd parked requeue --audience aud_vip --key ada", "one of them"),
        ],
        ASKING,
    ),
    page(
        "parked discard",
        &[
            ("cohortd parked discard --all --dry-run", "how many that would be"),
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
                "after the mapping was mended, until LaunchDarkly has been told",
            ),
            ("cohortd rejected replay --id 17", "one of them"),
        ],
        WAITING,
    ),
    page(
        "rejected discard",
        &[
            ("cohortd rejected discard --all --dry-run", "how many that would be"),
            ("cohortd rejected discard --id 17", "one of them"),
        ],
        WAITING,
    ),
    page(
        "resync",
        &[
            ("cohortd resync aud_vip --wait", "an audience of the only destination"),
            ("cohortd resync production --all", "every audience of this one"),
            ("cohortd resync --retract-stale", "take out whom the present mapping did not bring"),
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
            ("cohortd drop aud_vip --dry-run", "how many members that would concern"),
            ("cohortd drop old_name", "rows of a destination that is not configured any more"),
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
            ("cohortd send production --file event.json", "an event that you have"),
            (
                "cohortd send --url https://your-host/segment/production --file event.json",
                "through what stands in front",
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
                "a destination that has another name now",
            ),
            (
                "cohortd ledger rename aud_1 aud_2 --destination production",
                "an audience that has another id now",
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

/// What there is of a command.
pub(super) fn of(typed: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.of == typed)
}

impl Page {
    /// Numbers and their meanings.
    pub fn exits(&self) -> impl Iterator<Item = (u8, &'static str)> {
        self.exits.iter().map(|exit| match exit {
            Done => (0, "done"),
            Rejected => (1, "the event is rejected"),
            BadUsage => (
                64,
                "the command line or the configuration is wrong, or what is asked for is not there",
            ),
            Unavailable => (69, "something it needs cannot be reached or used; later it may be"),
            Internal | Exit::Service(_) => (70, "an internal fault, or a damaged ledger"),
            Behind => (75, "a destination is held or behind, or the ledger's clock is ahead"),
            Interrupted => (130, "Ctrl-C, or no was the answer"),
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

/// The command line, with its examples and exit codes in what `--help` says.
pub(super) fn shown_in(command: Command) -> Command {
    shown_below(command, "")
}

fn shown_below(mut command: Command, typed: &str) -> Command {
    if let Some(page) = of(typed) {
        command = command.after_long_help(page.text());
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

    /// All that can be typed, without what only leads on.
    fn typed(command: &Command, before: &str, all: &mut Vec<String>) {
        if !command.has_subcommands() || before.is_empty() {
            all.push(before.to_owned());
        }
        for below in command.get_subcommands() {
            typed(below, format!("{before} {}", below.get_name()).trim_start(), all);
        }
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
                // what an example runs elsewhere comes behind `--`
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
