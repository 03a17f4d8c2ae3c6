//! What is accepted while the writer is busy: through the journal, and from there into the tables.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A ledger whose writer is busy: requests are appended, and nothing is merged until it runs.
pub(crate) struct Busy {
    pub ledger: Arc<EmbeddedLedger>,
    pub writer: Writer,
}

impl Busy {
    pub fn open(bench: &Bench) -> Self {
        let (ledger, mut writer) = bench.try_open().expect("the ledger can be opened");
        writer.start_appender().expect("a thread can be started");
        Self { ledger: Arc::new(ledger), writer }
    }

    pub async fn record(&self, deltas: Vec<MembershipDelta>) {
        let recorded = self.ledger.record(intake(&*self.ledger, deltas)).await;
        assert_eq!(recorded.expect("there is space"), Recorded::default());
    }
}

pub(crate) fn closed() -> Bench {
    let mut bench = Bench::closed();
    bench.pace = Pace { journal_from: 0, ..PACE };
    bench
}

/// What a daemon has left that was killed before it merged `blocks` requests, one person each.
async fn left_behind(blocks: usize) -> Bench {
    let bench = closed();
    let busy = Busy::open(&bench);
    for number in 0..blocks {
        busy.record(vec![delta("a", &format!("p{number:02}"), true, 1)]).await;
    }
    let mut left = closed();
    left.copy_all_of(&bench);
    left
}

impl Bench {
    fn copy_all_of(&mut self, other: &Self) {
        self.directory = tempfile::tempdir().expect("a temporary directory");
        for file in std::fs::read_dir(other.directory.path()).expect("it is there") {
            let file = file.expect("it is there");
            std::fs::copy(file.path(), self.directory.path().join(file.file_name()))
                .expect("both are ours");
        }
    }

    fn exported(&self) -> Vec<String> {
        let mut keys = Vec::new();
        export(self.directory.path(), None, |member| {
            keys.push(member.context_key);
            std::ops::ControlFlow::<()>::Continue(())
        })
        .expect("it can be read");
        keys
    }
}

fn people(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p{number:02}")).collect()
}

#[tokio::test]
async fn what_was_answered_and_not_merged_is_there_after_a_kill() {
    let mut left = left_behind(9).await;
    left.open();
    left.ledger.caught_up().await.expect("it is open");
    assert_eq!(keys(&left.claim("a", 99).await.expect("all wait")), people(9));
    left.close().await;
    assert_eq!(left.faults(), [""; 0]);
}

#[tokio::test]
async fn after_a_kill_nobody_is_told_what_is_older_than_what_may_have_been_told() {
    let bench = closed();
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "ada", true, 1)]).await;
    for number in 0..20 {
        busy.record(vec![delta("b", &format!("p{number:02}"), true, 1)]).await;
    }
    busy.record(vec![delta("a", "ada", false, 2)]).await;
    let mut left = closed();
    left.copy_all_of(&bench);
    left.pace.most_read = 1; // a block at a time
    let busy = Busy::open(&left);
    let ledger = Arc::clone(&busy.ledger);
    let claiming =
        tokio::spawn(async move { ledger.outbox(&destination()).claim(longest("a", 9)).await });
    tokio::task::yield_now().await; // it is asked before anything is read
    let writing = std::thread::spawn(move || busy.writer.run());
    let claimed = claiming.await.expect("no panic").expect("it is open").expect("ada waits");
    assert_eq!(claimed.members[0].membership, Membership::Out, "she may know of it");
    busy.ledger.close().await;
    writing.join().expect("no panic").expect("nor fail");
}

#[tokio::test]
async fn who_was_in_a_call_before_the_row_was_written_is_told_once_more_after_a_kill() {
    let mut bench = closed();
    bench.reassert_after = Duration::from_millis(1);
    bench.open();
    let ada = intake(&*bench.ledger, vec![delta("a", "ada", true, 1)]);
    bench.ledger.record(ada).await.expect("there is space");
    bench.until(|waiting| waiting == 1).await;
    let batch = bench.claim("a", 9).await.expect("ada waits");
    bench.crash();
    bench.until(|waiting| waiting == 1).await;
    let again = bench.claim("a", 9).await.expect("nobody knows what came of it");
    assert_eq!(again.members, batch.members);
    bench.settle(again).await;
    bench.until(|waiting| waiting == 1).await;
}

