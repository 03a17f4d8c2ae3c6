//! The move from the hosted destination, typed as the manual says it, with the stand-in as the environment of both: no
//! segment ever loses a member that both know, every segment ends equal to the model, and the way back works too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::time::{Duration, SystemTime};

use cohortd::manual;
use cohortd::sandbox::{Keep, StandIn, View};
use serde_json::{Value, json};

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;
const SECTION: &str = "## Moving from the hosted destination";

/// Who should be in which audience.
type Model = BTreeMap<&'static str, BTreeSet<&'static str>>;

/// The hosted destination, as LaunchDarkly sees it: one call for each event, in the order of arrival.
struct Hosted {
    client: reqwest::Client,
    url: String,
}

impl Hosted {
    fn new(launchdarkly: &StandIn) -> Self {
        let client = reqwest::Client::builder().no_proxy().user_agent("SegmentSyncAudiences/1.1.0");
        let url = format!("{}api/v2/segment-targets/segment-audiences", launchdarkly.url());
        Self { client: client.build().expect("a plain client can be built"), url }
    }

    async fn sends(&self, audience: &str, users: &[&str], enters: bool) {
        let name = audience[..1].to_uppercase() + &audience[1..].replace('_', " ");
        let member = |user: &&str| {
            let id = format!("aud_{audience}");
            json!({"userId": user, "cohortName": name, "cohortId": id, "value": enters})
        };
        let batch: Vec<Value> = users.iter().map(member).collect();
        let call = json!({"environmentId": ENVIRONMENT, "contextKind": "user", "batch": batch});
        let request = self.client.post(&self.url).header("Authorization", SERVICE_TOKEN);
        let request = request.header("LD-API-Version", "20240415").json(&call);
        let answer = request.send().await.expect("the stand-in answers");
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

/// Everything the move is about.
struct Move {
    launchdarkly: StandIn,
    installation: Installation,
    hosted: Hosted,
    model: Model,
    at_ms: i64,
    /// The lines of the section that are not typed yet.
    lines: Vec<String>,
}

impl Move {
    async fn new() -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.set_keep(Keep::Arrivals);
        let mut installation = Installation::new(&launchdarkly);
        let url = launchdarkly.url().to_string();
        installation.set("destinations.production.launchdarkly.client_sdk_url", &url);
        installation.set("destinations.production.segment.allow_batches", "false");
        let event = identify("ada", "vip_users", true, NOW_MS);
        installation.write("event.json", &event.to_string());
        let page = manual::topic("compatibility").expect("it is there").text;
        let section = page.split_once(SECTION).expect("it is there").1;
        let section = section.split("\n## ").next().expect("it has text");
        let typed = |line: &str| {
            let line = line.strip_prefix("    ")?.split(" #").next()?;
            Some(line.trim_end().replace("KEY", "ada"))
        };
        let mut lines: Vec<String> = section.lines().filter_map(typed).collect();
        lines.reverse();
        let hosted = Hosted::new(&launchdarkly);
        Self { launchdarkly, installation, hosted, model: Model::new(), at_ms: NOW_MS, lines }
    }

    /// Types the next line of the section, which is this one; returns what it prints.
    fn types(&mut self, cohortd: Option<&Cohortd>, line: &str) -> String {
        assert_eq!(self.lines.pop().as_deref(), Some(line), "the next line of the section");
        let line = line.replace("AUDIENCE_ID", "aud_trial").replace("FILE", "keys");
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        self.installation.types(cohortd.map(|of| of.admin), &words).done()
    }

    /// Somebody enters or leaves an audience, which Segment sends to whoever is connected.
    async fn changes(
        &mut self,
        (audience, user, enters): (&'static str, &'static str, bool),
        hosted: bool,
        cohortd: Option<&Cohortd>,
    ) {
        self.at_ms += 1000;
        let of = self.model.entry(audience).or_default();
        if enters {
            of.insert(user)
        } else {
            of.remove(user)
        };
        if hosted {
            self.hosted.sends(audience, &[user], enters).await;
        }
        if let Some(cohortd) = cohortd {
            let event = identify(user, audience, enters, self.at_ms);
            assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
        }
    }

    /// Somebody exports who is in an audience: a file that was last modified when the query ran.
    fn exports(&mut self, users: &[&str]) {
        self.at_ms += 1000;
        self.installation.write("keys", &(users.join("\n") + "\n"));
        let at = Duration::from_millis(self.at_ms.unsigned_abs());
        let keys =
            File::options().write(true).open(self.installation.directory.path().join("keys"));
        let keys = keys.expect("it was written");
        keys.set_modified(SystemTime::UNIX_EPOCH + at).expect("it is ours");
    }

    /// The members of every segment, by audience.
    fn segments(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = self.launchdarkly.segments(ENVIRONMENT);
        all.into_iter().map(|(id, of)| (id.replacen("aud_", "", 1), of.members)).collect()
    }

    /// Waits until every segment is equal to the model.
    async fn until_equal(&self) {
        let is_equal = |view: &View<'_>| {
            self.model.iter().all(|(audience, users)| {
                let segment = view.segment(ENVIRONMENT, &format!("aud_{audience}"));
                let members = segment.map(|of| of.members.iter().map(String::as_str));
                members.is_some_and(|members| members.eq(users.iter().copied()))
            })
        };
        let waited = self.launchdarkly.until(DEADLINE, is_equal).await;
        assert!(waited.is_ok(), "{:?} should be {:?}", self.segments(), self.model);
    }

