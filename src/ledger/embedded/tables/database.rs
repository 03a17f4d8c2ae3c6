//! The database of the writer, and a thread beside it that writes a transaction of its own into it now
//! and then: the writer goes on in memory meanwhile.
//!
//! # What always holds
//! * One of the two has the connection. Whoever looks into the database waits for the other one, and
//!   is in a transaction of the writer then if one was begun.
//! * What became of a transaction beside is known before the writer commits anything else.

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Deref;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::ledger::embedded::threads;

/// What is to be written beside the writer.
type Work = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;
/// How long the commit took.
type Outcome = rusqlite::Result<Duration>;

/// The connection of the writer.
#[derive(Debug)]
pub(crate) struct Database {
    /// Unless it is lent.
    here: OnceCell<Connection>,
    /// Started when it is lent for the first time.
    thread: Option<RowsThread>,
    /// What became of the last transaction beside, until it is asked for.
    outcome: RefCell<Option<Outcome>>,
    /// The writer has begun a transaction, or does as soon as it looks into the database.
    is_begun: Cell<bool>,
    /// Rows that were changed before that.
    changes: Cell<u64>,
}

/// The thread beside the writer, which ends when this is dropped.
#[derive(Debug)]
struct RowsThread {
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

    /// Whether a transaction beside the writer is not known to have ended.
    pub fn is_lent(&self) -> bool {
        self.here.get().is_none()
    }

    /// What became of the last transaction beside the writer, once, as soon as that is known. What
    /// failed was rolled back.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.take()
    }

    /// Waits for the transaction beside the writer, if there is one.
    pub fn wait(&self) {
        let _: &Connection = self;
    }

    /// Begins a transaction of the writer: at once, or when it looks into the database.
    pub fn begin(&mut self) -> rusqlite::Result<()> {
        let thread = self.thread.as_ref().filter(|_| self.is_lent());
        match thread.map(|thread| thread.back.try_recv()) {
            Some(Ok(back)) => _ = self.here.set(self.take_back(back)), // it was lent
            Some(Err(TryRecvError::Disconnected)) => self.wait(),      // and will not come
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        self.is_begun.set(true);
        self.here.get().map_or(Ok(()), |connection| self.begin_on(connection))
    }

    fn begin_on(&self, connection: &Connection) -> rusqlite::Result<()> {
        self.changes.set(connection.total_changes());
        connection.execute_batch("BEGIN")
    }

    /// Ends a transaction that has not looked into the database, which is lent.
    pub fn give_up(&self) {
        self.is_begun.set(false);
    }

    /// Whether the transaction has changed a row.
    pub fn has_changed(&self) -> bool {
        self.total_changes() != self.changes.get()
    }

    pub fn commit(&self) -> rusqlite::Result<()> {
        self.execute_batch("COMMIT")?;
        self.is_begun.set(false);
        Ok(())
    }

    /// Ends a transaction that failed; what was written beside it has ended too.
    pub fn roll_back(&self) {
        // One that never began, or that SQLite has ended itself, has nothing to roll back.
        let _ = self.execute_batch("ROLLBACK");
        self.is_begun.set(false);
    }

    /// Writes a transaction beside the writer, which is in none. What became of the one before was
    /// asked for.
    pub fn write_beside(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.wait();
        let Some(connection) = self.here.take() else { return };
        if self.thread.is_none() {
            self.thread = RowsThread::start().ok();
        }
        let lent = (connection, Box::new(work) as Work);
        let refused = match &self.thread {
            Some(thread) => thread.lend.send(lent).map_err(|refused| refused.0),
            None => Err(lent),
        };
        if let Err((connection, work)) = refused {
            // There is no thread to be had.
            self.outcome.replace(Some(write(&connection, work)));
            self.here = connection.into();
        }
    }

    /// Closes the connection. An error is of that, or of what was written beside last.
    pub fn close(mut self) -> rusqlite::Result<()> {
        self.wait();
        self.thread = None;
        self.outcome().transpose()?;
        self.here.take().map_or(Ok(()), |here| here.close().map_err(|(_, error)| error))
    }

    fn take_back(&self, (connection, outcome): (Connection, Outcome)) -> Connection {
        self.outcome.replace(Some(outcome));
        connection
    }

    fn receive(&self) -> Connection {
        let back = self.thread.as_ref().map(|thread| thread.back.recv());
        let back = back.expect("what is not here is lent");
        let connection = self.take_back(back.expect("it comes back, unless writing rows panics"));
        if self.is_begun.get()
            && let Err(error) = self.begin_on(&connection)
        {
            let mut outcome = self.outcome.borrow_mut();
            if !matches!(*outcome, Some(Err(_))) {
                *outcome = Some(Err(error));
            }
        }
        connection
    }
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.here.get_or_init(|| self.receive())
    }
}

impl Drop for Database {
    /// Nothing is written any more when this returns: the lock of the ledger is freed next.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take().filter(|_| self.is_lent()) {
            let _ = thread.back.recv(); // nothing comes from a thread that has panicked
        }
    }
}

impl RowsThread {
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

/// One transaction, all of it or nothing.
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
        database.write_beside(|db| db.execute_batch("CREATE TABLE seen (number UNIQUE)"));
        for number in 1..=3 {
            database.begin().expect("nothing else is begun");
            assert_eq!(count(&database), number - 1);
            assert!(database.outcome().expect("it was written").is_ok());
            insert(100 + number)(&database).expect("it is another number");
            assert!(database.has_changed());
            database.roll_back();
            database.write_beside(insert(number));
            assert!(database.is_lent());
        }
        database.begin().expect("nothing else is begun");
        assert_eq!(count(&database), 3, "what was rolled back is gone, and nothing else");
        database.commit().expect("it was begun");
        assert!(database.outcome().expect("it was written").is_ok());
        database.close().expect("nothing uses it");
    }

    #[test]
    fn what_fails_beside_is_rolled_back_and_told_once() {
        let connection = Connection::open_in_memory().expect("memory is there");
        let mut database = Database::new(connection);
        database.write_beside(|db| {
            db.execute_batch("CREATE TABLE seen (number UNIQUE); INSERT INTO seen VALUES (1)")
        });
        database.write_beside(|db| insert(2)(db).and_then(|()| insert(1)(db)));
        database.begin().expect("nothing else is begun");
        assert_eq!(count(&database), 1);
        let failure = database.outcome().expect("it was written").expect_err("1 is there");
        assert!(failure.to_string().contains("UNIQUE"), "{failure}");
        assert!(database.outcome().is_none());
        database.roll_back();
    }

    #[test]
    fn a_panic_beside_is_a_failure_and_leaves_nothing_behind() {
        let connection = Connection::open_in_memory().expect("memory is there");
        let mut database = Database::new(connection);
        database.write_beside(|db| db.execute_batch("CREATE TABLE seen (number UNIQUE)"));
        database.write_beside(|db| insert(1)(db).map(|()| panic!("planted")));
        database.begin().expect("nothing else is begun");
        assert_eq!(count(&database), 0);
        let failure = database.outcome().expect("it has ended").expect_err("it has panicked");
        let words = failure.to_string();
        assert!(words.contains("rows") && words.contains("planted"), "{words}");
        database.roll_back();
    }
}
