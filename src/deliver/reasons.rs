//! What an answer means for an operator: why nothing is taken, and what would change that. Each reason
//! names the configuration key concerned. Pure ([P9](crate::design::P9)).

use crate::launchdarkly::Outcome;

/// An explanation for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// What is wrong, as a sentence without its full stop.
    pub why: &'static str,
    /// What to do about it, as a sentence without its full stop.
    pub remedy: &'static str,
}

/// From this many failures in a row on, an audience's failures are no longer taken for an accident.
pub(super) const IN_A_ROW: u64 = 3;

/// The reason of a hold because every member is refused.
pub(super) const EVERYBODY_REFUSED: Reason = Reason {
    why: "LaunchDarkly refuses every member, one by one: what all requests have in common is refused \
          (its API, the context kind, or something that stands between)",
    remedy: "read LaunchDarkly's words, and check launchdarkly.base_url, launchdarkly.client_side_id and \
             context_kind of the mapping",
};

/// The reason for the latest answer that took nothing, after `failures` of them in a row.
pub(super) fn reason(outcome: &Outcome, failures: u64) -> Reason {
    let lasts = failures >= IN_A_ROW;
    let (why, remedy) = match outcome {
        Outcome::Taken => ("the call was taken", "nothing has to be done"),
        Outcome::Refused(_) => (
            "LaunchDarkly cannot use some member of the call, or the whole body",
            "nothing has to be done yet: who is refused is looked for, and parked once found; see cohortd \
             parked",
        ),
        Outcome::TokenRefused(_) => (
            "LaunchDarkly refuses the service token (launchdarkly.service_token or service_token_file): it \
             is unknown, revoked or expired",
            "make a new service token in LaunchDarkly and set launchdarkly.service_token or \
             launchdarkly.service_token_file; it is read while cohortd runs",
        ),
        Outcome::NotPermitted(_) => (
            "LaunchDarkly does not permit what the service token asks for (launchdarkly.service_token or \
             service_token_file): its role lacks a right",
            "give the role of the token the actions createSegment and updateIncluded on the segments of \
             this environment, or set launchdarkly.service_token to a token that has them",
        ),
        Outcome::ApprovalRequired(_) => (
            "LaunchDarkly wants an approval for each change of a segment in this environment, which the \
             service token (launchdarkly.service_token or service_token_file) may not pass by",
            "give the role of the token the action bypassRequiredSegmentApproval, or switch required \
             approvals of segments off for this environment",
        ),
        Outcome::UnknownEnvironment(_) => (
            "LaunchDarkly does not know the environment (launchdarkly.client_side_id), or the base URL \
             (launchdarkly.base_url) is not its API's",
            "set launchdarkly.client_side_id to the client-side ID of the environment, and check \
             launchdarkly.base_url",
        ),
        Outcome::Unexpected(_) => (
            "LaunchDarkly answers with a status it does not document for this route \
             (launchdarkly.base_url)",
            "check launchdarkly.base_url, and whether something stands between",
        ),
        Outcome::Conflict(_) if lasts => (
            "LaunchDarkly answers 409 again and again: this is no change at the same time, but something \
             that a person must mend there, as a segment that exists already under this key \
             (key_exists)",
            "look the segment up in LaunchDarkly by the audience's id and name, and delete or rename the \
             one that is in the way; its support asks for the id of the answer",
        ),
        Outcome::Conflict(_) => (
            "something else has changed the segment at the same time",
            "nothing has to be done: it is tried again within 5 seconds",
        ),
        Outcome::TooLarge(_) => (
            "the call is too large for LaunchDarkly, or for something that stands between",
            "nothing has to be done: smaller calls are made; delivery.max_batch or \
             delivery.max_body_kib would make them so from the start",
        ),
        Outcome::RateLimited { .. } => (
            "LaunchDarkly limits the rate of calls",
            "nothing has to be done: it goes on when LaunchDarkly allows; fewer calls at once are made \
             with delivery.concurrency, fewer in all with delivery.linger_ms",
        ),
        Outcome::Unavailable { .. } => (
            "LaunchDarkly, or what stands between, cannot be reached or does not answer as it should \
             (launchdarkly.base_url)",
            "nothing is lost, and it is tried again; if it lasts, check launchdarkly.base_url, the \
             proxy, the network and LaunchDarkly's status page",
        ),
    };
    Reason { why, remedy }
}
