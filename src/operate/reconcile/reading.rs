//! Reads the keys of a snapshot: CSV, JSON lines, or one key a line, in pieces as they arrive.
//!
//! Faults never quote the file: it is personal data ([P8](crate::design::P8)).

use std::io;

use serde_json::{Map, Value};

use crate::json;

/// Most bytes of a line, with all its columns.
const LINE_BYTES: usize = 1 << 20;
/// Most bytes of a key, as of an event.
const KEY_BYTES: usize = 8 * 1024;
/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Where the keys are.
#[derive(Clone, Debug)]
pub(in crate::operate) struct Layout {
    /// The column that has them as they stand; else that of an identifier.
    pub column: Option<String>,
    /// The identifiers that the mapping's rule takes as the key, the first that is there.
    pub identifiers: &'static [&'static str],
    /// Whether a key without an identifier's name is a user id.
    pub is_user_id: bool,
    /// The audience's key: a column of this name, or one called `included`, says whether the member is in.
    pub audience_key: String,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::operate) enum Fault {
    #[error("the file is empty")]
    Empty,
    #[error("no line of the file has a key")]
    NoKeys,
    #[error(
        "the file ends within line {0}: it has been cut off; if it is complete, end its last line with a \
         line break"
    )]
    CutOff(u64),
    #[error("the first line has no column of the name that was given")]
    NoColumn,
    #[error(
        "the first line names neither context_key nor an identifier that the mapping takes ({0}): say which \
         column has the keys"
    )]
    WhichColumn(String),
    #[error("line {0} has more or fewer columns than the first")]
    Columns(u64),
    #[error("the columns of the first line are separated by something else than a comma")]
    Separator,
    #[error("line {0} has text behind a closing quote")]
    Quotes(u64),
    #[error("line {0} is not UTF-8")]
    NotUtf8(u64),
    #[error("line {0} is longer than 1 MiB, or its key longer than 8 KiB")]
    TooLong(u64),
    #[error("line {0} says neither true nor false of whether the member is in")]
    NotBoolean(u64),
    #[error("line {0} is not a JSON object whose key is a text or a whole number")]
    Json(u64),
    #[error("the keys cannot be sorted on disk: {0}")]
    Disk(#[from] io::Error),
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::operate) struct Read {
    /// Lines with data.
    pub lines: u64,
    /// Those of them without a key.
    pub without_key: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Unknown,
    Csv,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Plain,
    Quoted,
    /// Behind a quote within a quoted field: the end, or the first of two.
    Quote,
}

/// The columns of a CSV file that matter.
#[derive(Clone, Debug)]
struct Columns {
    count: usize,
    /// The first one that is not empty has the key.
    keys: Vec<usize>,
    user_id: Option<usize>,
    included: Option<usize>,
}

/// Reads a file piece by piece; whoever is in is given to `take`: the key, and the user id if it is known.
#[derive(Debug)]
pub(in crate::operate) struct Reader {
    layout: Layout,
    form: Form,
    within: Within,
    columns: Option<Columns>,
    /// The beginning, until its form is known.
    head: Vec<u8>,
    /// The line so far, without quotes, and where each of its fields ends.
    line: Vec<u8>,
    ends: Vec<usize>,
    /// Whether the line has anything at all, such as an empty quoted field.
    is_begun: bool,
    number: u64,
    read: Read,
}

/// The name of a column as it is compared: `User ID`, `user_id` and `userId` are one.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => Some(true),
        "" | "false" | "f" | "0" | "no" | "n" | "null" => Some(false),
        _ => None,
    }
}

