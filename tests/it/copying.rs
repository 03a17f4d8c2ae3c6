//! A ledger that is moved from a directory into a database and back, with the real binary: the daemon goes on where it was,
//! and LaunchDarkly ends as if nothing had been moved (P1, P2, P4).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use cohortd::ledger::RejectedView;
use cohortd::sandbox::{StandIn, View};
use serde_json::Value;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, Typed, identify, launchdarkly};
use crate::needs::POSTGRESQL;
use crate::postgresql;

const NOW_MS: i64 = 1_750_000_000_000;
const AUDIENCE: &str = "aud_vip";

/// An installation whose ledger is moved.
struct Removal {
    launchdarkly: StandIn,
    installation: Installation,
    /// Of the database.
    url: String,
    witnesses: u32,
}

impl Removal {
    async fn new() -> Self {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let url = postgresql::new_database();
        installation.write("ledger-url", &format!("{url}\n"));
        Self { launchdarkly, installation, url, witnesses: 0 }
    }

    /// `cohortd ledger copy` in this direction.
    fn copy(&self, from: &str, to: &str) -> Typed {
        self.installation.types(None, &["ledger", "copy", "--from", from, "--to", to])
    }

    fn moves_into_the_database(&mut self) {
        let copied = self.copy("ledger", "@ledger-url");
        assert_eq!(copied.code, 0, "{}", copied.complaint);
        self.says_what_was_done(&copied);
        self.installation.unset("ledger.path").set("ledger.url", &self.url);
        self.installation.database = Some(self.url.clone());
    }

    fn moves_into_a_directory(&mut self, name: &str) {
        let copied = self.copy("@ledger-url", name);
        assert_eq!(copied.code, 0, "{}", copied.complaint);
        self.says_what_was_done(&copied);
        let directory = self.directory(name).display().to_string();
        self.installation.unset("ledger.url").set("ledger.path", &directory);
        self.installation.database = None;
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.installation.directory.path().join(name)
    }

    fn says_what_was_done(&self, copied: &Typed) {
        for words in ["destinations ", "members ", "rejected events ", "checksum ", "next: set"] {
            assert!(copied.out.contains(words), "{words}: {}", copied.out);
        }
        let all = format!("{}{}", copied.out, copied.complaint);
        assert!(!all.contains(&self.url) && !all.contains("user=cohortd"), "{all}");
        assert!(all.contains("PostgreSQL at "), "{all}");
    }

    /// Waits until everything posted before is told; who is in then.
    async fn members(&mut self, cohortd: &Cohortd) -> BTreeSet<String> {
        self.witnesses += 1;
        let witness = format!("witness {}", self.witnesses);
        post(cohortd, &identify(&witness, "vip", true, NOW_MS)).await;
        let arrived = |view: &View<'_>| view.has(ENVIRONMENT, AUDIENCE, &witness);
        self.launchdarkly.until(DEADLINE, arrived).await.expect("the witness arrives");
        let members = self.launchdarkly.segments(ENVIRONMENT)[AUDIENCE].members.clone();
        members.into_iter().filter(|name| !name.starts_with("witness")).collect()
    }
}

async fn post(cohortd: &Cohortd, event: &Value) {
    let (status, answer) = cohortd.post(event).await.expect("an answer");
    assert_eq!(status, 200, "{answer}");
}

/// An event that counts at its arrival.
fn without_a_time(user: &str, enters: bool) -> Value {
    let mut event = identify(user, "vip", enters, NOW_MS);
    event["messageId"] = format!("{user} {enters}").into();
    event.as_object_mut().expect("an event is an object").remove("timestamp");
    event
}

fn names<const N: usize>(of: [&str; N]) -> BTreeSet<String> {
    of.map(str::to_owned).into()
}