#[tokio::test]
async fn whoever_reads_finds_what_is_written_later() {
    let mut bench = Bench::new();
    let all: Vec<_> =
        (0..900).map(|number| delta("a", &format!("p{number:03}"), true, 1)).collect();
    bench.record(all).await;
    let batch = bench.claim("a", 600).await.expect("all wait");
    bench.settle(batch).await;
    assert!(bench.ledger.shared.has_dirty_members.load(Ordering::SeqCst), "or this shows nothing");
    let found = bench.ledger.member(&destination(), "p000").await.expect("it is open");
    assert_eq!(found[0].told, Some(true));
    assert_eq!(bench.pending().await, 300);
    let batch = bench.claim("a", 600).await.expect("the others wait");
    assert_eq!(batch.members[0].context_key.as_str(), "p600");
    bench.release(batch, Unheard::No).await;
    bench.record(vec![delta("a", "p000", false, 2)]).await;
    let batch = bench.claim("a", 900).await.expect("all of these wait");
    assert_eq!(batch.members.len(), 301);
    bench.close().await;
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn whoever_reads_a_ledger_at_rest_finds_what_was_not_merged() {
    assert_eq!(left_behind(9).await.exported(), people(9));
    let left = left_behind(9).await;
    let sound = check(left.directory.path()).expect("it can be opened").expect("it is sound");
    assert_eq!((sound.members, sound.pending), (9, 9));
    let (left, copy) = (left_behind(9).await, closed());
    let file = copy.directory.path().join("copy");
    backup(left.directory.path(), &file).expect("there is space");
    std::fs::remove_file(left.directory.path().join(wal::FILES[0])).expect("it is there");
    assert_eq!(restore(copy.directory.path(), &file).expect("it is a backup"), None);
    assert_eq!(copy.exported(), people(9));
}

#[tokio::test]
async fn a_backup_beside_a_daemon_that_dies_goes_on_without_it_at_once() {
    let (bench, elsewhere) = (closed(), closed());
    let busy = Busy::open(&bench);
    for who in people(9) {
        busy.record(vec![delta("a", &who, true, 1)]).await;
    }
    let database = names::database(bench.directory.path());
    let opened = || {
        let files = std::fs::read_dir("/proc/self/fd").expect("this is Linux");
        files
            .filter(|file| {
                let target =
                    file.as_ref().ok().and_then(|file| std::fs::read_link(file.path()).ok());
                target.as_ref() == Some(&database)
            })
            .count()
    };
    let before = opened();
    let (of, file) = (bench.directory.path().to_owned(), elsewhere.directory.path().join("copy"));
    let copy = file.clone();
    let copying = tokio::task::spawn_blocking(move || backup(&of, &copy));
    let waits = async {
        while opened() == before {
            tokio::time::sleep(Duration::from_millis(1)).await; // nothing else tells
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.expect("it waits for what is not merged");
    drop(busy);
    let copied = tokio::time::timeout(DEADLINE, copying).await.expect("at once");
    let copied = copied.expect("no panic").expect("nothing is in the way");
    assert_eq!(copied, BackedUp { daemon_ended: true });
    assert_eq!(restore(elsewhere.directory.path(), &file).expect("it is a backup"), None);
    assert_eq!(elsewhere.exported(), people(9));
}

#[tokio::test]
async fn a_restore_takes_the_journal_aside_with_the_rest() {
    let left = left_behind(3).await;
    let copy = tempfile::tempdir().expect("a temporary directory");
    let file = copy.path().join("copy");
    backup(left.directory.path(), &file).expect("there is space");
    let mut later = left_behind(7).await;
    let aside = restore(later.directory.path(), &file).expect("it is a backup");
    let aside = aside.expect("there was a ledger");
    assert!(aside.join(wal::FILES[0]).exists() && aside.join(wal::ANSWERED).exists());
    std::fs::remove_dir_all(aside).expect("it is ours");
    assert_eq!(later.exported(), people(3));
    later.open();
    later.record(vec![delta("a", "p03", true, 1)]).await;
    later.close().await;
    assert_eq!(later.exported(), people(4));
}

#[tokio::test]
async fn a_journal_that_was_torn_or_altered_never_loses_an_answer_without_a_word() {
    const BLOCKS: usize = 12;
    let left = left_behind(BLOCKS).await;
    let sound = std::fs::read(left.directory.path().join(wal::FILES[0])).expect("it is there");
    assert_eq!(sound.len(), 1 << 20, "it grows ahead of what is appended");
    let written = sound.iter().rposition(|byte| *byte != 0).expect("it holds blocks") + 1;
    let mut chance = StdRng::seed_from_u64(20_261_125);
    let mut found = [0, 0];
    for run in 0..200 {
        let mut copy = closed();
        copy.copy_all_of(&left);
        // Without that file: as after the death of the machine.
        let is_known = run % 2 == 0;
        if !is_known {
            std::fs::remove_file(copy.directory.path().join(wal::ANSWERED)).expect("it is there");
        }
        let mut bytes = sound.clone();
        let at = chance.random_range(0..written);
        let is_torn = run % 8 < 2;
        if is_torn && run % 16 < 2 {
            bytes.truncate(at);
        } else if is_torn {
            bytes[at..].fill(0); // the file had grown before
        } else {
            bytes[at] ^= 1 << chance.random_range(0..8);
        }
        std::fs::write(copy.directory.path().join(wal::FILES[0]), &bytes).expect("it is ours");
        match check(copy.directory.path()).expect("it can be opened") {
            Err(faults) => {
                assert!(faults[0].contains("of the journal is damaged"));
                found[usize::from(is_known)] += 1;
            }
            Ok(all) if all.members == BLOCKS as u64 => {} // between two blocks
            // What was cut off, or the last of all: as if the machine had died while it was written.
            Ok(_) if is_torn && !is_known => {}
            Ok(left) => assert!(
                !is_known && left.members == BLOCKS as u64 - 1,
                "byte {at}, known {is_known}, torn {is_torn}: {left:?}"
            ),
        }
    }
    println!("{found:?} of 100 each were found, without and with the number of the last answer");
    assert!(found[0] > 45 && found[1] > 85, "{found:?}");
}

/// What looks like a block of the journal, and has no key in its checksum.
fn forged_block(number: u64) -> Vec<u8> {
    let records = b"anything!";
    let length = u32::try_from(records.len()).expect("it is short");
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(&length.to_le_bytes());
    sum.update(records);
    let mut block = b"cohortdJ".to_vec();
    block.extend(number.to_le_bytes());
    block.extend(length.to_le_bytes());
    block.extend(sum.finalize().to_le_bytes());
    block.extend(records);
    block
}

#[tokio::test]
async fn what_a_sender_sends_is_never_taken_for_a_block() {
    let mut bench = closed();
    let busy = Busy::open(&bench);
    // Wherever it comes to stand in the file, one of these is where a block may begin.
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend(forged_block(1 << 40));
    }
    let event = RejectedEvent {
        reason: "not_json".into(),
        detail: "None.".to_owned(),
        body,
        user_id: None,
        event_at: START,
    };
    for _ in 0..3 {
        let event = vec![event.clone()];
        let intake = Intake { rejected: event, ..intake(&*busy.ledger, Vec::new()) };
        busy.ledger.record(intake).await.expect("there is space");
    }
    let writing = std::thread::spawn(move || busy.writer.run());
    busy.ledger.caught_up().await.expect("it is open");
    let mut killed = closed();
    killed.copy_all_of(&bench); // a stop would empty the file
    busy.ledger.close().await;
    writing.join().expect("no panic").expect("nor fail");
    bench = killed;
    // The file is begun again, and what was there before stands behind.
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "p00", true, 1)]).await;
    let mut left = closed();
    left.copy_all_of(&bench);
    let journal = std::fs::read(left.directory.path().join(wal::FILES[0])).expect("it is there");
    let is_there = |at: usize| journal[at..].starts_with(b"cohortdJ");
    assert!((0..journal.len()).step_by(8).any(is_there), "or this shows nothing");
    assert_eq!(left.exported(), people(1));
    bench = left;
    bench.open();
    bench.close().await;
    assert_eq!(bench.faults(), [""; 0]);
}

