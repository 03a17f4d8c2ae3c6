//! A reconciliation goes on when the replica that was asked for it, or the one that records it, is killed, and it can be
//! seen and stopped through any of them. Run with the ledger in a database, see `postgresql`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cohortd::sandbox::{Fault, StandIn};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fleet::{REPLICAS, owner_of};
use crate::harness::{Cohortd, DEADLINE, Installation, identify, iso, launchdarkly};
use crate::postgresql;
use crate::reconcile::{MEMORY, until_members, until_reconciling, until_recorded};

const NOW_MS: i64 = 1_750_000_000_000;
/// Members who stay, and as many who leave.
const BEFORE: u64 = 500;
/// More than may wait while they are recorded.
const NEWCOMERS: u64 = 12_000;
const AUDIT: &str = "operator: audience reconciled with a snapshot";

/// A way in that leads to one replica, or to another, as a load balancer's does.
async fn way_in(to: SocketAddr) -> (SocketAddr, watch::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (leads_to, to) = watch::channel(to);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = *to.borrow();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await; // whoever asks sees how it ended
                }
            });
        }
    });
    (address, leads_to)
}

struct Begun {
    launchdarkly: StandIn,
    installation: Installation,
    replicas: Vec<Cohortd>,
    people: BTreeSet<String>,
}

/// Replicas, an audience that they have delivered, a file for it, and a LaunchDarkly that takes nothing from now on.
async fn begun() -> Begun {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    let replicas: Vec<Cohortd> = (0..REPLICAS).map(|_| installation.start()).collect();
    let names = |name: &str, count: u64| -> Vec<String> {
        (0..count).map(|number| format!("{name}{number:05}")).collect()
    };
    let (stay, leave) = (names("stays", BEFORE), names("leaves", BEFORE));
    for part in [&stay, &leave] {
        let events: Vec<Value> =
            part.iter().map(|who| identify(who, "vip", true, NOW_MS)).collect();
        assert_eq!(replicas[0].post_batch(&events).await.expect("an answer").0, 200);
    }
    installation.drained().await;
    let people: BTreeSet<String> = stay.into_iter().chain(names("new", NEWCOMERS)).collect();
    let keys: Vec<&str> = people.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    launchdarkly.script(|_| Fault::status(503));
    Begun { launchdarkly, installation, replicas, people }
}

