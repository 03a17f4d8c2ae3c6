//! The shared ledger keeps the contract of every store, on a server that is started for it.

mod moved;
mod replicas;
mod schema;
#[path = "../../../tests/postgresql/server.rs"]
mod server;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::ledger::contract::{self, START, Setup, Subject};
use crate::ledger::postgres::views;
use crate::ledger::{DatabaseAddress, MemberView, Operations, Retention, WriterFailure};
use crate::membership::DestinationName;
use server::{Database, Server, beside};
use tokio_postgres::NoTls;

/// The server of every test of this process.
fn of_all() -> &'static Server {
    static OF_ALL: OnceLock<Server> = OnceLock::new();
    let settings = ["max_connections=400", "autovacuum=off"];
    OF_ALL.get_or_init(|| Server::start(&std::env::temp_dir(), &settings))
}

/// A replica that is the only one.
struct Alone {
    database: Database,
    clock: ManualClock,
    setup: Setup,
    lives: u32,
    ledger: Arc<PostgresLedger>,
    running: tokio::task::JoinHandle<Result<(), WriterFailure>>,
}

fn settings_for(database: &Database, setup: &Setup, replica: &str) -> SharedSettings {
    let Setup { destinations, bounds } = setup.clone();
    let _: Retention = bounds.rejected;
    SharedSettings {
        database: DatabaseSettings {
            address: DatabaseAddress::parse(&database.url()).expect("it is good"),
            connections: 4,
            statement_timeout: Duration::from_secs(20),
        },
        replica: Replica {
            name: replica.to_owned(),
            version: "1".to_owned(),
            configuration: "1".to_owned(),
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
    /// On a database where nobody else is.
    async fn on(database: Database, setup: Setup, clock: ManualClock) -> Self {
        let opened = PostgresLedger::open(
            settings_for(&database, &setup, "replica 0"),
            Arc::new(clock.clone()),
            false,
        );
        let (ledger, keeper) = opened.await.expect("the database is there");
        let running = tokio::spawn(keeper.run());
        Self { database, clock, setup, lives: 0, ledger: Arc::new(ledger), running }
    }

    async fn start(&mut self) {
        self.lives += 1;
        let replica = format!("replica {}", self.lives);
        let clock = Arc::new(self.clock.clone());
        let settings = settings_for(&self.database, &self.setup, &replica);
        let opened = PostgresLedger::open(settings, clock, false);
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
        Self::on(of_all().database(), setup, ManualClock::at(START)).await
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
        let pool = Pool::new(settings_for(&self.database, &self.setup, "").database);
        let name = destination.clone();
        beside(async move {
            transact!(pool, |tx, _attempt| everybody(&tx, &name)).expect("it can be read")
        })
    }

    fn faults(&self) -> Vec<String> {
        let database = self.database.clone();
        beside(async move { faults(&database).await })
    }
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

/// What does not agree in the tables.
async fn faults(database: &Database) -> Vec<String> {
    let (client, connection) = database.config().connect(NoTls).await.expect("the server is there");
    let driver = tokio::spawn(connection);
    let sql = "
        SELECT 'members of ' || a.no FROM audience a
            WHERE NOT is_erased AND a.members + coalesce((SELECT sum(members) FROM change WHERE audience_no = a.no), 0)
                <> (SELECT count(*) FROM member WHERE audience_no = a.no)
        UNION ALL SELECT 'included of ' || a.no FROM audience a
            WHERE NOT is_erased AND a.included + coalesce((SELECT sum(included) FROM change WHERE audience_no = a.no), 0)
                <> (SELECT count(*) FROM member WHERE audience_no = a.no AND flags & 1 = 1)
        UNION ALL SELECT 'pending of ' || a.no FROM audience a
            WHERE NOT is_erased AND a.pending + coalesce((SELECT sum(pending) FROM change WHERE audience_no = a.no), 0)
                <> (SELECT count(*) FROM member WHERE audience_no = a.no AND pending_since IS NOT NULL)
        UNION ALL SELECT 'parked of ' || a.no FROM audience a
            WHERE NOT is_erased AND a.parked + coalesce((SELECT sum(parked) FROM change WHERE audience_no = a.no), 0)
                <> (SELECT count(*) FROM member WHERE audience_no = a.no AND parked_at IS NOT NULL
                    AND pending_since IS NULL)
        UNION ALL SELECT 'a queue row without its member in ' || p.audience_no FROM pending p
            JOIN audience a ON a.no = p.audience_no AND NOT a.is_erased
            LEFT JOIN member m ON m.audience_no = p.audience_no AND m.context_key = p.context_key
            WHERE m.pending_since IS DISTINCT FROM p.since
        UNION ALL SELECT 'a member without its queue row in ' || m.audience_no FROM member m
            JOIN audience a ON a.no = m.audience_no AND NOT a.is_erased
            WHERE m.pending_since IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pending p
                WHERE p.audience_no = m.audience_no AND p.since = m.pending_since
                    AND p.context_key = m.context_key)";
    let rows = client.query(sql, &[]).await.expect("it can be read");
    driver.abort();
    rows.iter().map(|row| row.get(0)).collect()
}

contract::contract!(Alone);

#[tokio::test]
async fn a_transaction_on_a_connection_that_another_session_has_marked_is_done_again_without_names()
{
    let database = of_all().database();
    let pool = Pool::new(DatabaseSettings {
        address: DatabaseAddress::parse(&database.url()).expect("it is good"),
        connections: 1,
        statement_timeout: Duration::from_secs(20),
    });
    let sql = "SELECT count(*) > 0 FROM pg_prepared_statements";
    let has_names = async || {
        let found = transact!(pool, |tx, attempt| async {
            let row = tx.first(sql, &[]).await?.expect("a count");
            Ok::<(u32, bool), Failure>((attempt, row.try_get(0)?))
        });
        found.expect("the server is there")
    };
    assert_eq!(has_names().await, (0, false), "nothing was parsed yet");
    assert_eq!(has_names().await, (0, true));
    let names_another = "SET cohortd.session = 'of another'; DEALLOCATE ALL";
    let marked = transact!(pool, |tx, _attempt| tx.batch(names_another));
    marked.expect("anybody may");
    assert_eq!(has_names().await, (1, false));
    assert_eq!(has_names().await, (0, false), "no statement has a name any more");
}
