//! Asks for confirmation on the terminal before something irreversible.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;

use super::complain;
use super::daemon::Silent;

/// How far it may go without a question.
#[derive(Args, Clone, Copy, Debug)]
pub struct Consent {
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask; without a terminal nobody is asked anyway
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
}

impl Consent {
    /// Whether to ask: there is a terminal, and `--yes` was not given.
    pub(super) fn is_asked_for(self) -> bool {
        !self.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Says what is about to be done and waits for a yes. Any other answer is an error.
    pub(super) fn ask(self, what: &str) -> Result<(), Silent> {
        if !self.is_asked_for() {
            return Ok(());
        }
        let mut terminal = std::io::stderr();
        let _ = write!(terminal, "{what}. Go on? [y/N] ").and_then(|()| terminal.flush());
        let mut answer = String::new();
        let _ = std::io::stdin().lock().read_line(&mut answer); // no answer counts as no
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        if !answer.ends_with('\n') {
            complain("");
        }
        Err(Silent::interrupted("nothing was done"))
    }
}
