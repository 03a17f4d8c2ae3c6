//! `cohortd man`: the manual pages, made from what the command line knows of itself.

use std::io::{Result, Write};
use std::path::PathBuf;

use clap::{Args, Command};

/// Which pages, and where to.
#[derive(Args, Clone, Debug)]
pub struct ManCommand {
    /// Write a page for this and each command into a directory instead
    #[arg(long, value_name = "DIRECTORY")]
    all: Option<PathBuf>,
}

impl ManCommand {
    /// Prints or writes them.
    pub fn run(&self, of: Command, out: &mut impl Write) -> Result<()> {
        match &self.all {
            None => clap_mangen::Man::new(of).render(out),
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                clap_mangen::generate_to(of, directory)
            }
        }
    }
}
