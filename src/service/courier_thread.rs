//! The [thread of all couriers](crate::design::decisions::courier_thread): calls to LaunchDarkly do not
//! wait behind request bodies that are being read ([P5](crate::design::P5)).
//!
//! A runtime schedules its tasks over its threads without priorities. The operating system's scheduler
//! shares the cores among threads, and favours one that has been asleep.

use std::convert::Infallible;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A single-threaded runtime on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct CourierThread {
    runtime: Handle,
    #[expect(dead_code, reason = "held for its end")]
    until_dropped: oneshot::Sender<Infallible>,
}

impl CourierThread {
    /// Errors: the thread or the runtime's file handles could not be created.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (until_dropped, dropped) = oneshot::channel();
        thread::Builder::new().name("couriers".into()).spawn(move || {
            let _ = runtime.block_on(dropped); // returns when the sender is dropped: nothing is ever sent
        })?;
        Ok(Self { runtime: handle, until_dropped })
    }

    /// The runtime on which couriers are spawned.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
