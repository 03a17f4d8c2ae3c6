//! Who may read the ledger: only its owner, whatever the umask and the previous permissions.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Installation, identify, launchdarkly};
use crate::needs::SH;

const NOW_MS: i64 = 1_750_000_000_000;

fn mode(path: &Path) -> String {
    let metadata = std::fs::metadata(path).expect("it is there");
    format!("{:o}", metadata.permissions().mode() & 0o777)
}

/// A command under an umask that lets others read.
fn open_to_all(installation: &Installation, arguments: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_cohortd");
    let words = format!("umask 022; exec {binary} {arguments}");
    let mut command = installation.wrapped(&["sh", "-c", &words]);
    command.stdout(std::process::Stdio::piped());
    command
}

async fn p8_the_ledger_and_its_copies_are_their_owners_alone() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let ledger = installation.ledger_path();
    let backup = |name: &str| {
        let output = open_to_all(&installation, &format!("ledger backup {name}")).output();
        let output = output.expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(mode(&installation.directory.path().join(name)), "600", "{name}");
    };
    let all_closed = |when: &str| {
        assert_eq!(mode(&ledger), "700", "{when}");
        let inside = std::fs::read_dir(&ledger).expect("it is there").flatten();
        let mut names: Vec<_> = inside.map(|of| (of.path(), mode(&of.path()))).collect();
        names.sort();
        assert!(names.len() >= 2, "{when}: {names:?}");
        assert!(names.iter().all(|(_, mode)| mode == "600"), "{when}: {names:?}");
    };

    let cohortd = installation.start_as(open_to_all(&installation, "run"));
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    all_closed("while it runs");
    backup("beside");
    assert!(cohortd.stop().0.success());
    all_closed("after it");
    backup("after");

    // The permissions that an earlier version would have left.
    for path in std::fs::read_dir(&ledger).expect("it is there").flatten() {
        std::fs::set_permissions(path.path(), Permissions::from_mode(0o644)).expect("it is ours");
    }
    std::fs::set_permissions(&ledger, Permissions::from_mode(0o755)).expect("it is ours");
    let cohortd = installation.start_as(open_to_all(&installation, "run"));
    cohortd.post(&identify("bob", "vip", true, NOW_MS)).await.expect("an answer");
    all_closed("when it was open before");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", cohortd.pid()));
    let limits = limits.expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let soft = core.and_then(|line| line.split_whitespace().nth(4));
    assert_eq!(soft, Some("0"), "a core dump would hold what the files hide: {core:?}");
    assert!(cohortd.stop().0.success());
}

tests![p8_the_ledger_and_its_copies_are_their_owners_alone.needs(&SH),];
