//! The date filters: `strftime` formats in UTC, the time zone of Segment's servers.

use jiff::Timestamp;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::Offset;
use serde_json::Value;

use super::super::Unresolved;
use super::value::text;

const DEFAULT: &str = "%A, %B %-e, %Y at %-l:%M %P %z";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats a date; a value that is not a date is returned unchanged. So is the text `now`, unlike in
/// liquidjs: an event must yield the same member whenever it is mapped.
#[expect(clippy::unnecessary_wraps, reason = "the type of every filter")]
pub(super) fn formatted(
    value: Option<&Value>,
    format: Option<&Value>,
) -> Result<Option<Value>, Unresolved> {
    let Some(date) = value.and_then(date) else { return Ok(value.cloned()) };
    let format = format.map_or_else(|| DEFAULT.to_owned(), |format| text(Some(format)));
    Ok(Some(strftime(&date, &format).into()))
}

fn date(value: &Value) -> Option<DateTime> {
    let timestamp = match value {
        Value::Number(seconds) => from_seconds(seconds.as_f64()?)?,
        Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            from_seconds(text.parse().ok()?)?
        }
        Value::String(text) => parsed(text)?,
        _ => return None,
    };
    Some(Offset::UTC.to_datetime(timestamp))
}

fn from_seconds(seconds: f64) -> Option<Timestamp> {
    #[expect(clippy::cast_possible_truncation, reason = "out of range it saturates and is refused")]
    Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
}

/// Parses ISO 8601; a time without a zone, and a date alone, are in UTC.
fn parsed(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        Offset::UTC.to_timestamp(civil).ok()
    })
}

fn strftime(date: &DateTime, format: &str) -> String {
    let mut formatted = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        formatted.push_str(&rest[..at]);
        rest = &rest[at..];
        let (text, length) = match Conversion::read(rest) {
            Some((conversion, length)) => {
                (conversion.format(date).unwrap_or_else(|| rest[..length].to_owned()), length)
            }
            None => ("%".to_owned(), 1),
        };
        formatted.push_str(&text);
        rest = &rest[length..];
    }
    formatted + rest
}

/// `%`, flags, a width, and a letter.
struct Conversion {
    pad: Pad,
    case: Case,
    colon: bool,
    width: Option<usize>,
    letter: char,
}

/// How a number is padded to its width.
#[derive(Clone, Copy)]
enum Pad {
    /// The padding that is usual for the letter.
    Usual,
    With(char),
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Usual,
    Upper,
    /// Upper case, except that `%p` becomes lower case.
    Swapped,
}

impl Conversion {
    fn read(text: &str) -> Option<(Self, usize)> {
        let (mut pad, mut case, mut colon, mut width) = (Pad::Usual, Case::Usual, false, None);
        let mut characters = text.char_indices().skip(1).peekable();
        while let Some((_, flag)) = characters.next_if(|(_, c)| "-_0^#:".contains(*c)) {
            match flag {
                '-' => pad = Pad::Nothing,
                '_' => pad = Pad::With(' '),
                '0' => pad = Pad::With('0'),
                '^' => case = Case::Upper,
                '#' => case = Case::Swapped,
                _ => colon = true,
            }
        }
        while let Some((_, digit)) = characters.next_if(|(_, c)| c.is_ascii_digit()) {
            let digit = digit.to_digit(10).unwrap_or(0) as usize;
            width = Some((width.unwrap_or(0) * 10 + digit).min(64));
        }
        let (at, letter) = characters.next()?;
        Some((Self { pad, case, colon, width, letter }, at + letter.len_utf8()))
    }

    /// `None` if the letter is not a conversion.
    fn format(&self, date: &DateTime) -> Option<String> {
        let number = |value: i64, width: usize, pad: char| (value.to_string(), width, pad);
        let two = |value: i8| number(value.into(), 2, '0');
        let word = |text: &str| (text.to_owned(), 0, ' ');
        let hour12 = (date.hour() + 11) % 12 + 1;
        let half = if date.hour() < 12 { "AM" } else { "PM" };
        let weekday = date.weekday();
        let month = MONTHS[usize::try_from(date.month() - 1).unwrap_or(0)];
        let day = DAYS[usize::try_from(weekday.to_sunday_zero_offset()).unwrap_or(0)];
        let (text, width, pad) = match self.letter {
            'Y' => number(date.year().into(), 0, '0'),
            'C' => number(i64::from(date.year() / 100), 2, '0'),
            'y' => number(i64::from(date.year() % 100), 2, '0'),
            'm' => two(date.month()),
            'd' => two(date.day()),
            'e' => number(date.day().into(), 2, ' '),
            'H' => two(date.hour()),
            'I' => two(hour12),
            'k' => number(date.hour().into(), 2, ' '),
            'l' => number(hour12.into(), 2, ' '),
            'M' => two(date.minute()),
            'S' => two(date.second()),
            'L' => number((date.subsec_nanosecond() / 1_000_000).into(), 3, '0'),
            'N' => {
                let digits = format!("{:09}", date.subsec_nanosecond());
                word(&digits[..self.width.unwrap_or(9).clamp(1, 9)])
            }
            'j' => number(date.day_of_year().into(), 3, '0'),
            'u' => number(weekday.to_monday_one_offset().into(), 0, '0'),
            'w' => number(weekday.to_sunday_zero_offset().into(), 0, '0'),
            'U' => number(week(date, 0), 2, '0'),
            'W' => number(week(date, 1), 2, '0'),
            's' => number(seconds(date), 0, '0'),
            'a' => word(&day[..3]),
            'A' => word(day),
            'b' | 'h' => word(&month[..3]),
            'B' => word(month),
            'p' => word(half),
            'P' => word(&half.to_lowercase()),
            'q' => word(ordinal(date.day())),
            'Z' => word("UTC"),
            'z' => word(if self.colon { "+00:00" } else { "+0000" }),
            'c' => word(&strftime(date, "%-m/%-d/%Y, %-I:%M:%S %p")),
            'x' => word(&strftime(date, "%-m/%-d/%Y")),
            'X' => word(&strftime(date, "%-I:%M:%S %p")),
            'n' => word("\n"),
            't' => word("\t"),
            '%' => word("%"),
            _ => return None,
        };
        let text = match (self.case, self.letter) {
            (Case::Usual, _) => text,
            (Case::Swapped, 'p') => text.to_lowercase(),
            (Case::Upper | Case::Swapped, _) => text.to_uppercase(),
        };
        let pad = match self.pad {
            Pad::Nothing => return Some(text),
            Pad::With(other) => other,
            Pad::Usual => pad,
        };
        let missing = self.width.unwrap_or(width).saturating_sub(text.chars().count());
        Some(std::iter::repeat_n(pad, missing).collect::<String>() + &text)
    }
}

/// The week of the year as liquidjs counts it, where weeks begin on Sunday (0) or Monday (1).
fn week(date: &DateTime, first: i64) -> i64 {
    let sunday_based = |weekday: Weekday| i64::from(weekday.to_sunday_zero_offset());
    let (year_began, day) = (sunday_based(date.first_of_year().weekday()), date.day_of_year());
    let now = i64::from(day) + first - sunday_based(date.weekday());
    (now - (7 - year_began + first)).div_euclid(7) + 1
}

fn seconds(date: &DateTime) -> i64 {
    Offset::UTC.to_timestamp(*date).map_or(0, Timestamp::as_second)
}

fn ordinal(day: i8) -> &'static str {
    match day {
        11..=13 => "th",
        _ => match day % 10 {
            1 => "st",
            2 => "nd",
            3 => "rd",
            _ => "th",
        },
    }
}
