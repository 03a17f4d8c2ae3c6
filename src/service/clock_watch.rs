//! Watches the clocks for as long as the daemon runs. It logs what it finds and does nothing else.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Service, wiring};
use crate::clock::{since_boot, whole_millis};
use crate::operate::clocks::{Clocks, Finding};
use crate::operate::status::{CLOCK_IS_AHEAD, CLOCK_REMEDY};

/// Time between two checks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Checks immediately, then periodically until `stop`.
pub(super) fn watch(
    service: &Service,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let sources = wiring::sources(service);
    async move {
        let mut clocks = Clocks::new(sources.clock.now(), since_boot());
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let now = sources.clock.now();
            clocks.look(now, since_boot(), sources.clock_ahead()).for_each(say);
        }
    }
}

fn say(finding: Finding) {
    match finding {
        Finding::Stepped { seconds } => {
            warn!(seconds, "the system clock was stepped by more than five minutes");
        }
        Finding::ArrivalAhead(ahead) => {
            error!(
                ahead_ms = whole_millis(ahead),
                why = CLOCK_IS_AHEAD,
                remedy = CLOCK_REMEDY,
                "the clock of the ledger is ahead"
            );
        }
        Finding::CaughtUp => info!("the system clock has caught up with the ledger"),
    }
}
