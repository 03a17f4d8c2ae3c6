//! The command line as users meet it: error messages with their remedies, completions, the manual page, and
//! no colours where they cannot be shown.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::harness::{Installation, Typed, launchdarkly};
use crate::needs::BASH;

/// Every command that asks the daemon, with typical arguments.
const ASKING: [&[&str]; 13] = [
    &["status"],
    &["audiences"],
    &["member", "production", "ada"],
    &["pause", "production"],
    &["resume", "production"],
    &["parked", "list"],
    &["parked", "requeue"],
    &["rejected", "list"],
    &["rejected", "replay"],
    &["rejected", "discard", "--all"],
    &["resync", "--all"],
    &["forget", "production", "ada"],
    &["drop", "production", "--retract"],
];

/// Checks that a command fails with a message that begins with its name and gives the remedy, and without
/// an answer.
fn complains(typed: &Typed, words: &[&str], code: i32, says: &str) {
    assert_eq!(typed.code, code, "{words:?}: {}", typed.complaint);
    assert_eq!(typed.out, "", "{words:?}");
    let complaint = &typed.complaint;
    assert!(complaint.starts_with("cohortd ") && complaint.contains(words[0]), "{complaint}");
    assert!(complaint.contains(says), "{words:?} should say {says:?}: {complaint}");
    assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
}

async fn every_command_says_what_to_do_when_there_is_no_daemon_or_another_token() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    for words in ASKING {
        let typed = installation.types(Some(nobody), words);
        complains(&typed, words, 69, "is the daemon running? `cohortd run` starts it");
    }
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    installation.set("admin.tokens", "another");
    for words in ASKING {
        let typed = installation.types(Some(cohortd.admin), words);
        complains(&typed, words, 64, "are not those that the daemon was started with");
        assert!(!typed.complaint.contains("another"), "no token is shown: {}", typed.complaint);
    }
}

async fn what_is_not_there_is_answered_with_what_is() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let unknown: [(&[&str], &str); 9] = [
        (&["audiences", "staging"], "there are: production"),
        (&["member", "staging", "ada"], "no destination staging; there are: production"),
        (&["pause", "staging"], "there are: production"),
        (&["forget", "staging", "ada"], "there are: production"),
        (&["drop", "staging"], "there are: production"),
        (&["parked", "list", "staging"], "there are: production"),
        (&["rejected", "replay", "staging"], "there are: production"),
        (&["resync", "aud_other"], "no audience aud_other; `cohortd audiences` lists them"),
        (&["rejected", "replay", "--id", "77"], "no rejected event 77"),
    ];
    for (words, says) in unknown {
        complains(&installation.types(Some(cohortd.admin), words), words, 64, says);
    }
    // The public listener, not the admin listener, answers there.
    let typed = installation.types(Some(cohortd.public), &["audiences"]);
    complains(&typed, &["audiences"], 69, "does not answer like cohortd");
    let bad_flag = installation.types(None, &["resync", "--al"]);
    assert_eq!(bad_flag.code, 64);
    assert!(bad_flag.complaint.contains("'--all'"), "{}", bad_flag.complaint);
    let nothing = installation.types(None, &["resync"]);
    assert_eq!((nothing.code, nothing.out.as_str()), (64, ""), "{}", nothing.complaint);
}

/// Runs a command without any configuration.
fn plain(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cohortd")).args(words).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn the_shells_and_the_manual_are_served_by_the_binary() {
    for (shell, sign) in [
        ("bash", "complete -F _cohortd"),
        ("zsh", "#compdef cohortd"),
        ("fish", "complete -c cohortd"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = plain(&["completions", shell]);
        assert!(script.contains(sign) && script.contains("resync"), "{shell}");
    }
    let page = plain(&["man"]);
    assert!(page.contains(".TH cohortd 1") && page.contains("resync"), "{page}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pages = folder.path().join("pages");
    plain(&["man", "--all", pages.to_str().expect("text")]);
    let page = std::fs::read_to_string(pages.join("cohortd-resync.1")).expect("a page of it");
    assert!(page.contains("retract\\-stale"), "{page}");
    assert!(
        page.contains(".SH EXAMPLES") && page.contains("cohortd resync aud_vip \\-\\-wait"),
        "{page}"
    );
    assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
    let help = plain(&["forget", "--help"]);
    assert!(help.contains("Examples:") && help.contains("130 Ctrl-C"), "{help}");
}

fn bash_takes_its_completions() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("cohortd.bash");
    std::fs::write(&script, plain(&["completions", "bash"])).expect("it is ours");
    let bash = Command::new("bash").arg("-n").arg(&script).output().expect("bash is there");
    assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
}

/// Runs a command on a terminal. Returns its output.
fn on_a_terminal(mut command: Command) -> String {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).expect("the system has terminals");
    unlockpt(&terminal).expect("it is ours");
    let inside = ioctl_tiocgptpeer(&terminal, flags).expect("it is unlocked");
    let mut child = command.stdout(inside).spawn().expect("the binary runs");
    drop(command); // drops its copy of the terminal, which would keep the output open
    let mut written = Vec::new();
    let end = File::from(terminal).read_to_end(&mut written);
    assert!(end.is_err_and(|error| error.raw_os_error() == Some(Errno::IO.raw_os_error())));
    assert!(child.wait().expect("it is our child").success());
    String::from_utf8(written).expect("text")
}

