//! The catalogue of all metrics. A name never changes its meaning; the manual's table is made from this
//! one (`tests::the_manual_lists_every_metric`).

/// The description of a metric.
#[derive(Debug)]
pub struct Metric {
    /// The name, without the suffix `_total` of exposed counters.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its description in one line.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values in buckets.
    Histogram,
}

/// The unit of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or a flag.
    One,
    /// Seconds.
    Second,
    /// Bytes.
    Byte,
}

impl Kind {
    /// The word in the exposition and the manual's table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Unit {
    /// The unit in UCUM, for OTLP; empty for things. `1` would mean a fraction, and translators to
    /// Prometheus append `_ratio` to a gauge that has it.
    #[must_use]
    pub fn ucum(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Second => "s",
            Self::Byte => "By",
        }
    }
}

impl Metric {
    /// The name it is exposed under.
    #[must_use]
    pub fn exposed_name(&self) -> String {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{suffix}", self.name)
    }

    /// Its position in the catalogue.
    pub(super) fn position(&self) -> usize {
        ALL.iter().position(|metric| metric.name == self.name).unwrap_or(ALL.len())
    }
}

macro_rules! catalogue {
    ($($constant:ident $name:literal $kind:ident $unit:ident [$($label:literal),*] $help:literal)*) => {
        $(
            #[doc = concat!("`cohortd_", $name, "`")]
            pub static $constant: Metric = Metric {
                name: concat!("cohortd_", $name),
                kind: Kind::$kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All metrics, in the order in which an event passes through the daemon.
        pub static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

catalogue! {
    BUILD_INFO "build_info" Gauge One ["version"]
        "1; the version of cohortd that runs."
    START_TIME "start_time_seconds" Gauge Second []
        "When the daemon started, since the Unix epoch."
    READY "ready" Gauge One []
        "1 while events are accepted."
    CONFIG_REFUSED "config_refused" Gauge One []
        "1 while the configuration on disk is refused, and the previous one is in effect."
    CONFIG_RELOADS "config_reloads" Counter One ["outcome"]
        "Reloads of the configuration since the daemon started, by outcome: applied, refused, \
         unchanged."
    CONFIG_LAST_SUCCESS "config_last_reload_success_timestamp_seconds" Gauge Second []
        "When a valid configuration was last read, since the Unix epoch; initially when the \
         daemon started."
    CERTIFICATE_EXPIRES "tls_certificate_expires_timestamp_seconds" Gauge Second ["listener"]
        "When the certificate of a listener that speaks TLS expires, since the Unix epoch: public, admin."
    LOG_LINES_DROPPED "log_lines_dropped" Counter One []
        "Log lines that could not be written since the daemon started."
    ADMIN_REFUSED "admin_refused_requests" Counter One ["reason"]
        "Requests of the admin listener that were refused: wrong_token, no_token, read_only (the \
         token is read-only), cross_origin and foreign_host (a web page of another site)."
    REQUESTS "requests" Counter One ["destination", "outcome"]
        "Requests of the public listener by outcome: done, all_rejected, or the word of the \
         refusal. A request to a route counts for each of its destinations."
    REQUEST_DURATION "request_duration_seconds" Histogram Second ["destination", "class"]
        "From the head of a request to its answer, by the class of its status: 2xx, 4xx, 5xx."
    REFUSED "refused_requests" Counter One ["path", "reason", "credential"]
        "Requests of the public listener that were refused, by path (`-`: an unknown path, `*`: a \
         connection of which no request was read), by the word of the refusal, and by the \
         credential they carried or that failed: none, signature, bearer, basic, other."
    EVENTS_ACCEPTED "events_accepted" Counter One ["destination"]
        "Events answered as accepted: they are on disk."
    EVENTS_IGNORED "events_ignored" Counter One ["destination"]
        "Events that no subscription selects."
    EVENTS_REJECTED "events_rejected" Counter One ["destination", "reason"]
        "Events that could not be applied, by the reason that was answered."
    EVENT_TIMES_DOUBTED "event_times_doubted" Counter One ["destination", "reason"]
        "Accepted events whose time was not used: unreadable, too_early (before 2010) or ahead \
         (by more than five minutes). The next best time, or the arrival, was used instead; \
         cohortd explain shows it."
    EVENT_TIMES_CORRECTED "event_times_corrected" Counter One ["destination", "clock"]
        "Accepted events of the Tracking API whose time was corrected because the sender's clock was ahead by a second or more, or a minute or more behind where segment.correct_clocks_behind says so."
    LAST_EVENT "last_event_timestamp_seconds" Gauge Second ["destination"]
        "When the last event arrived, since the Unix epoch; absent before the first one."
    DELTAS "deltas" Counter One ["destination"]
        "Membership deltas recorded."
    REPEATS "repeats_suppressed" Counter One ["destination"]
        "Deltas that said nothing new: no call is made for them."
    OVERTAKEN "deltas_overtaken" Counter One ["destination"]
        "Deltas that were older than what is known, and changed nothing."
    OUTLIVED "deletions_outlived" Counter One ["destination"]
        "Entries that a deletion did not undo, because their event time is ahead of their arrival \
         and later than the deletion."
    EXPIRED "entries_expired" Counter One ["destination"]
        "Members that left because their entries have expired (mapping.audiences.KEY.expires_after_s)."
    COMMIT_ROWS "ledger_commit_rows" Histogram One []
        "Deltas, kept events, claimed and reported members in one group of the writer."
    SYNC_DURATION "ledger_sync_duration_seconds" Histogram Second []
        "How long a commit took to be on stable storage."
    LEDGER_SIZE "ledger_size_bytes" Gauge Byte []
        "All files of the ledger."
    LEDGER_JOURNAL "ledger_journal_bytes" Gauge Byte []
        "The journal: what is accepted and synced but not merged into the tables yet."
    LEDGER_FREE "ledger_disk_free_bytes" Gauge Byte []
        "Free space on the ledger's disk."
    TAKES_WRITES "ledger_takes_writes" Gauge One []
        "0 while the ledger's disk has no space or its database cannot be used: events are answered 503."
    UNREAD "ledger_unread" Counter One []
        "How often the database did not say in time what the ledger holds: members, parked and rejected are shown as they were before."
    CLOCK_AHEAD "ledger_clock_ahead_seconds" Gauge Second []
        "How far the recorded arrival is ahead of the clock: more than five minutes is trouble, see cohortd ledger reset-clock."
    REJECTED_KEPT "rejected_events" Gauge One ["destination"]
        "Rejected events that are kept for replay."
    STATE "destination_state" Gauge One ["destination", "state"]
        "1 for the state a destination is in: waiting for the first event, ok, attention, catching up, behind, paused or held."
    CONCERNS "destination_concerns" Gauge One ["destination", "kind"]
        "Why a destination is not ok, and how many of each: no_space, database, old_transaction and clock_ahead (of the ledger), disabled, paused, held, guard and audience_failing (audiences), late (members), refused (requests), rejected (events kept), not_kept (rejected events that are not), parked (members), only_ignored and only_rejected (events)."
    GUARD_HELD "guard_held_audiences" Gauge One ["destination"]
        "Audiences that the guard holds, because too many of their members changed at once."
    PENDING "pending_members" Gauge One ["destination"]
        "Members with a change that LaunchDarkly has not been told yet."
    OLDEST_PENDING "oldest_pending_seconds" Gauge Second ["destination"]
        "How long the oldest pending member has been pending; 0 if there is none."
    PARKED "parked_members" Gauge One ["destination"]
        "Members that LaunchDarkly refused individually."
    CALLS "calls" Counter One ["destination", "status"]
        "Calls to LaunchDarkly by the status of the answer; none: there was no answer."
    CALL_DURATION "call_duration_seconds" Histogram Second ["destination", "outcome"]
        "How long calls to LaunchDarkly took, by what the answer meant: taken, refused, \
         token_refused, not_permitted, approval_required, unknown_environment, conflict, \
         too_large, rate_limited, unavailable, unexpected."
    CALLS_IN_FLIGHT "calls_in_flight" Gauge One ["destination"]
        "Calls to LaunchDarkly that are not answered yet."
    MEMBERS_DELIVERED "members_delivered" Counter One ["destination"]
        "Members that LaunchDarkly took."
    MEMBERS_PARKED "members_parked" Counter One ["destination"]
        "Members that LaunchDarkly refused individually, since the daemon started."
    LAST_DELIVERY "last_delivery_timestamp_seconds" Gauge Second ["destination"]
        "When LaunchDarkly last took a batch, since the Unix epoch; absent before the first one."
    RATE_LIMIT "rate_limit_calls" Gauge One ["destination", "limit"]
        "Calls that LaunchDarkly allows in a rate-limit window: global is the account's, route \
         the route's, token the service token's."
    RATE_LIMIT_REMAINING "rate_limit_remaining_calls" Gauge One ["destination", "limit"]
        "Calls left in the rate-limit window at the last answer."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;

    use super::*;
    use crate::manual;

    /// The manual's table of metrics.
    fn table() -> String {
        let mut table =
            "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
        for metric in ALL {
            let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            let (name, kind) = (metric.exposed_name(), metric.kind.word());
            let (labels, help) = (labels.join(", "), metric.help);
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").expect("it is memory");
        }
        table
    }

    #[test]
    fn the_manual_lists_every_metric() {
        let page = manual::topic("metrics").expect("it is there").text;
        assert!(
            page.contains(&table()),
            "src/manual/metrics.md should have this table:\n\n{}",
            table()
        );
    }

    #[test]
    fn names_are_distinct_and_say_their_unit() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, unit, help, .. } in ALL {
            assert!(!name.ends_with("_total"), "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Second, "{name}");
            assert_eq!(name.ends_with("_bytes"), *unit == Unit::Byte, "{name}");
            assert!(help.ends_with('.'), "{name}");
            assert!(*kind != Kind::Histogram || !name.ends_with("_count"), "{name}");
        }
    }
}
