//! What PostgreSQL does of the same without a ledger: one statement that writes members and the rows of a queue, and
//! knows no other rule than that the latest event time wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cohortd::sandbox::Backfill;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::workbench::count;

const TABLES: &str = "
CREATE TABLE member (
    event_time int8 NOT NULL, version int8 NOT NULL, told_at int8, queue_seq int8, audience_no int4 NOT NULL,
    mark int4 NOT NULL, desired bool NOT NULL, told bool, context_key text COLLATE \"C\" NOT NULL,
    PRIMARY KEY (audience_no, context_key)
) WITH (fillfactor = 90);
CREATE TABLE pending (
    seq int8 NOT NULL, audience_no int4 NOT NULL, context_key text COLLATE \"C\" NOT NULL,
    PRIMARY KEY (audience_no, seq)
);";

/// Members enter. What became of each is told by a number.
const STATEMENT: &str = "
WITH written AS (
    INSERT INTO member AS m (event_time, version, queue_seq, audience_no, mark, desired, context_key)
    SELECT event_time, seq, seq, audience_no, (ordinal * 8)::int4, true, context_key
    FROM unnest($1::int8[], $2::int8[], $3::int4[], $4::text[])
        WITH ORDINALITY AS i (event_time, seq, audience_no, context_key, ordinal)
    ON CONFLICT (audience_no, context_key) DO UPDATE SET event_time = excluded.event_time, mark = excluded.mark,
        version = CASE WHEN m.desired <> excluded.desired THEN excluded.version ELSE m.version END,
        desired = excluded.desired,
        queue_seq = CASE WHEN m.queue_seq IS NULL AND m.told IS DISTINCT FROM excluded.desired
            THEN excluded.queue_seq ELSE m.queue_seq END
        WHERE m.event_time <= excluded.event_time
    RETURNING queue_seq, audience_no, context_key, mark, version
), queued AS (
    INSERT INTO pending SELECT queue_seq, audience_no, context_key FROM written WHERE queue_seq = version
    RETURNING 1
)
SELECT array_agg(mark) FROM written";

/// Members of a statement, where batches are written.
const GROUP: u64 = 1000;
/// Connections that batches are written on.
const CONNECTIONS: usize = 2;
/// Audiences of single events.
const AUDIENCES: i32 = 5;

/// Where it is written, in an empty database.
pub struct Bare {
    config: Config,
    next: Arc<AtomicUsize>,
}

/// How many were written in a second, and how long each took, shortest first.
pub struct Written {
    pub per_second: f64,
    latencies: Vec<Duration>,
}

impl Written {
    /// `percent` of them took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// Somebody who waits for a commit.
type Waiting = ((i32, String), oneshot::Sender<()>);

impl Bare {
    pub async fn new(config: Config) -> Self {
        let client = connect(&config).await;
        client.batch_execute(TABLES).await.expect("the database is empty");
        Self { config, next: Arc::default() }
    }

    /// So many people, in groups on a few connections.
    pub async fn batches(&self, people: u64) -> Written {
        let groups: Vec<Vec<(i32, String)>> = (0..people)
            .step_by(usize::try_from(GROUP).expect("a thousand"))
            .map(|first| (first..people.min(first + GROUP)).map(|of| member(1, of)).collect())
            .collect();
        let groups = Arc::new(groups);
        let mut writers = Vec::new();
        for _ in 0..CONNECTIONS {
            writers.push(Writer::new(&self.config).await);
        }
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for writer in writers {
            let (groups, next) = (Arc::clone(&groups), Arc::clone(&self.next));
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    writer.write(group.clone()).await;
                    latencies.push(sent.elapsed());
                }
                latencies
            });
        }
        finish(people, tasks, began).await
    }

    /// So many people, each of whom somebody waits for, by group commit on one connection.
    pub async fn singles(&self, people: u64, waiting: usize) -> Written {
        let members = (0..people).zip((0..AUDIENCES).cycle());
        let members: Vec<(i32, String)> =
            members.map(|(of, audience)| member(audience, of)).collect();
        let (members, writer) = (Arc::new(members), Writer::new(&self.config).await);
        let (sender, mut receiver) = mpsc::unbounded_channel::<Waiting>();
        let committing = tokio::spawn(async move {
            let mut group = Vec::new();
            while receiver.recv_many(&mut group, waiting).await > 0 {
                let (members, replies): (Vec<_>, Vec<_>) = group.drain(..).unzip();
                writer.write(members).await;
                for reply in replies {
                    let _ = reply.send(()); // whoever asked waits
                }
            }
        });
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..waiting {
            let (members, next) = (Arc::clone(&members), Arc::clone(&self.next));
            let sender = sender.clone();
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while let Some(member) = members.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    let (reply, written) = oneshot::channel();
                    sender.send((member.clone(), reply)).expect("the writer runs");
                    written.await.expect("it is written");
                    latencies.push(sent.elapsed());
                }
                latencies
            });
        }
        drop(sender);
        let written = finish(people, tasks, began).await;
        committing.await.expect("it does not panic");
        written
    }
}

async fn finish(people: u64, tasks: JoinSet<Vec<Duration>>, began: Instant) -> Written {
    let mut latencies = tasks.join_all().await.concat();
    let per_second = count(people) / began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Written { per_second, latencies }
}

fn member(audience: i32, person: u64) -> (i32, String) {
    (audience, Backfill::spread_user_id(person))
}

/// A connection that knows the statement.
struct Writer {
    client: Client,
    statement: Statement,
}

impl Writer {
    async fn new(config: &Config) -> Self {
        let client = connect(config).await;
        let statement = client.prepare(STATEMENT).await.expect("its tables are there");
        Self { client, statement }
    }

    /// Sorted, so that two connections never wait for each other.
    async fn write(&self, mut members: Vec<(i32, String)>) {
        static SEQ: AtomicI64 = AtomicI64::new(0);
        members.sort_unstable();
        let seq: Vec<i64> = members.iter().map(|_| SEQ.fetch_add(1, Ordering::Relaxed)).collect();
        let event_time = vec![1_i64; seq.len()];
        let (audiences, keys): (Vec<i32>, Vec<String>) = members.into_iter().unzip();
        let rows =
            self.client.query(&self.statement, &[&event_time, &seq, &audiences, &keys]).await;
        rows.expect("the database is there");
    }
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("the database is there");
    tokio::spawn(connection);
    client
}
