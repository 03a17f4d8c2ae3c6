//! `cohortd man`: the manual pages, generated from the definition of the command line.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use super::examples;

/// Which pages, and where to.
#[derive(Args, Clone, Debug)]
pub struct ManCommand {
    /// Write a page for this and each command into a directory instead
    #[arg(long, value_name = "DIRECTORY")]
    all: Option<PathBuf>,
}

impl ManCommand {
    /// Prints or writes the pages.
    pub fn run(&self, of: Command, out: &mut impl Write) -> Result<()> {
        match &self.all {
            None => render(of, "", out),
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                let mut of = of;
                of.build();
                write_all(&of, "", directory)
            }
        }
    }
}

/// Writes a page for a command and for each of its subcommands.
fn write_all(command: &Command, typed: &str, directory: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = BufWriter::new(File::create(directory.join(format!("{name}.1")))?);
    render(command.clone(), typed, &mut page)?;
    page.flush()?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| {
        write_all(below, format!("{typed} {}", below.get_name()).trim_start(), directory)
    })
}

fn render(command: Command, typed: &str, out: &mut impl Write) -> Result<()> {
    let leads_on = command.has_subcommands();
    let man = Man::new(command);
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if leads_on {
        man.render_subcommands_section(out)?;
    }
    if let Some(page) = examples::of(typed) {
        writeln!(out, ".SH EXAMPLES")?;
        for (line, what) in page.examples {
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", escaped(line), escaped(what))?;
        }
        writeln!(out, ".SH \"EXIT STATUS\"")?;
        for (code, what) in page.exits() {
            writeln!(out, ".TP\n{code}\n{}", escaped(what))?;
        }
    }
    man.render_version_section(out)
}

/// Escapes text, so that roff takes none of it for a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