impl Reader {
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            form: Form::Unknown,
            within: Within::Plain,
            columns: None,
            head: Vec::new(),
            line: Vec::new(),
            ends: Vec::new(),
            is_begun: false,
            number: 1,
            read: Read::default(),
        }
    }

    /// Reads the next piece.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        if self.form != Form::Unknown {
            return self.go_on(bytes, take);
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() < MARK.len() && MARK.starts_with(&self.head) {
            return Ok(());
        }
        let head = std::mem::take(&mut self.head);
        let text = head.strip_prefix(MARK).unwrap_or(&head);
        let Some(first) = text.iter().find(|byte| !byte.is_ascii_whitespace()) else {
            self.head = head;
            return if self.head.len() > LINE_BYTES { Err(Fault::TooLong(1)) } else { Ok(()) };
        };
        self.form = if *first == b'{' { Form::Json } else { Form::Csv };
        self.go_on(text, take)
    }

    fn go_on(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        let is_csv = self.form == Form::Csv;
        for byte in bytes {
            match (*byte, self.within) {
                (b'"', Within::Quoted) => self.within = Within::Quote,
                (b'"', Within::Quote) => {
                    self.line.push(b'"');
                    self.within = Within::Quoted;
                }
                (byte, Within::Quoted) => self.line.push(byte),
                (b'\n' | b'\r', _) => {
                    self.within = Within::Plain;
                    self.end_line(take)?;
                }
                (b',', _) if is_csv => {
                    self.within = Within::Plain;
                    self.ends.push(self.line.len());
                    self.is_begun = true;
                }
                (_, Within::Quote) => return Err(Fault::Quotes(self.number)),
                (b'"', Within::Plain)
                    if is_csv && self.line.len() == self.ends.last().copied().unwrap_or(0) =>
                {
                    self.within = Within::Quoted;
                    self.is_begun = true;
                }
                (byte, Within::Plain) => {
                    self.line.push(byte);
                    self.is_begun = true;
                }
            }
            if *byte == b'\n' {
                self.number += 1;
            }
            if self.line.len() > LINE_BYTES || self.ends.len() > LINE_BYTES / 16 {
                return Err(Fault::TooLong(self.number));
            }
        }
        Ok(())
    }

    fn end_line(
        &mut self,
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        if !self.is_begun {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let mut ends = std::mem::take(&mut self.ends);
        self.is_begun = false;
        let result = if self.form == Form::Json {
            self.object(&line, take)
        } else {
            ends.push(line.len());
            self.row(&line, &ends, take)
        };
        // The buffers are used again.
        (self.line, self.ends) = (line, ends);
        self.line.clear();
        self.ends.clear();
        result
    }

    fn row(
        &mut self,
        line: &[u8],
        ends: &[usize],
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        let text = std::str::from_utf8(line).map_err(|_| Fault::NotUtf8(self.number))?;
        let begins = [0].into_iter().chain(ends.iter().copied());
        // A field ends where a byte of ASCII stood, so never within a letter.
        let fields: Vec<&str> = begins
            .zip(ends)
            .map(|(begin, end)| text.get(begin..*end).unwrap_or_default())
            .collect();
        if self.columns.is_none() {
            let (columns, is_header) = self.columns_of(&fields)?;
            self.columns = Some(columns);
            if is_header {
                return Ok(());
            }
        }
        let Some(columns) = &self.columns else { return Ok(()) };
        if fields.len() != columns.count {
            return Err(Fault::Columns(self.number));
        }
        let at = |at: &usize| fields.get(*at).copied().unwrap_or_default();
        let key = columns.keys.iter().map(at).find(|key| !key.is_empty()).unwrap_or_default();
        let user_id = columns.user_id.as_ref().map(at);
        let user_id = user_id.or_else(|| self.layout.is_user_id.then_some(key));
        let included = match &columns.included {
            Some(column) => boolean(at(column)).ok_or(Fault::NotBoolean(self.number))?,
            None => true,
        };
        Self::member(&mut self.read, self.number, (key, user_id, included), take)
    }

    fn member(
        read: &mut Read,
        number: u64,
        (key, user_id, included): (&str, Option<&str>, bool),
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        read.lines += 1;
        if key.len() > KEY_BYTES || user_id.is_some_and(|id| id.len() > KEY_BYTES) {
            return Err(Fault::TooLong(number));
        }
        if key.is_empty() {
            read.without_key += 1;
        } else if included {
            take(key, user_id.filter(|id| !id.is_empty()))?;
        }
        Ok(())
    }

    /// Finds the columns by the first line, and whether that is a header.
    fn columns_of(&self, fields: &[&str]) -> Result<(Columns, bool), Fault> {
        let header: Vec<String> = fields.iter().map(|name| plain(name)).collect();
        let named = |wanted: &str| header.iter().position(|name| *name == plain(wanted));
        let mut columns = Columns {
            count: fields.len(),
            keys: Vec::new(),
            user_id: named("user_id"),
            included: named("included")
                .or_else(|| fields.iter().position(|name| *name == self.layout.audience_key)),
        };
        if let Some(column) = &self.layout.column {
            let at = fields.iter().position(|name| name == column).ok_or(Fault::NoColumn)?;
            columns.keys.push(at);
            columns.included = columns.included.filter(|included| *included != at);
            return Ok((columns, true));
        }
        columns.keys.extend(named("context_key"));
        if columns.keys.is_empty() {
            columns.keys.extend(self.layout.identifiers.iter().filter_map(|name| named(name)));
        }
        if !columns.keys.is_empty() {
            return Ok((columns, true));
        }
        match fields {
            [only] if only.contains([';', '\t']) => Err(Fault::Separator),
            [_] => {
                let keys = vec![0];
                Ok((Columns { keys, user_id: None, included: None, ..columns }, false))
            }
            _ => Err(Fault::WhichColumn(self.layout.identifiers.join(", "))),
        }
    }

    fn object(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<(), Fault> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let not_one = || Fault::Json(self.number);
        let object: Map<String, Value> = json::from_slice(line).map_err(|_| not_one())?;
        let text = |value: &Value| match value {
            Value::Null => Some(String::new()),
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        };
        let named = |wanted: &str| {
            object.iter().find(|(name, _)| plain(name) == plain(wanted)).map(|(_, value)| value)
        };
        let mut keys: Vec<&Value> = match &self.layout.column {
            Some(column) => object.get(column).into_iter().collect(),
            None => named("context_key").into_iter().collect(),
        };
        if self.layout.column.is_none() && keys.is_empty() {
            keys.extend(self.layout.identifiers.iter().filter_map(|name| named(name)));
        }
        if keys.is_empty() && self.read.lines == 0 {
            return Err(match &self.layout.column {
                Some(_) => Fault::NoColumn,
                None => Fault::WhichColumn(self.layout.identifiers.join(", ")),
            });
        }
        let keys: Option<Vec<String>> = keys.into_iter().map(text).collect();
        let keys = keys.ok_or_else(not_one)?;
        let key = keys.into_iter().find(|key| !key.is_empty()).unwrap_or_default();
        let user_id = named("user_id").and_then(text);
        let user_id = user_id.or_else(|| self.layout.is_user_id.then(|| key.clone()));
        let included = named("included").or_else(|| object.get(&self.layout.audience_key));
        let included = match included {
            None => true,
            Some(Value::Bool(included)) => *included,
            Some(value) => {
                text(value).and_then(|text| boolean(&text)).ok_or(Fault::NotBoolean(self.number))?
            }
        };
        let member = (key.as_str(), user_id.as_deref(), included);
        Self::member(&mut self.read, self.number, member, take)
    }

    /// Reads the rest, and says what was read.
    pub fn finish(
        mut self,
        take: &mut impl FnMut(&str, Option<&str>) -> io::Result<()>,
    ) -> Result<Read, Fault> {
        let is_unended =
            self.is_begun || self.within != Within::Plain || self.form == Form::Unknown;
        let head = self.head.strip_prefix(MARK).unwrap_or(&self.head);
        if self.form == Form::Unknown && head.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Err(Fault::CutOff(1));
        }
        if self.form == Form::Unknown {
            return Err(Fault::Empty);
        }
        if is_unended {
            let number = self.number;
            // A JSON object is complete if it can be read; of other lines nobody knows.
            let is_json = self.form == Form::Json;
            match if is_json { self.end_line(take) } else { Err(Fault::CutOff(number)) } {
                Err(Fault::Json(_)) => return Err(Fault::CutOff(number)),
                result => result?,
            }
        }
        match self.read {
            Read { lines: 0, .. } => Err(Fault::Empty),
            Read { lines, without_key } if lines == without_key => Err(Fault::NoKeys),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests;
