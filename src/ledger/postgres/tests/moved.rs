//! A ledger that is moved from a directory into a database and back whenever it is restarted: it keeps the contract of
//! every store all the same, whether its daemon was stopped or killed, and wherever the copy was interrupted.

use std::ops::ControlFlow;
use std::path::Path;

use super::*;
use crate::ledger::contract::subject::*;
use crate::ledger::{
    Copied, CopyEnd, CopyError, CopyStep, EmbeddedLedger, Settings, Unheard, check, copy,
};
use crate::membership::{MembershipDelta, Message, MessageHash};

/// Where a ledger is at the moment.
enum Place {
    Directory {
        directory: tempfile::TempDir,
        ledger: Arc<EmbeddedLedger>,
        writer: std::thread::JoinHandle<Result<(), WriterFailure>>,
    },
    Database(Alone),
}

/// A ledger that every restart moves to the other kind of store; it begins in a database, if that is said.
struct Moving<const IN_A_DATABASE: bool> {
    setup: Setup,
    clock: ManualClock,
    place: Option<Place>,
    moves: usize,
}

impl Place {
    async fn in_database(database: Database, setup: &Setup, clock: &ManualClock) -> Self {
        Self::Database(Alone::on(database, setup.clone(), clock.clone()).await)
    }

    fn in_directory(directory: tempfile::TempDir, setup: &Setup, clock: &ManualClock) -> Self {
        let Setup { destinations, bounds } = setup.clone();
        let settings = Settings {
            path: directory.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: bounds.tombstone_ttl,
            rejected: bounds.rejected,
            parked: bounds.parked,
            max_audiences: bounds.max_audiences,
            check_every: DAY,
            destinations,
        };
        let opened = EmbeddedLedger::open(settings, Arc::new(clock.clone()));
        let (ledger, writer) = opened.expect("it can be opened");
        let writer = std::thread::spawn(move || writer.run());
        Self::Directory { directory, ledger: Arc::new(ledger), writer }
    }

    /// Ends whoever has it; what is left is there to be copied.
    async fn leave(self, is_killed: bool) -> Left {
        match self {
            Self::Directory { directory, ledger, writer } if !is_killed => {
                ledger.close().await;
                writer.join().expect("the writer does not panic").expect("nor fail");
                Left::Directory(directory)
            }
            Self::Directory { directory, ledger, .. } => {
                let image = temporary();
                // In this order it is as of one moment, whatever the writer merges meanwhile.
                for file in
                    ["journal-answered", "journal-1", "journal-2", "ledger.db", "ledger.db-wal"]
                {
                    let from = directory.path().join(file);
                    if from.exists() {
                        std::fs::copy(from, image.path().join(file)).expect("both are ours");
                    }
                }
                drop(ledger);
                Left::Directory(image)
            }
            Self::Database(mut alone) if is_killed => {
                alone.running.abort();
                let _ = (&mut alone.running).await; // it was told to end
                let long_ago =
                    "UPDATE lease SET expires_at = clock_timestamp(); DELETE FROM replica";
                alone.database.run(long_ago).await;
                Left::Database(alone.database.clone())
            }
            Self::Database(alone) => {
                alone.ledger.close().await;
                Left::Database(alone.database.clone())
            }
        }
    }
}

/// A ledger that nobody has.
enum Left {
    Directory(tempfile::TempDir),
    Database(Database),
}

impl Left {
    fn end(&self) -> CopyEnd {
        match self {
            Self::Directory(directory) => in_directory(directory.path()),
            Self::Database(database) => in_database(database),
        }
    }

