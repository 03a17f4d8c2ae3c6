//! The acts of the sandbox: a series of failures that cohortd exists to handle, each worth watching once.

use std::iter::Peekable;
use std::slice;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::sender::Sender;
use super::show::Screen;
use super::{Fault, SandboxError, StandIn};
use crate::clock::{Clock, SystemClock};
use crate::ledger::{AudienceView, LedgerError, Members, Operations, ParkedAfter};
use crate::membership::{AudienceId, ContextKey, DestinationName};

/// Time before the first act and between two acts, in which everything works.
const PAUSE: Duration = Duration::from_secs(6);
/// Calls that LaunchDarkly accepts in each [`WINDOW`]: usually, and while the rate limit is low.
const USUAL_CALLS: u64 = 100;
const FEW_CALLS: u64 = 2;
const WINDOW: Duration = Duration::from_secs(5);
/// A user whom LaunchDarkly refuses, and the number of users who enter the same audience with them.
const REFUSED: &str = "guest_13";
const GUESTS: u64 = 20;

/// Most parked members of an audience that are requeued when an act ends.
const MOST_REQUEUED: u32 = 100;

/// One failure, shown for a while.
#[derive(Clone, Copy)]
struct Act {
    /// Printed when the act begins: what happens, and what to look at.
    begins: &'static str,
    lasts: Duration,
    /// Printed when the act ends: what there was to see.
    ends: &'static str,
    trouble: Trouble,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Outage,
    FewCalls,
    RefusedMember,
    LateEvent,
    Deletion,
}

/// The acts in the order in which they are shown.
const ACTS: [Act; 5] = [
    Act {
        trouble: Trouble::Outage,
        begins: "1. LaunchDarkly is down: it answers every call with 503.
   Events are still accepted; \"waiting for delivery\" goes up. The dashboard
   names the cause, and so does: cohortd status",
        lasts: Duration::from_secs(10),
        ends: "   It is back. What waited is sent in a few large calls, and nothing is lost.",
    },
    Act {
        trouble: Trouble::FewCalls,
        begins: "2. LaunchDarkly allows two calls in five seconds, and says so in its headers.
   cohortd stays within that: it makes fewer calls with more members in each.
   Watch \"API calls\" slow down while no member waits for long.",
        lasts: Duration::from_secs(12),
        ends: "   The usual rate limit applies again.",
    },
    Act {
        trouble: Trouble::RefusedMember,
        begins: "3. Twenty guests enter \"Beta testers\", and LaunchDarkly refuses guest_13: it
   answers 400 to a whole call with that member in it. cohortd splits the call
   until the member is alone and parks it; the other 19 are in. Look at:
   cohortd parked list sandbox",
        lasts: Duration::from_secs(10),
        ends: "   LaunchDarkly would accept guest_13 now. An operator types:
   cohortd parked requeue sandbox   (done for you: 20 members)",
    },
    Act {
        trouble: Trouble::LateEvent,
        begins: "4. guest_01 leaves \"Beta testers\". Then Segment repeats an old event, by which
   guest_01 had entered a minute ago. The latest event time wins: guest_01 is
   out, and 19 members are left. Look at: cohortd member sandbox guest_01",
        lasts: Duration::from_secs(6),
        ends: "   The late event was answered 200 and changed nothing.",
    },
    Act {
        trouble: Trouble::Deletion,
        begins: "5. Segment asks to delete guest_02, who wants to be forgotten. cohortd takes
   them out of every segment and then erases what it knows of them.",
        lasts: Duration::from_secs(6),
        ends: "   18 members are left. That was all of it; the traffic goes on until Ctrl-C.",
    },
];

/// What the acts work on.
pub(super) struct Stage<'a> {
    pub standin: &'a StandIn,
    pub ledger: &'a dyn Operations,
    pub destination: &'a DestinationName,
    pub sender: &'a mut Sender,
    pub screen: &'a mut Screen,
}

/// The acts still to be shown, and when the next one begins or the present one ends.
pub(super) struct Playbill {
    acts: Peekable<slice::Iter<'static, Act>>,
    is_on: bool,
    change_at: Instant,
}

impl Playbill {
    /// A playbill without acts.
    pub fn empty() -> Self {
        Self { acts: [].iter().peekable(), is_on: false, change_at: Instant::now() }
    }

    /// All acts, the first one after a pause.
    pub fn of_acts(standin: &StandIn) -> Self {
        Trouble::end(standin);
        let (acts, change_at) = (ACTS.iter().peekable(), Instant::now() + PAUSE);
        Self { acts, is_on: false, change_at }
    }

