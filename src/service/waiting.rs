//! Starting while the ledger cannot be opened for a cause that passes, such as a full disk or a database that does
//! not answer: the process runs, says why it is not ready, and continues by itself.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::map_response;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Listeners, ServiceError, raise_open_files, wiring};
use crate::clock::Clock;
use crate::config::Config;
use crate::current::Current;
use crate::ledger::{Obstacle, Store, StoreError, StoreWriter};
use crate::operate::problem::Problem;
use crate::operate::{admin, dashboard, manual};
use crate::receive::{self, Front};

/// Pause between two attempts to open the ledger.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How long requests still being answered get once the wait is over; slower ones are cut off.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Opens the ledger. As long as something that passes is in the way, requests on both listeners are answered 503.
/// `None`: asked to stop before that.
pub(super) async fn for_ledger(
    config: &Config,
    listeners: &Listeners,
    clock: &Arc<dyn Clock>,
    is_up: impl FnOnce(&Obstacle),
    stop: &CancellationToken,
) -> Result<Option<(Store, StoreWriter)>, ServiceError> {
    let open = async || match Store::open(wiring::ledger_settings(config), Arc::clone(clock)).await
    {
        Err(error) => error.obstacle().map_or(Err(error), |obstacle| Ok(Err(obstacle))),
        Ok(opened) => Ok(Ok(opened)),
    };
    let first = tokio::select! {
        () = stop.cancelled() => return Ok(None),
        opened = open() => match opened? {
            Ok(opened) => return Ok(Some(opened)),
            Err(obstacle) => obstacle,
        },
    };
    say(&first);
    let obstacle = Current::new(first);
    let answering = CancellationToken::new();
    let _end = answering.clone().drop_guard();
    let mut answers = answer(config, listeners, &obstacle, &answering)?;
    is_up(&obstacle.get());
    let going_on = async {
        loop {
            tokio::time::sleep(TRY_AGAIN).await;
            let other = match open().await? {
                Ok(opened) => return Ok::<_, StoreError>(opened),
                Err(other) => other,
            };
            if other != *obstacle.get() {
                say(&other);
                obstacle.set(other);
            }
        }
    };
    let opened = tokio::select! {
        () = stop.cancelled() => None,
        opened = going_on => Some(opened?),
    };
    answering.cancel();
    let all_heard = async { while answers.join_next().await.is_some() {} };
    let _ = timeout(LAST_ANSWERS, all_heard).await; // those cut off were never accepted
    drop(answers);
    if opened.is_some() {
        info!("the ledger can be written again");
    }
    Ok(opened)
}

fn say(obstacle: &Obstacle) {
    match obstacle {
        Obstacle::NoSpace => error!(
            "no space on the ledger's disk: the ledger cannot be opened, and no events are accepted until there is"
        ),
        Obstacle::Database(cause) => error!(
            cause,
            "the ledger's database cannot be used: no events are accepted until it can be"
        ),
    }
}

/// Why nothing is accepted, with the remedy, for operators.
fn waits(obstacle: &Obstacle) -> String {
    let (cause, end) = match obstacle {
        Obstacle::NoSpace => (obstacle.words(), "there is space"),
        Obstacle::Database(cause) => (cause.as_str(), "it can be used"),
    };
    format!(
        "{cause}: cohortd has started, and opens the ledger as soon as {end}; until then no event is accepted, and \
         Segment retries for four hours"
    )
}

/// Answers requests on both listeners until `stop`. The listening sockets stay open afterwards.
fn answer(
    config: &Config,
    listeners: &Listeners,
    obstacle: &Current<Obstacle>,
    stop: &CancellationToken,
) -> Result<JoinSet<io::Result<()>>, ServiceError> {
    let mut tasks = JoinSet::new();
    let limits = wiring::listener_limits(config, raise_open_files());
    let reason = obstacle.get().words();
    let unready = || receive::unready(reason);
    // the command line understands problem responses
    let manual = || dashboard::files().merge(manual::router());
    let to_operators = || {
        let obstacle = obstacle.clone();
        let waits = move || {
            let detail = waits(&obstacle.get());
            async { Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
        };
        unready().merge(manual()).fallback(waits).layer(map_response(admin::signed))
    };
    let both = [
        (&listeners.public, &listeners.public_tls, unready()),
        (&listeners.admin, &listeners.admin_tls, to_operators()),
    ];
    for ((listener, tls, router), limits) in both.into_iter().zip(limits) {
        let listener = twin(listener).map_err(ServiceError::Listener)?;
        let front = Front::to_all(router);
        tasks.spawn(receive::serve(listener, front, limits, tls.clone(), stop.clone()));
    }
    Ok(tasks)
}

/// Another handle to the same socket.
fn twin(listener: &TcpListener) -> io::Result<TcpListener> {
    let handle = listener.as_fd().try_clone_to_owned()?;
    TcpListener::from_std(handle.into())
}
