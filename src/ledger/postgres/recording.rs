//! Group commit: requests that arrive together share a transaction.
//!
//! One task records whatever is queued. While its transaction is under way the next group grows; a second task takes
//! part once that is a large one, because a database uses two connections better than one, but many small transactions
//! worse.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::intake::{self, Applied};
use crate::ledger::postgres::pool::transact;
use crate::ledger::postgres::shared::{Handle, Shared};
use crate::ledger::{Intake, LedgerError, Recorded};

/// Capacity of the queue, in items over all requests; further requests wait for room.
const QUEUE_ITEMS: usize = 1 << 17;
/// Bytes that one place in the queue stands for; the texts of an item are usually smaller.
const BYTES_AN_ITEM: usize = 256;
/// Most items of one transaction, unless a single request has more. While two are under way, the next requests are read.
const GROUP_ITEMS: usize = 4096;
/// From so many waiting items on, the second task takes part.
const MANY_ITEMS: usize = 256;
/// How long after it was queued a request is not worth recording any more: Segment has hung up.
const TOO_LATE: Duration = Duration::from_millis(4500);

/// A request that waits for its commit.
struct Request {
    intakes: Vec<Intake>,
    items: usize,
    queued_at: Instant,
    reply: oneshot::Sender<Result<Vec<Recorded>, LedgerError>>,
    _place: OwnedSemaphorePermit,
}

/// The queue in front of the database.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    requests: mpsc::UnboundedSender<Request>,
    places: Arc<Semaphore>,
    many: Arc<Notify>,
}

/// The end of the queue at which requests are taken out.
#[derive(Debug)]
pub(crate) struct Waiting {
    requests: Mutex<mpsc::UnboundedReceiver<Request>>,
    places: Arc<Semaphore>,
    /// There is so much that the second task takes part.
    many: Arc<Notify>,
}

/// A new queue.
pub(crate) fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (places, many) = (Arc::new(Semaphore::new(QUEUE_ITEMS)), Arc::new(Notify::new()));
    let queue = Queue { requests: sender, places: Arc::clone(&places), many: Arc::clone(&many) };
    (queue, Waiting { requests: Mutex::new(receiver), places, many })
}

impl Queue {
    /// Records intakes that are small enough to be held in memory at once.
    pub async fn record(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        let items: usize = intakes.iter().map(Intake::items).sum();
        let bytes: usize = intakes.iter().map(Intake::bytes).sum();
        let items = items.max(bytes / BYTES_AN_ITEM).clamp(1, QUEUE_ITEMS);
        let permits = u32::try_from(items).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.places).acquire_many_owned(permits).await;
        let place = place.map_err(|_| LedgerError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { intakes, items, queued_at: Instant::now(), reply, _place: place };
        self.requests.send(request).map_err(|_| LedgerError::Closed)?;
        if waiting(&self.places) >= MANY_ITEMS {
            self.many.notify_one();
        }
        answer.await.map_err(|_| LedgerError::Closed)?
    }

    /// Nobody gets in any more.
    pub fn close(&self) {
        self.places.close();
    }
}

/// Items in the queue, and in transactions.
fn waiting(places: &Semaphore) -> usize {
    QUEUE_ITEMS.saturating_sub(places.available_permits())
}

impl Waiting {
    /// Takes out what is queued, at most a group; `None` once nothing is and the ledger is being closed.
    async fn take(&self, closing: &CancellationToken) -> Option<Vec<Request>> {
        let mut requests = self.requests.lock().await;
        let first = tokio::select! {
            biased;
            first = requests.recv() => first?,
            () = closing.cancelled() => return None,
        };
        let mut items = first.items;
        let mut group = vec![first];
        while items < GROUP_ITEMS
            && let Ok(request) = requests.try_recv()
        {
            items += request.items;
            group.push(request);
        }
        Some(group)
    }

    /// Records until the queue is closed; `is_second`: only while there is much.
    pub async fn record_all(&self, shared: &Handle, is_second: bool) {
        loop {
            if is_second && waiting(&self.places) < MANY_ITEMS {
                tokio::select! {
                    () = shared.closing.cancelled() => return,
                    () = self.many.notified() => continue,
                }
            }
            let Some(group) = self.take(&shared.closing).await else { return };
            record(shared, group).await;
        }
    }
}

async fn record(shared: &Shared, group: Vec<Request>) {
    let mut group = group;
    group.retain(|request| !request.reply.is_closed() && request.queued_at.elapsed() < TOO_LATE);
    if group.is_empty() {
        return;
    }
    let done = commit(shared, &group).await;
    if group.len() > 1 && matches!(done, Err(Failure::Refused(_))) {
        for request in group {
            let one = [request];
            let done = commit(shared, &one).await;
            answer(one.into(), done);
        }
    } else {
        answer(group, done);
    }
}

async fn commit(shared: &Shared, group: &[Request]) -> Result<Vec<Recorded>, Failure> {
    let began = Instant::now();
    let intakes: Vec<&Intake> = group.iter().flat_map(|request| &request.intakes).collect();
    let done =
        transact!(shared.recording, |tx, attempt| intake::apply(shared, &tx, attempt, &intakes));
    shared.note(&done);
    let Applied { recorded, counted, rows } = done.inspect_err(|failure| {
        let is_refused = matches!(failure, Failure::Refused(_));
        if !is_refused && shared.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).is_due()
        {
            warn!(error = %failure, "events cannot be recorded: they are answered 503");
        }
    })?;
    shared.commit_rows.was(rows);
    shared.commit_duration.took(began.elapsed());
    for of in counted {
        shared.recordings.of(&of.destination).count(of.tally);
        shared.count(&of.destination, &of.changes, &of.audiences);
        shared.stir(&of.destination);
    }
    Ok(recorded)
}

/// Everybody of a group gets what concerns them.
fn answer(group: Vec<Request>, done: Result<Vec<Recorded>, Failure>) {
    match done {
        Ok(recorded) => {
            let mut recorded = recorded.into_iter();
            for request in group {
                let own = recorded.by_ref().take(request.intakes.len()).collect();
                let _ = request.reply.send(Ok(own)); // whoever asked has hung up
            }
        }
        Err(failure) => {
            let text = failure.to_string();
            let mut first = Some(LedgerError::from(failure));
            for request in group {
                let error = first.take().unwrap_or_else(|| LedgerError::Unavailable(text.clone()));
                let _ = request.reply.send(Err(error)); // as above
            }
        }
    }
}

/// Says in the shared state that nothing new begins.
pub(crate) fn close(shared: &Shared, queue: &Queue) {
    shared.closing.cancel();
    queue.close();
}
