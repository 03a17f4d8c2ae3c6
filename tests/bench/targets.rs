//! The figures that were promised, each beside its yardstick of the same minutes, and whether they hold.

use serde_json::{Value, json};

use crate::report::{Figure, Report};

/// What is compared, and with what.
struct Target {
    work: &'static str,
    figure: &'static str,
    yardstick: Option<&'static str>,
    wanted: Wanted,
}

/// Of the ratio where there is a yardstick, or else of the figure.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// It is only to be known.
    Nothing,
}

impl Wanted {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => Some(value >= bound),
            Self::AtMost(bound) => Some(value <= bound),
            Self::Nothing => None,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound}"),
            Self::AtMost(bound) => format!("at most {bound}"),
            Self::Nothing => String::new(),
        }
    }
}

const BATCHES: &str = "batches, LaunchDarkly down: answered";
const MERGED: &str = "batches, LaunchDarkly down: merged";
const PARSED: &str = "batches, yardstick: answered";

const fn row(
    work: &'static str,
    figure: &'static str,
    yardstick: Option<&'static str>,
    wanted: Wanted,
) -> Target {
    Target { work, figure, yardstick, wanted }
}

use Wanted::{AtLeast, AtMost, Nothing};

/// In the order of the table.
const TARGETS: [Target; 43] = [
    row("batches to 1 M members, beside reading and parsing", BATCHES, Some(PARSED), AtLeast(0.8)),
    row("  the same until all is merged", MERGED, Some(PARSED), Nothing),
    row(
        "  the same with delivery on",
        "batches, delivery on: answered",
        Some(PARSED),
        AtLeast(0.8),
    ),
    row(
        "single events, beside an empty handler",
        "single events: answered",
        Some("single events, yardstick: answered"),
        AtLeast(0.5),
    ),
    row("  p99 (ms)", "single events: p99", None, AtMost(20.0)),
    row(
        "backfill, first post to last settle, beside batches",
        "batches, delivery on: settled",
        Some(BATCHES),
        AtLeast(0.5),
    ),
    row(
        "  to the last member taken",
        "batches, delivery on: taken by LaunchDarkly",
        Some(BATCHES),
        Nothing,
    ),
    row(
        "1 M into another audience: onto 10 M beside onto 1 M",
        "onto 10 M, another audience: answered",
        Some("onto 1 M, another audience: answered"),
        AtLeast(0.5),
    ),
    row(
        "  the same until all is merged",
        "onto 10 M, another audience: merged",
        Some("onto 1 M, another audience: merged"),
        Nothing,
    ),
    row(
        "1 M among those there are: onto 10 M beside onto 1 M",
        "onto 10 M, the same audience: answered",
        Some("onto 1 M, the same audience: answered"),
        AtLeast(0.5),
    ),
    row(
        "  the same until all is merged",
        "onto 10 M, the same audience: merged",
        Some("onto 1 M, the same audience: merged"),
        Nothing,
    ),
    row(
        "  beside batches to 1 M members, until all is merged",
        "onto 10 M, the same audience: merged",
        Some(MERGED),
        Nothing,
    ),
    row(
        "calls, 20 batches of 100 a second, beside one each",
        "20 requests a second of 100: calls",
        Some("20 requests a second of 100: one call a request and audience"),
        AtMost(0.5),
    ),
    row(
        "calls, 20 single events a second, beside one each",
        "20 requests a second of 1: calls",
        Some("20 requests a second of 1: one call a request and audience"),
        AtMost(0.5),
    ),
    row("memory (MB): idle", "idle, one destination: memory", None, AtMost(15.0)),
    row("  during the backfill", "batches, delivery on: memory, peak", None, AtMost(128.0)),
    row(
        "  during the backfill, LaunchDarkly down",
        "batches, LaunchDarkly down: memory, peak",
        None,
        AtMost(128.0),
    ),
    row("  10 M members, 1 M pending", "10 M, 1 M pending: memory, at rest", None, AtMost(128.0)),
    row("  the same, peak", "10 M, 1 M pending: memory, peak", None, AtMost(128.0)),
    row("start (ms): empty ledger", "start: empty ledger", None, AtMost(50.0)),
    row("  10 M members after SIGKILL", "start: 10 M members, after SIGKILL", None, AtMost(500.0)),
    row(
        "idle with ten destinations: wake-ups a second",
        "idle, ten destinations: wake-ups",
        None,
        AtMost(20.0),
    ),
    row("  CPU (%)", "idle, ten destinations: CPU", None, AtMost(0.1)),
    row(
        "bytes written an event (B): batches to 1 M members",
        "batches, LaunchDarkly down: bytes written an event, at rest",
        None,
        Nothing,
    ),
    row(
        "  onto 1 M",
        "onto 1 M, the same audience: bytes written an event, at rest",
        None,
        Nothing,
    ),
    row(
        "  single events onto 1 M",
        "onto 1 M, single events: bytes written an event, at rest",
        None,
        Nothing,
    ),
    row(
        "  onto 10 M",
        "onto 10 M, the same audience: bytes written an event, at rest",
        None,
        Nothing,
    ),
    row("kept bodies that come and go: kept a second", "churn of kept bodies: kept", None, Nothing),
    row(
        "  bytes written a body (B)",
        "churn of kept bodies: bytes written a body, at rest",
        None,
        Nothing,
    ),
    row("size of the ledger of 10 M (MB)", "10 M: size of the ledger", None, Nothing),
    row("release binary, stripped (MB)", "release binary", None, AtMost(20.0)),
    row(
        "PostgreSQL: batches, paused, beside the bare statement",
        "PostgreSQL, batches: answered",
        Some("PostgreSQL, yardstick: batches"),
        AtLeast(0.65),
    ),
    row("  WAL an event (B)", "PostgreSQL, batches: WAL an event", None, Nothing),
    row("  CPU of the database (%)", "PostgreSQL, batches: CPU of the database", None, Nothing),
    row(
        "  two replicas beside one",
        "PostgreSQL, two replicas: answered",
        Some("PostgreSQL, batches: answered"),
        AtLeast(0.9),
    ),
    row(
        "  CPU of the database (%)",
        "PostgreSQL, two replicas: CPU of the database",
        None,
        Nothing,
    ),
    row(
        "PostgreSQL: single events beside a bare group commit",
        "PostgreSQL, single events: answered",
        Some("PostgreSQL, yardstick: single events"),
        AtLeast(0.5),
    ),
    row("  p99 (ms)", "PostgreSQL, single events: p99", None, AtMost(20.0)),
    row("  WAL an event (B)", "PostgreSQL, single events: WAL an event", None, Nothing),
    row(
        "PostgreSQL: backfill, to the last settle, beside batches",
        "PostgreSQL, backfill: settled",
        Some("PostgreSQL, batches: answered"),
        Nothing,
    ),
    row(
        "  its second half beside its first",
        "PostgreSQL, backfill: second half answered",
        Some("PostgreSQL, backfill: first half answered"),
        Nothing,
    ),
    row(
        "PostgreSQL: 1 M onto 10 M beside onto 1 M",
        "PostgreSQL, onto 10 M: answered",
        Some("PostgreSQL, onto 1 M: answered"),
        AtLeast(0.5),
    ),
    row(
        "PostgreSQL: from an owner's SIGKILL to the next call, p99, beside the ttl",
        "PostgreSQL, take-over: p99",
        Some("PostgreSQL, take-over: ttl"),
        Nothing,
    ),
];