/// Runs a command on a terminal and types `answer`. Returns its exit code and output.
fn answered(mut command: Command, answer: &str) -> (i32, String) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).expect("the system has terminals");
    unlockpt(&terminal).expect("it is ours");
    let inside = ioctl_tiocgptpeer(&terminal, flags).expect("it is unlocked");
    let again = || inside.try_clone().expect("a handle is free");
    let mut terminal = File::from(terminal);
    terminal.write_all(answer.as_bytes()).expect("it waits there");
    let child =
        command.stdin(again()).stdout(again()).stderr(inside.try_clone().expect("one more"));
    let status = child.spawn().expect("the binary runs").wait().expect("it is our child");
    drop((command, inside));
    let mut written = Vec::new();
    let _ = terminal.read_to_end(&mut written); // on Linux the end is reported as an error
    (status.code().expect("it ends"), String::from_utf8(written).expect("text"))
}

async fn what_cannot_be_taken_back_is_asked_about_on_a_terminal() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let event = crate::harness::identify("ada", "vip", true, 1_750_000_000_000);
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
    installation.drained().await;
    let line = |words: &[&str]| installation.line(Some(cohortd.admin), words);
    let asking: [(&[&str], &str); 5] = [
        (&["forget", "ada"], "the person is known in 1 audience: aud_vip"),
        (&["drop"], "1 audience: 1 member in it"),
        (&["drop", "aud_vip", "--retract"], "1 audience: 1 member in it"),
        (&["parked", "discard", "--all"], "0 parked members"),
        (&["rejected", "discard", "--all"], "0 rejected events"),
    ];
    for (words, says) in asking {
        for no in ["n\n", "\n", "\u{4}"] {
            let (code, said) = answered(line(words), no);
            assert_eq!(code, 130, "{words:?}: {said}");
            assert!(said.contains(says) && said.contains("Go on? [y/N]"), "{words:?}: {said}");
            assert!(said.contains("nothing was done"), "{words:?}: {said}");
        }
    }
    let listed = installation.types(Some(cohortd.admin), &["audiences"]).done();
    assert!(listed.contains("aud_vip"), "{listed}");
    let (code, said) = answered(line(&["forget", "ada"]), "y\n");
    assert!(code == 0 && said.contains("was known in 1 audience;"), "{said}");
    let (code, said) = answered(line(&["drop", "--yes"]), "");
    assert!(code == 0 && !said.contains("Go on?"), "{said}");
}

async fn a_terminal_has_a_bold_heading_and_no_color_has_none() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let event = crate::harness::identify("ada", "vip", true, 1_750_000_000_000);
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
    let piped = installation.types(Some(cohortd.admin), &["audiences"]).done();
    assert!(piped.starts_with("destination  audience"), "{piped}");
    let listed = |no_color: &str| {
        let mut command = installation.line(Some(cohortd.admin), &["audiences"]);
        command.env("NO_COLOR", no_color);
        on_a_terminal(command)
    };
    let bold = listed("");
    assert!(bold.starts_with("\u{1b}[1mdestination  audience"), "{bold:?}");
    let plain = listed("1");
    assert!(plain.starts_with("destination  audience"), "{plain:?}");
}

tests![
    every_command_says_what_to_do_when_there_is_no_daemon_or_another_token,
    what_is_not_there_is_answered_with_what_is,
    the_shells_and_the_manual_are_served_by_the_binary,
    bash_takes_its_completions.needs(&BASH),
    what_cannot_be_taken_back_is_asked_about_on_a_terminal,
    a_terminal_has_a_bold_heading_and_no_color_has_none,
];
