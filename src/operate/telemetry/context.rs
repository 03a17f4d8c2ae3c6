//! W3C trace context: the trace and span that a request or call belongs to
//! (<https://www.w3.org/TR/trace-context/>).

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The only trace header that is read and sent.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Identifies a span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Whether the trace is recorded; if not, its context is only passed on.
    pub sampled: bool,
}

tokio::task_local! {
    /// The span that the running task works for.
    pub(super) static CURRENT: TraceContext;
}

impl TraceContext {
    /// The span that the running task works for, if any.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// A new child span of `parent`, or the first span of a new trace.
    pub fn below(parent: Option<Self>, sampled: bool) -> Self {
        // An ID of all zeros would be invalid, but is too unlikely to draw again.
        let trace_id = parent.map_or_else(rand::random, |parent| parent.trace_id);
        Self { trace_id, span_id: rand::random(), sampled }
    }

    /// The span named by a request's headers. An invalid header counts as absent, as the standard
    /// demands.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let version = bytes::<1>(version)?[0];
        let mut parts = rest.split('-');
        let trace_id = bytes(parts.next()?)?;
        let span_id = bytes(parts.next()?)?;
        let flags = bytes::<1>(parts.next()?)?[0];
        // Version 0 has no further fields; later versions may, and version 255 is invalid.
        let ends = parts.next().is_none();
        let valid = trace_id != [0; 16] && span_id != [0; 8] && version != 255;
        (valid && (version != 0 || ends)).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    fn header(self) -> HeaderValue {
        let mut text = "00-".to_owned();
        let mut hex = |bytes: &[u8]| {
            for byte in bytes {
                write!(text, "{byte:02x}").expect("it is memory");
            }
            text.push('-');
        };
        hex(&self.trace_id);
        hex(&self.span_id);
        text += if self.sampled { "01" } else { "00" };
        HeaderValue::from_str(&text).expect("hexadecimal digits and dashes")
    }
}

/// Parses exactly `N` bytes of lower-case hexadecimal.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// The `traceparent` header for a call made by the running task, if the task works for a trace.
#[must_use]
pub fn traceparent() -> Option<HeaderValue> {
    TraceContext::current().map(TraceContext::header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_context_is_read_as_the_standard_says() {
        let table = [
            (format!("00-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            (format!("00-{TRACE}-{SPAN}-ff"), Some(true)),
            (format!("01-{TRACE}-{SPAN}-01-more"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            ("ada@example.com".to_owned(), None),
            (String::new(), None),
        ];
        for (text, sampled) in table {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, text.parse().expect("a value"));
            let context = TraceContext::of(&headers);
            assert_eq!(context.map(|context| context.sampled), sampled, "{text}");
            headers.append(TRACEPARENT, text.parse().expect("a value"));
            assert_eq!(TraceContext::of(&headers), None, "two are none");
        }
    }

    #[test]
    fn what_is_sent_is_what_was_read_with_a_span_of_its_own() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let parent = TraceContext::parse(&text).expect("a context");
        assert_eq!(parent.header(), text);
        let child = TraceContext::below(Some(parent), true);
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.span_id, parent.span_id);
        assert_eq!(traceparent(), None, "nobody works for a trace here");
    }
}
