//! A stand-in for LaunchDarkly: a real HTTP server on loopback that checks what LaunchDarkly checks, keeps
//! the members it is sent, and fails on demand.
//!
//! # What always holds
//! * A request is checked and applied as a whole, one request after the other.
//! * The effects of a request are visible to [`StandIn::until`] and the accessors before it is answered.
//! * A member that is named by a request while another request that names it is in flight counts as an
//!   overlap, so that any test can assert that nothing was overtaken ([P3](crate::design::P3)).

mod fault;
mod protocol;
mod rate;
#[cfg(test)]
mod reactions;
mod server;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::secret::Secret;
use fault::Script;
use rate::RateLimit;
use state::State;

pub use fault::{Apply, Fault, Incoming};
pub use state::{Call, CallCounts, Keep, SegmentState, View};

/// An environment that the stand-in knows, and the token that may write to it.
#[derive(Clone, Debug)]
pub struct Account {
    /// The `environmentId` of its calls.
    pub client_side_id: String,
    /// The token that calls carry in `Authorization`.
    pub service_token: Secret,
}

/// A running stand-in. Dropping it stops it.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// State shared between the handlers and [`StandIn`].
struct Shared {
    state: Mutex<State>,
    /// Outside of `state`, so that a slow script does not hold its lock.
    script: Mutex<Option<Script>>,
    /// Notified after every change of the state.
    changed: watch::Sender<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// Locks the state, ignoring poison: a test that has panicked fails anyway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }
}

/// The condition of [`StandIn::until`] did not hold in time.
#[derive(Debug, thiserror::Error)]
#[error("the condition was not met within {deadline:?}; calls so far: {calls:?}")]
pub struct DeadlinePassed {
    deadline: Duration,
    calls: CallCounts,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn").field("address", &self.address).finish_non_exhaustive()
    }
}

impl StandIn {
    /// Starts on a free loopback port, on the current runtime.
    pub async fn start(accounts: Vec<Account>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(accounts)),
            script: Mutex::default(),
            changed: watch::Sender::new(()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(server::serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// The base URL, for `base_url` and `client_sdk_url`.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    #[must_use]
    pub fn url(&self) -> Url {
        format!("http://{}", self.address).parse().expect("a socket address makes a URL")
    }

    /// Stops listening, and drops every connection and every delayed apply.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Sets the script that decides which fault each call meets; replaces the previous one.
    pub fn script(&self, script: impl FnMut(&Incoming<'_>) -> Fault + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(script));
    }

    /// Removes the script.
    pub fn behave(&self) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Answers requests that contain a member for which `refused` is true with 400, as a whole.
    pub fn refuse_members(&self, refused: impl Fn(&str) -> bool + Send + 'static) {
        self.shared.state().refused = Box::new(refused);
    }

    /// Makes this the only token that the environment accepts. Creates the environment if it is unknown.
    pub fn set_token(&self, client_side_id: &str, token: Secret) {
        self.shared.state().set_token(client_side_id, Some(token));
    }

    /// Makes the environment accept no token.
    pub fn revoke(&self, client_side_id: &str) {
        self.shared.state().set_token(client_side_id, None);
    }

    /// Sets the most members in a request; larger ones are answered 413. The default is 1,000.
    pub fn set_max_members(&self, max_members: usize) {
        self.shared.state().max_members = max_members;
    }

    /// Sets how long every answer is delayed. The default is not at all.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// Sets how many calls are accepted in each window; answers then carry the rate limit headers. `None`:
    /// no limit and no headers.
    pub fn set_rate_limit(&self, limit: Option<(u64, Duration)>) {
        self.shared.state().rate_limit = limit.map(|(calls, window)| RateLimit::new(calls, window));
    }

    /// Sets what is kept of the members. The default is [`Keep::Members`].
    pub fn set_keep(&self, keep: Keep) {
        self.shared.state().keep = keep;
    }

    /// Inspects the state at one moment, without copying it.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View(&self.shared.state()))
    }

    /// An environment's segments by cohort id; empty if the environment is unknown.
    #[must_use]
    pub fn segments(&self, client_side_id: &str) -> BTreeMap<String, SegmentState> {
        View(&self.shared.state()).segments(client_side_id).cloned().unwrap_or_default()
    }

    /// How many calls arrived, and their outcomes.
    #[must_use]
    pub fn calls(&self) -> CallCounts {
        View(&self.shared.state()).calls()
    }

    /// The latest calls, oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        View(&self.shared.state()).log().cloned().collect()
    }

    /// How many times a request named a member of another request still in flight
    /// ([P3](crate::design::P3)).
    #[must_use]
    pub fn overlaps(&self) -> u64 {
        View(&self.shared.state()).overlaps()
    }

    /// Every value that requests carried for a member, in order of arrival, whether or not it was applied.
    /// Needs [`Keep::Arrivals`].
    #[must_use]
    pub fn arrivals(&self, client_side_id: &str, cohort_id: &str, user_id: &str) -> Vec<bool> {
        View(&self.shared.state()).arrivals(client_side_id, cohort_id, user_id).to_vec()
    }

    /// Waits until `holds` is true, checking after every change.
    pub async fn until(
        &self,
        deadline: Duration,
        holds: impl Fn(&View<'_>) -> bool,
    ) -> Result<(), DeadlinePassed> {
        let mut changed = self.shared.changed.subscribe();
        let waiting = changed.wait_for(|()| holds(&View(&self.shared.state())));
        match tokio::time::timeout(deadline, waiting).await {
            Ok(_) => Ok(()),
            Err(_) => Err(DeadlinePassed { deadline, calls: self.calls() }),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
