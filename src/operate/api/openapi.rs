//! The OpenAPI 3.1 document of the admin listener, served at `/api/v1/openapi.json`.
//!
//! Routes and document are made from the same declarations, so that neither has what the other has
//! not. Each handler says what is its own; what every route of a kind may answer is added here, from
//! what the extractors of `api` and the guard of `admin` refuse.
//!
//! The document is made when it is first asked for: making it takes more heap than a daemon at rest has otherwise.
//!
//! tests/it/openapi.rs asks a running daemon for everything in it, and for more.

use std::sync::{Arc, OnceLock};

use axum::response::IntoResponse;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Method, header};
use serde_json::{Map, Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::OpenApi;

use crate::operate::access::{self, Power};
use crate::operate::problem::Problem;

/// Routes, and what makes the document's part on them.
pub(in crate::operate) struct Routes<S> {
    pub router: Router<S>,
    pub declared: fn() -> OpenApi,
}

/// The [`Routes`] to handlers that have a `utoipa::path`, each named with its module.
macro_rules! routes {
    ($($module:ident::$handler:ident),+ $(,)?) => {{
        use utoipa::Path;
        use utoipa_axum::PathItemExt;

        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($module::$handler),+))]
        struct Declared;

        let router = axum::Router::new();
        $(
            // where `utoipa::path` puts what it was told
            let router = utoipa_axum::paste! { $module::[<__path_ $handler>]::methods() }
                .iter()
                .fold(router, |router, method| {
                    let handler = axum::routing::on(method.to_method_filter(), $module::$handler);
                    let path = utoipa_axum::paste! { $module::[<__path_ $handler>]::path() };
                    router.route(&path, handler)
                });
        )+
        let declared = <Declared as utoipa::OpenApi>::openapi;
        $crate::operate::api::openapi::Routes { router, declared }
    }};
}
pub(in crate::operate) use routes;

/// The document, as it is served.
#[derive(Clone, Debug)]
pub(in crate::operate) struct Document(Arc<Made>);

#[derive(Debug)]
struct Made {
    parts: Vec<fn() -> OpenApi>,
    text: OnceLock<Bytes>,
}

impl Document {
    /// Of routes that declare this.
    pub fn of(parts: Vec<fn() -> OpenApi>) -> Self {
        Self(Arc::new(Made { parts, text: OnceLock::new() }))
    }

    fn text(&self) -> Bytes {
        let made = || {
            let mut declared = OpenApi::default();
            self.0.parts.iter().for_each(|part| declared.merge(part()));
            whole(&declared).to_string().into()
        };
        self.0.text.get_or_init(made).clone()
    }
}

/// This document
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn serve(Extension(document): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.text())
}

/// What a path may name, beside what it is.
const PARAMETERS: [(&str, &str, &str); 3] = [
    ("destination", "string", "The name of a destination"),
    ("key", "string", "A context key, or Segment's user id. Personal"),
    ("id", "integer", "The number of a rejected event"),
];

/// What the routes that have something may answer, by what they have.
const GUARDED: [(&str, &str); 3] = [
    ("401", "The token is missing or wrong"),
    (
        "403",
        "The token may only read, or the request comes from a web page of somebody else or does not \
             name this host",
    ),
    ("503", "The ledger does not take or give anything now; `Retry-After` says when to try again"),
];
const WITH_A_BODY: [(&str, &str); 5] = [
    ("400", "The body is not JSON"),
    ("408", "The body did not come in time"),
    ("413", "The body is too large"),
    ("415", "The body does not say that it is application/json"),
    ("422", "The body is JSON, but not what this route takes"),
];
const WITH_A_QUERY: [(&str, &str); 1] = [("400", "The query has something that is not taken")];
const WITH_A_NAME: [(&str, &str); 1] = [("404", "There is no such thing; the problem says which")];

/// Completes what the routes have declared.
fn whole(declared: &OpenApi) -> Value {
    let mut document = serde_json::to_value(declared).unwrap_or_default();
    document["info"] = json!({
        "title": "cohortd",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Seeing and steering cohortd. Times are RFC 3339, UTC. Errors are problem \
                        documents (RFC 9457). Answers marked personal name people.",
        "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
    });
    document["servers"] = json!([{"url": "/"}]);
    // Without tokens, whoever reaches the loopback address may.
    document["security"] = json!([{"token": []}, {}]);
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http", "scheme": "bearer",
            "description": "One of `admin.tokens`, if there are any: it may do everything",
        },
        "read_token": {
            "type": "http", "scheme": "bearer",
            "description": "One of `admin.read_tokens`: it may look, and sees no events that are kept",
        },
    });
    document["components"]["schemas"]["Problem"] = json!(Problem::schema());
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(method, path, operation);
        }
    }
    document
}

fn complete(method: &str, path: &str, operation: &mut Value) {
    let named = PARAMETERS.iter().filter(|(name, ..)| path.contains(&format!("{{{name}}}")));
    let named: Vec<Value> = named
        .map(|(name, kind, description)| {
            let schema = json!({"type": kind});
            json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": schema,
            })
        })
        .collect();
    let guarded = operation.get("security").is_none();
    if guarded && power_over(method, path) == Power::Read {
        operation["security"] = json!([{"token": []}, {"read_token": []}, {}]);
    }
    let with_a_body = operation.get("requestBody").is_some();
    let asked = ["/api/v1/destinations", "/api/v1/history"];
    let with_a_query = !with_a_body && asked.iter().any(|prefix| path.starts_with(prefix));
    let with_a_name = !named.is_empty();
    if let Value::Object(operation) = operation {
        operation.remove("tags");
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        parameters.as_array_mut().into_iter().for_each(|list| list.extend(named.clone()));
        let responses = operation.entry("responses").or_insert_with(|| json!({}));
        for (applies, answers) in [
            (guarded, &GUARDED[..]),
            (with_a_body, &WITH_A_BODY),
            (with_a_query, &WITH_A_QUERY),
            (with_a_name, &WITH_A_NAME),
        ] {
            let answers = answers.iter().filter(|_| applies);
            responses.as_object_mut().into_iter().for_each(|of| add(of, answers.clone()));
        }
    }
}

/// The power that an operation wants.
fn power_over(method: &str, path: &str) -> Power {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
    access::needed(&method, Some(path))
}

/// Adds answers, unless the route has its own words for one; what is an error is a problem.
fn add<'a>(
    responses: &mut Map<String, Value>,
    answers: impl Iterator<Item = &'a (&'a str, &'a str)>,
) {
    for (status, description) in answers {
        responses.entry(*status).or_insert_with(|| json!({"description": description}));
    }
    let problem = json!({"application/problem+json": {
        "schema": {"$ref": "#/components/schemas/Problem"},
    }});
    for (_, response) in responses.iter_mut().filter(|(status, _)| !status.starts_with('2')) {
        if response.get("content").is_none() {
            response["content"] = problem.clone();
        }
    }
}
