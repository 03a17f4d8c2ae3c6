//! The shared ledger keeps the contract of every store, on a server that is started for it.

mod replicas;
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::ledger::contract::{self, START, Setup, Subject};
use crate::ledger::postgres::views;
use crate::ledger::{MemberView, Operations, Retention};
use crate::membership::DestinationName;
use server::{Database, Server};

/// A replica that is the only one.
struct Alone {
    database: Database,
    clock: ManualClock,
    setup: Setup,
    lives: u32,
    ledger: Arc<PostgresLedger>,
    running: tokio::task::JoinHandle<()>,
}

fn settings_for(database: &Database, setup: &Setup) -> SharedSettings {
    let Setup { destinations, bounds } = setup.clone();
    let _: Retention = bounds.rejected;
    SharedSettings {
        database: DatabaseSettings {
            config: database.config(),
            connections: 4,
            statement_timeout: Duration::from_secs(20),
        },
        lease_ttl: Duration::from_secs(600),
        tombstone_ttl: bounds.tombstone_ttl,
        rejected: bounds.rejected,
        parked: bounds.parked,
        max_audiences: bounds.max_audiences,
        destinations,
    }
}

impl Alone {
    async fn start(&mut self) {
        self.lives += 1;
        let replica = format!("replica {}", self.lives);
        let clock = Arc::new(self.clock.clone());
        let opened =
            PostgresLedger::open(settings_for(&self.database, &self.setup), replica, clock, false);
        let (ledger, keeper) = opened.await.expect("the database is there");
        self.ledger = Arc::new(ledger);
        self.running = tokio::spawn(keeper.run());
    }

    /// Does all the upkeep there is.
    async fn tidy(&self) {
        let shared = &self.ledger.shared;
        upkeep::often(shared).await.expect("the database is there");
        let mut place = HashMap::new();
        loop {
            upkeep::seldom(shared, &mut place).await.expect("the database is there");
            if place.is_empty() {
                return;
            }
        }
    }
}

impl Subject for Alone {
    /// Each takes a second or more: every step of it is synced.
    const STORIES: u32 = 16;

    async fn open(setup: Setup) -> Self {
        let database = Server::of_all().database();
        let clock = ManualClock::at(START);
        let opened = PostgresLedger::open(
            settings_for(&database, &setup),
            "replica 0".to_owned(),
            Arc::new(clock.clone()),
            false,
        );
        let (ledger, keeper) = opened.await.expect("the database is there");
        let running = tokio::spawn(keeper.run());
        Self { database, clock, setup, lives: 0, ledger: Arc::new(ledger), running }
    }

    fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.ledger) as Arc<dyn Operations>
    }

    async fn configure(&self) {
        self.ledger
            .configure(self.setup.destinations.clone())
            .await
            .expect("the database is there");
    }

    /// The process dies, and its leases run out.
    async fn crash(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await; // it was told to end
        self.database.run("UPDATE lease SET expires_at = clock_timestamp()").await;
        self.start().await;
    }

    async fn reopen(&mut self) {
        self.ledger.close().await;
        self.start().await;
    }

    async fn applied(&self) {
        guarding::look(&self.ledger.shared).await.expect("the database is there");
    }

    async fn caught_up(&self) {
        let shared = &self.ledger.shared;
        let bounded = transact!(shared.pool, |tx, _attempt| upkeep::bound_rejected(shared, &tx));
        bounded.expect("the database is there");
        guarding::look(shared).await.expect("the database is there");
    }

    async fn upkeep(&self) {
        self.tidy().await;
    }

    fn members(&self, destination: &DestinationName) -> Vec<MemberView> {
        let pool = Pool::new(settings_for(&self.database, &self.setup).database);
        let name = destination.clone();
        beside(async move {
            transact!(pool, |tx, _attempt| everybody(&tx, &name)).expect("it can be read")
        })
    }

    fn faults(&self) -> Vec<String> {
        let database = self.database.clone();
        beside(async move { database.faults().await })
    }
}

/// Runs something on a runtime of its own: whoever asks is not asynchronous.
fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a small runtime").block_on(work)
    };
    std::thread::spawn(run).join().expect("it does not panic")
}

async fn everybody(tx: &pool::Tx, name: &DestinationName) -> Result<Vec<MemberView>, Failure> {
    let text = name.as_str();
    let row =
        tx.first("SELECT no FROM destination WHERE name = $1", &[(&text, Type::TEXT)]).await?;
    let Some(row) = row else { return Ok(Vec::new()) };
    let mut views = Vec::new();
    for place in places::Place::all(tx, name, row.try_get(0)?).await? {
        let sql = format!(
            "SELECT {} FROM member m WHERE audience_no = $1 ORDER BY context_key",
            rows::COLUMNS
        );
        for row in tx.query(&sql, &[(&place.no, Type::INT4)]).await? {
            views.push(views::of(&place, &rows::Stored::of(&row, 0)?));
        }
    }
    Ok(views)
}

contract::contract!(Alone);
