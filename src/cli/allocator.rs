//! Fixes from which size on the allocator maps a block by itself, so that memory that is freed goes back to
//! the system and the bound on memory (P6) holds for the whole process (tests/it/memory.rs).
//!
//! By itself glibc raises that size to the largest block that was freed, up to 32 MiB. From then on large
//! bodies come from its heaps, which keep what is freed. It reads a fixed size from the environment when a
//! process starts and can otherwise be told only by an unsafe call, so the daemon executes itself once
//! more with the size set. The process ID stays the same. Measured with a debug build, bodies of 7 MiB
//! that stall: a peak of 89 to 101 MB without, 67 to 83 MB with a fixed size of 1 to 4 MiB.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Batches of a thousand usual events are smaller: they need not be mapped each time.
const MAPPED_FROM_BYTES: u32 = 2 << 20;

/// Free memory at the end of a heap goes back from the second size on.
const SIZES: [&str; 2] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Executes the daemon again if the sizes are not set; whoever has set one of them decides.
///
/// Returns where nothing is to be done. Errors: it could not be executed again, and goes on as it is.
pub(super) fn fix_sizes() -> io::Result<()> {
    let is_set = SIZES.iter().any(|name| std::env::var_os(name).is_some());
    if is_set || !cfg!(target_env = "gnu") {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(words.next().as_deref().unwrap_or(OsStr::new("cohortd"))).args(words);
    command.envs(SIZES.map(|name| (name, MAPPED_FROM_BYTES.to_string())));
    Err(command.exec())
}