    /// An empty place of the other kind.
    fn other(&self) -> Self {
        match self {
            Self::Directory(_) => Self::Database(of_all().database()),
            Self::Database(_) => Self::Directory(temporary()),
        }
    }
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn in_directory(path: &Path) -> CopyEnd {
    CopyEnd::Directory(path.to_owned())
}

fn in_database(database: &Database) -> CopyEnd {
    CopyEnd::Database(Box::new(DatabaseAddress::parse(&database.url()).expect("it is good")))
}

/// Copies so many steps.
async fn copied(from: &CopyEnd, to: &CopyEnd, most: usize) -> Result<Copied, CopyError> {
    let mut steps = 0;
    let see = |_| {
        steps += 1;
        if steps > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    copy(from, to, see).await
}

/// The same, once whoever was killed is gone: what it had sent to the database may arrive later.
async fn copied_in_the_end(from: &CopyEnd, to: &CopyEnd, most: usize) -> Result<Copied, CopyError> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match copied(from, to, most).await {
            Err(CopyError::Database(why))
                if why.contains("a replica uses") && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await; // it is forgotten after a while
            }
            done => return done,
        }
    }
}

async fn whole(from: &CopyEnd, to: &CopyEnd) -> Copied {
    copied_in_the_end(from, to, usize::MAX).await.expect("nobody has either")
}

impl<const IN_A_DATABASE: bool> Moving<IN_A_DATABASE> {
    fn place(&self) -> &Place {
        self.place.as_ref().expect("it is somewhere")
    }

    async fn go(&mut self, is_killed: bool) {
        let left = self.place.take().expect("it is somewhere").leave(is_killed).await;
        let other = left.other();
        let (from, to) = (left.end(), other.end());
        self.moves += 1;
        let most = [usize::MAX, 4, 11, 16][self.moves % 4];
        match copied_in_the_end(&from, &to, most).await {
            Err(CopyError::Stopped) => _ = whole(&from, &to).await,
            copied => _ = copied.expect("nobody has either"),
        }
        self.place = Some(match other {
            Left::Directory(directory) => Place::in_directory(directory, &self.setup, &self.clock),
            Left::Database(database) => {
                Place::in_database(database, &self.setup, &self.clock).await
            }
        });
    }
}

impl<const IN_A_DATABASE: bool> Subject for Moving<IN_A_DATABASE> {
    /// Each takes seconds: a restart copies the ledger, in two goes and a few rows at a time.
    const STORIES: u32 = 1;

    async fn open(setup: Setup) -> Self {
        let clock = ManualClock::at(START);
        let place = if IN_A_DATABASE {
            Place::in_database(of_all().database(), &setup, &clock).await
        } else {
            Place::in_directory(temporary(), &setup, &clock)
        };
        Self { setup, clock, place: Some(place), moves: 0 }
    }

    fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn operations(&self) -> Arc<dyn Operations> {
        match self.place() {
            Place::Directory { ledger, .. } => Arc::clone(ledger) as Arc<dyn Operations>,
            Place::Database(alone) => alone.operations(),
        }
    }

    async fn configure(&self) {
        let destinations = self.setup.destinations.clone();
        match self.place() {
            Place::Directory { ledger, .. } => ledger.configure(destinations).await,
            Place::Database(alone) => alone.ledger.configure(destinations).await,
        }
        .expect("there is space");
    }

    async fn crash(&mut self) {
        self.go(true).await;
    }

    async fn reopen(&mut self) {
        self.go(false).await;
    }

    async fn applied(&self) {
        self.caught_up().await;
        if let Place::Database(alone) = self.place() {
            alone.applied().await;
        }
    }

    async fn caught_up(&self) {
        match self.place() {
            Place::Directory { ledger, .. } => ledger.caught_up().await.expect("it is open"),
            Place::Database(alone) => alone.caught_up().await,
        }
    }

    async fn upkeep(&self) {
        match self.place() {
            Place::Directory { .. } => {
                let name = &self.setup.destinations[0].name;
                self.claim_of(name, "none", 1).await;
            }
            Place::Database(alone) => alone.upkeep().await,
        }
    }

    fn members(&self, destination: &DestinationName) -> Vec<MemberView> {
        match self.place() {
            Place::Directory { ledger, .. } => {
                ledger.reader().members(destination).expect("it can be read")
            }
            Place::Database(alone) => alone.members(destination),
        }
    }

