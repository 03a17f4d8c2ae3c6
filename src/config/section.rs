//! Reads one section of the merged tree, key by key, and pushes every fault onto the report.
//!
//! A missing or faulty key reads as `None`, so that reading continues and one pass finds every fault. Where
//! a value is required, the caller substitutes a placeholder. Nobody ever sees it, because a configuration
//! with a fault is never handed out.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::exposure::exposure;
use super::faults::{self, Report, variable};
use super::layers::ENVIRONMENT;
use super::source::{absolute, quoted};
use crate::nearest::nearest;

use crate::json;

/// A table of the merged tree while it is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    values: Map<String, Value>,
    known: Vec<&'static str>,
    /// Some values of this section could not be read, which is already reported, so none counts as missing.
    unreadable: bool,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// The root of the tree; `complete` if every layer could be read.
    pub(super) fn root(values: Map<String, Value>, complete: bool, report: &'a Report) -> Self {
        Self { path: String::new(), values, known: Vec::new(), unreadable: !complete, report }
    }

    /// The path of one of this section's keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key has a value that has not been taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether the key is set to an empty text.
    pub(super) fn is_blank(&self, key: &str) -> bool {
        let value = self.values.get(key).map(|value| &value.kind);
        matches!(value, Some(ValueKind::String(text)) if text.is_empty())
    }

    /// Whether an environment variable sets the key.
    pub(super) fn is_of_the_environment(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| value.origin() == Some(ENVIRONMENT))
    }

    /// Whether this section has no faults so far.
    pub(super) fn is_clean(&self) -> bool {
        self.report.is_clean(&self.path)
    }

    /// Whether another section has no faults so far.
    pub(super) fn is_clean_elsewhere(&self, path: &str) -> bool {
        self.report.is_clean(path)
    }

    /// Reports a fault of one of this section's keys.
    pub(super) fn fault(&self, key: &str, shown: Option<String>, problem: impl Into<String>) {
        self.report.fault(&self.path_of(key), shown, problem);
    }

    /// Warns about one of this section's keys.
    pub(super) fn warn(&self, key: &str, text: &str) {
        self.report.warn(&self.path_of(key), text);
    }

    /// Reports a key that must be set as missing; `also` is an alternative key.
    pub(super) fn missing(&self, key: &str, also: Option<&str>, why: &str) {
        if self.unreadable {
            return;
        }
        let path = self.path_of(key);
        let also =
            also.map_or(String::new(), |also| format!(" or {}", variable(&self.path_of(also))));
        let problem = format!("not set; expected in {}{also}{why}", variable(&path));
        self.report.fault_of(path, problem);
    }

    /// Declares keys as known, whether or not they are read.
    pub(super) fn know(&mut self, keys: [&'static str; 2]) {
        self.known.extend(keys);
    }

    /// Reads the file that a key names.
    pub(super) fn read(&self, key: &str, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = self.report.read(path)?;
        self.report.mix(self.path_of(key), &bytes);
        Ok(bytes)
    }

    /// Like [`read`](Self::read), for a text file.
    pub(super) fn read_text(&self, key: &str, path: &Path) -> io::Result<String> {
        faults::text(self.read(key, path)?)
    }

    /// Records a faulty file that was not read as part of the configuration.
    pub(super) fn note(&self, path: &Path) {
        self.report.note(path);
    }

    /// The file that holds a value and what others can do to it, if the value stands in the configuration
    /// file and its permissions let others read or change it.
    pub(super) fn exposed(&self, key: &str) -> Option<String> {
        let from_file =
            self.values.get(key).is_some_and(|value| value.origin() != Some(ENVIRONMENT));
        let (path, exposure) = self.report.exposed_file().filter(|_| from_file)?;
        Some(format!("is in {path:?}, which {exposure}"))
    }

    /// Warns about a secret that is [exposed](Self::exposed); `file_key` can name a file for it instead.
    pub(super) fn warn_if_exposed(&self, key: &str, file_key: &str) {
        if let Some(exposed) = self.exposed(key) {
            self.warn(key, &format!("{exposed}; or put it into a file of its own ({file_key})"));
        }
    }

    /// Warns if others can read or change the file that a key names.
    pub(super) fn warn_of_file(&self, key: &str, path: &Path) {
        if let Some(exposure) = exposure(path) {
            self.warn(key, &format!("names {}, which {exposure}", quoted(path)));
        }
    }

    /// Drops a value whose fault has already been reported.
    pub(super) fn discard(&mut self, key: &str) {
        self.values.remove(key);
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.values.remove(key)
    }

    /// The subsection; empty if it does not exist.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        let value = self.take(key);
        self.below(key, value)
    }

    /// Every subsection with its name, sorted by name.
    pub(super) fn sections(&mut self) -> Vec<(String, Self)> {
        let mut values: Vec<_> = std::mem::take(&mut self.values).into_iter().collect();
        values.sort_by(|(a, _), (b, _)| a.cmp(b));
        let below = |(name, value): (String, _)| (name.clone(), self.below(&name, Some(value)));
        values.into_iter().map(below).collect()
    }

    /// The subsection, or each of a list of subsections (`[[…]]`); a single empty one if there is none.
    pub(super) fn one_or_more(&mut self, key: &'static str) -> Vec<Self> {
        match self.take(key) {
            Some(Value { kind: ValueKind::Array(items), .. }) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| self.below(&format!("{key}[{index}]"), Some(item)))
                .collect(),
            value => vec![self.below(key, value)],
        }
    }

    fn below(&self, key: &str, value: Option<Value>) -> Self {
        let mut unreadable = self.unreadable;
        let values = match value.map(|value| value.kind) {
            Some(ValueKind::Table(values)) => values,
            None | Some(ValueKind::Nil) => Map::new(),
            Some(_) => {
                self.fault(key, None, "is a section, not a value");
                unreadable = true;
                Map::new()
            }
        };
        Self { path: self.path_of(key), values, known: Vec::new(), unreadable, report: self.report }
    }

    /// Non-empty text. Faults do not show its value.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        match value.kind {
            ValueKind::String(text) if text.is_empty() => {
                self.fault(key, None, "is empty");
                None
            }
            ValueKind::String(text) => Some(text),
            other => {
                self.wrong_type(key, "a string in quotes", &other);
                None
            }
        }
    }

    /// A path. From the environment it is relative to the working directory, otherwise to the file.
    pub(super) fn path(&mut self, key: &'static str) -> Option<Named> {
        let from_environment = self.is_of_the_environment(key);
        let text = self.text(key)?;
        let path =
            if from_environment { text.clone().into() } else { self.report.beside_the_file(&text) };
        Some(Named { text, path })
    }

    /// Text that `parse` accepts. Its error says what is expected; the fault shows the value.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(key, Some(format!("{text:?}")), problem);
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        self.parsed(key, |text| choose(text, choices))
    }

    /// A whole number within `range`.
    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.take(key)?;
        let from_environment = value.origin() == Some(ENVIRONMENT);
        let number = match value.kind {
            ValueKind::I64(number) => i128::from(number),
            ValueKind::String(text) if from_environment => {
                if let Ok(number) = text.trim().parse::<i128>() {
                    number
                } else {
                    self.fault(key, Some(format!("{text:?}")), "must be a whole number");
                    return None;
                }
            }
            other => {
                self.wrong_type(key, "a whole number", &other);
                return None;
            }
        };
        let within = u64::try_from(number).ok().filter(|number| range.contains(number));
        if within.is_none() {
            let problem = format!("must be from {} to {}", range.start(), range.end());
            self.fault(key, Some(number.to_string()), problem);
        }
        within
    }

    /// A required whole number; a faulty one is replaced by the start of `range`.
    pub(super) fn needed_whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> u64 {
        if !self.has(key) {
            self.missing(key, None, "");
        }
        let stand_in = *range.start();
        self.whole(key, range).unwrap_or(stand_in)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        let from_environment = value.origin() == Some(ENVIRONMENT);
        match value.kind {
            ValueKind::Boolean(flag) => Some(flag),
            ValueKind::String(text) if from_environment => {
                let flag = text.trim().to_lowercase().parse().ok();
                if flag.is_none() {
                    self.fault(key, Some(format!("{text:?}")), "must be true or false");
                }
                flag
            }
            other => {
                self.wrong_type(key, "true or false", &other);
                None
            }
        }
    }

    /// A list of non-empty texts; from the environment, one on each line. Faults do not show items.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let from_environment = value.origin() == Some(ENVIRONMENT);
        let items = match value.kind {
            ValueKind::Array(items) => items,
            ValueKind::String(lines) if from_environment => return self.lines(key, &lines),
            other => {
                self.wrong_type(key, "a list of strings, as in [\"…\"]", &other);
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item.kind {
                ValueKind::String(text) if !text.is_empty() => texts.push(text),
                ValueKind::String(_) => self.fault(key, None, format!("item {index} is empty")),
                _ => self.fault(key, None, format!("item {index} must be a string in quotes")),
            }
        }
        Some(texts)
    }

    /// Any value, as JSON; a text from the environment that starts with `{` or `[` is parsed as JSON. The
    /// keys of a table are in alphabetical order, since the merged tree does not preserve their order.
    pub(super) fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        let value = self.take(key)?;
        let from_environment = value.origin() == Some(ENVIRONMENT);
        match value.kind {
            ValueKind::String(text) if from_environment && text.starts_with(['{', '[']) => {
                let json = json::from_str(&text).ok();
                if json.is_none() {
                    self.fault(key, None, "starts like JSON but is not valid");
                }
                json
            }
            kind => Some(json(kind)),
        }
    }

    /// The items of a text with one item on each line; a text without items is a fault.
    pub(super) fn lines(&self, key: &str, text: &str) -> Option<Vec<String>> {
        let items: Vec<String> =
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        if items.is_empty() {
            self.fault(key, None, "is empty");
            return None;
        }
        Some(items)
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &ValueKind) {
        let found = match found {
            ValueKind::Nil => "nothing",
            ValueKind::Boolean(_) => "true or false",
            ValueKind::Float(_) => "a fraction",
            ValueKind::String(_) => "a string",
            ValueKind::Table(_) => "a section",
            ValueKind::Array(_) => "a list",
            _ => "a number",
        };
        self.fault(key, None, format!("must be {expected}, not {found}"));
    }

    /// Ends the reading: every key that was not read is a fault.
    pub(super) fn finish(self) {
        #[cfg(test)]
        super::documented::note(self.known.iter().map(|key| self.path_of(key)));
        let mut unknown: Vec<_> = self.values.iter().collect();
        unknown.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in unknown {
            self.unknown(key, value, self.meant_by(key, value, &self.known));
        }
    }

    /// Only the unknown keys here that were probably meant for the section `below`: for whoever reads that and
    /// nothing else.
    pub(super) fn tell_mistaken(&self, below: &str) {
        for (key, value) in self.values.iter().filter(|(key, _)| *key != below) {
            if let Some(meant) = self.meant_by(key, value, &[below]) {
                self.unknown(key, value, Some(meant));
            }
        }
    }

    /// Which of the known keys here, or which variable, somebody probably meant who wrote an unknown key.
    fn meant_by(&self, key: &str, value: &Value, known: &[&str]) -> Option<String> {
        if let Some(known) = nearest(key, known) {
            return Some(known.to_owned());
        }
        let level = known.iter().find(|known| {
            value.origin() == Some(ENVIRONMENT)
                && key.strip_prefix(**known).is_some_and(|rest| rest.starts_with('_'))
        })?;
        Some(variable(&self.path_of(&format!("{level}_{}", &key[level.len()..]))))
    }

    fn unknown(&self, key: &str, value: &Value, meant: Option<String>) {
        // Its value is not shown: a misspelt key may hold a secret.
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        let from = match value.origin() {
            Some(ENVIRONMENT) => format!("   [{}]", variable(&self.path_of(key))),
            _ => String::new(),
        };
        self.report.unknown_key(self.path_of(key), format!("unknown key{hint}{from}"));
    }
}

