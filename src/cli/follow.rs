//! Follows long-running work of the daemon to its end, with a progress bar on a terminal and plain lines
//! elsewhere.
//!
//! The work is the daemon's: ending the display does not stop it. The display goes to standard error, so
//! that standard output holds only the answer.

use std::cell::RefCell;
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::complain;
use super::daemon::{Answer, Daemon, Silent};
use super::operator::{all_audiences, of};
use crate::operate::api::wire::{AudienceInfo, Nothing, ProgressItem, ProgressList, Work};
use crate::operate::status::Status;
use crate::operate::verdict::{ConcernKind, DestinationState};

/// Time between two polls of the daemon.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time between two lines if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The work to follow.
pub(super) struct Followed<'a> {
    pub daemon: &'a Daemon,
    pub destination: &'a str,
    /// Only this audience's part of the work, if given.
    pub audience: Option<&'a str>,
    /// `None`: the work itself is over, and only its last members are still to be delivered.
    pub work: Option<Work>,
}

impl Followed<'_> {
    /// Returns when everything is delivered to LaunchDarkly, or when the user presses Ctrl-C.
    pub async fn to_its_end(&self) -> Result<(), Silent> {
        let destination = self.destination;
        let seen = RefCell::new(Seen::default());
        let ended = tokio::select! {
            ended = self.watch(&seen) => ended,
            _ = tokio::signal::ctrl_c() => {
                let goes_on =
                    if seen.borrow().stands_still { "" } else { ", and the daemon carries on with it" };
                Err(Silent::interrupted(format!(
                    "{}; no longer waiting{goes_on}: `cohortd audiences {destination}` shows the \
                     progress",
                    seen.borrow()
                )))
            }
        };
        match ended {
            Ok(()) => complain(&seen.borrow().end()),
            Err(silent) if silent.is_of_the_daemon() => {
                let words = format!(
                    "{}; the daemon continues with the rest once it runs again: ",
                    seen.borrow()
                );
                return Err(silent.after(&words));
            }
            Err(silent) => return Err(silent),
        }
        Ok(())
    }

    async fn watch(&self, seen: &RefCell<Seen>) -> Result<(), Silent> {
        let mut bar = Bar::new();
        let mut total = 0;
        let began_to_end = loop {
            let path = of(self.destination, &["progress"]);
            let Answer { value, .. } = self.daemon.get::<ProgressList>(&path, &Nothing {}).await?;
            let items: Vec<ProgressItem> =
                value.items.into_iter().filter(|item| self.is_mine(item)).collect();
            if items.is_empty() {
                break value.now;
            }
            // Audiences that are finished are no longer listed.
            let rest: u64 = items.iter().map(|item| item.total - item.done).sum();
            total = total.max(items.iter().map(|item| item.total).sum());
            let longest = items.iter().map(|item| item.remaining_s).max().flatten();
            self.look((total.saturating_sub(rest), total), longest, seen, &mut bar).await?;
            sleep(LOOK_EVERY).await;
        };
        loop {
            let rest = self.waiting_since(&began_to_end).await?;
            if rest == 0 {
                return Ok(());
            }
            total = total.max(rest);
            self.look((total - rest, total), None, seen, &mut bar).await?;
            sleep(LOOK_EVERY).await;
        }
    }

    async fn look(
        &self,
        (done, total): (u64, u64),
        remaining_s: Option<u64>,
        seen: &RefCell<Seen>,
        bar: &mut Bar,
    ) -> Result<(), Silent> {
        let obstacle = self.obstacle().await?;
        let stands_still = obstacle.is_some();
        let left = || remaining_s.map(|seconds| format!("about {} left", in_words(seconds)));
        let words = obstacle.or_else(left).unwrap_or_default();
        bar.show(done, total, &words);
        seen.replace(Seen { done, total, words, stands_still });
        Ok(())
    }

    fn is_mine(&self, item: &ProgressItem) -> bool {
        let audience = item.audience.as_deref();
        Some(item.kind) == self.work && self.audience.is_none_or(|only| audience == Some(only))
    }

    /// Pending members of the audiences whose oldest pending member has waited since `then` or longer.
    async fn waiting_since(&self, then: &String) -> Result<u64, Silent> {
        let known = match all_audiences(self.daemon, self.destination).await {
            // The destination has been dropped meanwhile.
            Err(silent) if silent.is_not_there => return Ok(0),
            known => known?,
        };
        let waits = |info: &&AudienceInfo| {
            self.audience.is_none_or(|only| only == info.audience)
                && info.pending_since.as_ref().is_some_and(|since| since <= then)
        };
        Ok(known.iter().filter(waits).map(|info| info.pending).sum())
    }

    /// Why it does not go on, if it does not.
    async fn obstacle(&self) -> Result<Option<String>, Silent> {
        let status: Answer<Status> = self.daemon.get(&["status"], &Nothing {}).await?;
        let of = status.value.destinations.get(self.destination);
        let is_disabled = of.is_none_or(|of| {
            of.concerns.iter().any(|concern| concern.kind == ConcernKind::Disabled)
        });
        Ok(match of.map(|of| of.state) {
            _ if is_disabled => Some(format!(
                "nothing is delivered to {}: the destination is disabled",
                self.destination
            )),
            Some(DestinationState::Held) => Some("held: cohortd status says why".to_owned()),
            Some(DestinationState::Paused) => {
                Some(format!("paused: cohortd resume {} resumes it", self.destination))
            }
            _ => None,
        })
    }
}

/// How far it was when it was last looked at.
#[derive(Debug, Default)]
struct Seen {
    done: u64,
    total: u64,
    words: String,
    /// It does not go on for now, for the reason in `words`.
    stands_still: bool,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = if self.words.is_empty() { "" } else { ", " };
        write!(f, "{} of {}{comma}{}", self.done, self.total, self.words)
    }
}

impl Seen {
    fn end(&self) -> String {
        match self.total {
            0 => "no member is waiting".to_owned(),
            total => format!("{total} of {total}, no member is waiting"),
        }
    }
}

/// A length of time for people.
pub(super) fn in_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Shows the progress: as a bar on a terminal, else as lines.
pub(super) enum Bar {
    Drawn(ProgressBar),
    Lines { last: Option<Instant> },
}

impl Bar {
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("[{bar:30}] {percent:>3} %  {pos} of {len}  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self::Drawn(bar)
    }

    pub fn show(&mut self, done: u64, total: u64, words: &str) {
        match self {
            Self::Drawn(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(words.to_owned());
            }
            Self::Lines { last } if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) => {
                *last = Some(Instant::now());
                let words = words.to_owned();
                complain(&Seen { done, total, words, stands_still: false }.to_string());
            }
            Self::Lines { .. } => {}
        }
    }
}

impl Drop for Bar {
    /// Removes the bar before anything else is printed.
    fn drop(&mut self) {
        if let Self::Drawn(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_and_its_end_are_said() {
        let seen = |done, total, words: &str| Seen {
            done,
            total,
            words: words.into(),
            stands_still: false,
        };
        assert_eq!(seen(1, 3, "").to_string(), "1 of 3");
        assert_eq!(seen(1, 3, "about 5 s left").to_string(), "1 of 3, about 5 s left");
        assert_eq!(seen(1, 3, "").end(), "3 of 3, no member is waiting");
        assert_eq!(seen(0, 0, "").end(), "no member is waiting");
    }

    #[test]
    fn a_length_of_time_has_two_units_at_most() {
        let table = [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3600, "1 h 0 min"),
            (90_061, "25 h 1 min"),
        ];
        for (seconds, words) in table {
            assert_eq!(in_words(seconds), words);
        }
    }
}
