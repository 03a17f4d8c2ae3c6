//! Looks, before anything is compiled, whether the tests that need PostgreSQL can run here: elsewhere they count as
//! ignored.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_postgresql)");
    println!("cargo::rerun-if-changed=tests/tools.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::rerun-if-changed=/usr/lib/postgresql"); // also when it appears
    if let Some(programs) = programs() {
        println!("cargo::rerun-if-changed={}", programs.display());
        println!("cargo::rustc-cfg=has_postgresql");
        println!("cargo::rustc-env=POSTGRESQL_PROGRAMS={}", programs.display());
    }
}

/// The directory of the programs of PostgreSQL: Debian keeps those of a server out of the path.
fn programs() -> Option<PathBuf> {
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = versions.map(|of| of.path().join("bin")).collect();
    debian.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let all = debian.into_iter().rev().chain(env::split_paths(&path));
    all.into_iter()
        .find(|directory| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file()))
}
