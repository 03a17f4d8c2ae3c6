//! Fixes from which size on the allocator maps a block by itself, so that memory that is freed goes back to
//! the system and the bound on memory ([P6](crate::design::P6)) holds for the whole process (tests/it/memory.rs).
//!
//! By itself glibc raises that size to the largest block that was freed, up to 32 MiB. From then on large
//! bodies come from its heaps, which keep what is freed. It reads a fixed size from the environment when a
//! process starts and can otherwise be told only by an unsafe call, so the daemon executes itself once
//! more with the size set, before it does anything else ([why](crate::design::decisions::executed_again)). The process ID stays the same. Measured with a debug build, bodies of 7 MiB
//! that stall: a peak of 89 to 101 MB without, 67 to 83 MB with a fixed size of 1 to 4 MiB.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

/// Batches of a thousand usual events are smaller: they need not be mapped each time.
const MAPPED_FROM_BYTES: u32 = 2 << 20;

/// Free memory at the end of a heap goes back from the second size on.
const SIZES: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// The ID of the process that has executed itself again: its children, which have another one, decide for
/// themselves. It does not begin like a key of the configuration.
const EXECUTED: &str = "EXECUTED_AGAIN_COHORTD";

/// What is to be done about the sizes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Execute,
    /// They cannot be set, for this reason.
    GoOn(&'static str),
}

/// Executes the daemon again if the sizes are not set; whoever has set one of them decides. The other
/// commands are over before it matters.
///
/// Returns where nothing is to be done. Errors: it could not be executed again, and goes on as it is.
pub(super) fn fix_sizes() -> io::Result<()> {
    if !cfg!(target_env = "gnu") || !std::env::args_os().skip(1).any(|word| word == "run") {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    match next(&program, process::id(), |name| std::env::var_os(name)) {
        Step::Nothing => Ok(()),
        Step::GoOn(why) => Err(io::Error::other(why)),
        Step::Execute => {
            let mut words = std::env::args_os();
            let mut command = Command::new(program);
            command.arg0(words.next().as_deref().unwrap_or(OsStr::new("cohortd"))).args(words);
            command.envs(SIZES.map(|name| (name, MAPPED_FROM_BYTES.to_string())));
            command.env(EXECUTED, process::id().to_string());
            Err(command.exec())
        }
    }
}

/// A program with more rights than who starts it (file capabilities) does not get to see the sizes: it
/// would execute itself for ever.
fn next(program: &Path, process: u32, variable: impl Fn(&str) -> Option<OsString>) -> Step {
    if SIZES.iter().any(|name| variable(name).is_some()) {
        return Step::Nothing;
    }
    if variable(EXECUTED).is_some_and(|executed| *executed == *process.to_string()) {
        return Step::GoOn("the system keeps the setting from a program with file capabilities");
    }
    let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name.starts_with("ld-") || name.starts_with("ld.so") {
        return Step::GoOn("it was started by the dynamic loader as a command");
    }
    Step::Execute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_executed_again_once_and_only_as_itself() {
        let own = "/usr/bin/cohortd";
        let table: [(_, &[(&str, &str)], _); 8] = [
            (own, &[], Step::Execute),
            (own, &[(SIZES[0], "1")], Step::Nothing),
            (own, &[(SIZES[1], "")], Step::Nothing),
            (own, &[(EXECUTED, "7"), (SIZES[0], "1")], Step::Nothing),
            (own, &[(EXECUTED, "8")], Step::Execute),
            ("/opt/ld/cohortd", &[], Step::Execute),
            ("/lib64/ld-linux-x86-64.so.2", &[], Step::GoOn("")),
            (own, &[(EXECUTED, "7")], Step::GoOn("")),
        ];
        for (program, variables, expected) in table {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            };
            let step = match next(Path::new(program), 7, variable) {
                Step::GoOn(_) => Step::GoOn(""),
                step => step,
            };
            assert_eq!(step, expected, "{program} {variables:?}");
        }
    }
}