    /// Nothing that ever arrived for them said that they left.
    fn never_left(&self, audience: &str, users: &[&str]) {
        for user in users {
            let id = format!("aud_{audience}");
            let arrivals = self.launchdarkly.arrivals(ENVIRONMENT, &id, user);
            assert!(arrivals.iter().all(|included| *included), "{user}: {arrivals:?}");
        }
    }
}

async fn the_move_and_the_way_back_leave_no_gap() {
    let mut the = Move::new().await;
    for (audience, users) in
        [("vip_users", ["ada", "bob", "cyd"]), ("trial", ["ada", "dan", "eve"])]
    {
        the.hosted.sends(audience, &users, true).await;
        the.model.insert(audience, users.into());
    }
    let names = |the: &Move| -> Vec<(String, String)> {
        let all = the.launchdarkly.segments(ENVIRONMENT).into_iter();
        all.map(|(id, segment)| (id, segment.name)).collect()
    };
    let before = names(&the);

    // 1: set up, and nothing is sent
    the.types(None, "cohortd check --online");
    let cohortd = the.installation.start();
    the.types(Some(&cohortd), "cohortd pause");
    let explained = the.types(Some(&cohortd), "cohortd explain --file event.json");
    assert!(explained.contains("Vip users") && explained.contains("aud_vip_users"), "{explained}");

    // 2: both are connected
    the.changes(("vip_users", "bob", false), true, Some(&cohortd)).await;
    the.changes(("vip_users", "fay", true), true, Some(&cohortd)).await;
    the.changes(("trial", "gus", true), true, Some(&cohortd)).await;
    the.until_equal().await;
    let audiences = the.types(Some(&cohortd), "cohortd audiences");
    assert!(audiences.contains("vip_users") && audiences.contains("trial"), "{audiences}");
    the.types(Some(&cohortd), "cohortd resume");
    the.changes(("trial", "dan", false), true, Some(&cohortd)).await;
    the.changes(("vip_users", "ada", true), true, Some(&cohortd)).await; // a repeat
    the.installation.drained().await;
    the.types(Some(&cohortd), "cohortd status");
    the.until_equal().await;
    assert_eq!(names(&the), before, "the segments are the same, by name and id");

    // 3: the hosted one is off, and one of its retries comes late all the same
    the.hosted.sends("vip_users", &["bob"], true).await;
    assert!(the.segments()["vip_users"].contains("bob"), "what was overtaken is applied");
    the.changes(("trial", "hal", true), false, Some(&cohortd)).await;
    the.changes(("vip_users", "cyd", false), false, Some(&cohortd)).await; // never seen before
    the.types(Some(&cohortd), "cohortd resync --all");
    the.installation.drained().await;
    the.until_equal().await;
    let shown = the.types(Some(&cohortd), "cohortd member ada");
    assert!(shown.contains("vip_users"), "{shown}");

    // Somebody had left before the move, and nobody had said so.
    the.hosted.sends("trial", &["max"], true).await;
    the.types(Some(&cohortd), "cohortd pause");
    the.exports(&["ada", "dan", "eve", "gus", "hal", "max"]);
    the.types(Some(&cohortd), "cohortd reconcile AUDIENCE_ID --file FILE --yes");
    the.exports(&["ada", "eve", "gus", "hal"]);
    the.types(Some(&cohortd), "cohortd reconcile AUDIENCE_ID --file FILE --yes");
    the.types(Some(&cohortd), "cohortd resume");
    the.installation.drained().await;
    the.until_equal().await;

    // 4: and back
    the.changes(("trial", "ida", true), true, Some(&cohortd)).await;
    the.changes(("trial", "eve", false), true, Some(&cohortd)).await;
    the.installation.drained().await;
    the.types(Some(&cohortd), "cohortd status");
    the.types(Some(&cohortd), "cohortd pause");
    the.changes(("trial", "eve", true), true, None).await;
    the.changes(("vip_users", "fay", false), true, None).await;
    the.until_equal().await;
    assert!(cohortd.stop().0.success());
    the.until_equal().await;

    the.never_left("vip_users", &["ada"]);
    the.never_left("trial", &["ada", "gus", "hal", "ida"]);
    assert_eq!(names(&the), before);
    assert!(the.lines.is_empty(), "not typed: {:?}", the.lines);
}

tests![the_move_and_the_way_back_leave_no_gap];
