//! The last hour of each destination.

use std::sync::Arc;

use axum::extract::State;

use super::{Api, Asked};
use crate::json::Json;
use crate::operate::history::{HistoryPage, HistoryQuery};

/// The last hour of each destination, in steps; empty after a restart of the daemon
#[utoipa::path(
    get,
    path = "/api/v1/history",
    operation_id = "show_history",
    params(HistoryQuery),
    responses((status = 200, description = "What was counted in each step", body = HistoryPage))
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<HistoryQuery>,
) -> Json<HistoryPage> {
    Json(api.history.page(&asked, api.ledger.arrival()))
}
