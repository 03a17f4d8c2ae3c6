//! The names of ignored events: how many there were of each, in bounded memory whatever names a sender
//! chooses ([P6](crate::design::P6)).

use std::collections::BTreeMap;

use serde_json::Value;

/// Most names that are counted separately.
pub(super) const MOST_NAMES: usize = 100;
/// Most characters of a name that are kept.
const LONGEST_CHARACTERS: usize = 80;
/// The name under which all other names are counted.
const OTHERS: &str = "others";

/// How many events had each name.
#[derive(Debug, Default)]
pub(super) struct Names {
    counts: BTreeMap<String, u64>,
    others: u64,
}

impl Names {
    /// Counts an event under its type, and the event name of a track call.
    pub fn count(&mut self, event: &Value) {
        let of = |field| event.get(field).and_then(Value::as_str).map(cut);
        let kind = of("type").unwrap_or_else(|| "without a type".to_owned());
        let name = match of("event") {
            Some(event) => format!("{kind} {event}"),
            None => kind,
        };
        self.add(&name, 1);
    }

    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(name, count)| self.add(name, *count));
        self.others += other.others;
    }

    /// The most frequent first, `others` last.
    pub fn read(&self) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(name, n)| (name.clone(), *n)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if self.others > 0 {
            all.push((OTHERS.to_owned(), self.others));
        }
        all
    }

    fn add(&mut self, name: &str, count: u64) {
        if let Some(before) = self.counts.get_mut(name) {
            *before += count;
        } else if self.counts.len() < MOST_NAMES {
            self.counts.insert(name.to_owned(), count);
        } else {
            self.others += count;
        }
    }
}

/// Shortened, and on one line.
fn cut(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_CHARACTERS).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let mut names = Names::default();
        for number in 0..150 {
            names.count(&json!({"type": "track", "event": format!("Order {number}")}));
        }
        names.count(&json!({"type": "track", "event": "Order 7"}));
        names.count(&json!({"type": "page"}));
        let mut all = Names::default();
        all.merge(&names);
        let read = all.read();
        assert_eq!(read.len(), MOST_NAMES + 1);
        assert_eq!(read[0], ("track Order 7".to_owned(), 2));
        assert_eq!(read[MOST_NAMES], (OTHERS.to_owned(), 51));

        let mut long = Names::default();
        long.count(&json!({"type": "track", "event": format!("a\nb{}", "x".repeat(500))}));
        let (name, _) = &long.read()[0];
        assert!(name.starts_with("track a bx") && name.chars().count() == 86, "{name}");
    }
}
