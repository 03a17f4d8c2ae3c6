//! The few words that the benchmark takes.

use std::path::PathBuf;

/// Which figures are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Events a second, and what they cost.
    Throughput,
    /// Calls to LaunchDarkly.
    Calls,
    /// Ten million members.
    Scale,
}

/// What is to be measured.
pub struct Arguments {
    pub what: What,
    /// Of the audience that is backfilled.
    pub members: u32,
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
        let mut what = What::Throughput;
        let (mut members, mut quick, mut json) = (None, false, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--bench" => is_bench = true,
                "--quick" => quick = true,
                "--json" => json = Some(PathBuf::from(value()?)),
                "--what" => {
                    what = match value()?.as_str() {
                        "throughput" => What::Throughput,
                        "calls" => What::Calls,
                        "scale" => What::Scale,
                        other => return Err(format!("{other}: throughput, calls or scale")),
                    };
                }
                "--members" => {
                    let text = value()?;
                    let number: u32 = text.parse().map_err(|_| format!("{text} is no number"))?;
                    members = Some(number.max(1));
                }
                _ => {
                    return Err(format!(
                        "{word}: known are --what WHAT, --members N, --quick, --json FILE"
                    ));
                }
            }
        }
        let members = members.unwrap_or(match (what, quick) {
            (What::Scale, false) => 10_000_000,
            (_, true) => 20_000,
            (_, false) => 200_000,
        });
        Ok(is_bench.then_some(Self { what, members, quick, json }))
    }
}
