//! The running couriers: one for each enabled destination.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task;
use tokio_util::sync::CancellationToken;

use super::failure::Ended;
use super::{Part, Service, ServiceError, wiring};
use crate::config::Destination;
use crate::deliver::{Change, Standing};
use crate::launchdarkly::Api;
use crate::membership::DestinationName;

/// A running courier.
#[derive(Debug)]
pub(super) struct Running {
    task: task::Id,
    stop: CancellationToken,
    pub changes: mpsc::UnboundedSender<Change>,
    standing: watch::Receiver<Standing>,
}

impl Service {
    pub(super) fn start_courier(&mut self, destination: &Destination, client: Arc<dyn Api>) {
        let courier = wiring::courier(destination, client, self);
        let (changes, standing) = (courier.changes(), courier.standing());
        let stop = self.stop_delivering.child_token();
        let (name, until) = (destination.name.clone(), stop.clone());
        let courier = async move { Ended::Courier(name, courier.run(until).await) };
        let task = self.spawn(Part::Delivering, courier);
        let running = Running { task, stop, changes, standing };
        self.couriers.insert(destination.name.clone(), running);
    }

    /// Stops these couriers and waits until they have finished their calls. Errors: another task ended
    /// meanwhile, or one of these couriers failed.
    pub(super) async fn stop_couriers(
        &mut self,
        names: &[DestinationName],
    ) -> Result<(), ServiceError> {
        let stopped: Vec<Running> =
            names.iter().filter_map(|name| self.couriers.remove(name)).collect();
        for courier in &stopped {
            courier.stop.cancel();
        }
        while stopped.iter().any(|courier| self.parts.contains_key(&courier.task)) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, _)| *id);
            let was_told_to = stopped.iter().any(|courier| courier.task == id);
            match self.tick_off(ended)? {
                Ended::Courier(_, Ok(())) if was_told_to => {}
                ended => return Err(ended.unasked()),
            }
        }
        Ok(())
    }

    /// Publishes the standings of the running couriers to the admin listener.
    pub(super) fn show_standings(&self) {
        let all = self.couriers.iter();
        let standings = all.map(|(name, courier)| (name.clone(), courier.standing.clone()));
        self.shown.standings.set(standings.collect());
    }
}
