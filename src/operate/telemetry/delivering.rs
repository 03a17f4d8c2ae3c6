//! Traces of calls: a wrapper of the client that a courier calls, and the traces that wait for a call.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use super::context::{CURRENT, TraceContext};
use super::spans::{Kind, Tracer};
use crate::launchdarkly::{Answer, Api, Fate, Outcome};
use crate::membership::{AudienceId, DestinationName};

/// Most traces that one call links to, besides the one it belongs to.
pub(super) const MOST_LINKS: usize = 31;
/// Most audiences with waiting traces; the traces of further audiences are dropped.
const MOST_AUDIENCES: usize = 10_000;

type OfAudiences = HashMap<(DestinationName, AudienceId), VecDeque<TraceContext>>;

/// The traces of recorded requests that no call has delivered yet, per audience, the latest last.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Untold(Arc<Mutex<OfAudiences>>);

impl Untold {
    /// A request of this trace is about to change the audience.
    pub(super) fn touched(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        context: TraceContext,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (destination.clone(), audience.clone());
        if all.len() >= MOST_AUDIENCES && !all.contains_key(&of) {
            return;
        }
        let waiting = all.entry(of).or_default();
        if waiting.len() > MOST_LINKS {
            waiting.pop_front();
        }
        waiting.push_back(context);
    }

    /// Takes the traces of an audience.
    fn take(&self, destination: &DestinationName, audience: &AudienceId) -> VecDeque<TraceContext> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(destination.clone(), audience.clone())).unwrap_or_default()
    }

    /// The traces were not delivered: puts them back before those that came since.
    fn give_back(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        contexts: VecDeque<TraceContext>,
    ) {
        let later = self.take(destination, audience);
        for context in contexts.into_iter().chain(later) {
            self.touched(destination, audience, context);
        }
    }
}

/// A client that records each call as a span of the traces that it delivers.
#[derive(Debug)]
pub struct TracedApi {
    api: Arc<dyn Api>,
    destination: DestinationName,
    url: Url,
    tracer: Tracer,
    untold: Untold,
}

impl TracedApi {
    /// Wraps the client of one destination; `url` is its URL, which contains no secret.
    #[must_use]
    pub fn new(
        api: Arc<dyn Api>,
        destination: DestinationName,
        url: Url,
        tracer: Tracer,
        untold: Untold,
    ) -> Self {
        Self { api, destination, url, tracer, untold }
    }
}

#[async_trait]
impl Api for TracedApi {
    async fn send(&self, audience: &AudienceId, body: Bytes) -> Answer {
        let contexts = self.untold.take(&self.destination, audience);
        // A recorded trace is preferred to a later one that is not recorded.
        let sampled = contexts.iter().rposition(|context| context.sampled);
        let parent = sampled.or_else(|| contexts.len().checked_sub(1));
        let mut span = self.tracer.begin(
            parent.map(|index| contexts[index]),
            Kind::Client,
            "POST segment-audiences",
        );
        let others = contexts.iter().enumerate().filter(|(index, _)| Some(*index) != parent);
        span.span.links = others.map(|(_, context)| *context).collect();
        span.text("http.request.method", "POST");
        span.text("server.address", self.url.host_str().unwrap_or_default());
        if let Some(port) = self.url.port_or_known_default() {
            span.number("server.port", port.into());
        }
        span.text("url.full", self.url.as_str());
        span.text("cohortd.destination", self.destination.as_str());
        span.text("cohortd.audience", audience.as_str());
        let answer = CURRENT.scope(span.span.context, self.api.send(audience, body)).await;
        if let Some(status) = answer.status {
            span.number("http.response.status_code", status.into());
        }
        if !matches!(answer.outcome, Outcome::Taken) {
            span.failed(&error_type(&answer));
            self.untold.give_back(&self.destination, audience, contexts);
        }
        self.tracer.end(span);
        answer
    }
}

/// Why a call was not taken: its status if that is an error, else a fixed word.
fn error_type(answer: &Answer) -> Cow<'static, str> {
    match (answer.status, &answer.outcome) {
        (Some(status @ 400..), _) => status.to_string().into(),
        (Some(_), _) => "unexpected_answer".into(),
        (None, Outcome::Unavailable { fate: Fate::Over, .. }) => "unreachable".into(),
        (None, _) => "no_answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_remembers_its_latest_traces_and_those_given_back_stand_first() {
        let untold = Untold::default();
        let eu = DestinationName::new("eu").expect("a name");
        let vip = AudienceId::new("aud_1").expect("an id");
        let context = |number: u8| TraceContext {
            trace_id: [number; 16],
            span_id: [number; 8],
            sampled: true,
        };
        for number in 1..=40 {
            untold.touched(&eu, &vip, context(number));
        }
        let taken = untold.take(&eu, &vip);
        assert_eq!(taken.len(), MOST_LINKS + 1);
        assert_eq!((taken[0], taken[MOST_LINKS]), (context(9), context(40)));
        assert!(untold.take(&eu, &vip).is_empty(), "they are taken once");
        untold.touched(&eu, &vip, context(50));
        untold.give_back(&eu, &vip, [context(1), context(2)].into());
        assert_eq!(untold.take(&eu, &vip), [context(1), context(2), context(50)]);
    }
}
