//! Figures by name: median, smallest and largest of the rounds.

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    Ratio,
    Milliseconds,
    Mebibytes,
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Ratio => "x",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Count => "",
        }
    }

    fn decimals(self) -> usize {
        match self {
            Self::PerSecond | Self::Count => 0,
            Self::Milliseconds | Self::Mebibytes => 1,
            Self::Ratio => 3,
        }
    }
}

struct Figure {
    name: String,
    unit: Unit,
    rounds: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Every figure, in the order of its first round.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds the value of one more round.
    pub fn add(&mut self, name: &str, unit: Unit, value: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.rounds.push(value),
            None => {
                self.figures.push(Figure { name: name.to_owned(), unit, rounds: vec![value] });
            }
        }
    }

    /// A table for people, ordered by name.
    pub fn print(&mut self) {
        self.figures.sort_by(|a, b| a.name.cmp(&b.name));
        println!("{:<62} {:>12} {:>12} {:>12}", "", "median", "min", "max");
        for figure in &self.figures {
            let (unit, decimals) = (figure.unit.name(), figure.unit.decimals());
            let name = format!("{} {unit}", figure.name);
            print!("{name:<62}");
            let sorted = figure.sorted();
            for value in [median(&sorted), sorted[0], sorted[sorted.len() - 1]] {
                print!(" {value:>12.decimals$}");
            }
            println!();
        }
    }

    /// The same for machines, every round included.
    pub fn json(&self, members: u32) -> String {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let (sorted, unit) = (figure.sorted(), figure.unit.name());
                json!({
                    "name": figure.name,
                    "unit": unit,
                    "median": median(&sorted),
                    "min": sorted.first(),
                    "max": sorted.last(),
                    "rounds": figure.rounds,
                })
            })
            .collect();
        format!("{:#}\n", json!({"members": members, "figures": figures}))
    }
}

/// The upper one of two in the middle. A figure has at least one round.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