impl Begun {
    fn typed(&self, admin: SocketAddr) -> Child {
        let as_of = iso(NOW_MS + 10);
        let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--yes"];
        let mut line = self.installation.line(Some(admin), &words);
        line.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// Waits for the one line of its end, whichever replica writes it.
    async fn ended(&self) -> Value {
        let looking = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            loop {
                looks.tick().await;
                let lines = self.replicas.iter().flat_map(Cohortd::log);
                let lines: Vec<String> = lines.filter(|line| line.contains(AUDIT)).collect();
                if let Some(line) = lines.first() {
                    assert_eq!(lines.len(), 1, "one of them says so: {lines:?}");
                    return serde_json::from_str(line).expect("JSON");
                }
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.expect("it is never logged")
    }
}

fn end_of(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("it is our child");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn a_reconcile_goes_on_when_the_replicas_that_had_it_are_killed() {
    let mut of = begun().await;
    let url = of.installation.database.clone().expect("it is in a database");
    let owner = owner_of(&of.replicas, REPLICAS).await;
    let asked = (owner + 1) % REPLICAS;
    let (way_in, leads_to) = way_in(of.replicas[asked].admin).await;
    let child = of.typed(way_in);
    until_recorded(&of.replicas[owner], 3000).await;

    // First the one that was asked, then the one that records.
    let killed = of.replicas.remove(asked);
    killed.kill();
    let owner = owner_of(&of.replicas, REPLICAS).await;
    let other = &of.replicas[1 - owner];
    leads_to.send_replace(other.admin);
    let (_, total) = until_recorded(other, 3000).await;
    assert_eq!(total, NEWCOMERS + BEFORE, "any of them shows how far it is");
    let (code, _, said) = end_of(of.typed(other.admin));
    assert_eq!(code, Some(69), "one only has to wait: {said}");
    assert!(said.contains("another reconcile of this audience is under way"), "{said}");
    let dropped = of.installation.types(Some(other.admin), &["drop", "aud_vip", "--yes"]);
    assert_eq!(dropped.code, 69, "{}", dropped.complaint);
    assert!(dropped.complaint.contains("a reconcile is under way"), "{}", dropped.complaint);
    let began = Instant::now();
    let killed = of.replicas.remove(owner);
    killed.kill();
    of.replicas.push(of.installation.start());
    let pieces = "SELECT count(*) FROM reconciliation_piece";
    assert!(postgresql::number(&url, pieces).await > 3, "it is in the middle");

    of.launchdarkly.behave();
    let line = of.ended().await;
    note!("gone on with: {} ms", began.elapsed().as_millis());
    let said = ["entered", "left", "complete"].map(|name| line[name].clone());
    assert_eq!(said, [json!(NEWCOMERS), json!(BEFORE), json!(true)], "{line}");
    let (code, out, said) = end_of(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains(&format!("{NEWCOMERS} members entered, {BEFORE} left")), "{out}");
    assert!(said.contains("has gone on without it"), "{said}");
    until_members(&of.launchdarkly, &of.people).await;
    of.installation.drained().await;
    assert_eq!(postgresql::number(&url, pieces).await, 0);
    assert_eq!(of.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
}

async fn a_reconcile_is_stopped_through_any_replica_and_waits_for_the_one_that_records() {
    let of = begun().await;
    let owner = owner_of(&of.replicas, REPLICAS).await;
    let (asked, other) = ((owner + 1) % REPLICAS, (owner + 2) % REPLICAS);
    let child = of.typed(of.replicas[asked].admin);
    until_recorded(&of.replicas[other], 3000).await;
    let admin = of.replicas[other].admin;
    let stop = format!("http://{admin}/api/v1/destinations/production/reconcile/stop");
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let stopped = async || -> Value {
        let asked = client.post(&stop).json(&json!({"audience": "aud_vip"})).send().await;
        asked.expect("an answer").json().await.expect("JSON")
    };
    assert_eq!(stopped().await["count"], 1);
    assert_eq!(stopped().await["count"], 0, "it has ended");
    until_reconciling(&of.replicas[asked], |of| of["stage"] == "stopped").await;
    let (code, _, said) = end_of(child);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("it was stopped"), "{said}");
    let line = of.ended().await;
    assert_eq!(line["complete"], false, "{line}");
    let (entered, left) = (line["entered"].as_u64(), line["left"].as_u64());
    let done = entered.zip(left).map(|(entered, left)| entered + left).expect("numbers");
    assert!((3000..NEWCOMERS).contains(&done), "{line}");

    // The same command does what is left, and its answer tells of all of it.
    let child = of.typed(of.replicas[asked].admin);
    until_recorded(&of.replicas[other], 0).await;
    of.launchdarkly.behave();
    let (code, out, said) = end_of(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("recorded, and delivered next"), "{out}");
    until_members(&of.launchdarkly, &of.people).await;
}

/// Its replica was killed before all that it changes was in the ledger: nobody goes on with it.
async fn a_reconcile_whose_file_is_lost_gives_way_to_the_same_at_another_replica() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    let (lost, other) = (installation.start(), installation.start());
    let as_of = iso(NOW_MS);
    let path = format!(
        "/api/v1/destinations/production/reconcile?audience=aud_vip&audience_key=vip&as_of={as_of}"
    );
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n\
         content-length: 1000\r\n\r\nada\n"
    );
    let mut sender = TcpStream::connect(lost.admin).await.expect("it listens");
    sender.write_all(head.as_bytes()).await.expect("it reads");
    until_reconciling(&other, |of| of["stage"] == "comparing").await;
    lost.kill();

    installation.write("keys", "ada\n");
    let words =
        ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--audience-key", "vip"];
    let refused = installation.types(Some(other.admin), &words);
    assert!(refused.complaint.contains("another reconcile of this audience is under way"));
    let began = Instant::now();
    let taken = async {
        let mut tries = tokio::time::interval(Duration::from_millis(500));
        loop {
            tries.tick().await;
            if installation.types(Some(other.admin), &words).code == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("it never gives way");
    note!("gave way after {} ms", began.elapsed().as_millis());
    let given_up = other.log().into_iter().find(|line| line.contains("a reconcile was broken off"));
    assert_eq!(given_up, None, "the command did not have to wait until somebody gives it up");
    until_members(&launchdarkly, &BTreeSet::from(["ada".to_owned()])).await;
}

tests![
    a_reconcile_whose_file_is_lost_gives_way_to_the_same_at_another_replica.workers(4),
    a_reconcile_goes_on_when_the_replicas_that_had_it_are_killed.workers(4),
    a_reconcile_is_stopped_through_any_replica_and_waits_for_the_one_that_records.workers(4),
];