    /// Whether acts are left.
    pub fn goes_on(&mut self) -> bool {
        self.acts.peek().is_some()
    }

    /// When the next act begins or the present one ends.
    pub fn change_at(&self) -> Instant {
        self.change_at
    }

    /// Ends the present act and drops those that are left.
    pub fn break_off(&mut self, standin: &StandIn) {
        *self = Self::empty();
        Trouble::end(standin);
    }

    /// Begins the next act, or ends the present one.
    pub async fn change(&mut self, mut on: Stage<'_>) -> Result<(), SandboxError> {
        let Some(act) = self.acts.peek() else { return Ok(()) };
        let act = **act;
        self.is_on = !self.is_on;
        if self.is_on {
            on.begin(&act).await?;
            self.change_at = Instant::now() + act.lasts;
            return Ok(());
        }
        on.end(&act).await?;
        self.acts.next();
        self.change_at = Instant::now() + PAUSE;
        Ok(())
    }
}

impl Stage<'_> {
    async fn begin(&mut self, act: &Act) -> Result<(), SandboxError> {
        self.say(act.begins)?;
        for events in act.trouble.begin(self.standin, SystemClock.now().0 / 1000) {
            self.sender.post_aside(&events);
            while self.sender.awaits_answers() {
                self.sender.answered().await?;
            }
        }
        Ok(())
    }

    /// Undoes the trouble and requeues the parked members.
    async fn end(&mut self, act: &Act) -> Result<(), SandboxError> {
        Trouble::end(self.standin);
        for audience in self.ledger.audiences(self.destination).await? {
            self.requeue(&audience).await?;
        }
        self.say(act.ends)
    }

    fn say(&mut self, text: &str) -> Result<(), SandboxError> {
        self.screen.say(&format!("\n{text}\n\n")).map_err(SandboxError::Output)
    }

    async fn requeue(&self, audience: &AudienceView) -> Result<(), LedgerError> {
        let Some(id) = AudienceId::new(&audience.audience).filter(|_| audience.parked > 0) else {
            return Ok(());
        };
        let parked = self
            .ledger
            .parked(self.destination, Some(&id), &ParkedAfter::default(), MOST_REQUEUED)
            .await?;
        let context_keys =
            parked.iter().filter_map(|of| ContextKey::new(&of.context_key)).collect();
        let members = Members { destination: self.destination.clone(), audience: id, context_keys };
        self.ledger.requeue(members).await?;
        Ok(())
    }
}

impl Trouble {
    /// Begins the trouble. Returns the requests to post for it, one after the other, each a list of events.
    /// `now_ms` is the time in milliseconds since the epoch.
    fn begin(self, standin: &StandIn, now_ms: i64) -> Vec<Vec<Value>> {
        match self {
            Self::Outage => standin.script(|_| Fault::status(503)),
            Self::FewCalls => standin.set_rate_limit(Some((FEW_CALLS, WINDOW))),
            Self::RefusedMember => {
                standin.refuse_members(|key| key == REFUSED);
                let guests =
                    (1..=GUESTS).map(|guest| beta(&format!("guest_{guest:02}"), true, now_ms));
                return vec![guests.collect()];
            }
            Self::LateEvent => {
                let (late, now) =
                    (beta("guest_01", true, now_ms - 60_000), beta("guest_01", false, now_ms));
                return vec![vec![now], vec![late]];
            }
            Self::Deletion => {
                let delete = json!({
                    "type": "delete", "userId": "guest_02", "messageId": "sandbox-delete", "timestamp": iso(now_ms),
                });
                return vec![vec![delete]];
            }
        }
        Vec::new()
    }

    /// Undoes every kind of trouble.
    fn end(standin: &StandIn) {
        standin.behave();
        standin.refuse_members(|_| false);
        standin.set_rate_limit(Some((USUAL_CALLS, WINDOW)));
    }
}

/// An event of a person who enters or leaves the audience that the introduction's event by hand also uses.
fn beta(user_id: &str, enters: bool, at_ms: i64) -> Value {
    json!({
        "type": "identify", "userId": user_id, "timestamp": iso(at_ms),
        "context": {"personas": {
            "computation_class": "audience", "computation_id": "aud_by_hand", "computation_key": "beta_testers",
        }},
        "traits": {"beta_testers": enters},
    })
}

fn iso(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for line in ACTS.iter().flat_map(|act| [act.begins, act.ends]).flat_map(str::lines) {
            assert!(line.chars().count() <= super::super::show::WIDTH, "{line}");
        }
    }
}
