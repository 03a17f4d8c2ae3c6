//! The [thread of all couriers](crate::design::decisions::courier_thread): what is told does not wait behind bodies that are read ([P5](crate::design::P5)).
//!
//! A runtime shares its threads among its tasks, whatever they do; the system shares the cores among
//! threads, and lets one that has slept go first.

use std::convert::Infallible;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct CourierThread {
    runtime: Handle,
    #[expect(dead_code, reason = "held for its end")]
    until_dropped: oneshot::Sender<Infallible>,
}

impl CourierThread {
    /// An error: there is no thread to be had, or no file handle.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (until_dropped, dropped) = oneshot::channel();
        thread::Builder::new().name("couriers".into()).spawn(move || {
            let _ = runtime.block_on(dropped); // nothing is ever sent
        })?;
        Ok(Self { runtime: handle, until_dropped })
    }

    /// Where its tasks are spawned.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