    fn faults(&self) -> Vec<String> {
        match self.place() {
            Place::Directory { directory, .. } => {
                let checked = check(directory.path()).expect("it can be read");
                checked.err().unwrap_or_default()
            }
            Place::Database(alone) => alone.faults(),
        }
    }
}

mod from_a_directory {
    use super::*;

    contract::contract! { Moving<false>:
        claims::the_halves_of_a_refused_batch_stay_apart_across_a_kill_until_they_are_taken,
        telling::who_was_never_told_is_told_that_they_left,
        telling::a_repeat_is_sent_again_after_the_window_and_not_before,
        silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others,
        silence::a_re_assertion_that_is_due_survives_a_crash_and_a_restart,
        silence::a_clean_stop_leaves_nothing_unheard,
        destinations::what_was_told_is_forgotten_when_the_environment_changes,
        deletions::a_deletion_finds_a_person_under_other_keys_and_keeps_older_events_out,
        deletions::a_deletion_that_comes_again_does_not_undo_a_return,
        expiry::entries_expire_across_a_crash_and_a_restart,
        guard::too_many_exits_hold_an_audience_across_a_crash_and_others_go_on,
        guard::what_is_discarded_is_taken_back_and_nobody_else_is,
        operations::parked_members_are_listed_with_launchdarklys_words_until_they_are_taken,
        operations::an_erased_audience_is_gone_at_once_and_its_name_is_free,
        operations::a_pause_lasts_across_a_restart_and_wakes_the_courier_when_it_ends,
    }
}

mod from_a_database {
    use super::*;

    contract::contract! { Moving<true>:
        telling::arrival_never_runs_backwards_not_even_across_a_crash,
        telling::the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival,
        silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others,
        destinations::rows_of_a_removed_destination_are_kept_and_shown_until_they_are_erased,
        deletions::a_deletion_finds_a_person_under_other_keys_and_keeps_older_events_out,
        guard::what_is_discarded_is_taken_back_and_nobody_else_is,
        operations::rejected_events_are_discarded_by_number,
        operations::only_stale_members_are_retracted,
        operations::a_note_is_for_the_next_start,
        standings::what_is_older_than_a_snapshot_loses_to_it_from_its_first_delta_on,
    }
}

/// A ledger with every kind of row, as its daemon has left it.
async fn full<const IN_A_DATABASE: bool>() -> Left {
    let mut setup = Setup::default();
    setup.destinations.push(settings(&other()));
    let mut store = Moving::<IN_A_DATABASE>::open(setup).await;
    let names = ["ada", "bob", "cyd", "dan", "eve", "flo", "gus"];
    store.record(enter("a", &names)).await;
    store.record(enter("b", &names[..4])).await;
    store.record(vec![under("user", delta("b", "by@mail", true, 5))]).await;
    store.release(store.next("a").await, Unheard::Perhaps).await;
    store.settle(store.next("a").await).await;
    let parked = store.claim("b", 2).await.expect("they wait");
    store.park(parked).await;
    let arrival = store.operations().arrival();
    let message = Message { hash: MessageHash([7; 16]), moves: true };
    let moved = MembershipDelta { message: Some(message), ..delta("a", "ada", false, arrival.0) };
    store.record(vec![moved]).await;
    let mut intake = intake(&*store.operations(), &production(), Vec::new());
    for body in ["one", "two", "three", "four"] {
        intake.rejected.push(rejected(body.as_bytes(), Some("ada")));
    }
    intake.rejected.push(rejected(b"five", None));
    for user in ["x", "y", "z", "u"] {
        intake = and_delete(user, arrival, intake);
    }
    store.take_in(vec![intake]).await;
    store.operations().pause(&other(), true).await.expect("there is space");
    store.operations().resync(&production(), Some(&id("b"))).await.expect("it is known");
    store.operations().leave_note("a note".to_owned()).await.expect("there is space");
    store.caught_up().await;
    store.place.take().expect("it is somewhere").leave(false).await
}