async fn a_ledger_is_moved_into_a_database_and_back_and_the_daemon_goes_on() {
    let mut removal = Removal::new().await;
    let cohortd = removal.installation.start();
    for user in ["ada", "bob", "cyd", "dan"] {
        post(&cohortd, &identify(user, "vip", true, NOW_MS)).await;
    }
    post(&cohortd, &without_a_time("eve", true)).await;
    post(&cohortd, &without_a_time("eve", false)).await;
    let mut nobody = identify("flo", "vip", true, NOW_MS);
    nobody.as_object_mut().expect("an event is an object").remove("userId");
    assert_eq!(cohortd.post(&nobody).await.expect("an answer").0, 400);
    assert_eq!(removal.members(&cohortd).await, names(["ada", "bob", "cyd", "dan"]));
    let typed = |cohortd: &Cohortd, words: &[&str]| {
        removal.installation.types(Some(cohortd.admin), words).done()
    };
    typed(&cohortd, &["pause", "production"]);
    post(&cohortd, &identify("gus", "vip", true, NOW_MS)).await;
    let refused = removal.copy("ledger", "@ledger-url");
    assert_eq!(refused.code, 69, "the daemon has the ledger");
    assert!(refused.complaint.contains("in use"), "{}", refused.complaint);
    assert!(cohortd.stop().0.success());
    let rejected = removal.installation.rejected().await;

    removal.moves_into_the_database();
    let cohortd = removal.installation.start();
    let status = cohortd.status().await;
    assert_eq!(status["destinations"]["production"]["state"], "paused", "{status}");
    removal.installation.types(Some(cohortd.admin), &["resume", "production"]).done();
    post(&cohortd, &without_a_time("eve", true)).await; // the same as before
    post(&cohortd, &identify("bob", "vip", false, NOW_MS - 10)).await; // older
    post(&cohortd, &identify("cyd", "vip", false, NOW_MS)).await; // a tie, and later
    assert_eq!(removal.members(&cohortd).await, names(["ada", "bob", "dan", "gus"]));
    removal.installation.drained().await; // what arrived is told once the ledger knows it, too
    let export = removal.installation.types(None, &["ledger", "export", "production"]).done();
    let of_cyd = export.lines().find(|line| line.contains("\"cyd\"")).expect("everybody is in it");
    let of_cyd: Value = serde_json::from_str(of_cyd).expect("a line of JSON");
    assert_eq!((&of_cyd["audience_id"], &of_cyd["told"]), (&AUDIENCE.into(), &false.into()));
    let other = removal.installation.types(None, &["ledger", "export", "other"]);
    assert_eq!((other.code, &*other.out), (64, ""), "{}", other.complaint);
    let refused = removal.copy("@ledger-url", "elsewhere");
    assert_eq!(refused.code, 69, "a replica has the ledger");
    assert!(refused.complaint.contains("a replica uses"), "{}", refused.complaint);
    assert!(cohortd.stop().0.success());
    let ids = |all: &[RejectedView]| all.iter().map(|of| of.id).collect::<Vec<_>>();
    assert_eq!(ids(&removal.installation.rejected().await), ids(&rejected));
    let full = removal.copy("ledger", "@ledger-url");
    assert_eq!(full.code, 64, "{}", full.complaint);
    assert!(full.complaint.contains("already"), "{}", full.complaint);

    removal.moves_into_a_directory("ledger-again");
    let cohortd = removal.installation.start();
    post(&cohortd, &without_a_time("eve", true)).await;
    post(&cohortd, &identify("dan", "vip", false, NOW_MS - 10)).await;
    post(&cohortd, &identify("bob", "vip", false, NOW_MS + 10)).await;
    assert_eq!(removal.members(&cohortd).await, names(["ada", "dan", "gus"]));
    assert_eq!(removal.installation.types(None, &["ledger", "check"]).code, 0);
    assert!(cohortd.stop().0.success());
}

async fn a_copy_that_is_killed_goes_on() {
    let mut removal = Removal::new().await;
    let cohortd = removal.installation.start();
    let all: Vec<Value> =
        (0..300).map(|user| identify(&format!("user {user}"), "vip", true, NOW_MS)).collect();
    assert_eq!(cohortd.post_batch(&all).await.expect("an answer").0, 200);
    let before = removal.members(&cohortd).await;
    assert_eq!(before.len(), 300);
    assert!(cohortd.stop().0.success());
    for (from, to) in [("ledger", "@ledger-url"), ("@ledger-url", "ledger-again")] {
        let words = ["ledger", "copy", "--from", from, "--to", to];
        let mut copying = removal.installation.line(None, &words);
        let mut copying =
            copying.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let mut said = BufReader::new(copying.stderr.take().expect("it is piped"));
        said.read_line(&mut line).expect("it says that it begins");
        assert!(line.contains("copying from"), "{line}");
        copying.kill().expect("it is ours");
        let is_done = copying.wait().expect("it was killed").success();
        let again = removal.copy(from, to);
        let is_finished = is_done || again.complaint.contains("already"); // whoever was that quick
        assert!(again.code == 0 || is_finished, "{}", again.complaint);
    }
    let directory = removal.directory("ledger-again").display().to_string();
    removal.installation.set("ledger.path", &directory);
    let cohortd = removal.installation.start();
    assert_eq!(removal.members(&cohortd).await, before);
    post(&cohortd, &identify("user 7", "vip", false, NOW_MS + 1)).await;
    assert_eq!(removal.members(&cohortd).await.len(), 299);
    assert!(cohortd.stop().0.success());
}

tests![
    a_ledger_is_moved_into_a_database_and_back_and_the_daemon_goes_on.needs(&POSTGRESQL),
    a_copy_that_is_killed_goes_on.needs(&POSTGRESQL),
];
