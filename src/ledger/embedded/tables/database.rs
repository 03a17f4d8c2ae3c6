//! The writer's database, and the flush thread beside it: the thread borrows the connection for a transaction
//! of its own, while the writer goes on in memory.
//!
//! # What always holds
//! * Exactly one thread owns the connection; [`Database::connection`] blocks until the flush thread returns
//!   it.
//! * The outcome of a flush transaction is known before the writer commits anything else.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::ledger::embedded::threads;

/// What the flush thread is to write.
type Work = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;
/// How long the commit took, or why the transaction failed.
type Outcome = rusqlite::Result<Duration>;

/// The writer's connection, which is sometimes lent to the flush thread.
#[derive(Debug)]
pub(crate) struct Database {
    /// Empty while the connection is lent.
    here: OnceCell<Connection>,
    /// The flush thread; started when the connection is first lent.
    thread: Option<FlushThread>,
    /// Outcome of the last flush transaction, until it is taken.
    outcome: RefCell<Option<Outcome>>,
    /// The writer has begun a transaction; on a lent connection it begins when that is back.
    is_begun: Cell<bool>,
    /// The connection's count of changed rows when the transaction began.
    changes: Cell<u64>,
}

/// The flush thread, which ends when this is dropped.
#[derive(Debug)]
struct FlushThread {
    lend: Sender<(Connection, Work)>,
    back: Receiver<(Connection, Outcome)>,
}

impl Database {
    pub fn new(connection: Connection) -> Self {
        Self {
            here: connection.into(),
            thread: None,
            outcome: RefCell::default(),
            is_begun: Cell::default(),
            changes: Cell::default(),
        }
    }

    /// Whether the flush thread has the connection, as far as is known.
    pub fn is_lent(&self) -> bool {
        self.here.get().is_none()
    }

    /// Takes the outcome of the last flush transaction, once it is known. A failed one was rolled back.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// The connection. Blocks until the flush thread has returned it; the writer's transaction is then begun
    /// on it, if there is one.
    pub fn connection(&self) -> rusqlite::Result<&Connection> {
        if let Some(here) = self.here.get() {
            return Ok(here);
        }
        let back = self.thread.as_ref().and_then(|thread| thread.back.recv().ok());
        let here = self.take_back(back.ok_or(rusqlite::Error::UnwindingPanic)?);
        if self.is_begun.get() {
            self.begin_on(here)?;
        }
        Ok(here)
    }

    /// Blocks until the flush thread has returned the connection.
    pub fn wait(&self) -> rusqlite::Result<()> {
        self.connection().map(|_| ())
    }

    /// Begins a transaction of the writer: at once, or on the first use of a connection that is lent.
    pub fn begin(&mut self) -> rusqlite::Result<()> {
        let thread = self.thread.as_ref().filter(|_| self.is_lent());
        match thread.map(|thread| thread.back.try_recv()) {
            Some(Ok(back)) => _ = self.take_back(back),
            Some(Err(TryRecvError::Disconnected)) => self.wait()?, // the thread has ended: fails
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        self.is_begun.set(true);
        self.here.get().map_or(Ok(()), |connection| self.begin_on(connection))
    }

    fn begin_on(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.changes.set(connection.total_changes());
        connection.execute_batch("BEGIN")
    }

    /// Ends a transaction that has not used the connection, which is lent.
    pub fn give_up(&self) {
        self.is_begun.set(false);
    }

    /// Whether the transaction has changed a row.
    pub fn has_changed(&self) -> bool {
        self.here.get().is_some_and(|here| here.total_changes() != self.changes.get())
    }

    pub fn commit(&self) -> rusqlite::Result<()> {
        self.connection()?.execute_batch("COMMIT")?;
        self.is_begun.set(false);
        Ok(())
    }

    /// Rolls back a transaction that failed; the flush transaction has ended too.
    pub fn roll_back(&self) {
        // Fails if it never began, or if SQLite has already rolled it back.
        let _ = self.connection().and_then(|db| db.execute_batch("ROLLBACK"));
        self.is_begun.set(false);
    }

    /// Lends the connection to the flush thread, which does `work` in a transaction. The writer is in none,
    /// and has taken the outcome of the previous one.
    pub fn lend(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> rusqlite::Result<()> {
        self.wait()?;
        let Some(connection) = self.here.take() else { return Ok(()) };
        if self.thread.is_none() {
            self.thread = FlushThread::start().ok();
        }
        let lent = (connection, Box::new(work) as Work);
        let refused = match &self.thread {
            Some(thread) => thread.lend.send(lent).map_err(|refused| refused.0),
            None => Err(lent),
        };
        if let Err((connection, work)) = refused {
            // No thread could be started: write here.
            self.outcome.replace(Some(write(&connection, work)));
            self.here = connection.into();
        }
        Ok(())
    }

    /// Closes the connection. An error is that of closing, or of the last flush transaction.
    pub fn close(mut self) -> rusqlite::Result<()> {
        self.wait()?;
        self.thread = None;
        self.outcome().transpose()?;
        self.here.take().map_or(Ok(()), |here| here.close().map_err(|(_, error)| error))
    }

    fn take_back(&self, (connection, outcome): (Connection, Outcome)) -> &Connection {
        self.outcome.replace(Some(outcome));
        self.here.get_or_init(|| connection) // the cell is empty: it was lent
    }
}

impl Drop for Database {
    /// Waits for the flush thread, so that nothing is written after this: the ledger's lock is released next.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take().filter(|_| self.is_lent()) {
            let _ = thread.back.recv(); // a thread that has panicked sends nothing
        }
    }
}