/// Stops at every step once, and goes on each time.
async fn goes_on_from_every_step<const IN_A_DATABASE: bool>() {
    let source = full::<IN_A_DATABASE>().await;
    let at_once = source.other();
    let undisturbed = whole(&source.end(), &at_once.end()).await;
    assert!(undisturbed.rows.iter().all(|of| of.count > 0), "{undisturbed:?}");
    let target = source.other();
    let mut steps = 0;
    let copied = loop {
        match copied(&source.end(), &target.end(), steps).await {
            Ok(copied) => break copied,
            Err(CopyError::Stopped) => steps += 1,
            Err(error) => panic!("after {steps} steps: {error}"),
        }
        assert!(steps < 200, "it does not end");
    };
    assert!(steps > 20, "it has stopped {steps} times only");
    assert_eq!(copied, undisturbed);
}

#[tokio::test]
async fn a_copy_into_a_database_goes_on_wherever_it_ended() {
    goes_on_from_every_step::<false>().await;
}

#[tokio::test]
async fn a_copy_into_a_directory_goes_on_wherever_it_ended() {
    goes_on_from_every_step::<true>().await;
}

#[tokio::test]
async fn there_and_back_again_it_is_the_same() {
    let source = full::<false>().await;
    let there = source.other();
    let first = whole(&source.end(), &there.end()).await;
    let back = there.other();
    assert_eq!(whole(&there.end(), &back.end()).await, first);
    let Left::Directory(back) = back else { panic!("it is a directory again") };
    assert_eq!(check(back.path()).expect("it can be read").err(), None);
    let Left::Database(there) = there else { panic!("it is a database") };
    assert_eq!(faults(&there).await, [""; 0]);
}

/// The words of a refusal; nothing is copied.
async fn refusal(from: &CopyEnd, to: &CopyEnd) -> String {
    let copied = copied(from, to, usize::MAX).await;
    copied.expect_err("it is not to be done").to_string()
}

#[tokio::test]
async fn what_is_used_or_full_is_refused() {
    let [left, other] = [full::<false>().await, full::<true>().await];
    let (directory, database) = (left.end(), other.end());
    let empty = Left::Directory(temporary());
    let said = |words: String, expected: &str| assert!(words.contains(expected), "{words}");
    said(refusal(&directory, &empty.end()).await, "backup");
    said(refusal(&database, &database).await, "pg_dump");
    said(refusal(&empty.end(), &database).await, "no ledger at");
    said(
        refusal(&in_database(&of_all().database()), &directory).await,
        "no ledger in the database",
    );
    said(refusal(&directory, &database).await, "a ledger in the place of the copy already");
    said(refusal(&database, &directory).await, "a ledger in the place of the copy already");

    let setup = Setup::default();
    let clock = ManualClock::at(START);
    let replica = Alone::on(of_all().database(), setup.clone(), clock.clone()).await;
    said(refusal(&directory, &in_database(&replica.database)).await, "a replica uses");
    said(refusal(&in_database(&replica.database), &empty.end()).await, "a replica uses");
    let daemon = Place::in_directory(temporary(), &setup, &clock);
    let Place::Directory { directory: in_use, .. } = &daemon else { panic!("it is a directory") };
    said(refusal(&in_directory(in_use.path()), &in_database(&of_all().database())).await, "in use");
    said(refusal(&database, &in_directory(in_use.path())).await, "in use");
    whole(&directory, &in_database(&of_all().database())).await; // nothing was changed there
}

