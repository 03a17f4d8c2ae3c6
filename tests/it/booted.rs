//! The systemd unit under a booted systemd, installed and operated with the commands of the README and the
//! manual.
//!
//! The machine is a container of `systemd-nspawn` that uses this machine's programs. A service runs the
//! commands, writes down what it sees, and powers the machine off.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::containers::{strip_into, trust_somebody};
use crate::needs::{NSPAWN, OPENSSL};
use crate::pages;

/// Longest life of a machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// Commands in addition to those of the pages. They wait only for events of systemd or the daemon.
const TYPED: &str = r#"
waits() { for _ in $(seq 300); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done; "$@"; }
says() { echo "== $*"; }

says mode of the ledger; stat -c %a /var/lib/private/cohortd/ledger
says core; systemctl show cohortd --property LimitCORE --value
says credentials; ls -l /etc/cohortd

mkdir -p /run/systemd/system/cohortd.service.d
printf '[Service]\nRestartSec=50ms\n' > /run/systemd/system/cohortd.service.d/quick.conf
systemctl daemon-reload
restarts() { [ "$(systemctl show cohortd --property NRestarts --value)" = "$1" ] && systemctl is-active -q cohortd; }
for time in 1 2 3 4 5 6 7; do
    kill -KILL "$(systemctl show cohortd --property MainPID --value)"
    waits restarts $time
done
says restarts; systemctl show cohortd --property NRestarts --value

says a fault
echo 'colour = 1' >> /etc/cohortd/cohortd.toml
! systemctl reload cohortd || echo "it was taken"
systemctl is-active cohortd
sed -i '$d' /etc/cohortd/cohortd.toml
says no fault
systemctl reload cohortd && echo taken

mkdir -p /etc/systemd/system/cohortd.service.d
cp /project/port.conf /etc/systemd/system/cohortd.service.d/port.conf
printf '[listen]\naddress = "0.0.0.0:443"\n' >> /etc/cohortd/cohortd.toml
systemctl daemon-reload
systemctl restart cohortd
says port; cohortd healthcheck && echo ready

systemctl stop cohortd
says end; systemctl show cohortd --property Result --value
"#;

/// Directories of the machine's root that are no links into `usr`.
fn make_root(root: &Path) {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is ours");
        std::fs::write(path, text).expect("it is ours");
    };
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir_all(root.join("usr").join(name)).expect("it is ours");
        symlink(format!("usr/{name}"), root.join(name)).expect("it is ours");
    }
    for name in
        ["usr/share", "usr/local/bin", "var/lib", "root", "tmp", "run", "proc", "sys", "dev"]
    {
        std::fs::create_dir_all(root.join(name)).expect("it is ours");
    }
    write("etc/os-release", "ID=test\n");
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    write(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    write("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    write(
        "etc/systemd/system/typed.service",
        "[Unit]\nAfter=basic.target\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n\
         [Service]\nType=oneshot\nEnvironment=HOME=/root\nExecStart=/bin/sh -eu /project/typed.sh\n\
         StandardOutput=file:/project/said\nStandardError=file:/project/typed\n\
         ExecStopPost=/bin/sh -c 'journalctl --no-pager -u cohortd > /project/journal 2>&1'\n",
    );
    write("etc/systemd/system/only.target", "[Unit]\nRequires=basic.target typed.service\n");
    symlink("only.target", root.join("etc/systemd/system/default.target")).expect("it is ours");
}

fn the_lines_of_the_pages_install_the_unit_which_lasts_reloads_and_ends_well() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = folder.path().join("root");
    make_root(&root);
    trust_somebody(&root);
    let project = root.join("project");
    std::fs::create_dir_all(project.join("target/dist")).expect("it is ours");
    std::fs::create_dir_all(project.join("config")).expect("it is ours");
    strip_into(&project.join("target/dist/cohortd"));
    let write =
        |name: &str, text: &str| std::fs::write(project.join(name), text).expect("it is ours");
    let toml = pages::file_with("toml", "service_token_file = \"launchdarkly-token\"");
    write("cohortd.toml", &toml.replace("replace-with-the-client-side-id", "64f0c0ffee"));
    write("config/cohortd.service", include_str!("../../config/cohortd.service"));
    write("port.conf", pages::file_with("ini", "CAP_NET_BIND_SERVICE"));
    let make = pages::lines_with("openssl rand -hex 32 > segment-secret");
    let install = pages::lines_with("systemctl enable --now cohortd");
    let operate = pages::lines_with("systemctl reload cohortd");
    write(
        "typed.sh",
        &format!(
            "set -x\ncd /project\n{make}\necho api-a-token-of-launchdarkly > launchdarkly-token\n{install}\n\
             cd /\n{operate}\n{TYPED}"
        ),
    );
    let mut machine = Command::new("systemd-nspawn");
    machine.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"]);
    let name = format!("cohortd-{}", std::process::id());
    machine.args(["--console=pipe", "--machine", &name, "--directory"]).arg(&root);
    for shared in ["/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/share"] {
        machine.arg(format!("--bind-ro={shared}"));
    }
    let console = std::fs::File::create(folder.path().join("console")).expect("it is ours");
    machine.stdin(Stdio::null()).stdout(console.try_clone().expect("it is ours")).stderr(console);
    let mut machine = machine.spawn().expect("it was looked for");
    let began = Instant::now();
    while machine.try_wait().expect("it is ours").is_none() && began.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(50));
    }
    machine.kill().ok();
    machine.wait().expect("it is ours");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let said = read(&project.join("said"));
    let (console, typed) = (read(&folder.path().join("console")), read(&project.join("typed")));
    note!("{console}\n{typed}\n{said}\n{}", read(&project.join("journal")));

    let answers: Vec<&str> = said.lines().collect();
    let answer = |question: &str| {
        let at = answers.iter().position(|line| line.strip_prefix("== ") == Some(question));
        let at = at.unwrap_or_else(|| panic!("it did not come to: {question}"));
        let rest = answers[at + 1..].iter().take_while(|line| !line.starts_with("== "));
        rest.copied().collect::<Vec<&str>>().join("\n")
    };
    assert!(said.contains("waiting for the first event"), "an operator's command");
    assert!(said.contains("/root/cohortd.backup now holds a copy of the ledger"), "another one");
    assert_eq!(answer("mode of the ledger"), "700");
    assert_eq!(answer("core"), "0");
    let credentials = answer("credentials");
    let is_private = |name: &&&str| name.starts_with("-rw------- 1 root root");
    assert_eq!(
        credentials.lines().collect::<Vec<_>>().iter().filter(is_private).count(),
        3,
        "{credentials}"
    );
    assert_eq!(answer("restarts"), "7", "it is started again for ever");
    assert_eq!(answer("a fault"), "active", "the reload fails, and the daemon goes on");
    assert_eq!(answer("no fault"), "taken");
    assert_eq!(answer("port"), "ready");
    assert_eq!(answer("end"), "success");
}

tests![
    the_lines_of_the_pages_install_the_unit_which_lasts_reloads_and_ends_well
        .needs(&NSPAWN)
        .needs(&OPENSSL),
];
