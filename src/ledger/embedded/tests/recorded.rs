//! What earlier versions have left on the disk, kept in tests/ledgers, opens and says the same today.
//!
//! Each directory is what a kill has left of the same events: some are in the tables and some in the
//! journal. A change of a format adds one: `COHORTD_RECORD=DIRECTORY cargo test what_was_recorded`.

use super::*;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tests::journaled::{self, Busy};
use crate::ledger::embedded::wal;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledgers");

/// Every version of the tables and the journal that ever was together.
const DIRECTORIES: [&str; 5] = [
    "schema_4_journal_1",
    "schema_4_journal_2",
    "schema_5_journal_2",
    "schema_6_journal_2",
    "schema_7_journal_2",
];

fn rejected(body: &[u8], user: Option<&str>) -> RejectedEvent {
    RejectedEvent {
        reason: "no_context_key".into(),
        detail: "None.".to_owned(),
        body: body.to_vec(),
        user_id: user.and_then(UserId::new),
        event_at: START,
    }
}

/// What this version leaves of those events when it is killed.
async fn left_now() -> Bench {
    let mut bench = Bench::new();
    let enter = |audience, user| delta(audience, user, true, 1);
    bench.record(vec![enter("a", "ada"), enter("a", "bob"), enter("a", "dan")]).await;
    bench.record(vec![enter("b", "ada"), enter("b", "cyd")]).await;
    let batch = bench.claim("b", 1).await.expect("one waits");
    bench.park(batch).await;
    let batch = bench.claim("a", 9).await.expect("they wait");
    bench.settle(batch).await;
    let kept = vec![rejected(br#"{"type":"identify"}"#, None)];
    bench.take_in(Intake { rejected: kept, ..intake(&*bench.ledger, Vec::new()) }).await;
    bench.crash_while_closed();
    bench.pace = journaled::closed().pace;
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "ada", false, 2), delta("a", "eve", true, 2)]).await;
    let many = (0..30).map(|number| delta("c", &format!("p{number:02}"), number % 3 != 0, 3));
    busy.record(many.collect()).await;
    let mixed = Intake {
        rejected: vec![rejected(br#"{"type":"track"}"#, Some("eve"))],
        ..intake(&*busy.ledger, vec![delta("b", "fay", true, 4)])
    };
    let (bob, arrival) = (UserId::new("bob").expect("not empty"), mixed.arrival);
    busy.ledger.record(deletion(bob, arrival, mixed)).await.expect("there is space");
    busy.record(vec![delta("a", "dan", false, 5)]).await;
    bench.crash_while_closed();
    bench
}

/// All that whoever looks at it can see, as lines.
fn said_of(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    export(directory, None, |member| {
        let parked = member.parked.map(|parked| parked.id);
        lines.push(format!(
            "{} {} {} {:?} pending {} told {:?} parked {parked:?}",
            member.audience_id,
            member.context_key,
            member.included,
            member.event_at,
            member.pending,
            member.told.map(|(told, _)| told),
        ));
        std::ops::ControlFlow::<()>::Continue(())
    })
    .expect("it can be read");
    let sound = check(directory).expect("it can be opened").expect("it is sound");
    lines.push(format!("{sound:?}"));
    lines
}

fn without_its_mark(line: &str) -> bool {
    !line.contains(" bob ") // a deletion counts from its arrival, which is another one each time
}

#[tokio::test]
async fn what_was_recorded_of_every_version_says_the_same_today() {
    let now = left_now().await;
    if let Some(to) = std::env::var_os("COHORTD_RECORD") {
        std::fs::create_dir_all(&to).expect("a directory for it");
        for name in ["ledger.db", "ledger.db-wal", "journal-1", "journal-answered"] {
            let mut bytes = std::fs::read(now.directory.path().join(name)).expect("it was left");
            while name == "journal-1" && bytes.ends_with(&[0; 1024]) {
                bytes.truncate(bytes.len() - 1024); // that it grew ahead need not be kept
            }
            std::fs::write(Path::new(&to).join(name), bytes).expect("it is ours");
        }
    }
    let present = format!("schema_{VERSION}_journal_{}", wal::VERSION);
    assert!(DIRECTORIES.contains(&&*present), "{present} is not recorded yet");
    let expected = said_of(now.directory.path());
    assert_eq!(expected.len(), 38, "{expected:#?}");
    for name in DIRECTORIES {
        let mut recorded = journaled::closed();
        for file in std::fs::read_dir(Path::new(RECORDED).join(name)).expect("it is kept") {
            let file = file.expect("it is there");
            let to = recorded.directory.path().join(file.file_name());
            std::fs::copy(file.path(), to).expect("both are ours");
        }
        recorded.open(); // only a start brings an older one to this version
        recorded.close().await;
        let said = said_of(recorded.directory.path());
        let (said, expected): (Vec<_>, Vec<_>) =
            said.iter().zip(&expected).filter(|(line, _)| without_its_mark(line)).unzip();
        assert_eq!(said, expected, "{name}");
        // The clock of a command that merges is today's: nobody is to be kept too long for that.
        recorded.parked.max_age = Duration::MAX;
        recorded.open();
        recorded.record(vec![delta("c", "new", true, 9)]).await;
        recorded.close().await;
        assert_eq!(recorded.faults(), [""; 0], "{name}");
        assert_eq!(said_of(recorded.directory.path()).len(), 39, "{name}");
    }
}
