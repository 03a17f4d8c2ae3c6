//! The manual in the browser: `/manual` of the admin listener, in the style of the dashboard.
//!
//! # What always holds
//! * It runs no script and loads nothing from elsewhere; the content security policy enforces it.
//! * The server does the search. The query appears in the answer as text, never as HTML.
//! * A heading has the same anchor as on GitHub, so that [`manual::Place`] leads to it.
//!
//! The pages contain no data of the daemon: they are shown to whoever may see the dashboard's files.

use axum::Router;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use pulldown_cmark::{CowStr, Event, Tag, TagEnd, html};
use serde::Deserialize;

use super::dashboard;
use super::problem::Problem;
use crate::manual::{self, Hit, Leads, TOPICS, Topic, anchor};

/// Like the dashboard's, but without scripts and with the search form.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// The query of a search.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    q: String,
}

/// The index and the pages.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/manual", get(index)).route("/manual/{topic}", get(page))
}

async fn index(Query(Asked { q }): Query<Asked>) -> Response {
    let query = q.trim();
    if query.is_empty() {
        return shell("Manual", "", None, &listed());
    }
    shell("Search", query, None, &found(query, &manual::search(query)))
}

async fn page(Path(name): Path<String>) -> Result<Response, Problem> {
    let topic = manual::topic(&name).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "the manual has no such page: /manual lists them")
    })?;
    Ok(shell(topic.title(), "", Some(topic), &rendered(topic)))
}

/// A list of all topics, with what each answers.
fn listed() -> String {
    let item = |topic: &Topic| {
        let (name, title, summary) = (topic.name, topic.title(), escaped(topic.summary));
        format!(
            "<li><a href=\"/manual/{name}\">{title}</a><span class=\"muted block\">{summary}</span></li>"
        )
    };
    let items: String = TOPICS.iter().map(item).collect();
    format!("<h1>Manual</h1>\n<ul class=\"topics\">{items}</ul>")
}

/// The results of a search.
fn found(query: &str, hits: &[Hit]) -> String {
    let query = escaped(query);
    if hits.is_empty() {
        return format!("<h1>Search</h1>\n<p>No section has all of: {query}</p>\n{}", listed());
    }
    let item = |Hit { topic, section, excerpt }: &Hit| {
        let (name, anchor) = (topic.name, escaped(&section.anchor));
        let (page, title, excerpt) = (topic.title(), escaped(&section.title), escaped(excerpt));
        format!(
            "<li><a href=\"/manual/{name}#{anchor}\">{title}</a> <span class=\"muted small\">{page}</span>\
             <span class=\"muted block\">{excerpt}</span></li>"
        )
    };
    let items: String = hits.iter().map(item).collect();
    format!("<h1>Search: {query}</h1>\n<ul class=\"topics\">{items}</ul>")
}

/// A topic as HTML.
fn rendered(topic: &Topic) -> String {
    let parts: Vec<Event<'_>> = topic.parsed().collect();
    let mut shown = Vec::with_capacity(parts.len());
    let mut heading = String::new();
    let mut source = None;
    let mut in_picture = false;
    for (index, part) in parts.iter().enumerate() {
        match part {
            Event::Start(Tag::Image { .. }) => in_picture = true,
            Event::End(TagEnd::Image) => in_picture = false,
            _ if in_picture => {} // images are not in the binary
            Event::Start(Tag::Heading { level, .. }) => {
                heading = anchor(&title(&parts[index + 1..]));
                let id = Some(CowStr::from(heading.clone()));
                let (classes, attrs) = (Vec::new(), Vec::new());
                shown.push(Event::Start(Tag::Heading { level: *level, id, classes, attrs }));
            }
            Event::End(TagEnd::Heading(_)) => {
                let mark = format!(
                    " <a class=\"mark\" href=\"#{heading}\" aria-label=\"Link to this section\">#</a>"
                );
                shown.extend([Event::InlineHtml(mark.into()), part.clone()]);
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let to = match Leads::of(dest_url) {
                    Leads::Topic(topic, None) => format!("/manual/{}", topic.name),
                    Leads::Topic(topic, Some(heading)) => {
                        format!("/manual/{}#{heading}", topic.name)
                    }
                    Leads::Here(heading) => format!("#{heading}"),
                    Leads::Web(url) => url.to_owned(),
                    Leads::Source(path) => {
                        source = Some(path.to_owned());
                        continue;
                    }
                };
                let (link_type, title, id) = (*link_type, title.clone(), id.clone());
                let dest_url = to.into();
                shown.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
            }
            Event::End(TagEnd::Link) => match source.take() {
                Some(path) => {
                    let code = Event::Code(path.into());
                    shown.extend([Event::Text(" (".into()), code, Event::Text(")".into())]);
                }
                None => shown.push(part.clone()),
            },
            Event::Start(Tag::Table(_)) => {
                shown.push(Event::Html("<div class=\"scroll\" tabindex=\"0\">".into()));
                shown.push(part.clone());
            }
            Event::End(TagEnd::Table) => {
                shown.extend([part.clone(), Event::Html("</div>".into())]);
            }
            Event::Html(text) | Event::InlineHtml(text) => shown.push(Event::Text(text.clone())),
            _ => shown.push(part.clone()),
        }
    }
    let mut text = String::new();
    html::push_html(&mut text, shown.into_iter());
    // lets keyboard users scroll wide blocks; text cannot contain a literal `<pre>`, as its `<` is
    // escaped
    text.replace("<pre>", "<pre tabindex=\"0\">")
}

