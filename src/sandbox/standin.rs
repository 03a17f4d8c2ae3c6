//! A LaunchDarkly stand-in: a real HTTP server on loopback that checks what LaunchDarkly checks,
//! keeps what it was told, and fails as it is told to.
//!
//! # What always holds
//! * A request is judged and applied as a whole, in the order in which requests are judged.
//! * What [`StandIn::until`] and the accessors show of a request is there before its answer is.
//! * A member that is named while another request with it is under way is counted as an overlap,
//!   so that a test of any kind can end with "and nothing overtook" ([P3](crate::design::P3)).

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
    /// What calls name as `environmentId`.
    pub client_side_id: String,
    /// What they have to carry in `Authorization`.
    pub service_token: Secret,
}

/// A running stand-in. Dropping it stops it.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What the handlers share with the handle.
struct Shared {
    state: Mutex<State>,
    /// Beside the state and not in it, so that a script may take as long as it likes.
    script: Mutex<Option<Script>>,
    /// Told whenever the state has changed.
    changed: watch::Sender<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    /// The state; poisoned or not, because a test that has panicked fails anyway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_replace(());
        result
    }
}

/// [`StandIn::until`] waited in vain.
#[derive(Debug, thiserror::Error)]
#[error("not so within {deadline:?}; calls so far: {calls:?}")]
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
    /// Starts on a free port of loopback, in the runtime of the caller.
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

    /// The base URL: where `base_url` and `client_sdk_url` have to point.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    #[must_use]
    pub fn url(&self) -> Url {
        format!("http://{}", self.address).parse().expect("a socket address makes a URL")
    }

    /// Stops listening, drops every connection and every apply that was to come later.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Decides the fate of every call from here on; replaces what was scripted before.
    pub fn script(&self, script: impl FnMut(&Incoming<'_>) -> Fault + Send + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(script));
    }

    /// From here on nothing is scripted.
    pub fn behave(&self) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// From here on a request with a member of which `refused` is true is answered 400, as a whole.
    pub fn refuse_members(&self, refused: impl Fn(&str) -> bool + Send + 'static) {
        self.shared.state().refused = Box::new(refused);
    }

    /// From here on the environment takes this token only. An unknown environment becomes known.
    pub fn set_token(&self, client_side_id: &str, token: Secret) {
        self.shared.state().set_token(client_side_id, Some(token));
    }

    /// From here on the environment takes no token.
    pub fn revoke(&self, client_side_id: &str) {
        self.shared.state().set_token(client_side_id, None);
    }

    /// The most members in a request; 1,000 unless told otherwise. More are answered 413.
    pub fn set_max_members(&self, max_members: usize) {
        self.shared.state().max_members = max_members;
    }

    /// How long every answer takes; no time unless told otherwise.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// From here on so many calls are taken in a window, and answers say what is left of them; `None`: there is no
    /// limit, and nothing is said.
    pub fn set_rate_limit(&self, limit: Option<(u64, Duration)>) {
        self.shared.state().rate_limit = limit.map(|(calls, window)| RateLimit::new(calls, window));
    }

    /// What is kept of the members; [`Keep::Members`] unless told otherwise.
    pub fn set_keep(&self, keep: Keep) {
        self.shared.state().keep = keep;
    }

    /// Looks at everything at one moment, without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View(&self.shared.state()))
    }

    /// The segments of an environment by cohort id; none for an unknown environment.
    #[must_use]
    pub fn segments(&self, client_side_id: &str) -> BTreeMap<String, SegmentState> {
        View(&self.shared.state()).segments(client_side_id).cloned().unwrap_or_default()
    }

    /// How many calls came, and what became of them.
    #[must_use]
    pub fn calls(&self) -> CallCounts {
        View(&self.shared.state()).calls()
    }

    /// The latest calls, oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        View(&self.shared.state()).log().cloned().collect()
    }

    /// How many times a request named a member that was in another request still in flight ([P3](crate::design::P3)).
    #[must_use]
    pub fn overlaps(&self) -> u64 {
        View(&self.shared.state()).overlaps()
    }

    /// The values that requests named for a member, in the order of their arrival, whatever became
    /// of them. Needs [`Keep::Arrivals`].
    #[must_use]
    pub fn arrivals(&self, client_side_id: &str, cohort_id: &str, user_id: &str) -> Vec<bool> {
        View(&self.shared.state()).arrivals(client_side_id, cohort_id, user_id).to_vec()
    }

    /// Waits until `holds`, looking after each change.
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
