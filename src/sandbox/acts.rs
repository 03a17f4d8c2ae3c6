//! What a person should see once: the trouble that cohortd is there for, one piece after the other.

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

/// From the start, and between two acts: time to see that all is well.
const PAUSE: Duration = Duration::from_secs(6);
/// Calls that LaunchDarkly takes in [`WINDOW`], as a rule and when there is little room.
const USUAL_CALLS: u64 = 100;
const FEW_CALLS: u64 = 2;
const WINDOW: Duration = Duration::from_secs(5);
/// Somebody whom LaunchDarkly refuses, and others of the same audience.
const REFUSED: &str = "guest_13";
const GUESTS: u64 = 20;

/// Parked members that are told after all, at most.
const MOST_REQUEUED: u32 = 100;

/// A piece of trouble.
#[derive(Clone, Copy)]
struct Act {
    /// What happens, and what to look at.
    begins: &'static str,
    lasts: Duration,
    /// What was to be seen.
    ends: &'static str,
    trouble: Trouble,
}

/// What is done to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Outage,
    FewCalls,
    RefusedMember,
    LateEvent,
    Deletion,
}

/// In the order in which they are shown.
const ACTS: [Act; 5] = [
    Act {
        trouble: Trouble::Outage,
        begins: "1. LaunchDarkly is down: it answers every call with 503.
   Events go on to be taken; \"waiting to be told\" goes up. The dashboard names
   the cause, and so does: cohortd status",
        lasts: Duration::from_secs(10),
        ends: "   It is back. What waited is told, in a few large calls, and nothing is lost.",
    },
    Act {
        trouble: Trouble::FewCalls,
        begins: "2. LaunchDarkly takes two calls in five seconds, and says so in its headers.
   cohortd keeps within that: it sends fewer calls with more members in each.
   Watch \"API calls\" slow down while nobody waits for long.",
        lasts: Duration::from_secs(12),
        ends: "   The limit is the usual one again.",
    },
    Act {
        trouble: Trouble::RefusedMember,
        begins: "3. Twenty guests enter \"Beta testers\", and LaunchDarkly refuses guest_13: it
   answers 400 to a whole call with that member in it. cohortd halves the call
   until the member is alone and parks it; the other 19 are in. Look at:
   cohortd parked list sandbox",
        lasts: Duration::from_secs(10),
        ends: "   LaunchDarkly would take guest_13 now. An operator types:
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

/// What the acts are played on.
pub(super) struct Stage<'a> {
    pub standin: &'a StandIn,
    pub ledger: &'a dyn Operations,
    pub destination: &'a DestinationName,
    pub sender: &'a mut Sender,
    pub screen: &'a mut Screen,
}

/// The acts that are still to be shown, and when the next change is due.
pub(super) struct Playbill {
    acts: Peekable<slice::Iter<'static, Act>>,
    is_on: bool,
    change_at: Instant,
}

impl Playbill {
    /// Nothing goes wrong.
    pub fn empty() -> Self {
        Self { acts: [].iter().peekable(), is_on: false, change_at: Instant::now() }
    }

    /// All of them, after a pause in which all is as usual.
    pub fn of_acts(standin: &StandIn) -> Self {
        Trouble::end(standin);
        let (acts, change_at) = (ACTS.iter().peekable(), Instant::now() + PAUSE);
        Self { acts, is_on: false, change_at }
    }

    /// Whether there is more to be shown.
    pub fn goes_on(&mut self) -> bool {
        self.acts.peek().is_some()
    }

    /// When an act begins or ends.
    pub fn change_at(&self) -> Instant {
        self.change_at
    }

    /// All is as usual from here on.
    pub fn break_off(&mut self, standin: &StandIn) {
        *self = Self::empty();
        Trouble::end(standin);
    }

    /// The next act begins, or the one that is shown ends.
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

    /// All is as usual again, and whoever is parked is told after all.
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
    /// Begins it; the requests that are to be posted for it, one after the other, each with its events. `now_ms` is
    /// in milliseconds of the epoch.
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

    /// All is as usual again.
    fn end(standin: &StandIn) {
        standin.behave();
        standin.refuse_members(|_| false);
        standin.set_rate_limit(Some((USUAL_CALLS, WINDOW)));
    }
}

/// Somebody enters or leaves the audience that can also be tried by hand.
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