/// A number that stood on two blocks would make everything behind the second one unreadable.
#[tokio::test]
async fn a_block_that_cannot_be_noted_as_answered_keeps_its_number() {
    let bench = left_behind(1).await; // the next block comes behind one that is not merged

    // As on a disk that writes nothing in place and has no space left.
    let note = bench.directory.path().join(wal::ANSWERED);
    let busy = Busy::open(&bench);
    std::fs::remove_file(&note).expect("it was made");
    std::os::unix::fs::symlink("/dev/full", &note).expect("it is ours");
    let refused = intake(&*busy.ledger, vec![delta("a", "p01", true, 1)]);
    let refused = busy.ledger.record(refused).await;
    assert!(matches!(refused, Err(LedgerError::Unavailable(_))), "{refused:?}");
    std::fs::remove_file(&note).expect("it is ours");
    busy.ledger.shared.has_no_space.store(false, Ordering::Relaxed); // as the writer finds
    for number in 2..6 {
        busy.record(vec![delta("a", &format!("p{number:02}"), true, 1)]).await;
    }
    let mut left = closed();
    left.copy_all_of(&bench);
    assert_eq!(left.exported(), people(6), "what was refused may be there or not");
    left.open();
    left.record(vec![delta("a", "p06", true, 1)]).await;
    left.close().await;
    assert_eq!(left.exported(), people(7));
}

