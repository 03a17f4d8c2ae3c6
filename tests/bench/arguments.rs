//! The few words that the benchmark takes.

use std::path::PathBuf;

/// Which figures are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Everything that the table has of the embedded ledger.
    All,
    /// Events a second, and what they cost: all of the next three.
    Throughput,
    /// The same in batches, one audience's first sync.
    Batches,
    /// The same one by one.
    Singles,
    /// Kept bodies that come and go.
    Churn,
    /// Calls to LaunchDarkly.
    Calls,
    /// Ten million members.
    Scale,
    /// A snapshot that becomes the truth.
    Reconcile,
    /// Nothing to do.
    Idle,
    /// The same on PostgreSQL.
    Postgresql,
    /// Pictures instead of figures.
    Plots,
}

/// What is to be measured.
pub struct Arguments {
    pub what: What,
    /// Of the audience that is backfilled.
    pub members: u64,
    /// Of the ledger that is large.
    pub members_large: u64,
    /// Less of everything, for a first look.
    pub quick: bool,
    /// Where the figures go besides the terminal.
    pub json: Option<PathBuf>,
}

impl Arguments {
    /// `None`: without `--bench`, which `cargo bench` adds, nothing is to be measured.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = words;
        let mut is_bench = false;
        let mut what = What::All;
        let (mut members, mut members_large, mut quick, mut json) = (None, None, false, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--bench" => is_bench = true,
                "--quick" => quick = true,
                "--json" => json = Some(PathBuf::from(value()?)),
                "--what" => {
                    what = match value()?.as_str() {
                        "all" => What::All,
                        "throughput" => What::Throughput,
                        "batches" => What::Batches,
                        "singles" => What::Singles,
                        "churn" => What::Churn,
                        "calls" => What::Calls,
                        "scale" => What::Scale,
                        "reconcile" => What::Reconcile,
                        "idle" => What::Idle,
                        "postgresql" => What::Postgresql,
                        "plots" => What::Plots,
                        other => {
                            return Err(format!(
                                "{other}: all, throughput, batches, singles, churn, calls, scale, \
                                 reconcile, idle, postgresql or plots"
                            ));
                        }
                    };
                }
                "--members" => members = Some(number(&value()?)?),
                "--members-large" => members_large = Some(number(&value()?)?),
                _ => {
                    return Err(format!(
                        "{word}: known are --what WHAT, --members N, --members-large N, --quick, \
                         --json FILE"
                    ));
                }
            }
        }
        let (usual, usual_large) = if quick { (50_000, 500_000) } else { (1_000_000, 10_000_000) };
        let members = members.unwrap_or(usual);
        let members_large = members_large.unwrap_or(usual_large);
        Ok(is_bench.then_some(Self { what, members, members_large, quick, json }))
    }
}

fn number(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number @ 1..=100_000_000) => Ok(number),
        _ => Err(format!("{text}: a number from 1 to 100000000")),
    }
}