/// A path of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// As it is written.
    pub text: String,
    /// Where that is.
    pub path: PathBuf,
}

impl Named {
    /// Where it would be if it began in the working directory, as relative paths once did, if that is
    /// another place.
    pub fn once(&self) -> Option<PathBuf> {
        let once = PathBuf::from(&self.text);
        (absolute(&once) != absolute(&self.path)).then_some(once)
    }

    /// Why the file cannot be read.
    pub fn cannot_be_read(&self, error: &io::Error) -> String {
        let once = self.once().filter(|once| {
            error.kind() == io::ErrorKind::NotFound && once.try_exists().unwrap_or(false)
        });
        let hint = once.map_or_else(String::new, |once| {
            format!(
                "; paths in the file are relative to the file: there is {}, in the working directory",
                absolute(&once).display()
            )
        });
        format!("cannot be read: {error}{hint}")
    }
}

/// A value as JSON; the keys of a table are in alphabetical order.
pub(super) fn json(kind: ValueKind) -> serde_json::Value {
    use serde_json::Value as Json;
    match kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => flag.into(),
        ValueKind::I64(number) => number.into(),
        ValueKind::U64(number) => number.into(),
        ValueKind::Float(number) => number.into(),
        ValueKind::String(text) => text.into(),
        // Not what a TOML file or a variable can hold.
        ValueKind::I128(number) => number.to_string().into(),
        ValueKind::U128(number) => number.to_string().into(),
        ValueKind::Array(items) => items.into_iter().map(|item| json(item.kind)).collect(),
        ValueKind::Table(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            members.into_iter().map(|(key, member)| (key, json(member.kind))).collect()
        }
    }
}

/// The choice that `text` names; the error lists them all.
pub(super) fn choose<T: Copy>(text: &str, choices: &[(&'static str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(word, _)| *word == text);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("must be one of: {}", words.join(", "))
    })
}