#[tokio::test]
async fn what_comes_after_it_waits_until_it_is_merged() {
    let bench = closed();
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "ada", true, 1), delta("b", "bob", true, 1)]).await;
    let ledger = Arc::clone(&busy.ledger);
    let dropping = tokio::spawn(async move { ledger.erase(&destination(), Some(&id("a"))).await });
    tokio::task::yield_now().await; // it is sent, before the writer comes to anything
    let writing = std::thread::spawn(move || busy.writer.run());
    assert_eq!(dropping.await.expect("no panic").expect("it is known"), 1, "an audience");
    let all = busy.ledger.member(&destination(), "ada").await.expect("it is open");
    assert!(all.is_empty(), "what was accepted before it was dropped is dropped");
    assert_eq!(busy.ledger.member(&destination(), "bob").await.expect("it is open").len(), 1);
    busy.ledger.close().await;
    writing.join().expect("no panic").expect("nor fail");
}

#[tokio::test]
async fn an_audience_has_one_kind_before_it_is_merged_too() {
    let bench = closed();
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "ada", true, 1)]).await;
    let device = || {
        let kind = ContextKind::new("device").expect("a kind");
        vec![MembershipDelta { context_kind: kind, ..delta("a", "phone", true, 1) }]
    };
    let ledger = Arc::clone(&busy.ledger);
    let other = tokio::spawn(async move { ledger.record(intake(&*ledger, device())).await });
    tokio::task::yield_now().await;
    let writing = std::thread::spawn(move || busy.writer.run());
    let recorded = other.await.expect("no panic").expect("there is space");
    assert_eq!(recorded.kind_conflicts, [0]);
    busy.ledger.erase(&destination(), Some(&id("a"))).await.expect("it is known");
    let recorded = busy.ledger.record(intake(&*busy.ledger, device())).await;
    assert_eq!(recorded.expect("there is space"), Recorded::default(), "nobody is left in it");
    let again = vec![delta("a", "ada", true, 1)];
    let recorded = busy.ledger.record(intake(&*busy.ledger, again)).await;
    assert_eq!(recorded.expect("there is space").kind_conflicts, [0]);
    busy.ledger.close().await;
    writing.join().expect("no panic").expect("nor fail");
}

#[tokio::test]
async fn what_comes_after_a_deletion_is_applied_after_it_though_they_are_merged_together() {
    let bench = closed();
    let busy = Busy::open(&bench);
    busy.record(vec![delta("a", "ada", true, 1), delta("b", "ada", true, 1)]).await;
    let (asked_at, person) = (busy.ledger.arrival(), UserId::new("ada").expect("not empty"));
    let deletion = deletion(person, asked_at, intake(&*busy.ledger, Vec::new()));
    busy.ledger.record(deletion).await.expect("there is space");
    bench.clock.advance(Duration::from_secs(2));
    let later = asked_at.after(Duration::from_secs(1));
    busy.record(vec![delta("a", "ada", true, later.0)]).await;
    let Busy { ledger, writer } = busy;
    let writing = std::thread::spawn(move || writer.run());
    ledger.caught_up().await.expect("it is open");
    let mut found = ledger.member(&destination(), "ada").await.expect("it is open");
    found.sort_by(|one, other| one.audience.cmp(&other.audience));
    let is_in: Vec<_> = found.iter().map(|of| (of.audience.as_str(), of.included)).collect();
    assert_eq!(is_in, [("a", true), ("b", false)]);
    ledger.close().await;
    writing.join().expect("no panic").expect("nor fail");
}

#[tokio::test]
async fn each_of_many_audiences_of_a_request_goes_through_it() {
    let mut bench = Bench::journaled();
    let audiences: Vec<String> = (0..30).map(|number| format!("audience_{number:02}")).collect();
    let twice = audiences.iter().chain(&audiences).enumerate();
    let deltas = twice.map(|(at, audience)| delta(audience, &format!("p{at:02}"), true, 1));
    let deltas = deltas.collect();
    bench.record(deltas).await;
    for (at, audience) in audiences.iter().enumerate() {
        let batch = bench.claim(audience, 9).await.expect("two wait");
        assert_eq!(keys(&batch), [format!("p{at:02}"), format!("p{:02}", at + audiences.len())]);
        bench.settle(batch).await;
    }
    bench.close().await;
}
