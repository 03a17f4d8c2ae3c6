//! Versions of the tables: made once, step by step, whoever is killed; and replicas of two versions side by side.

use super::*;
use crate::ledger::contract::subject::*;
use crate::ledger::postgres::schema::{STEPS, Steps, step};

/// The next two versions, as they might be.
const NEXT: &str = "ALTER TABLE member ADD COLUMN is_new bool NOT NULL DEFAULT false";
const AFTER_NEXT: &str = "CREATE TABLE of_the_future (no int4 PRIMARY KEY)";

fn pool_of(database: &Database, statement_timeout: Duration) -> Pool {
    let settings = settings_for(database, &Setup::default(), "only").database;
    Pool::new(DatabaseSettings { statement_timeout, ..settings })
}

async fn bring_up(pool: &Pool, steps: Steps<'_>) -> Result<u32, Failure> {
    let mut done = 0;
    while transact!(pool, |tx, _attempt| step(&tx, steps))? {
        done += 1;
    }
    Ok(done)
}

async fn version(pool: &Pool) -> i32 {
    let sql = "SELECT convert_from(value, 'UTF8')::int4 FROM cohortd WHERE name = 'version'";
    let row = transact!(pool, |tx, _attempt| tx.first(sql, &[]));
    row.expect("it is there").expect("there is one").try_get(0).expect("it is a number")
}

fn steps<'a>(further: &[&'a str]) -> Vec<&'a str> {
    [STEPS, further].concat()
}

#[tokio::test]
async fn each_step_is_done_once_whoever_comes_at_the_same_time() {
    let database = of_all().database();
    let all = steps(&[NEXT, AFTER_NEXT]);
    let pools = [(); 3].map(|()| pool_of(&database, Duration::from_secs(20)));
    let [one, two, three] = &pools;
    let (one, two, three) =
        tokio::join!(bring_up(one, &all), bring_up(two, &all), bring_up(three, &all));
    let done: u32 = [one, two, three].map(|done| done.expect("it is well")).iter().sum();
    assert_eq!((done, version(&pools[0]).await), (3, 3));
}

#[tokio::test]
async fn a_step_that_is_not_finished_leaves_the_version_before_and_is_done_again() {
    let database = of_all().database();
    let pool = pool_of(&database, Duration::from_secs(20));
    let fails = format!("{AFTER_NEXT}; SELECT 1 / 0");
    let failed = bring_up(&pool, &steps(&[NEXT, &fails])).await;
    assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    assert_eq!(version(&pool).await, 2);
    let done = bring_up(&pool, &steps(&[NEXT, AFTER_NEXT])).await;
    assert_eq!((done.expect("it is well"), version(&pool).await), (1, 3));
}

#[tokio::test]
async fn a_replica_works_on_beside_the_next_version_and_refuses_the_one_after_it() {
    let mut alone = Alone::open(Setup::default()).await;
    let pool = pool_of(&alone.database, Duration::from_secs(20));
    alone.record(vec![delta("a", "ada", true, 1)]).await;
    assert_eq!(bring_up(&pool, &steps(&[NEXT])).await.expect("it is well"), 1);
    alone.record(vec![delta("a", "bob", true, 1), delta("a", "ada", false, 2)]).await;
    alone.reopen().await;
    assert_eq!(version(&pool).await, 2, "nobody goes back");
    let told = alone.drain(&production()).await;
    assert_eq!(told.len(), 2, "both are told by a replica of the version before");

    assert_eq!(bring_up(&pool, &steps(&[NEXT, AFTER_NEXT])).await.expect("it is well"), 1);
    let settings = settings_for(&alone.database, &Setup::default(), "late");
    let opened = PostgresLedger::open(settings, Arc::new(alone.clock.clone()), false).await;
    let refused = opened.expect_err("it is too new").to_string();
    assert!(refused.contains("of version 3") && refused.contains("start a newer one"), "{refused}");
}

#[tokio::test]
async fn a_step_gives_way_to_whoever_uses_a_table_and_events_are_recorded_meanwhile() {
    let alone = Alone::open(Setup::default()).await;
    alone.record(vec![delta("a", "ada", true, 1)]).await;
    let (client, connection) =
        alone.database.config().connect(NoTls).await.expect("the server is there");
    let driver = tokio::spawn(connection);
    client
        .batch_execute("BEGIN; LOCK TABLE member IN ACCESS SHARE MODE")
        .await
        .expect("it is free");
    let pool = pool_of(&alone.database, Duration::from_secs(20));
    let all = steps(&[NEXT]);
    let (upgraded, ()) = tokio::join!(bring_up(&pool, &all), async {
        for at in 2..6 {
            let limit = Duration::from_secs(4);
            let recorded = alone.record(vec![delta("a", "ada", at % 2 == 0, at)]);
            tokio::time::timeout(limit, recorded).await.expect("in time for an answer");
        }
    });
    assert!(matches!(upgraded, Err(Failure::Locked(_))), "{upgraded:?}");
    client.batch_execute("COMMIT").await.expect("it is there");
    driver.abort();
    assert_eq!(bring_up(&pool, &all).await.expect("it is free"), 1);
}
