//! `cohortd ledger`: works on the ledger itself: `check`, `export`, `backup`, `restore`, `rename`, `reset-clock` and
//! `copy`.
//!
//! All but the last four can be used while a daemon is running.

use std::io::{IsTerminal, Result, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::copy::CopyCommand;
use super::{Exit, complain, instant, place, waited};
use crate::clock::{Clock, SystemClock};
use crate::config::{LedgerPlace, absolute};
use crate::ledger::{
    self, BackedUp, BackupError, ClockReset, DatabaseAddress, ExportedMember, RenameError, Renamed,
    is_there,
};
use crate::membership::{AudienceId, DestinationName, Timestamp};
use crate::operate::logging::chain;

/// What to do with the ledger.
#[derive(Args, Clone, Debug)]
pub struct LedgerCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Read the whole ledger and report whether it is sound
    Check,
    /// Print every member as a line of JSON
    Export {
        /// Only members of this destination
        #[arg(value_name = "DESTINATION", conflicts_with = "destination")]
        first: Option<String>,
        /// The same, as an option
        #[arg(long, value_name = "NAME", hide = true)]
        destination: Option<String>,
    },
    /// Copy the ledger into a new file, even while a daemon runs
    Backup {
        /// The new file; `-` is standard output
        file: PathBuf,
    },
    /// Replace the ledger with a backup; no daemon may be running. The previous ledger is kept, in the ledger's
    /// directory
    Restore {
        /// A file that `backup` made, or a ledger's directory, such as a previous ledger that was kept; `-` reads
        /// the copy from standard input
        #[arg(value_name = "FILE|DIRECTORY|-")]
        from: PathBuf,
    },
    /// Rename a destination or an audience; no daemon may be running
    Rename {
        /// The old name of the destination; with --destination, the old id of the audience
        from: String,
        /// The new name or id
        to: String,
        /// Rename an audience of this destination; every member is sent to its new segment
        #[arg(long, value_name = "NAME")]
        destination: Option<String>,
    },
    /// Copy the ledger from a directory into a PostgreSQL database, or back; no daemon may be running. If it is
    /// interrupted, the same command goes on
    Copy(CopyCommand),
    /// Correct times that were recorded while the clock was ahead; no daemon may be running
    ResetClock,
}

/// 2010: the system's clock is not set if it shows an earlier time. No event from before is believed
/// either.
const EARLIEST: Timestamp = Timestamp(1_262_304_000_000_000);

#[derive(Serialize)]
struct Line<'a> {
    destination: &'a str,
    audience_id: &'a str,
    audience_key: &'a str,
    context_kind: &'a str,
    context_key: &'a str,
    included: bool,
    event_at: String,
    pending: bool,
    told: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    told_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<ParkedLine<'a>>,
}

#[derive(Serialize)]
struct ParkedLine<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    id: &'a str,
}

impl LedgerCommand {
    /// Runs the command on the configured ledger; only the ledger's place is read from the configuration.
    pub fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        if let What::Copy(copy) = &self.what {
            return copy.run(out); // both places are named
        }
        let (place, from) = match LedgerPlace::read(file) {
            Ok(found) => found,
            Err(faults) => {
                complain(&faults.to_string());
                return Ok(Exit::BadUsage);
            }
        };
        let place = match place {
            LedgerPlace::Directory(directory) => directory,
            LedgerPlace::Database(address) => return self.on_database(&address, out),
        };
        if let Some(refusal) = place::left_behind(&place) {
            complain(&format!("cohortd ledger: {refusal}; the configuration was {from}"));
            return Ok(Exit::BadUsage);
        }
        let exit = self.on(&absolute(&place.path), out)?;
        if matches!(exit, Exit::BadUsage | Exit::Unavailable) && !is_there(&place.path) {
            complain(&format!("ledger.path is {}, {from}", absolute(&place.path).display()));
            if let Some(around) = ledger::still_around(&absolute(&place.path)) {
                let around = around.display();
                complain(&format!(
                    "the ledger is still in {around}, and the next start moves it; until then set \
                     COHORTD_LEDGER__PATH={around} to reach it"
                ));
            }
        }
        Ok(exit)
    }

    /// The same on a ledger that replicas share, or what is there instead.
    fn on_database(&self, address: &DatabaseAddress, out: &mut impl Write) -> Result<Exit> {
        let (what, instead) = match &self.what {
            What::Export { first, destination } => {
                let destination = first.as_deref().or(destination.as_deref());
                return export_shared(address, destination, out);
            }
            What::Check => ("check", "its tables are checked by the database (pg_amcheck)"),
            What::Backup { .. } => {
                ("backup", "copy it with the database's own tools (pg_dump, pg_basebackup)")
            }
            What::Restore { .. } => {
                ("restore", "restore it with the database's own tools, while no replica runs")
            }
            What::Copy(_) => ("copy", "name both places with --from and --to"),
            What::Rename { .. } => ("rename", "it cannot be renamed there"),
            What::ResetClock => ("reset-clock", "its clock is that of the database"),
        };
        complain(&format!(
            "cohortd ledger {what}: the ledger is in a database ({address}): {instead}"
        ));
        Ok(Exit::BadUsage)
    }

    fn on(&self, directory: &Path, out: &mut impl Write) -> Result<Exit> {
        match &self.what {
            What::Check => check(directory, out),
            What::Export { first, destination } => {
                export(directory, first.as_deref().or(destination.as_deref()), out)
            }
            What::Backup { file } if is_stream(file) => Ok(backup_to(directory, out)),
            What::Restore { from } if is_stream(from) => restore_from(directory, out),
            What::Backup { file } => match ledger::backup(directory, file) {
                Ok(backed_up) => {
                    say_if_alone(backed_up);
                    writeln!(
                        out,
                        "{} now holds a copy of the ledger, checked and synced",
                        file.display()
                    )?;
                    Ok(Exit::Done)
                }
                Err(error) => Ok(copy_failed("backup", &error)),
            },
            What::Restore { from } => match ledger::restore(directory, from) {
                Ok(aside) => restored(&from.display().to_string(), directory, aside, out),
                Err(error) => Ok(copy_failed("restore", &error)),
            },
            What::Rename { from, to, destination } => {
                rename(directory, from, to, destination.as_deref(), out)
            }
            What::ResetClock => reset_clock(directory, SystemClock.now(), out),
            What::Copy(copy) => copy.run(out),
        }
    }
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn say_if_alone(BackedUp { daemon_ended }: BackedUp) {
    if daemon_ended {
        complain(
            "cohortd ledger backup: the daemon that used the ledger has ended; the copy was made \
             without it",
        );
    }
}

