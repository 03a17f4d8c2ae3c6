//! What a person should see once: the trouble that cohortd is there for, one piece after the other.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Fault, StandIn};

/// From the start, and between two acts: time to see that all is well.
pub(super) const PAUSE: Duration = Duration::from_secs(6);
/// Calls that LaunchDarkly takes in [`WINDOW`], as a rule and when there is little room.
const USUAL_CALLS: u64 = 100;
const FEW_CALLS: u64 = 2;
const WINDOW: Duration = Duration::from_secs(5);
/// Somebody whom LaunchDarkly refuses, and others of the same audience.
const REFUSED: &str = "guest_13";
const GUESTS: u64 = 20;

/// A piece of trouble.
pub(super) struct Act {
    /// What happens, and what to look at.
    pub begins: &'static str,
    pub lasts: Duration,
    /// What was to be seen.
    pub ends: &'static str,
    pub trouble: Trouble,
}

/// What is done to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Outage,
    FewCalls,
    RefusedMember,
    LateEvent,
    Deletion,
}

/// In the order in which they are shown.
pub(super) const ACTS: [Act; 5] = [
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

impl Trouble {
    /// Begins it; the requests that are to be posted for it, one after the other, each with its events. `now_ms` is
    /// in milliseconds of the epoch.
    pub(super) fn begin(self, standin: &StandIn, now_ms: i64) -> Vec<Vec<Value>> {
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
    pub(super) fn end(standin: &StandIn) {
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
