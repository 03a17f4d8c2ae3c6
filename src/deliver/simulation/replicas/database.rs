//! The database's side: the ledger that replicas share, and the row that says who delivers. It decides as the SQL of
//! `ledger/postgres/leases.rs` and `ledger/postgres/calls.rs` does.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::process::Process;
use crate::deliver::simulation::production;
use crate::ledger::Batch;
use crate::ledger::lease::Answer;
use crate::ledger::memory::MemoryLedger;

/// What replicas share.
#[derive(Debug)]
pub(super) struct Database {
    pub ledger: MemoryLedger,
    began: Instant,
    /// Seconds of its clock in a second.
    pace: f64,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    row: Option<Row>,
    /// Calls of owners before that ended late, of which the owner has not heard.
    late: Vec<Batch>,
    processes: Vec<Weak<Process>>,
    counted: Counted,
}

/// The row of the lease.
#[derive(Clone, Copy, Debug)]
struct Row {
    process: usize,
    token: i64,
    expires_at: Duration,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub takeovers: usize,
    pub late: usize,
    pub unsent: usize,
    pub given_up: usize,
}

impl Database {
    pub fn new(ledger: MemoryLedger, pace: f64) -> Self {
        Self { ledger, began: Instant::now(), pace, inside: Mutex::default() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed().mul_f64(self.pace)
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no run panics with it")
    }

    /// A process begins; its number.
    pub fn register(&self, process: &Weak<Process>) -> usize {
        let processes = &mut self.inside().processes;
        processes.push(Weak::clone(process));
        processes.len()
    }

    /// The processes that there are.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.inside().processes.iter().filter_map(Weak::upgrade).collect()
    }

    /// Who takes a lease that is free, with what its last owner has left.
    pub fn take(&self, process: usize, ttl: Duration) -> Answer {
        let now = self.now();
        let mut inside = self.inside();
        let is_free = |row: &Row| row.expires_at <= now || row.process == process;
        if inside.row.is_some_and(|row| !is_free(&row)) {
            return Answer::Refused;
        }
        let token = inside.row.map_or(1, |row| row.token + 1);
        inside.row = Some(Row { process, token, expires_at: now + ttl });
        inside.counted.takeovers += usize::from(token > 1);
        let late = std::mem::take(&mut inside.late);
        drop(inside);
        self.ledger.taken_over(&production());
        for batch in &late {
            self.ledger.ended_late(batch);
        }
        Answer::Granted { token }
    }

    pub fn renew(&self, token: i64, ttl: Duration) -> Answer {
        let expires_at = self.now() + ttl;
        let mut inside = self.inside();
        let Some(row) = inside.row.as_mut().filter(|row| row.token == token) else {
            return Answer::Refused;
        };
        row.expires_at = expires_at;
        Answer::Granted { token }
    }

    pub fn hand_over(&self, token: i64) {
        let now = self.now();
        if let Some(row) = self.inside().row.as_mut().filter(|row| row.token == token) {
            row.expires_at = now;
        }
    }

    /// What a statement of an owner is done under the condition of.
    pub fn is_latest(&self, token: i64) -> bool {
        self.inside().row.is_some_and(|row| row.token == token)
    }

    /// Word of a call that ended after another had taken over.
    pub fn ended_late(&self, batch: &Batch) {
        let mut inside = self.inside();
        inside.counted.late += 1;
        inside.late.push(batch.clone());
    }

    /// The owner takes in the calls that ended late.
    pub fn take_in_late(&self, token: i64) {
        if self.is_latest(token) {
            let late = std::mem::take(&mut self.inside().late);
            for batch in &late {
                self.ledger.ended_late(batch);
            }
        }
    }

    /// No call is out, and nobody has left word of one that the owner has not heard of.
    pub fn is_quiet(&self) -> bool {
        !self.is_any_late() && self.processes().iter().all(|process| process.is_quiet())
    }

    pub fn is_any_late(&self) -> bool {
        !self.inside().late.is_empty()
    }

    pub fn count(&self, count: impl FnOnce(&mut Counted)) {
        count(&mut self.inside().counted);
    }

    pub fn counted(&self) -> Counted {
        self.inside().counted
    }
}
