//! The database, and the ways to it, at their worst: what was answered is not lost, nothing overtakes, and replicas go on
//! by themselves (P1 to P4). Run with the ledger in a database, see `postgresql`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{Fleet, REPLICAS};
use crate::harness::{Installation, identify, launchdarkly};
use crate::postgresql;
use crate::standby::Pair;
use crate::way::{Way, Weather};

/// How soon operators are answered, at most; a probe of a busy machine is late sometimes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How soon a replica is not ready: after three seconds, as the manual says, and on a busy machine a little later.
const UNREADY_WITHIN_MS: u128 = 8_000;
/// The grace period of a stop, as it is by default.
const GRACE: Duration = Duration::from_secs(8);

/// Replicas with ways of their own to a new database, with these settings beside those of all tests.
async fn with_ways(seed: u64, settings: &[(&str, &str)]) -> (Fleet, Vec<Way>) {
    let url = postgresql::new_database();
    let (socket, mut ways, mut urls) = (postgresql::socket(&url), Vec::new(), Vec::new());
    for _ in 0..REPLICAS {
        let way = Way::to(socket.clone()).await;
        urls.push(postgresql::url_through(&url, &[way.port]));
        ways.push(way);
    }
    (Fleet::start_through(&urls, &url, settings, seed).await, ways)
}

fn all_become(ways: &[Way], weather: Weather) {
    for way in ways {
        way.becomes(weather);
    }
}

/// Has statements fail, and commits, in a share of cases and with SQLSTATEs that can be changed.
const RAISED: &str = "
    CREATE TABLE fault (share float8, states text[]);
    INSERT INTO fault VALUES (0, '{40001}');
    CREATE SEQUENCE attempts;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE f fault;
    BEGIN
        SELECT * INTO f FROM fault;
        IF f.share > 0 THEN PERFORM nextval('attempts'); END IF;
        IF random() < f.share THEN
            RAISE EXCEPTION 'planted' USING ERRCODE = f.states[1 + floor(random() * cardinality(f.states))];
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER fails AFTER INSERT OR UPDATE OR DELETE ON member FOR EACH STATEMENT EXECUTE FUNCTION fail();
    CREATE TRIGGER fails AFTER INSERT OR UPDATE OR DELETE ON pending FOR EACH STATEMENT EXECUTE FUNCTION fail();
    CREATE TRIGGER fails AFTER INSERT OR DELETE ON call_out FOR EACH STATEMENT EXECUTE FUNCTION fail();
    CREATE TRIGGER fails AFTER INSERT OR UPDATE ON lease FOR EACH STATEMENT EXECUTE FUNCTION fail();
    CREATE TRIGGER fails AFTER UPDATE ON audience FOR EACH STATEMENT EXECUTE FUNCTION fail();
    CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON change DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail();
";

