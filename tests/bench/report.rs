//! Figures by name: median, smallest and largest of the rounds.

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    Percent,
    Milliseconds,
    Megabytes,
    Bytes,
    Count,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Percent => "%",
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
            Self::Bytes => "B",
            Self::Count => "",
        }
    }

    /// A value with its unit, for people.
    pub fn shown(self, value: f64) -> String {
        let decimals = match self {
            Self::PerSecond if value < 100.0 => 1,
            Self::PerSecond | Self::Count | Self::Bytes => 0,
            Self::Milliseconds | Self::Megabytes => 1,
            Self::Percent => 2,
        };
        let text = format!("{value:.decimals$}");
        let whole = text.find('.').unwrap_or(text.len());
        let mut shown = String::new();
        for (index, digit) in text.char_indices() {
            if index > 0 && index < whole && (whole - index).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        let unit = self.name();
        if unit.is_empty() { shown } else { format!("{shown} {unit}") }
    }
}

pub struct Figure {
    name: String,
    pub unit: Unit,
    rounds: Vec<f64>,
}

impl Figure {
    /// Of the rounds; a figure has at least one.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// The median of what this is to another in the same round.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        median(
            self.rounds.iter().zip(&other.rounds).map(|(figure, other)| figure / other).collect(),
        )
    }

    fn bounds(&self) -> (f64, f64) {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        self.rounds.iter().fold(ends, |(min, max), round| (min.min(*round), max.max(*round)))
    }
}

/// The upper one of two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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

    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// Every figure, for people.
    pub fn print(&self) {
        println!("{:<66} {:>14} {:>14} {:>14}", "", "median", "min", "max");
        for figure in &self.figures {
            let (min, max) = figure.bounds();
            print!("{:<66}", figure.name);
            for value in [figure.median(), min, max] {
                print!(" {:>14}", figure.unit.shown(value));
            }
            println!();
        }
    }

    /// The same for machines, every round included.
    pub fn json(&self) -> Value {
        let figure = |figure: &Figure| {
            let (min, max) = figure.bounds();
            json!({
                "name": figure.name,
                "unit": figure.unit.name(),
                "median": figure.median(),
                "min": min,
                "max": max,
                "rounds": figure.rounds,
            })
        };
        self.figures.iter().map(figure).collect()
    }
}
