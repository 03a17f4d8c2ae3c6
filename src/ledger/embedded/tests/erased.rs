//! What was deleted is in no file of the ledger any more: after a clean stop, and a while after it while
//! the daemon runs.

use super::*;
use crate::ledger::embedded::ids::AudienceRowId;

/// In no file that the ledger writes of its own accord.
const USER: &str = "planted-user-0001";
const EMAIL: &str = "planted.person@example.com";
const BODY: &str = "planted-body-of-a-rejected-event";
const WORDS: &str = "planted words of a refusal";
const ALL: [&str; 4] = [USER, EMAIL, BODY, WORDS];

/// Which of these stand in which files of the directory.
fn found(directory: &Path, planted: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).expect("it is there") {
        let path = file.expect("it is there").path();
        let bytes = std::fs::read(&path).expect("it is ours");
        for text in planted {
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(format!("{text} in {}", path.display()));
            }
        }
    }
    found
}

impl Bench {
    /// A person with everything that is kept of one, among others.
    async fn plant(&self, name: &str) {
        let user = UserId::new(USER).expect("not empty");
        let named = MembershipDelta { user_id: Some(user.clone()), ..delta("a", EMAIL, true, 1) };
        let event = RejectedEvent {
            reason: "no_context_key".into(),
            detail: String::new(),
            body: BODY.repeat(500).into_bytes(),
            user_id: Some(user),
            event_at: START,
        };
        let others = (0..80).map(|number| delta("a", &format!("{name}{number:03}"), true, 1));
        let deltas = others.chain([named, delta("b", USER, true, 1)]).collect();
        let all = Intake { rejected: vec![event], ..intake(&*self.ledger, deltas) };
        self.take_in(all).await;
        let batch = self.claim("a", 999).await.expect("all wait");
        let reason = ParkReason { message: WORDS.to_owned(), ..reason() };
        self.report(Report::Park(batch, reason)).await;
    }

    /// Deletes the person and tells everybody.
    async fn delete(&self) {
        let user = UserId::new(USER).expect("not empty");
        self.clock.advance(Duration::from_secs(1));
        let arrival = self.ledger.arrival();
        let deletion = deletion(user, arrival, intake(&*self.ledger, Vec::new()));
        self.take_in(deletion).await;
        for audience in ["a", "b"] {
            while let Some(batch) = self.claim(audience, 999).await {
                self.settle(batch).await;
            }
        }
        self.requeue().await;
        while let Some(batch) = self.claim("a", 999).await {
            self.settle(batch).await;
        }
        self.ledger.caught_up().await.expect("it is open");
    }
}

fn roomy(mut bench: Bench) -> Bench {
    bench.rejected = Retention { max_age: DAY, max_count: 99, max_bytes: 1 << 20 };
    bench
}

#[tokio::test]
async fn after_a_clean_stop_nothing_of_a_deleted_person_is_in_any_file_nor_in_a_backup() {
    for journal_from in [0, PACE.journal_from] {
        let mut bench = roomy(Bench::closed());
        bench.pace.journal_from = journal_from;
        bench.open();
        bench.plant("one").await;
        assert!(!found(bench.directory.path(), &[USER, EMAIL, BODY]).is_empty(), "it is planted");
        bench.delete().await;
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        let copy = elsewhere.path().join("copy");
        backup(bench.directory.path(), &copy).expect("there is space");
        assert_eq!(found(elsewhere.path(), &ALL), [""; 0]);
        bench.close().await;
        assert_eq!(found(bench.directory.path(), &ALL), [""; 0]);
        let log = std::fs::metadata(bench.directory.path().join("ledger.db-wal"));
        assert_eq!(log.map_or(0, |log| log.len()), 0, "the log is in the tables");
        assert_eq!(bench.faults(), [""; 0]);
    }
}

#[tokio::test]
async fn while_it_runs_nothing_of_a_deleted_person_is_left_after_a_while() {
    let mut bench = roomy(closed_soon());
    bench.open();
    for round in 0..3 {
        bench.plant(&format!("round{round}_")).await;
        bench.delete().await;
        bench.until_nothing_is_found().await;
    }
    bench.close().await;
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn who_reads_from_an_old_moment_delays_it_and_a_stop_does_not_wait_for_them() {
    let mut bench = roomy(closed_soon());
    bench.open();
    bench.plant("one").await;
    let reader = connections::open_reader(bench.directory.path()).expect("it is there");
    let moment = reader.unchecked_transaction().expect("it can be read");
    assert!(members::count_pending(&moment, AudienceRowId(1)).is_ok());
    bench.delete().await;
    tokio::time::timeout(DEADLINE, bench.close()).await.expect("it waits for nobody");
    assert!(!found(bench.directory.path(), &[EMAIL]).is_empty(), "it is being read");
    drop(moment);
    drop(reader);
    bench.open();
    bench.until_nothing_is_found().await;
    bench.close().await;
}

#[tokio::test]
async fn a_journal_that_is_appended_to_all_the_time_is_emptied_too() {
    let mut bench = roomy(closed_soon());
    bench.pace.journal_from = 0;
    bench.open();
    bench.plant("one").await;
    bench.delete().await;
    let mut number = 0;
    let looking = async {
        while !found(bench.directory.path(), &ALL).is_empty() {
            number += 1;
            let other = vec![delta("c", &format!("other{number}"), true, 1)];
            let recorded = bench.ledger.record(intake(&*bench.ledger, other)).await;
            assert_eq!(recorded.expect("there is space"), Recorded::default());
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("it is erased");
    bench.crash();
    bench.ledger.caught_up().await.expect("it is open");
    let others = bench.claim("c", 1 << 20).await.map_or(0, |batch| batch.members.len());
    assert_eq!(others, number, "nothing that was answered was erased");
    bench.close().await;
}

fn closed_soon() -> Bench {
    let mut bench = Bench::closed();
    bench.pace.erase_after = Duration::from_millis(50);
    bench
}

impl Bench {
    async fn until_nothing_is_found(&self) {
        let looking = async {
            let mut looks = tokio::time::interval(Duration::from_millis(10));
            while !found(self.directory.path(), &ALL).is_empty() {
                looks.tick().await;
            }
        };
        let erased = tokio::time::timeout(DEADLINE, looking).await;
        assert!(erased.is_ok(), "{:?}", found(self.directory.path(), &ALL));
    }
}
