//! What tests need in addition to Linux, Rust and a C compiler: how it is detected, and what provides it.
//!
//! A test that lacks something is ignored, with its name and the reason, and the run ends with a list of
//! such tests and the command that installs what they lack. With `DEMAND_EVERY_TEST` set they fail instead,
//! unless they need another kind of machine, a container engine or a booted system.

use std::collections::{BTreeMap, BTreeSet};
use std::net::ToSocketAddrs;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use libtest_mimic::{Completion, Failed};

use crate::{npm, python};

const DEMAND: &str = "DEMAND_EVERY_TEST";
const INSTALL: &str = "apt-get install -y --no-install-recommends";

/// To trace system calls and to make them fail.
pub static STRACE: Need = Need::new(|| {
    let inject = ["-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO"];
    let traced = [&inject[..], &[env!("CARGO_BIN_EXE_cohortd"), "--version"]].concat();
    installed("strace", "strace")?;
    works(
        "strace",
        &traced,
        "a system that lets strace trace (in a container: --cap-add SYS_PTRACE)",
    )
});

/// A mount namespace, with a small disk that is easy to fill.
pub static SMALL_DISK: Need = Need::new(|| {
    let mount = format!("mount -t tmpfs small '{}'", std::env::temp_dir().display());
    let inside = ["--map-root-user", "--mount", "sh", "-c", &mount];
    installed("unshare", "util-linux")?;
    installed("mount", "mount")?;
    works("unshare", &inside, "a system that lets its users mount (in a container: --privileged)")
});

/// To change the owner of files.
pub static ROOT: Need = Need::new(|| {
    let file = tempfile::tempfile().expect("a temporary file");
    fchown(&file, Some(12_345), Some(12_345)).map_err(|error| Lack {
        why: format!("files cannot be given to another user ({error})"),
        remedy: Remedy::Machine("root"),
    })
});

/// To ask a server by the name in its certificate.
pub static LOCALHOST: Need = Need::new(|| {
    let found = ("localhost", 0).to_socket_addrs();
    let is_here = found.is_ok_and(|mut found| found.any(|address| address.ip().is_loopback()));
    is_here.then_some(()).ok_or_else(|| Lack {
        why: "the name localhost is not known".to_owned(),
        remedy: Remedy::Machine("a line in /etc/hosts: 127.0.0.1 localhost"),
    })
});

/// A ledger in a database, on a server of its own.
pub static POSTGRESQL: Need = Need::new(|| {
    let lack = || Lack {
        why: "PostgreSQL was not found when the tests were built".to_owned(),
        remedy: Remedy::Packages("postgresql"),
    };
    option_env!("POSTGRESQL_PROGRAMS").map(|_| ()).ok_or_else(lack)
});

/// To start a daemon that inherits something from its parent.
pub static SH: Need = Need::new(|| installed("sh", "dash"));
/// To call the API as the manual does.
pub static CURL: Need = Need::new(|| installed("curl", "curl"));
/// To test completions.
pub static BASH: Need = Need::new(|| installed("bash", "bash"));
/// To check metrics and alerts with Prometheus' own tool.
pub static PROMTOOL: Need = Need::new(|| installed("promtool", "prometheus"));
/// To check the way in to replicas with the proxy itself.
pub static HAPROXY: Need = Need::new(|| installed("haproxy", "haproxy"));
/// To have a pooler in front of a database.
pub static PGBOUNCER: Need = Need::new(|| installed("pgbouncer", "pgbouncer"));
/// To check the unit with systemd's own tool.
pub static SYSTEMD_ANALYZE: Need = Need::new(|| installed("systemd-analyze", "systemd"));

