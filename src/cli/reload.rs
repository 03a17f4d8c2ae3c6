//! `cohortd reload`: the running daemon reads its configuration again.
//!
//! Exits with 0 if the configuration is applied, or with 64 if it has a fault and the previous one stays in
//! effect.

use std::io::{Result, Write};
use std::path::Path;

use clap::Args;

use super::Exit;
use super::asking::Asking;
use super::daemon::Answer;
use crate::operate::api::wire::{Nothing, Reloaded};

/// How it is told.
#[derive(Args, Clone, Debug)]
pub struct ReloadCommand {
    #[command(flatten)]
    asking: Asking,
}

impl ReloadCommand {
    /// Asks the daemon to reload, and prints what has changed.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let asked =
            async { self.asking.daemon(file)?.post(&["api", "v1", "reload"], &Nothing {}).await };
        let Answer { text, value } = match asked.await {
            Ok(answer) => answer,
            Err(silent) => return Ok(silent.complain("reload")),
        };
        let Reloaded { changed, needs_restart } = value;
        if self.asking.json {
            writeln!(out, "{}", text.trim_end())?;
            return Ok(Exit::Done);
        }
        if changed.is_empty() && needs_restart.is_empty() {
            writeln!(out, "nothing has changed")?;
        }
        for what in &changed {
            writeln!(out, "applied          {what}")?;
        }
        for key in &needs_restart {
            writeln!(out, "needs a restart  {key}")?;
        }
        Ok(Exit::Done)
    }
}
