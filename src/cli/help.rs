//! `cohortd help`: lists commands and topics of the manual, or prints a command's help or a page of the
//! manual.

use std::io::{IsTerminal, Result, Write};
use std::ops::RangeInclusive;

use clap::{Args, Command};

use super::Exit;
use super::typesetting::{self, Look};
use crate::manual::{self, TOPICS};
use crate::nearest::nearest;
use crate::operate::logging::takes_colours;

/// Width of the text if standard output is not a terminal.
const WIDTH: usize = 100;
/// Bounds for the width of a terminal's text: longer lines are hard to read, shorter ones hold too little.
const READABLE: RangeInclusive<usize> = 30..=120;

/// What somebody wants to know more about.
#[derive(Args, Clone, Debug)]
pub struct HelpCommand {
    /// A command, or a topic of the manual; without it, a list of both
    #[arg(value_name = "COMMAND or TOPIC")]
    about: Vec<String>,
}

impl HelpCommand {
    /// Prints the help; `of` is the whole command line.
    pub fn run(&self, of: Command, out: &mut impl Write) -> Result<Exit> {
        let mut of = of.bin_name("cohortd");
        of.build();
        let words: Vec<&str> = self.about.iter().map(String::as_str).collect();
        if let Some(topic) = words.first().and_then(|name| manual::topic(name)) {
            if words.len() > 1 {
                let (typed, name) = (words.join(" "), topic.name);
                super::complain(&format!(
                    "cohortd help: {name} is a whole page of the manual: use `cohortd help \
                     {name}`, not {typed:?}"
                ));
                return Ok(Exit::BadUsage);
            }
            typesetting::print(topic.parsed(), look(), out)?;
            return Ok(Exit::Done);
        }
        match found(&of, &words) {
            Ok(command) => {
                write!(out, "{}", command.clone().render_long_help())?;
                Ok(Exit::Done)
            }
            Err(unknown) => {
                super::complain(&unknown);
                Ok(Exit::BadUsage)
            }
        }
    }
}

/// The command with this name, or an error that says why there is none.
fn found<'a>(of: &'a Command, words: &[&str]) -> std::result::Result<&'a Command, String> {
    let mut command = of;
    for (depth, word) in words.iter().enumerate() {
        let Some(below) = command.find_subcommand(word) else {
            let mut known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            if depth == 0 {
                known.extend(TOPICS.iter().map(|topic| topic.name));
            }
            let meant = nearest(word, &known).map(|known| format!("did you mean {known}?"));
            let meant = meant.unwrap_or_else(|| "`cohortd help` lists them".to_owned());
            let what = if depth == 0 { "command or topic" } else { "command" };
            let typed = words[..=depth].join(" ");
            return Err(format!("cohortd help: there is no {what} {typed:?}; {meant}"));
        };
        command = below;
    }
    Ok(command)
}

/// The topics, for the end of `cohortd --help`.
pub(super) fn topics() -> String {
    let widest = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or_default();
    let line = |topic: &manual::Topic| format!("  {:widest$}  {}\n", topic.name, topic.summary);
    let lines: String = TOPICS.iter().map(line).collect();
    format!("Topics of the manual, for `cohortd help TOPIC`:\n{lines}")
}

fn look() -> Look {
    let out = std::io::stdout();
    let columns = || rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col.into());
    let columns: Option<usize> = out.is_terminal().then(columns).flatten().filter(|of| *of > 0);
    Look {
        width: columns.unwrap_or(WIDTH).clamp(*READABLE.start(), *READABLE.end()),
        styled: takes_colours(&out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::CommandLine;

    fn help(about: &[&str]) -> (Exit, String) {
        let about = about.iter().map(|word| (*word).to_owned()).collect();
        let mut out = Vec::new();
        let exit = HelpCommand { about }.run(CommandLine::command(), &mut out).expect("memory");
        (exit, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn every_topic_is_printed_and_is_no_command() {
        let command = CommandLine::command();
        for topic in &TOPICS {
            assert!(command.find_subcommand(topic.name).is_none(), "{} is both", topic.name);
            let (exit, text) = help(&[topic.name]);
            assert_eq!(exit, Exit::Done);
            for section in topic.sections() {
                let heading = format!("# {}\n", section.title);
                assert!(text.contains(&heading), "{}: {heading}", topic.name);
            }
        }
    }

    #[test]
    fn a_command_is_explained_and_a_slip_is_corrected() {
        let (exit, text) = help(&["parked", "requeue"]);
        assert_eq!(exit, Exit::Done);
        assert!(text.contains("Usage: cohortd parked requeue"), "{text}");
        let (_, text) = help(&[]);
        assert!(text.contains("Usage: cohortd"), "{text}");

        assert_eq!(help(&["security", "limits"]).0, Exit::BadUsage);

        let command = CommandLine::command();
        let unknown = |words: &[&str]| found(&command, words).map(|_| ()).expect_err("unknown");
        for (words, said) in [
            (&["securty"][..], "no command or topic \"securty\"; did you mean security?"),
            (&["statsu"], "no command or topic \"statsu\"; did you mean status?"),
            (&["weather"], "no command or topic \"weather\"; `cohortd help` lists them"),
            (&["parked", "lst"], "no command \"parked lst\"; did you mean list?"),
        ] {
            let text = unknown(words);
            assert!(text.contains(said), "{text}");
        }
    }
}