/// To run the unit under a systemd of its own.
pub static NSPAWN: Need = Need::new(|| {
    engine("systemd-nspawn", "systemd-container")?;
    engine("strip", "binutils")?;
    let inside = ["--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "tmp", "/tmp"];
    works(
        "unshare",
        &inside,
        "root, and a system that lets it mount (in a container: --privileged)",
    )
});
/// To build an image and run it, in a network of its own.
pub static CONTAINERS: Need = Need::new(|| {
    for (name, packages) in [
        ("podman", "podman"),
        (container_runtime(), "crun runc"),
        ("iptables", "iptables"),
        ("ip", "iproute2"),
        ("git", "git"),
        ("strip", "binutils"),
    ] {
        engine(name, packages)?;
    }
    let helpers =
        ["/usr/lib/podman", "/usr/libexec/podman"].map(|at| Path::new(at).join("netavark"));
    if !helpers.iter().any(|helper| helper.exists()) {
        engine("netavark", "netavark")?;
    }
    let otherwise = "root, and a system that lets it make networks (in a container: --privileged)";
    works("unshare", &["--net", "ip", "link", "set", "lo", "up"], otherwise)
});
/// To create secrets as the manual does.
pub static OPENSSL: Need = Need::new(|| engine("openssl", "openssl"));

/// To test the dashboard and web pages in a browser.
pub static CHROMIUM: Need = Need::new(|| {
    let Some(path) = chromium() else { return installed("chromium", "chromium") };
    works(path.to_str().expect("text"), &["--version"], "a Chromium that starts")
});
/// To drive the browser.
pub static PLAYWRIGHT: Need = Need::new(|| npm::DASHBOARD.install());

/// Segment's SDKs for Node.js and web pages, and for Python.
pub static SEGMENT_NPM: Need = Need::new(|| npm::SEGMENT.install());
pub static SEGMENT_PYTHON: Need = Need::new(|| python::SEGMENT.install());
/// To decode OTLP with an independent implementation.
pub static OTLP: Need = Need::new(|| python::OTLP.install());
/// To test the API against its description.
pub static SCHEMATHESIS: Need = Need::new(|| python::SCHEMATHESIS.install());
/// To validate manifests against Kubernetes' schemas.
pub static KUBERNETES_VALIDATE: Need = Need::new(|| python::KUBERNETES_VALIDATE.install());

/// Something that this machine may lack; detected at most once.
pub struct Need {
    look: fn() -> Result<(), Lack>,
    found: OnceLock<Result<(), Lack>>,
}

/// Why it is not available here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lack {
    pub why: String,
    pub remedy: Remedy,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Available in Debian packages.
    Packages(&'static str),
    /// Available, but not in a package.
    Other(&'static str),
    /// Available in Debian packages that contributors need not install: engines.
    Engine(&'static str),
    /// Needs another machine, or more privileges on this one.
    Machine(&'static str),
}

impl Remedy {
    fn is_demanded(&self) -> bool {
        matches!(self, Self::Packages(_) | Self::Other(_))
    }
}

impl Need {
    const fn new(look: fn() -> Result<(), Lack>) -> Self {
        Self { look, found: OnceLock::new() }
    }

    /// Why it is not available; `None` if it is.
    pub fn lack(&self) -> Option<Lack> {
        self.found.get_or_init(self.look).clone().err()
    }
}

/// The path of a program in the tests' `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The runtime that works with this machine's cgroups; `crun` supports only v2 well.
pub fn container_runtime() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "crun" } else { "runc" }
}

/// The browser, under any of its names.
pub fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(program)
}

/// Checks that a program exists, or names the packages that provide it.
pub fn installed(name: &str, packages: &'static str) -> Result<(), Lack> {
    let lack =
        || Lack { why: format!("{name} is not installed"), remedy: Remedy::Packages(packages) };
    program(name).map(|_| ()).ok_or_else(lack)
}

/// Like [`installed`], for an engine and its dependencies.
fn engine(name: &str, packages: &'static str) -> Result<(), Lack> {
    installed(name, packages).map_err(|lack| Lack { remedy: Remedy::Engine(packages), ..lack })
}

/// Checks that a program works, or returns what else is needed.
fn works(name: &str, arguments: &[&str], otherwise: &'static str) -> Result<(), Lack> {
    let output = Command::new(name).args(arguments).output();
    let complaint = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let line = complaint.lines().next().unwrap_or("it does not say why");
    Err(Lack {
        why: format!("{name} does not work here ({line})"),
        remedy: Remedy::Machine(otherwise),
    })
}

/// Tests that were ignored, by what they lack.
static NOT_CHECKED: Mutex<BTreeMap<Vec<Lack>, BTreeSet<&str>>> = Mutex::new(BTreeMap::new());

/// The result of a test that lacks something.
pub fn without(test: &'static str, lacks: Vec<Lack>) -> Result<Completion, Failed> {
    let why = reasons(&lacks);
    let is_demanded = lacks.iter().any(|lack| lack.remedy.is_demanded());
    let mut all = NOT_CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(lacks).or_default().insert(test);
    match std::env::var_os(DEMAND) {
        Some(demand) if !demand.is_empty() && is_demanded => {
            Err(format!("{why}, and {DEMAND} is set").into())
        }
        _ => Ok(Completion::ignored_with(why)),
    }
}

fn reasons(lacks: &[Lack]) -> String {
    lacks.iter().map(|lack| lack.why.as_str()).collect::<Vec<_>>().join("; ")
}

#[expect(clippy::print_stdout, reason = "these are the last words of a run")]
pub fn say_what_was_not_checked() {
    let all = NOT_CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.is_empty() {
        return;
    }
    println!("not checked:\n");
    for (lacks, tests) in &*all {
        println!("    {}", reasons(lacks));
        for test in tests {
            println!("        {test}");
        }
    }
    let (mut packages, mut others) = (BTreeSet::new(), BTreeSet::new());
    for lack in all.keys().flatten() {
        match lack.remedy {
            Remedy::Packages(names) | Remedy::Engine(names) => packages.extend(names.split(' ')),
            Remedy::Other(what) | Remedy::Machine(what) => _ = others.insert(what),
        }
    }
    println!("\nto check that too:\n");
    if !packages.is_empty() {
        println!("    {INSTALL} {}", packages.into_iter().collect::<Vec<_>>().join(" "));
    }
    for what in others {
        println!("    needed: {what}");
    }
    println!();
}
