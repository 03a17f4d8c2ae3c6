//! The status of all replicas as one: of a destination's deliveries what its owner says, of what is received the sum over
//! all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::sources::Sources;
use super::status::{DestinationStatus, IgnoredEvents, ReplicaStatus, Status};
use super::verdict::{Concern, ConcernKind, DestinationState};
use crate::clock::whole_millis;
use crate::json;
use crate::ledger::ReplicaView;
use crate::operate::api::wire::instant;

/// How often a replica tells the others what it sees.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// What a replica said longer ago is not its status any more.
const SILENT: Duration = Duration::from_secs(15);

/// Tells the other replicas the status of this one, until `stop`.
pub async fn keep_saying(sources: Arc<Sources>, stop: CancellationToken) {
    let mut often = interval(SAY_EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(often.tick()).await.is_some() {
        // If it cannot be told, the next time is soon.
        if let Ok(status) = sources.status().await
            && let Ok(words) = serde_json::to_string(&status)
        {
            let _ = sources.ledger.say(words).await;
        }
    }
}

/// The status of the whole, given that of this replica.
pub(super) fn of(own: Status, replicas: Vec<ReplicaView>) -> Status {
    let mut status = own;
    let mut others: HashMap<String, Status> = HashMap::new();
    for replica in replicas.iter().filter(|of| !of.is_here && of.silent_for < SILENT) {
        let said = replica.said.as_deref().and_then(|said| json::from_str(said).ok());
        others.extend(said.map(|said| (replica.name.clone(), said)));
    }
    // Whoever was started before a destination was configured elsewhere must not advise to drop it.
    status
        .unconfigured
        .retain(|of| !others.values().any(|theirs| theirs.destinations.contains_key(&of.name)));
    for (name, of) in &mut status.destinations {
        let owner = replicas.iter().find(|replica| replica.delivers.contains(name));
        let mut all: Vec<DestinationStatus> = Vec::new();
        let mut owners = None;
        for (replica, said) in &mut others {
            let Some(theirs) = said.destinations.remove(name) else { continue };
            if owner.is_some_and(|owner| owner.name == *replica) {
                owners = Some(theirs);
            } else {
                all.push(theirs);
            }
        }
        if let Some(owners) = owners {
            all.push(std::mem::replace(of, owners));
        }
        for theirs in all {
            of.add_received(theirs);
        }
    }
    status.replicas_differ = differences(&replicas);
    status.replicas = replicas.into_iter().map(ReplicaStatus::from).collect();
    status
}

/// Concerns about what a replica has received, which the others do not know of.
fn is_of_receiving(kind: ConcernKind) -> bool {
    use ConcernKind::{NotKept, OnlyIgnored, OnlyRejected, Refused};
    matches!(kind, Refused | NotKept | OnlyIgnored | OnlyRejected)
}

impl DestinationStatus {
    /// Adds what another replica has received. Its deliveries are this one's: they are the owner's.
    fn add_received(&mut self, other: Self) {
        let accepts = |of: &Self| of.setup.is_empty();
        let either_accepts = accepts(self) || accepts(&other);
        for concern in other.concerns.into_iter().filter(|of| is_of_receiving(of.kind)) {
            self.add_concern(concern);
        }
        if either_accepts {
            self.setup.clear();
            self.concerns.retain(|of| {
                !matches!(of.kind, ConcernKind::OnlyIgnored | ConcernKind::OnlyRejected)
            });
        }
        self.last_event_at = self.last_event_at.take().max(other.last_event_at);
        self.deletions_outlived += other.deletions_outlived;
        self.entries_expired += other.entries_expired;
        self.ignored += other.ignored;
        for (doubt, count) in other.times_doubted {
            *self.times_doubted.entry(doubt).or_default() += count;
        }
        for IgnoredEvents { name, count } in other.ignored_events {
            match self.ignored_events.iter_mut().find(|of| of.name == name) {
                Some(of) => of.count += count,
                None => self.ignored_events.push(IgnoredEvents { name, count }),
            }
        }
        for refused in other.refused {
            match self.refused.iter_mut().find(|of| of.path == refused.path) {
                Some(of) => of.count += refused.count,
                None => self.refused.push(refused),
            }
        }
        self.state = match self.state {
            DestinationState::Waiting | DestinationState::Ok | DestinationState::CatchingUp
                if self.concerns.iter().any(|of| is_of_receiving(of.kind)) =>
            {
                DestinationState::Attention
            }
            DestinationState::Waiting if either_accepts => DestinationState::Ok,
            DestinationState::Attention if self.concerns.is_empty() => DestinationState::Ok,
            state => state,
        };
    }

    fn add_concern(&mut self, concern: Concern) {
        match self.concerns.iter_mut().find(|of| of.kind == concern.kind) {
            Some(of) => {
                of.count += concern.count;
                of.since = of.since.take().min(concern.since);
            }
            None => self.concerns.push(concern),
        }
    }
}

impl From<ReplicaView> for ReplicaStatus {
    fn from(of: ReplicaView) -> Self {
        let ReplicaView {
            name,
            is_here,
            version,
            configuration,
            started_at,
            silent_for,
            delivers,
            ..
        } = of;
        Self {
            name,
            answers: is_here,
            version,
            configuration,
            started_at: instant(started_at),
            silent_ms: whole_millis(silent_for),
            delivers,
        }
    }
}

/// What is wrong with replicas as a whole.
fn differences(replicas: &[ReplicaView]) -> Vec<String> {
    let there: Vec<&ReplicaView> = replicas.iter().filter(|of| of.silent_for < SILENT).collect();
    let versions: BTreeSet<&str> = there.iter().map(|of| of.version.as_str()).collect();
    let configurations: BTreeSet<&str> = there.iter().map(|of| of.configuration.as_str()).collect();
    let mut found = Vec::new();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        found.push(format!(
            "replicas run different versions ({}): bring all to the same one",
            versions.join(", ")
        ));
    } else if configurations.len() > 1 {
        found.push(
            "replicas have different configurations: give all the same destinations, routes, delivery and ledger \
             sections; what is received and told depends on which replica does it"
                .to_owned(),
        );
    }
    for silent in replicas.iter().filter(|of| of.silent_for >= SILENT) {
        found.push(format!(
            "nothing has been heard of replica {} for {} s: it has ended without saying so, or cannot reach the database",
            silent.name,
            silent.silent_for.as_secs()
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::membership::Timestamp;

    fn status(state: &str, more: &Value) -> Status {
        let mut destination = json!({
            "state": state, "waiting": 0, "oldest_waiting_ms": 0, "pending": 3, "oldest_pending_ms": 0, "parked": 0,
            "rejected": 0, "calls_in_flight": 0, "audiences": {},
        });
        let fields = more.as_object().expect("fields").clone();
        destination.as_object_mut().expect("an object").extend(fields);
        let all = json!({
            "ready": true, "version": "1", "started_at": "2026-01-01T00:00:00Z", "destinations": {"eu": destination},
        });
        serde_json::from_value(all).expect("a status")
    }

    fn replica(name: &str, delivers: bool, said: Option<&Status>, silent_s: u64) -> ReplicaView {
        ReplicaView {
            name: name.to_owned(),
            is_here: said.is_none(),
            version: "1".to_owned(),
            configuration: "c".to_owned(),
            started_at: Timestamp(0),
            silent_for: Duration::from_secs(silent_s),
            delivers: if delivers { vec!["eu".to_owned()] } else { Vec::new() },
            said: said.map(|said| serde_json::to_string(said).expect("it can be written")),
        }
    }

    fn whole(own: Status, owner: &Status) -> Value {
        let replicas =
            vec![replica("here", false, None, 0), replica("owner", true, Some(owner), 1)];
        serde_json::to_value(of(own, replicas)).expect("it can be written")["destinations"]["eu"]
            .take()
    }

    fn concern(kind: &str, count: u64) -> Value {
        json!({"kind": kind, "count": count, "why": "", "remedy": ""})
    }

    #[test]
    fn deliveries_are_told_by_the_owner_and_what_is_received_by_everybody() {
        let held = json!({
            "calls_in_flight": 2, "ignored": 1, "last_event_at": "2026-01-01T00:00:01Z",
            "concerns": [concern("held", 1)], "setup": [],
        });
        let own = json!({
            "ignored": 2, "last_event_at": "2026-01-01T00:00:02Z", "concerns": [concern("late", 3)],
        });
        let all = whole(status("behind", &own), &status("held", &held));
        assert_eq!(
            (&all["state"], &all["calls_in_flight"], &all["ignored"]),
            (&json!("held"), &json!(2), &json!(3))
        );
        assert_eq!(all["last_event_at"], "2026-01-01T00:00:02Z");
        assert_eq!(
            all["concerns"].as_array().map(Vec::len),
            Some(1),
            "not late: the owner does not say so"
        );
    }

    #[test]
    fn the_state_follows_from_what_any_of_them_has_received() {
        let none =
            json!({"setup": [{"path": "/segment/eu", "credentials": [], "demands_all": false}]});
        let refused = json!({"concerns": [concern("refused", 2)]});
        let ignored = json!({"setup": [{"path": "/segment/eu", "credentials": [], "demands_all": false}], "concerns": [concern("only_ignored", 9)]});
        let fine = json!({});
        // this one, its state; the owner, its state; that of both
        let rows = [
            (
                &none,
                "waiting for the first event",
                &none,
                "waiting for the first event",
                "waiting for the first event",
            ),
            (&fine, "ok", &none, "waiting for the first event", "ok"),
            (&refused, "attention", &fine, "ok", "attention"),
            (&refused, "attention", &fine, "behind", "behind"),
            (&ignored, "attention", &fine, "ok", "ok"),
            (&fine, "ok", &ignored, "attention", "ok"),
            (&ignored, "attention", &none, "waiting for the first event", "attention"),
        ];
        for (own, state, owner, owners, expected) in rows {
            let all = whole(status(state, own), &status(owners, owner));
            assert_eq!(all["state"], expected, "{own} {state}, {owner} {owners}");
        }
    }

    #[test]
    fn what_a_silent_replica_said_is_not_believed_and_differences_are_named() {
        let said = status("held", &json!({}));
        let mut other = replica("owner", true, Some(&said), 60);
        other.version = "2".to_owned();
        let all = of(status("ok", &json!({})), vec![replica("here", false, None, 0), other]);
        assert_eq!(all.destinations["eu"].state, DestinationState::Ok);
        let [silent] = &all.replicas_differ[..] else { panic!("{:?}", all.replicas_differ) };
        assert!(silent.contains("owner for 60 s"), "{silent}");

        let mut newer = replica("newer", false, Some(&said), 1);
        newer.version = "2".to_owned();
        let mut changed = replica("changed", false, Some(&said), 1);
        changed.configuration = "d".to_owned();
        for (other, word) in
            [(newer, "different versions (1, 2)"), (changed, "different configurations")]
        {
            let all = of(status("ok", &json!({})), vec![replica("here", false, None, 0), other]);
            assert!(all.replicas_differ[0].contains(word), "{:?}", all.replicas_differ);
        }
    }
}
