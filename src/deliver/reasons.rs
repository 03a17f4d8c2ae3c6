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
    why: "LaunchDarkly refuses every member, even one by one: the cause is common to all requests \
          (its API, the context kind, or something in between, such as a proxy)",
    remedy: "read LaunchDarkly's message, and check launchdarkly.base_url, \
             launchdarkly.client_side_id and the mapping's context_kind",
};

/// The reason for the latest answer that took nothing, after `failures` of them in a row.
pub(super) fn reason(outcome: &Outcome, failures: u64) -> Reason {
    let lasts = failures >= IN_A_ROW;
    let (why, remedy) = match outcome {
        Outcome::Taken => ("the call succeeded", "nothing has to be done"),
        Outcome::Refused(_) => (
            "LaunchDarkly cannot accept some member of the call, or the whole body",
            "nothing has to be done yet: the refused members are being singled out, and are \
             parked once found; see cohortd parked",
        ),
        Outcome::TokenRefused(_) => (
            "LaunchDarkly refuses the service token (launchdarkly.service_token or service_token_file): it \
             is unknown, revoked or expired",
            "create a new service token in LaunchDarkly and set launchdarkly.service_token or \
             launchdarkly.service_token_file; cohortd picks it up without a restart",
        ),
        Outcome::NotPermitted(_) => (
            "the service token (launchdarkly.service_token or service_token_file) is not permitted to do \
             this in LaunchDarkly: its role lacks an action",
            "give the role of the token the actions createSegment and updateIncluded on the segments of \
             this environment, or set launchdarkly.service_token to a token that has them",
        ),
        Outcome::ApprovalRequired(_) => (
            "LaunchDarkly requires an approval for each change of a segment in this environment, \
             which the service token (launchdarkly.service_token or service_token_file) may not \
             bypass",
            "give the role of the token the action bypassRequiredSegmentApproval, or turn off \
             required approvals for segments in this environment",
        ),
        Outcome::UnknownEnvironment(_) => (
            "LaunchDarkly does not know the environment (launchdarkly.client_side_id), or \
             launchdarkly.base_url is not the URL of its API",
            "set launchdarkly.client_side_id to the client-side ID of the environment, and check \
             launchdarkly.base_url",
        ),
        Outcome::Unexpected(_) => (
            "LaunchDarkly answers with a status that it does not document for this route \
             (launchdarkly.base_url)",
            "check launchdarkly.base_url, and any proxy or gateway in between",
        ),
        Outcome::Conflict(_) if lasts => (
            "LaunchDarkly keeps answering 409: this is not a concurrent change, but something \
             that a person must fix there, such as a segment that already exists under this key \
             (key_exists)",
            "look up the segment in LaunchDarkly by the audience's id and name, and delete or \
             rename the one that is in the way; LaunchDarkly's support asks for the id of the \
             answer",
        ),
        Outcome::Conflict(_) => (
            "something else changed the segment at the same time",
            "nothing has to be done: the call is retried within 5 seconds",
        ),
        Outcome::TooLarge(_) => (
            "the call is too large for LaunchDarkly, or for a proxy in between",
            "nothing has to be done: smaller calls are made; lower delivery.max_batch or \
             delivery.max_body_kib to make them small from the start",
        ),
        Outcome::RateLimited { .. } => (
            "LaunchDarkly is rate limiting calls",
            "nothing has to be done: delivery continues as soon as LaunchDarkly allows it; a \
             lower delivery.concurrency makes fewer calls at once, a higher delivery.linger_ms \
             fewer in total",
        ),
        Outcome::Unavailable { .. } => (
            "LaunchDarkly, or a proxy in between, cannot be reached or does not answer as it \
             should (launchdarkly.base_url)",
            "nothing is lost, and cohortd keeps retrying; if it lasts, check \
             launchdarkly.base_url, the proxy, the network and LaunchDarkly's status page",
        ),
    };
    Reason { why, remedy }
}
