//! Pages of lists that are usually short but unbounded: destinations, audiences, the audiences of a
//! person. A `Link` header (RFC 8288) leads to the next page, so that the body is only the list.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

use crate::json::Json;

/// The items of a page, and the query of the next page.
#[derive(Debug)]
pub(super) struct Part<T> {
    items: Vec<T>,
    next: Option<String>,
}

/// The first `limit` of `items` after `after`, sorted by `key`; `query` makes the query of the next
/// page from a key and the limit.
pub(super) fn part<T, K: Ord>(
    mut items: Vec<T>,
    key: impl Fn(&T) -> K,
    after: Option<&K>,
    limit: u32,
    query: impl Fn(&T, u32) -> Vec<(&'static str, String)>,
) -> Part<T> {
    items.retain(|item| after.is_none_or(|after| key(item) > *after));
    items.sort_by_key(&key);
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(query(last, limit)).finish()
    });
    Part { items, next }
}

impl<T: Serialize> IntoResponse for Part<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        let link = self.next.map(|next| HeaderValue::try_from(format!("<?{next}>; rel=\"next\"")));
        if let Some(Ok(link)) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_list_are_the_list() {
        let all: Vec<String> = ["ü&=", "b", "a", "d", "c"].map(str::to_owned).into();
        let of = |after: Option<&String>| {
            let query = |last: &String, limit: u32| {
                vec![("after", last.clone()), ("limit", limit.to_string())]
            };
            part(all.clone(), String::clone, after, 2, query)
        };
        let (mut seen, mut nexts) = (Vec::new(), Vec::new());
        loop {
            let Part { items, next } = of(seen.last());
            seen.extend(items);
            let Some(next) = next else { break };
            nexts.push(next);
        }
        assert_eq!(seen, ["a", "b", "c", "d", "ü&="]);
        assert_eq!(nexts, ["after=b&limit=2", "after=d&limit=2"]);
        let last = part(
            vec!["ü&=", "ü"],
            |text| *text,
            None,
            1,
            |text, _| vec![("after", (*text).to_owned())],
        );
        let link = last.into_response().headers()[header::LINK].clone();
        assert_eq!(link, "<?after=%C3%BC>; rel=\"next\"");
    }
}