/// Whether everything written to `out` is lost because it is the null device, which also stands in for a
/// closed standard output.
fn keeps_nothing(out: &std::io::Stdout) -> bool {
    let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let is_null = |null| rustix::fs::fstat(out).is_ok_and(|out| out.st_rdev == null);
    null.is_ok_and(is_null)
}

fn backup_to(directory: &Path, out: &mut impl Write) -> Exit {
    let stdout = std::io::stdout();
    if stdout.is_terminal() || keeps_nothing(&stdout) {
        complain(
            "cohortd ledger backup: standard output is a terminal or closed: use `cohortd ledger \
             backup - > FILE`, or name the file",
        );
        return Exit::BadUsage;
    }
    match ledger::backup_to(directory, out) {
        Ok(backed_up) => {
            say_if_alone(backed_up);
            complain("the copy of the ledger was written to standard output, and is sound");
            Exit::Done
        }
        Err(error) => copy_failed("backup", &error),
    }
}

fn restore_from(directory: &Path, out: &mut impl Write) -> Result<Exit> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        complain(
            "cohortd ledger restore: there is no input: use `cohortd ledger restore - < FILE`, or \
             name the file",
        );
        return Ok(Exit::BadUsage);
    }
    match ledger::restore_from(directory, &mut input) {
        Ok(aside) => restored("the copy from standard input", directory, aside, out),
        Err(error) => Ok(copy_failed("restore", &error)),
    }
}

fn restored(
    from: &str,
    directory: &Path,
    aside: Option<PathBuf>,
    out: &mut impl Write,
) -> Result<Exit> {
    writeln!(out, "{from} is now the ledger, in {}", directory.display())?;
    if let Some(aside) = aside {
        writeln!(
            out,
            "the previous ledger is in {aside}: `cohortd ledger restore {aside}` brings it back; \
             remove that directory when you no longer need it",
            aside = aside.display()
        )?;
    }
    writeln!(
        out,
        "after the next start every member is sent to LaunchDarkly again; what Segment has sent \
         since the backup is missing: ask Segment's support for a full sync of the audiences, \
         which brings entries but no exits"
    )?;
    Ok(Exit::Done)
}

fn rename(
    directory: &Path,
    from: &str,
    to: &str,
    destination: Option<&str>,
    out: &mut impl Write,
) -> Result<Exit> {
    let name = DestinationName::new;
    let renamed = match destination {
        None => name(from).zip(name(to)).map(|(from, to)| Renamed::Destination { from, to }),
        Some(destination) => {
            let ids = AudienceId::new(from).zip(AudienceId::new(to));
            name(destination).zip(ids).map(|(destination, (from, to))| Renamed::Audience {
                destination,
                from,
                to,
            })
        }
    };
    let Some(renamed) = renamed else {
        complain("cohortd ledger rename: a name must not be empty");
        return Ok(Exit::BadUsage);
    };
    match ledger::rename(directory, &renamed) {
        Ok(()) => {
            writeln!(out, "the rows of {from} now belong to {to}")?;
            Ok(Exit::Done)
        }
        Err(RenameError::Open(error)) => Ok(failed("rename", &error, Exit::of(&error))),
        Err(error) => Ok(failed("rename", &error, Exit::BadUsage)),
    }
}

