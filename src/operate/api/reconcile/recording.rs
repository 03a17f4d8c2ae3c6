//! Records what a snapshot says of some members.

use http::StatusCode;

use super::target::Target;
use crate::ledger::{Intake, Origin};
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::comparison::Finding;

/// Records the changes as ordinary deltas: they lose to whatever is newer.
///
/// # Errors
/// 409: the audience cannot take them. Else the ledger cannot write at present.
pub(super) async fn record(api: &Api, target: &Target, found: &[Finding]) -> Result<(), Problem> {
    let intake = Intake {
        destination: target.destination.clone(),
        arrival: api.ledger.arrival(),
        deltas: found.iter().filter_map(|finding| target.delta(finding)).collect(),
        deletions: Vec::new(),
        rejected: Vec::new(),
        origin: Origin::Snapshot,
    };
    let recorded = api.ledger.record(intake).await?;
    if !recorded.kind_conflicts.is_empty() {
        let detail = "the audience has another context kind: give it with --context-kind";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    if !recorded.without_place.is_empty() {
        let detail = "the destination has as many audiences as ledger.max_audiences allows";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    Ok(())
}