/// The text of the heading at the beginning of `parts`.
fn title(parts: &[Event<'_>]) -> String {
    let words = parts.iter().take_while(|part| !matches!(part, Event::End(TagEnd::Heading(_))));
    let text = words.filter_map(|part| match part {
        Event::Text(text) | Event::Code(text) => Some(&**text),
        _ => None,
    });
    text.collect()
}

/// A page with this content: navigation and search around it.
fn shell(title: &str, query: &str, current: Option<&Topic>, content: &str) -> Response {
    let entry = |topic: &Topic| {
        let is_current = current == Some(topic);
        let current = if is_current { " aria-current=\"page\"" } else { "" };
        format!("<li><a href=\"/manual/{}\"{current}>{}</a></li>", topic.name, topic.title())
    };
    let entries: String = TOPICS.iter().map(entry).collect();
    let (version, query) = (env!("CARGO_PKG_VERSION"), escaped(query));
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>{title} · cohortd manual</title>\n  \
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n  \
         <meta name=\"color-scheme\" content=\"light dark\">\n  \
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n  \
         <link rel=\"stylesheet\" href=\"/assets/dashboard.css\">\n  \
         <link rel=\"stylesheet\" href=\"/assets/manual.css\">\n</head>\n<body>\n\
         <header class=\"head\">\n<p class=\"brand\"><img src=\"/assets/icon.svg\" alt=\"\" width=\"26\" height=\"26\">\
         <a href=\"/\">cohortd</a> <span class=\"muted\">manual</span></p>\n\
         <form class=\"search\" role=\"search\" action=\"/manual\"><input type=\"search\" name=\"q\" value=\"{query}\" \
         aria-label=\"Search the manual\" placeholder=\"Search the manual\"><button>Search</button></form>\n</header>\n\
         <main class=\"reading\">\n<nav class=\"contents\" aria-label=\"Topics\"><ul>{entries}</ul></nav>\n\
         <article class=\"card manual\">\n{content}\n</article>\n</main>\n\
         <footer class=\"muted small\">cohortd {version} · <a href=\"/\">dashboard</a></footer>\n</body>\n</html>\n"
    );
    let mut response = text.into_response();
    let headers = response.headers_mut();
    dashboard::protect(headers, POLICY);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    response
}

/// The text with HTML special characters escaped, also for attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str) -> (StatusCode, http::HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router().with_state(()).oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("it is in memory");
        (status, headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn every_link_leads_to_a_heading_that_is_there() {
        let mut pages = Vec::new();
        for topic in &TOPICS {
            let path = format!("/manual/{}", topic.name);
            let (status, headers, text) = get(&path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(headers[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
            assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
            for section in topic.sections() {
                let id = format!(" id=\"{}\"", section.anchor);
                assert_eq!(text.matches(&id).count(), 1, "{path}: {id}");
            }
            assert!(!text.contains("<script") && !text.contains(" style="), "{path}");
            pages.push((path, text));
        }
        for (path, text) in &pages {
            for link in text.split(" href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let (to, heading) = link.split_once('#').unwrap_or((link, ""));
                let to = if to.is_empty() { path } else { to };
                let leads = match to {
                    "/" => true,
                    _ if to.contains("://") || to.starts_with("/assets/") => true,
                    _ => pages.iter().any(|(path, text)| {
                        let id = format!(" id=\"{heading}\"");
                        path == to && (heading.is_empty() || text.contains(&id))
                    }),
                };
                assert!(leads, "{path}: {link}");
            }
        }
        assert_eq!(get("/manual/weather").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_search_shows_headings_with_what_stands_there_and_the_query_as_text() {
        let (_, _, text) = get("/manual?q=Segment+says+401").await;
        let hit = "<a href=\"/manual/troubleshooting#segment-says-401\">Segment says 401</a>";
        assert!(text.contains(hit), "{text}");
        assert!(text.contains("value=\"Segment says 401\""), "{text}");

        let (_, _, text) = get("/manual?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").await;
        assert!(text.contains("No section has all of: &quot;&gt;&lt;script&gt;"), "{text}");
        assert!(!text.contains("<script"), "{text}");

        for path in ["/manual", "/manual?q=", "/manual?other=1"] {
            let (status, _, text) = get(path).await;
            assert_eq!(status, StatusCode::OK);
            for topic in &TOPICS {
                assert!(text.contains(topic.summary), "{path}: {}", topic.name);
            }
        }
    }
}