/// What became of one target.
struct Row {
    target: &'static Target,
    value: f64,
    figure: String,
    yardstick: Option<String>,
}

impl Row {
    fn of(target: &'static Target, report: &Report) -> Option<Self> {
        let shown = |figure: &Figure| figure.unit.shown(figure.median());
        let figure = report.figure(target.figure)?;
        let yardstick = match target.yardstick {
            Some(name) => Some(report.figure(name)?),
            None => None,
        };
        Some(Self {
            target,
            value: yardstick.map_or_else(|| figure.median(), |other| figure.ratio_to(other)),
            figure: shown(figure),
            yardstick: yardstick.map(shown),
        })
    }

    fn is_met(&self) -> Option<bool> {
        self.target.wanted.is_met(self.value)
    }

    fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        }
    }
}

/// The table for people; what was not measured is not in it.
pub fn print(report: &Report) {
    let (work, target) = ("", "target");
    println!("{work:<54} {:>14} {:>14} {:>7}  {target:<17}", "figure", "yardstick", "ratio");
    for row in TARGETS.iter().filter_map(|target| Row::of(target, report)) {
        let ratio = row.yardstick.as_ref().map(|_| format!("{:.3}", row.value));
        println!(
            "{:<54} {:>14} {:>14} {:>7}  {:<17} {}",
            row.target.work,
            row.figure,
            row.yardstick.as_deref().unwrap_or_default(),
            ratio.unwrap_or_default(),
            row.target.wanted.shown(),
            row.verdict(),
        );
    }
    println!();
}

/// The same for machines.
pub fn json(report: &Report) -> Value {
    let row = |row: Row| {
        json!({
            "work": row.target.work.trim(),
            "figure": row.target.figure,
            "yardstick": row.target.yardstick,
            "value": row.value,
            "target": row.target.wanted.shown(),
            "met": row.is_met(),
        })
    };
    TARGETS.iter().filter_map(|target| Row::of(target, report)).map(row).collect()
}