fn reset_clock(directory: &Path, now: Timestamp, out: &mut impl Write) -> Result<Exit> {
    if now < EARLIEST {
        let now = instant(now);
        complain(&format!(
            "cohortd ledger reset-clock: the clock says {now}, which cannot be right: set it first"
        ));
        return Ok(Exit::Unavailable);
    }
    match ledger::reset_clock(directory, now) {
        Ok(ClockReset { ahead, members, deletions, marks, kept }) => {
            let (now, ahead) = (instant(now), ahead.as_secs());
            writeln!(out, "it is {now}; the ledger was {ahead} s ahead and no longer is")?;
            writeln!(
                out,
                "corrected: {members} members, {deletions} deletions, {marks} audiences and \
                 destinations, {kept} rejected events, park reasons and planned \
                 re-assertions"
            )?;
            Ok(Exit::Done)
        }
        Err(error) => Ok(failed("reset-clock", &error, Exit::of(&error))),
    }
}

fn check(directory: &Path, out: &mut impl Write) -> Result<Exit> {
    match ledger::check(directory) {
        Ok(Ok(sound)) => {
            writeln!(
                out,
                "the ledger is sound: {} members of {} audiences, {} waiting for delivery, {} \
                 rejected events",
                sound.members, sound.audiences, sound.pending, sound.rejected
            )?;
            if sound.unmerged > 0 {
                writeln!(
                    out,
                    "its disk has no space: {} parts of its journal are sound and not counted here; \
                     they are merged when there is space",
                    sound.unmerged
                )?;
            }
            Ok(Exit::Done)
        }
        Ok(Err(faults)) => {
            complain(&format!(
                "cohortd ledger check: the ledger is damaged: stop the daemon and restore a backup\n  {}",
                faults.join("\n  ")
            ));
            Ok(Exit::Internal)
        }
        Err(error) => Ok(failed("check", &error, Exit::of(&error))),
    }
}

fn export(directory: &Path, destination: Option<&str>, out: &mut impl Write) -> Result<Exit> {
    let exported = ledger::export(directory, destination, |member| match write(&member, out) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match exported {
        Ok(ended) => end_export(ended, destination, out),
        Err(error) => Ok(failed("export", &error, Exit::of(&error))),
    }
}

fn export_shared(
    address: &DatabaseAddress,
    destination: Option<&str>,
    out: &mut impl Write,
) -> Result<Exit> {
    let each = |member| match write(&member, out) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    };
    match waited(ledger::export_shared(address.clone(), destination, each)) {
        Ok(ended) => end_export(ended, destination, out),
        Err(why) => {
            complain(&format!("cohortd ledger export: {why}"));
            Ok(Exit::Unavailable)
        }
    }
}

/// `None`: there is no such destination.
fn end_export(
    ended: Option<ControlFlow<std::io::Error>>,
    destination: Option<&str>,
    out: &mut impl Write,
) -> Result<Exit> {
    match ended {
        Some(ControlFlow::Continue(())) => out.flush().map(|()| Exit::Done),
        Some(ControlFlow::Break(error)) => Err(error),
        None => {
            let name = destination.unwrap_or_default();
            complain(&format!("cohortd ledger export: the ledger has no destination {name}"));
            Ok(Exit::BadUsage)
        }
    }
}

fn write(member: &ExportedMember, out: &mut impl Write) -> Result<()> {
    let line = Line {
        destination: &member.destination,
        audience_id: &member.audience_id,
        audience_key: &member.audience_key,
        context_kind: &member.context_kind,
        context_key: &member.context_key,
        included: member.included,
        event_at: instant(member.event_at),
        pending: member.pending,
        told: member.told.map(|(told, _)| told),
        told_at: member.told.map(|(_, at)| instant(at)),
        parked: member.parked.as_ref().map(|parked| ParkedLine {
            status: parked.status,
            code: &parked.code,
            message: &parked.message,
            id: &parked.id,
        }),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn copy_failed(what: &str, error: &BackupError) -> Exit {
    let exit = match error {
        BackupError::Open(error) => Exit::of(error),
        BackupError::Exists(_)
        | BackupError::Part { .. }
        | BackupError::NotACopy
        | BackupError::Raw(_) => Exit::BadUsage,
        BackupError::Damaged { .. } | BackupError::Copy(_) => Exit::Internal,
        BackupError::File { .. } | BackupError::Stream(_) => Exit::Unavailable,
    };
    failed(what, error, exit)
}

fn failed(what: &str, error: &impl std::error::Error, exit: Exit) -> Exit {
    complain(&format!("cohortd ledger {what}: {}", chain(error)));
    exit
}
