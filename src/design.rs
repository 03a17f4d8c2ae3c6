//! The design, for those who read or change the code: what is promised, what both neighbours send and
//! take, how the house is built, and why some things are the way they are. There is no code in here.
//!
//! Code cites these pages: a promise by its number ([`Promise`]), a fact about a neighbour by its page
//! below [`segment`] or [`launchdarkly`]. In documentation a citation is a link, which `cargo doc` checks;
//! everywhere else it is a name, such as `P3` or `design::segment::times`. A test below looks at both.

#[cfg(test)]
mod citations;
#[cfg(test)]
mod imports;
mod promises;

pub use promises::Promise::{self, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10};

pub mod segment {
    #![doc = include_str!("design/segment.md")]

    pub mod memberships {
        #![doc = include_str!("design/segment/memberships.md")]
    }
    pub mod requests {
        #![doc = include_str!("design/segment/requests.md")]
    }
    pub mod signature {
        #![doc = include_str!("design/segment/signature.md")]
    }
    pub mod tracking_api {
        #![doc = include_str!("design/segment/tracking_api.md")]
    }
    pub mod times {
        #![doc = include_str!("design/segment/times.md")]
    }
    pub mod sync_audience {
        #![doc = include_str!("design/segment/sync_audience.md")]
    }
    pub mod directives {
        #![doc = include_str!("design/segment/directives.md")]
    }
    pub mod fql {
        #![doc = include_str!("design/segment/fql.md")]
    }
    pub mod deviations {
        #![doc = include_str!("design/segment/deviations.md")]
    }
}

pub mod launchdarkly {
    #![doc = include_str!("design/launchdarkly.md")]

    pub mod synced_segments {
        #![doc = include_str!("design/launchdarkly/synced_segments.md")]
    }
    pub mod credentials {
        #![doc = include_str!("design/launchdarkly/credentials.md")]
    }
    pub mod rate_limits {
        #![doc = include_str!("design/launchdarkly/rate_limits.md")]
    }
    pub mod answers {
        #![doc = include_str!("design/launchdarkly/answers.md")]
    }
}

pub mod architecture {
    #![doc = include_str!("design/architecture.md")]

    pub mod walk {
        #![doc = include_str!("design/architecture/walk.md")]
    }
    pub mod rules {
        #![doc = include_str!("design/architecture/rules.md")]
    }
    pub mod receiving {
        #![doc = include_str!("design/architecture/receiving.md")]
    }
    pub mod ledger_state {
        #![doc = include_str!("design/architecture/ledger_state.md")]
    }
    pub mod delivery {
        #![doc = include_str!("design/architecture/delivery.md")]
    }
}

pub mod glossary {
    #![doc = include_str!("design/glossary.md")]
}

pub mod decisions {
    #![doc = include_str!("design/decisions.md")]

    pub mod state_not_log {
        #![doc = include_str!("design/decisions/state_not_log.md")]
    }
    pub mod sqlite {
        #![doc = include_str!("design/decisions/sqlite.md")]
    }
    pub mod liquid {
        #![doc = include_str!("design/decisions/liquid.md")]
    }
    pub mod journal {
        #![doc = include_str!("design/decisions/journal.md")]
    }
    pub mod own_otlp {
        #![doc = include_str!("design/decisions/own_otlp.md")]
    }
    pub mod plain_dashboard {
        #![doc = include_str!("design/decisions/plain_dashboard.md")]
    }
    pub mod courier_thread {
        #![doc = include_str!("design/decisions/courier_thread.md")]
    }
    pub mod json_in_one_place {
        #![doc = include_str!("design/decisions/json_in_one_place.md")]
    }
    pub mod executed_again {
        #![doc = include_str!("design/decisions/executed_again.md")]
    }
    pub mod one_lease {
        #![doc = include_str!("design/decisions/one_lease.md")]
    }
    pub mod rules_in_rust {
        #![doc = include_str!("design/decisions/rules_in_rust.md")]
    }
    pub mod license_texts {
        #![doc = include_str!("design/decisions/license_texts.md")]
    }
}