async fn statements_that_fail_in_every_way_are_done_again_or_answered_503() {
    let fleet = Fleet::start(23).await;
    let url = fleet.installation.database.clone().expect("it is in a database");
    let run = async |sql: &str| postgresql::run(&url, sql).await;
    run(RAISED).await;
    for states in ["40001,40P01,55P03", "53100,53200,57014", "26000,57P01,XX000,25006,08006"] {
        run(&format!("UPDATE fault SET share = 0.08, states = '{{{states}}}'")).await;
        fleet.more(60).await;
        run("UPDATE fault SET share = 1").await;
        for replica in &fleet.replicas {
            replica.until_unready().await;
        }
        let (_, words) = fleet.replicas[0].ready().await;
        assert!(words.contains("database of the ledger cannot be used"), "{words}");
        let tried = "SELECT last_value FROM attempts";
        let (before, measured) = (postgresql::number(&url, tried).await, Instant::now());
        fleet.refused(20).await;
        let statements = postgresql::number(&url, tried).await - before;
        let ms = i64::try_from(measured.elapsed().as_millis()).expect("it is short");
        let a_second = statements * 1000 / ms.max(1);
        note!("{states}: {a_second} statements a second while none succeeds");
        assert!(a_second < 1500, "three replicas and six senders try again in a hurry");
        run("UPDATE fault SET share = 0").await;
        fleet.more(40).await;
        for replica in &fleet.replicas {
            replica.until_ready().await;
        }
    }
    note!("{}", said(&fleet));
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

/// What the replicas have said that people should see, once each.
fn said(fleet: &Fleet) -> String {
    let mut all: Vec<String> = Vec::new();
    for replica in &fleet.replicas {
        for line in replica.log() {
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if line["level"] == "WARN" || line["level"] == "ERROR" {
                all.push(format!("{} | {}", line["message"], line["error"]));
            }
        }
    }
    all.sort();
    let counted = all.chunk_by(|one, other| one == other);
    let lines: Vec<String> = counted.map(|same| format!("{} x {}", same.len(), same[0])).collect();
    lines.join("\n")
}

async fn a_table_that_somebody_keeps_locked_is_said_and_waited_for() {
    let url = postgresql::new_database();
    let short = [("ledger.statement_timeout_ms", "1000")];
    let fleet = Fleet::start_through(&vec![url.clone(); REPLICAS], &url, &short, 25).await;
    let other = postgresql::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE member IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.expect("its owner may");
    for replica in &fleet.replicas {
        replica.until_unready().await;
    }
    let concern = |status: &Value| status.to_string().contains("VACUUM FULL");
    fleet.replicas[0].until_status(concern).await;
    other.batch_execute("ROLLBACK").await.expect("it was begun");
    for replica in &fleet.replicas {
        replica.until_ready().await;
    }
    fleet.more(30).await;
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

/// As the probe of a load balancer sees it: events are refused, and nothing else goes on meanwhile.
async fn while_events_wait_for_a_locked_table_the_probe_never_says_ready() {
    const WATCHED: Duration = Duration::from_secs(10);
    const PROMPT: Duration = Duration::from_secs(2);
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let url = installation.database.clone().expect("it is in a database");
    let replica = installation.start();
    let post = async |who: &str| {
        let event = identify(who, "vip", true, 1_750_000_000_000);
        replica.post_batch(&[event]).await.expect("an answer").0
    };
    assert_eq!(post("ada").await, 200);
    let other = postgresql::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE member IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.expect("its owner may");
    assert_eq!(post("bob").await, 503);
    let refused = Instant::now();
    replica.until_unready().await;
    assert!(refused.elapsed() < PROMPT, "not ready {:?} later", refused.elapsed());
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    while refused.elapsed() < WATCHED {
        looks.tick().await;
        let (status, words) = replica.ready().await;
        assert_eq!(status, 503, "{words} {:?} later: nothing can be recorded", refused.elapsed());
    }
    let asked = Instant::now();
    let status = replica.status().await;
    assert!(asked.elapsed() < ANSWERS_WITHIN, "{:?}", asked.elapsed());
    let concerns = status["destinations"]["production"]["concerns"].to_string();
    assert!(concerns.contains("55P03") && concerns.contains("pg_blocking_pids"), "{status}");
    assert!(!concerns.contains("does not answer"), "{status}");
    other.batch_execute("ROLLBACK").await.expect("it was begun");
    let free = Instant::now();
    replica.until_ready().await;
    assert!(free.elapsed() < ANSWERS_WITHIN, "ready {:?} later", free.elapsed());
    assert_eq!(post("bob").await, 200);
}

/// Whoever scrapes gives up soon, and would see nothing at all.
async fn with_the_rejected_events_locked_the_metrics_are_there_and_count_what_is_unread() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let url = installation.database.clone().expect("it is in a database");
    let replica = installation.start();
    let bad = async || {
        let mut event = identify("ada", "vip", true, 1_750_000_000_000);
        event["traits"]["vip"] = "perhaps".into();
        replica.post_batch(&[event]).await.expect("an answer").0
    };
    assert_eq!(bad().await, 400); // it is kept
    let other = postgresql::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE rejected IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.expect("its owner may");
    let scrape = async || {
        let asked = Instant::now();
        let (_, metrics) = replica.metrics("text/plain").await;
        assert!(asked.elapsed() < ANSWERS_WITHIN, "{:?}", asked.elapsed());
        let count =
            metrics.lines().find_map(|line| line.strip_prefix("cohortd_ledger_unread_total "));
        count.expect("it is counted").parse::<u64>().expect("a number")
    };
    let unread = scrape().await;
    assert!(unread > 0, "rejected events cannot be counted");
    let listed = installation.types(Some(replica.admin), &["rejected", "list"]);
    assert_eq!(listed.code, 69, "{}", listed.complaint);
    assert!(listed.complaint.contains("55P03"), "{}", listed.complaint);
    assert!(!listed.complaint.contains("writes"), "nothing was written: {}", listed.complaint);
    assert_eq!(bad().await, 503);
    assert!(scrape().await > unread);
    other.batch_execute("ROLLBACK").await.expect("it was begun");
    replica.until_ready().await;
    assert_eq!(bad().await, 400); // it is kept
}

/// Events are recorded and delivered all the same, but how many wait is not known.
async fn counts_that_cannot_be_read_are_said() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.statement_timeout_ms", "1000");
    let url = installation.database.clone().expect("it is in a database");
    let replica = installation.start();
    let state = |status: &Value| status["destinations"]["production"]["state"].clone();
    let post = async |who: &str| {
        let event = identify(who, "vip", true, 1_750_000_000_000);
        assert_eq!(replica.post_batch(&[event]).await.expect("an answer").0, 200);
    };
    post("ada").await;
    replica.until_status(|status| state(status) == "ok").await;
    let other = postgresql::connect(&url).await;
    let lock = "BEGIN; LOCK TABLE rejected IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.expect("its owner may");
    let unread = |status: &Value| status.to_string().contains("wait cannot be read");
    let status = replica.until_status(unread).await;
    assert_eq!(state(&status), "attention", "{status}");
    post("bob").await;
    other.batch_execute("ROLLBACK").await.expect("it was begun");
    replica.until_status(|status| state(status) == "ok").await;
}