impl FlushThread {
    fn start() -> std::io::Result<Self> {
        let (lend, todo) = channel::<(Connection, Work)>();
        let (give_back, back) = channel();
        let thread = std::thread::Builder::new().name("rows".into());
        thread.spawn(move || {
            for (connection, work) in todo {
                let outcome = threads::caught("rows", || write(&connection, work));
                let outcome = outcome.unwrap_or_else(|panicked| {
                    let _ = connection.execute_batch("ROLLBACK"); // as in `Database::roll_back`
                    Err(panicked.into())
                });
                if give_back.send((connection, outcome)).is_err() {
                    return; // the writer has ended
                }
            }
        })?;
        Ok(Self { lend, back })
    }
}

/// Does `work` in one transaction: all of it or nothing.
fn write(connection: &Connection, work: Work) -> Outcome {
    let commit = || {
        let began = Instant::now();
        connection.execute_batch("COMMIT").map(|()| began.elapsed())
    };
    let begun = connection.execute_batch("BEGIN");
    let written = begun.and_then(|()| work(connection)).and_then(|()| commit());
    if written.is_err() {
        let _ = connection.execute_batch("ROLLBACK"); // as in `Database::roll_back`
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(number: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<()> + Send {
        move |db| db.execute("INSERT INTO seen VALUES (?1)", [number]).map(|_| ())
    }

    fn count(db: &Connection) -> i64 {
        let counted = db.query_row("SELECT count(*) FROM seen", [], |row| row.get(0));
        counted.expect("it is there")
    }

    #[test]
    fn whoever_looks_finds_what_was_written_beside_and_is_in_a_transaction_of_its_own() {
        let connection = Connection::open_in_memory().expect("memory is there");
        let mut database = Database::new(connection);
        database
            .lend(|db| db.execute_batch("CREATE TABLE seen (number UNIQUE)"))
            .expect("it comes back");
        for number in 1..=3 {
            database.begin().expect("nothing else is begun");
            assert_eq!(count(database.connection().expect("it comes back")), number - 1);
            assert!(database.outcome().expect("it was written").is_ok());
            insert(100 + number)(database.connection().expect("it is here"))
                .expect("it is another number");
            assert!(database.has_changed());
            database.roll_back();
            database.lend(insert(number)).expect("it comes back");
            assert!(database.is_lent());
        }
        database.begin().expect("nothing else is begun");
        assert_eq!(
            count(database.connection().expect("it comes back")),
            3,
            "what was rolled back is gone, and nothing else"
        );
        database.commit().expect("it was begun");
        assert!(database.outcome().expect("it was written").is_ok());
        database.close().expect("nothing uses it");
    }

    #[test]
    fn what_fails_beside_is_rolled_back_and_told_once() {
        let connection = Connection::open_in_memory().expect("memory is there");
        let mut database = Database::new(connection);
        database
            .lend(|db| {
                db.execute_batch("CREATE TABLE seen (number UNIQUE); INSERT INTO seen VALUES (1)")
            })
            .expect("it comes back");
        database.lend(|db| insert(2)(db).and_then(|()| insert(1)(db))).expect("it comes back");
        database.begin().expect("nothing else is begun");
        assert_eq!(count(database.connection().expect("it comes back")), 1);
        let failure = database.outcome().expect("it was written").expect_err("1 is there");
        assert!(failure.to_string().contains("UNIQUE"), "{failure}");
        assert!(database.outcome().is_none());
        database.roll_back();
    }

    #[test]
    fn a_panic_beside_is_a_failure_and_leaves_nothing_behind() {
        let connection = Connection::open_in_memory().expect("memory is there");
        let mut database = Database::new(connection);
        database
            .lend(|db| db.execute_batch("CREATE TABLE seen (number UNIQUE)"))
            .expect("it comes back");
        database.lend(|db| insert(1)(db).map(|()| panic!("planted"))).expect("it comes back");
        database.begin().expect("nothing else is begun");
        assert_eq!(count(database.connection().expect("it comes back")), 0);
        let failure = database.outcome().expect("it has ended").expect_err("it has panicked");
        let words = failure.to_string();
        assert!(words.contains("rows") && words.contains("planted"), "{words}");
        database.roll_back();
    }
}
