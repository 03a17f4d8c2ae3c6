//! Fixes the size from which on the allocator gives each block a mapping of its own, so that freed memory
//! goes back to the system and the bound on memory ([P6](crate::design::P6)) holds for the whole process
//! (tests/it/memory.rs).
//!
//! Left alone, glibc raises that size to the largest block that was ever freed, up to 32 MiB. From then on
//! large bodies come from its heaps, which keep what is freed. It reads a fixed size from the environment
//! when a process starts; the only other way to set it is an unsafe call. Therefore the daemon executes
//! itself once more with the size set, before it does anything else
//! ([why](crate::design::decisions::executed_again)). The process ID stays the same.
//!
//! Measured in a debug build with stalled bodies of 7 MiB: peak memory is 89 to 101 MB without a fixed
//! size, and 67 to 83 MB with one of 1 to 4 MiB.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

/// Larger than a batch of a thousand usual events, so that those do not cost a mapping each.
const MAPPED_FROM_BYTES: u32 = 2 << 20;

/// The variables to set. The second is the amount of free memory at the end of a heap from which on it is
/// returned.
const SIZES: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Holds the ID of the process that has executed itself again. Child processes inherit it but have other
/// IDs, so they decide for themselves. The name does not begin like that of a configuration variable.
const EXECUTED: &str = "EXECUTED_AGAIN_COHORTD";

/// What to do about the sizes.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Execute,
    /// They cannot be set, for this reason; continue without.
    GoOn(&'static str),
}

/// Executes the daemon again if none of the sizes is set; a size that the user has set is kept. Commands
/// other than `run` end before it matters.
///
/// Returns if there is nothing to do. Errors: it could not be executed again; the process goes on with the
/// default sizes.
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

/// Decides what to do. A program that has more rights than its user (file capabilities) never sees the
/// sizes that it has set, and without the check of [`EXECUTED`] would execute itself for ever.
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