async fn connections_that_are_cut_during_commits_lose_nothing() {
    let (fleet, ways) = with_ways(21, &[]).await;
    for share in [0.05, 0.3, 0.6] {
        all_become(&ways, Weather::Cutting(share));
        fleet.more(80).await;
    }
    all_become(&ways, Weather::Fair);
    let cuts: u32 = ways.iter().map(Way::cuts).sum();
    note!("{cuts} connections were cut\n{}", said(&fleet));
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn a_way_to_the_database_that_is_slow_silent_or_deaf_keeps_others_from_nothing() {
    let (fleet, ways) = with_ways(22, &[]).await;
    for weather in [Weather::Silent, Weather::Deaf] {
        let owner = fleet.owner().await;
        fleet.next_call().await;
        let began = Instant::now();
        ways[owner].becomes(weather);
        fleet.replicas[owner].until_unready().await;
        let unready = began.elapsed().as_millis();
        assert!(unready < UNREADY_WITHIN_MS, "its load balancer learns it after {unready} ms");
        fleet.hide(owner);
        let next = fleet.owner_but(owner).await;
        note!(
            "{weather:?}: unready after {unready} ms, another delivers after {} ms",
            began.elapsed().as_millis()
        );
        fleet.next_call().await;
        fleet.more(30).await;
        let mended = Instant::now();
        ways[owner].becomes(Weather::Fair);
        fleet.replicas[owner].until_ready().await;
        note!("ready again after {} ms", mended.elapsed().as_millis());
        fleet.show_addresses();
        fleet.more(30).await;
        assert_eq!(fleet.owner().await, next, "it does not take back what is another's");
    }
    all_become(&ways, Weather::Slow(5, 50));
    let slow = Instant::now();
    fleet.more(30).await;
    note!("30 answers in {} ms", slow.elapsed().as_millis());
    all_become(&ways, Weather::Fair);
    note!("{}", said(&fleet));
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn a_standby_that_is_promoted_has_everything_and_the_old_primary_is_left_alone() {
    let pair = Pair::start().await;
    let ways = [true, true, false].map(|primary_first| pair.both(primary_first));
    let mut fleet = Fleet::start_through(&ways, &pair.primary, &[], 24).await;
    let began = Instant::now();
    pair.promote().await;
    note!("promoted after {} ms", began.elapsed().as_millis());
    // Whoever cancels the old primary's wait for its standby has it confirm what only it has.
    let old = postgresql::connect(&pair.primary).await;
    let cancel =
        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let mut cancelled = 0;
    let cancelling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let row = old.query_one(cancel, &[]).await.expect("its owner may");
            cancelled += row.get::<_, i64>(0);
        }
    };
    tokio::select! {
        () = cancelling => {}
        () = fleet.more(60) => {}
    }
    note!("{cancelled} waits for the standby were cancelled");
    assert!(cancelled > 0, "replicas went to the old primary first");
    note!("answered after {} ms", began.elapsed().as_millis());
    fleet.installation.database = Some(pair.standby.clone());
    // The old primary comes again, with what it had not confirmed, and confirms everything.
    postgresql::crash(&pair.primary).await;
    postgresql::run(&pair.primary, "ALTER SYSTEM RESET synchronous_standby_names").await;
    postgresql::run(&pair.primary, "SELECT pg_reload_conf()").await;
    let written = "SELECT txid_snapshot_xmax(txid_current_snapshot())";
    let before = postgresql::number(&pair.primary, written).await;
    fleet.more(30).await;
    postgresql::terminate_everybody(&pair.standby).await;
    fleet.more(30).await;
    postgresql::crash(&pair.standby).await;
    fleet.more(30).await;
    let after = postgresql::number(&pair.primary, written).await;
    assert_eq!(before, after, "nothing is written to the old primary");
    note!("{}", said(&fleet));
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn statements_that_are_cancelled_and_idle_connections_that_are_ended_lose_nothing() {
    let fleet = Fleet::start(27).await;
    let url = fleet.installation.database.clone().expect("it is in a database");
    let (_, name) = url.rsplit_once("application_name=").expect("it has a name");
    let other = postgresql::connect(&url).await;
    let disturb = "SELECT count(pg_cancel_backend(pid)) FILTER (WHERE state <> 'idle'),
            count(pg_terminate_backend(pid)) FILTER (WHERE state = 'idle')
        FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid() AND random() < 0.3";
    let (mut cancelled, mut ended) = (0, 0);
    let disturbing = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let row = other.query_one(disturb, &[&name]).await.expect("its owner may");
            cancelled += row.get::<_, i64>(0);
            ended += row.get::<_, i64>(1);
        }
    };
    tokio::select! {
        () = disturbing => {}
        () = fleet.more(150) => {}
    }
    note!("{cancelled} statements were cancelled, {ended} connections ended\n{}", said(&fleet));
    assert!(cancelled > 0 && ended > 0, "{cancelled}, {ended}");
    for replica in &fleet.replicas {
        replica.until_ready().await;
    }
    fleet.more(30).await;
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn connections_that_are_forgotten_on_the_way_are_replaced() {
    let (fleet, ways) = with_ways(28, &[("ledger.statement_timeout_ms", "1000")]).await;
    for _ in 0..3 {
        let began = Instant::now();
        ways.iter().for_each(Way::forgets);
        fleet.more(60).await;
        for replica in &fleet.replicas {
            replica.until_ready().await;
        }
        fleet.next_call().await;
        note!("all go on after {} ms", began.elapsed().as_millis());
    }
    note!("{}", said(&fleet));
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn a_transaction_that_stays_open_keeps_nobody_from_being_told() {
    let fleet = Fleet::start(29).await;
    let url = fleet.installation.database.clone().expect("it is in a database");
    let other = postgresql::connect(&url).await;
    let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM member";
    other.batch_execute(open).await.expect("its owner may");
    // As if tens of thousands had been told since: their rows stand before everybody who waits.
    let gone = "BEGIN;
        INSERT INTO pending SELECT no, number, convert_to('gone ' || number, 'UTF8'), false
            FROM audience, generate_series(1, 50000) AS number ORDER BY no, number;
        DELETE FROM pending WHERE since <= 50000;
        COMMIT";
    postgresql::run(&url, gone).await;
    let began = Instant::now();
    fleet.more(300).await;
    fleet.next_call().await;
    note!("300 answers in {} ms", began.elapsed().as_millis());
    other.batch_execute("ROLLBACK").await.expect("it was begun");
    fleet.more(30).await;
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn a_replica_whose_database_is_silent_says_so_to_operators_and_stops_in_time() {
    let (mut fleet, mut ways) = with_ways(26, &[]).await;
    let at = fleet.owner().await;
    let (replica, way) = (fleet.gone(at), ways.remove(at));
    way.becomes(Weather::Silent);
    replica.until_unready().await;
    let asked = Instant::now();
    let status = replica.status().await;
    let (_, metrics) = replica.metrics("text/plain").await;
    assert!(asked.elapsed() < ANSWERS_WITHIN, "{:?}", asked.elapsed());
    let concerns = status["destinations"]["production"]["concerns"].to_string();
    assert!(concerns.contains("\"database\""), "{status}");
    assert!(metrics.contains("cohortd_ledger_takes_writes 0"), "{metrics}");
    let told = Instant::now();
    let (ended, _) = replica.stop();
    note!("ended {} ms after it was told to: {ended}", told.elapsed().as_millis());
    assert!(told.elapsed() < GRACE + ANSWERS_WITHIN, "{:?}", told.elapsed());
    fleet.more(30).await;
    fleet.ends_well().await;
}

tests![
    statements_that_are_cancelled_and_idle_connections_that_are_ended_lose_nothing.workers(4),
    connections_that_are_forgotten_on_the_way_are_replaced.workers(4),
    a_transaction_that_stays_open_keeps_nobody_from_being_told.workers(4),
    a_replica_whose_database_is_silent_says_so_to_operators_and_stops_in_time.workers(4),
    a_table_that_somebody_keeps_locked_is_said_and_waited_for.workers(4),
    a_standby_that_is_promoted_has_everything_and_the_old_primary_is_left_alone.workers(4),
    statements_that_fail_in_every_way_are_done_again_or_answered_503.workers(4),
    counts_that_cannot_be_read_are_said.workers(4),
    while_events_wait_for_a_locked_table_the_probe_never_says_ready.workers(4),
    with_the_rejected_events_locked_the_metrics_are_there_and_count_what_is_unread.workers(4),
    connections_that_are_cut_during_commits_lose_nothing.workers(4),
    a_way_to_the_database_that_is_slow_silent_or_deaf_keeps_others_from_nothing.workers(4),
];
