//! `cohortd ledger copy`: moves a ledger from a directory into a database, or back.

use std::fmt;
use std::io::{Result, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::{Exit, complain, waited};
use crate::config::absolute;
use crate::ledger::{self, Copied, CopyEnd, CopyError, CopyStep, DatabaseAddress, OpenError};
use crate::operate::logging::chain;
use crate::regular_file;

/// Where a ledger is copied from, and where to.
#[derive(Args, Clone, Debug)]
pub struct CopyCommand {
    /// The ledger: its directory; or the URL of its database, or `@FILE` for a file that holds the URL, as
    /// `ledger.url_file` names one. Other users of this machine see a URL that is typed, with its password
    #[arg(long, value_name = "PATH|URL")]
    from: Place,
    /// Where the copy goes, likewise: a directory that is empty or not there, or a database without a ledger
    #[arg(long, value_name = "PATH|URL")]
    to: Place,
}

/// What was typed: a URL holds a password.
#[derive(Clone)]
struct Place(String);

impl From<String> for Place {
    fn from(typed: String) -> Self {
        Self(typed)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Place {
    /// What is meant, or what is wrong with it, without any of a URL.
    fn end(&self) -> std::result::Result<CopyEnd, String> {
        let is_url =
            |text: &str| ["postgres://", "postgresql://"].iter().any(|of| text.starts_with(of));
        let address = |url: &str, of: &str| {
            let parsed = DatabaseAddress::parse(url).and_then(|address| {
                address.check_files()?;
                Ok(address)
            });
            let address = parsed.map_err(|problem| format!("the URL {of} {problem}"))?;
            Ok(CopyEnd::Database(Box::new(address)))
        };
        let typed = &self.0;
        if let Some(file) = typed.strip_prefix('@') {
            let read = regular_file::read(Path::new(file));
            let text = read.map_err(|error| format!("{file} cannot be read: {error}"))?;
            let text = String::from_utf8(text).map_err(|_| format!("{file} holds no text"))?;
            return address(text.trim_end(), &format!("in {file}"));
        }
        if is_url(typed) {
            return address(typed, "that was typed");
        }
        if typed.contains("://") {
            return Err(
                "what was typed is the URL of something else: it must begin with postgres://"
                    .to_owned(),
            );
        }
        if typed.is_empty() {
            return Err("a path is missing".to_owned());
        }
        Ok(CopyEnd::Directory(absolute(&PathBuf::from(typed))))
    }
}

/// Where a side is, for people: no user, no password.
fn shown(end: &CopyEnd) -> String {
    match end {
        CopyEnd::Directory(directory) => directory.display().to_string(),
        CopyEnd::Database(address) => address.to_string(),
    }
}

/// How often is it said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

impl CopyCommand {
    /// Copies the ledger; nothing is read from the configuration.
    pub fn run(&self, out: &mut impl Write) -> Result<Exit> {
        let (from, to) = match (self.from.end(), self.to.end()) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(problem), _) => return Ok(refused("--from", &problem)),
            (_, Err(problem)) => return Ok(refused("--to", &problem)),
        };
        let mut said = Instant::now();
        let see = |step| {
            if let Some(words) = words(step, &mut said, (&from, &to)) {
                complain(&format!("cohortd ledger copy: {words}"));
            }
            ControlFlow::Continue(())
        };
        match waited(ledger::copy(&from, &to, see)) {
            Ok(copied) => report(&copied, (&from, &to), out),
            Err(error) => Ok(failed(&error)),
        }
    }
}

fn refused(option: &str, problem: &str) -> Exit {
    complain(&format!("cohortd ledger copy: {option}: {problem}"));
    Exit::BadUsage
}

/// What is said of a step, if it is time.
fn words(step: CopyStep, said: &mut Instant, (from, to): (&CopyEnd, &CopyEnd)) -> Option<String> {
    let begins = |how: &str| Some(format!("{how} from {} to {}", shown(from), shown(to)));
    let counted = |how: &str, name: &str, count: u64| Some(format!("{count} {name} {how}"));
    match step {
        CopyStep::Begins => begins("copying"),
        CopyStep::GoesOn => begins("going on where the copy ended,"),
        CopyStep::Finishes => {
            Some("both sides have the same rows; the copy becomes a ledger".to_owned())
        }
        CopyStep::Written(..) | CopyStep::Read(..) if said.elapsed() < SAY_EVERY => None,
        CopyStep::Written(name, count) => {
            *said = Instant::now();
            counted("copied", name, count)
        }
        CopyStep::Read(name, count) => {
            *said = Instant::now();
            counted("read again to be compared", name, count)
        }
    }
}

fn report(
    Copied { rows }: &Copied,
    (from, to): (&CopyEnd, &CopyEnd),
    out: &mut impl Write,
) -> Result<Exit> {
    let (from_shown, to_shown) = (shown(from), shown(to));
    if rows.is_empty() {
        writeln!(out, "the ledger of {from_shown} was copied to {to_shown} before, and is there")?;
    } else {
        writeln!(
            out,
            "the ledger of {from_shown} is copied to {to_shown}; both were read again, and have the same:"
        )?;
        for row in rows {
            writeln!(out, "  {:<27} {:>12}  checksum {:032x}", row.name, row.count, row.checksum)?;
        }
    }
    let set = match to {
        CopyEnd::Directory(directory) => format!(
            "ledger.path to {}, and take ledger.url and ledger.url_file away; one process at a time may use it",
            directory.display()
        ),
        CopyEnd::Database(_) => "ledger.url_file to a file that holds the URL of the database, and take ledger.path away \
             (COHORTD_LEDGER__PATH: an empty text)"
            .to_owned(),
    };
    writeln!(out, "next: set {set}; then start cohortd")?;
    writeln!(
        out,
        "the ledger of {from_shown} is as it was. Do not start cohortd with it any more: it knows nothing of what comes \
         from now on, and would tell LaunchDarkly what was true before. Remove it once the copy is in use: it holds \
         personal data"
    )?;
    Ok(Exit::Done)
}

fn failed(error: &CopyError) -> Exit {
    let (exit, remedy) = match error {
        CopyError::Refused(_) => (Exit::BadUsage, ""),
        CopyError::Directory(OpenError::InUse(_)) => {
            (Exit::Unavailable, ": stop it, and run the same command again")
        }
        CopyError::Directory(error) => (Exit::of(error), ""),
        CopyError::Database(_) => {
            (Exit::Unavailable, "; the same command goes on where this one ended")
        }
        CopyError::Differs(_) => (
            Exit::Internal,
            ": it does not count. Empty its place and begin again; if that ends alike, check the source (`cohortd ledger \
             check`, pg_amcheck)",
        ),
        CopyError::Stopped => (Exit::Interrupted, ""),
    };
    complain(&format!("cohortd ledger copy: {}{remedy}", chain(error)));
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_a_url_or_a_file_with_one() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://someone:hush@db/cohortd\n").expect("it is ours");
        let in_file = format!("@{}", file.display());
        let end = |typed: &str| Place(typed.to_owned()).end().map(|end| shown(&end));
        let database = "PostgreSQL at db:5432, database cohortd";
        assert_eq!(end("/var/lib/ledger").as_deref(), Ok("/var/lib/ledger"));
        assert_eq!(end("postgres://someone:hush@db/cohortd").as_deref(), Ok(database));
        assert_eq!(end(&in_file).as_deref(), Ok(database));
        for (typed, problem) in [
            ("", "a path is missing"),
            ("mysql://someone:hush@db/cohortd", "must begin with postgres://"),
            ("postgres://someone:hush@db/cohortd?hush=1", "a parameter that is not known"),
            ("@/nowhere/url", "/nowhere/url cannot be read"),
        ] {
            let said = end(typed).expect_err(typed);
            assert!(said.contains(problem) && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn what_was_typed_is_not_shown() {
        let place = Place::from("postgres://someone:hush@db/cohortd".to_owned());
        assert_eq!(
            format!("{:?}", CopyCommand { from: place.clone(), to: place }).matches("hush").count(),
            0
        );
    }

    #[test]
    fn each_end_has_its_exit_code() {
        let table = [
            (CopyError::Refused(String::new()), Exit::BadUsage),
            (CopyError::Directory(OpenError::InUse(PathBuf::new())), Exit::Unavailable),
            (CopyError::Directory(OpenError::Missing(PathBuf::new())), Exit::Unavailable),
            (CopyError::Directory(OpenError::Damaged(Vec::new())), Exit::Internal),
            (CopyError::Database(String::new()), Exit::Unavailable),
            (CopyError::Differs(vec!["members"]), Exit::Internal),
        ];
        for (error, exit) in table {
            assert_eq!(failed(&error), exit, "{error}");
        }
    }
}
