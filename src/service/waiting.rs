//! Starting on a full disk: the ledger cannot be opened, but the process runs, says why it is not ready,
//! and continues by itself once there is space.

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
use crate::ledger::{OpenError, Store, Writer};
use crate::operate::logging::chain;
use crate::operate::problem::Problem;
use crate::operate::{admin, dashboard, manual};
use crate::receive::{self, Front};

/// Pause between two attempts to open the ledger.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why nothing is accepted: the first text is for probes, the second, with the remedy, for operators.
const NO_SPACE: &str = "the disk of the ledger has no space";
const WAITS: &str = "the disk of the ledger has no space: cohortd has started, and opens the \
                     ledger as soon as there is space; until then no event is accepted, and \
                     Segment retries for four hours";

/// How long requests still being answered get once the wait is over; slower ones are cut off.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Opens the ledger. As long as its disk has no space for that, requests on both listeners are answered
/// 503. `None`: asked to stop before there was space.
pub(super) async fn for_ledger(
    config: &Config,
    listeners: &Listeners,
    clock: &Arc<dyn Clock>,
    is_up: impl FnOnce(),
    stop: &CancellationToken,
) -> Result<Option<(Store, Writer)>, ServiceError> {
    let open = || Store::open(wiring::ledger_settings(config), Arc::clone(clock));
    match open() {
        Err(full @ OpenError::NoSpace { .. }) => {
            error!(
                error = chain(&full),
                "no space on the ledger's disk: the ledger cannot be opened, and no events are \
                 accepted until there is"
            );
        }
        opened => return Ok(Some(opened?)),
    }
    let answering = CancellationToken::new();
    let _end = answering.clone().drop_guard();
    let mut answers = answer(config, listeners, &answering)?;
    is_up();
    let opened = loop {
        tokio::select! {
            () = stop.cancelled() => break None,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
        match open() {
            Err(OpenError::NoSpace { .. }) => {}
            opened => break Some(opened?),
        }
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

/// Answers requests on both listeners until `stop`. The listening sockets stay open afterwards.
fn answer(
    config: &Config,
    listeners: &Listeners,
    stop: &CancellationToken,
) -> Result<JoinSet<io::Result<()>>, ServiceError> {
    let mut tasks = JoinSet::new();
    let limits = wiring::listener_limits(config, raise_open_files());
    let unready = || receive::unready(NO_SPACE);
    // the command line understands problem responses
    let manual = || dashboard::files().merge(manual::router());
    let to_operators = || {
        let waits = async || Problem::new(StatusCode::SERVICE_UNAVAILABLE, WAITS);
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