#[tokio::test]
async fn a_daemon_refuses_a_copy_until_it_is_finished_and_a_source_while_it_is_read() {
    let setup = Setup::default();
    let open_database = async |database: &Database| {
        let clock = Arc::new(ManualClock::at(START));
        let opened = PostgresLedger::open(settings_for(database, &setup, "late"), clock, false);
        opened.await.map(|_| ()).map_err(|error| error.to_string())
    };
    let source = full::<false>().await;
    let target = source.other();
    copied(&source.end(), &target.end(), 5).await.expect_err("it was stopped");
    let Left::Database(database) = &target else { panic!("it is a database") };
    let refused = open_database(database).await.expect_err("it is not finished");
    assert!(refused.contains("run the same `cohortd ledger copy` again"), "{refused}");
    whole(&source.end(), &target.end()).await;
    open_database(database).await.expect("it is a ledger");

    let source = full::<true>().await;
    let target = source.other();
    copied(&source.end(), &target.end(), 5).await.expect_err("it was stopped");
    let Left::Directory(directory) = &target else { panic!("it is a directory") };
    let refused = check(directory.path()).expect_err("it is not finished").to_string();
    assert!(refused.contains("run the same `cohortd ledger copy` again"), "{refused}");
    let Left::Database(database) = &source else { panic!("it is a database") };
    let refused = open_database(database).await.expect_err("it is being read");
    assert!(refused.contains("is being copied"), "{refused}");
    let later = "UPDATE cohortd SET value = convert_to(split_part(convert_from(value, 'UTF8'), ' ', 1) || ' 1', 'UTF8')
        WHERE name = 'copy_source'";
    database.run(later).await;
    open_database(database).await.expect("the copy has not been heard of for a while");
    let gone = "UPDATE lease SET expires_at = clock_timestamp(); DELETE FROM replica";
    database.run(gone).await;
    let refused = refusal(&source.end(), &target.end()).await;
    assert!(refused.contains("begin again"), "{refused}");
}

#[tokio::test]
async fn a_copy_does_not_go_on_once_its_source_was_used() {
    let source = full::<false>().await;
    let target = source.other();
    copied(&source.end(), &target.end(), 5).await.expect_err("it was stopped");
    let Left::Directory(directory) = source else { panic!("it is a directory") };
    let setup = Setup {
        destinations: vec![settings(&production()), settings(&other())],
        ..Setup::default()
    };
    let opened = Place::in_directory(directory, &setup, &ManualClock::at(START));
    let source = opened.leave(false).await;
    let refused = refusal(&source.end(), &target.end()).await;
    assert!(refused.contains("begin again"), "{refused}");
    let another = full::<false>().await;
    let refused = refusal(&another.end(), &target.end()).await;
    assert!(refused.contains("begin again"), "{refused}");
}

#[tokio::test]
async fn what_is_not_the_same_on_both_sides_is_no_copy() {
    let source = full::<false>().await;
    let target = source.other();
    let (from, to) = (source.end(), target.end());
    let until_it_is_compared = |step| match step {
        CopyStep::Read(..) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    copy(&from, &to, until_it_is_compared).await.expect_err("it was stopped");
    let Left::Database(database) = &target else { panic!("it is a database") };
    database.run("UPDATE member SET event_at = event_at + 1 WHERE context_key = 'bob'").await;
    for _ in 0..2 {
        let differs = copied(&from, &to, usize::MAX).await;
        assert!(
            matches!(&differs, Err(CopyError::Differs(of)) if of[..] == ["members"]),
            "{differs:?}"
        );
    }
    database.run("UPDATE member SET event_at = event_at - 1 WHERE context_key = 'bob'").await;
    whole(&from, &to).await;
}

#[tokio::test]
async fn a_copy_whose_end_was_not_noticed_is_finished() {
    let source = full::<false>().await;
    let target = source.other();
    whole(&source.end(), &target.end()).await;
    let (Left::Directory(directory), Left::Database(database)) = (&source, &target) else {
        panic!("from a directory into a database")
    };
    let copy = "SELECT convert_from(value, 'UTF8') FROM cohortd WHERE name = 'copy_finished'";
    let (client, connection) = database.config().connect(NoTls).await.expect("it is there");
    let driver = tokio::spawn(connection);
    let copy: String = client.query_one(copy, &[]).await.expect("it is there").get(0);
    driver.abort();
    let db = rusqlite::Connection::open(directory.path().join("ledger.db")).expect("it is there");
    db.execute("INSERT INTO meta VALUES ('copy_source', ?1)", [copy]).expect("there is space");
    drop(db);
    assert_eq!(whole(&source.end(), &target.end()).await.rows, []);
    assert!(refusal(&source.end(), &target.end()).await.contains("already"));
}
