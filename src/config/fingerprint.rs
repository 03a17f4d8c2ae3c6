//! Detects which keys have changed without keeping their values, which may be secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// A hash for each key that is set, by its path. The contents of a file count towards the key that names
/// it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(BTreeMap<String, u64>);

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Fingerprints {
    /// The fingerprints of a merged tree.
    pub(super) fn of(tree: &Value) -> Self {
        let mut all = Self::default();
        all.flatten(String::new(), tree);
        all
    }

    fn flatten(&mut self, path: String, value: &Value) {
        match value {
            Value::Object(section) => {
                for (key, below) in section {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.flatten(path, below);
                }
            }
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_object) => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(format!("{path}[{index}]"), item);
                }
            }
            leaf => self.mix(path, leaf.to_string().as_bytes()),
        }
    }

    /// Mixes a value, or the contents of the file it names, into the key's hash.
    pub(super) fn mix(&mut self, path: String, bytes: &[u8]) {
        let entry = self.0.entry(path).or_default();
        let mut hasher = DefaultHasher::new();
        (*entry, bytes).hash(&mut hasher);
        *entry = hasher.finish();
    }

    /// The keys that are set in only one of the two, or whose values differ.
    #[must_use]
    pub fn changed(&self, other: &Self) -> BTreeSet<String> {
        let differs = |path: &&String| self.0.get(*path) != other.0.get(*path);
        self.0.keys().chain(other.0.keys()).filter(differs).cloned().collect()
    }

    /// One hash over all keys that `which` selects, and their values.
    #[must_use]
    pub fn digest(&self, which: impl Fn(&str) -> bool) -> u64 {
        let mut hasher = DefaultHasher::new();
        for said in self.0.iter().filter(|(path, _)| which(path)) {
            said.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Replaces the hashes of the keys that `which` selects with those of `other`.
    pub fn adopt(&mut self, other: &Self, which: impl Fn(&str) -> bool) {
        self.0.retain(|path, _| !which(path));
        let taken = other.0.iter().filter(|(path, _)| which(path));
        self.0.extend(taken.map(|(path, print)| (path.clone(), *print)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_say_something_else_are_named_by_their_paths() {
        let before = json!({
            "a": {"same": 1, "other": [1, 2], "gone": true},
            "m": [{"x": "1"}, {"x": "2"}],
        });
        let after = json!({
            "a": {"same": 1, "other": [2, 1], "new": ""},
            "m": [{"x": "1"}, {"x": "3"}],
        });
        let (mut before, mut after) = (Fingerprints::of(&before), Fingerprints::of(&after));
        let named = ["a.gone", "a.new", "a.other", "m[1].x"].map(str::to_owned);
        assert_eq!(before.changed(&after), named.clone().into());
        assert_eq!(after.changed(&before), named.into());

        before.adopt(&after, |path| path != "a.other");
        assert_eq!(before.changed(&after), ["a.other".to_owned()].into());
        before.adopt(&after, |_| true);
        before.mix("a.same".to_owned(), b"one");
        after.mix("a.same".to_owned(), b"two");
        assert_eq!(before.changed(&after), ["a.same".to_owned()].into(), "the file it names");
    }
}
