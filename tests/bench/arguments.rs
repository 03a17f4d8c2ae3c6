//! The few words that the benchmark takes.

use std::path::PathBuf;

/// What is to be measured.
pub struct Arguments {
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
        let (mut members, mut quick, mut json) = (None, false, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--bench" => is_bench = true,
                "--quick" => quick = true,
                "--json" => json = Some(PathBuf::from(value()?)),
                "--members" => {
                    let text = value()?;
                    let number: u32 = text.parse().map_err(|_| format!("{text} is no number"))?;
                    members = Some(number.max(1));
                }
                _ => return Err(format!("{word}: known are --members N, --quick, --json FILE")),
            }
        }
        let members = members.unwrap_or(if quick { 20_000 } else { 200_000 });
        Ok(is_bench.then_some(Self { members, quick, json }))
    }
}
