//! The last hour of each destination.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::{Api, Asked};
use crate::operate::history::{HistoryPage, HistoryQuery};

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<HistoryQuery>,
) -> Json<HistoryPage> {
    Json(api.history.page(&asked, api.ledger.arrival()))
}
