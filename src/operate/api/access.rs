//! What the sender of a request may do.

use axum::Extension;

use super::wire::Access;
use crate::json::Json;
use crate::operate::access::Power;

/// What your token may do
#[utoipa::path(
    get,
    path = "/api/v1/access",
    operation_id = "show_access",
    responses((status = 200, description = "`operate`, or `read`", body = Access))
)]
pub(super) async fn show(Extension(power): Extension<Power>) -> Json<Access> {
    Json(Access { power: power.word().to_owned() })
}
