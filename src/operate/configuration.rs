//! Whether the configuration on disk is the one that runs: what the last reading of it came to, for
//! whoever watches.
//!
//! Service tells, everybody else looks. Faults are told as `cohortd check` prints them: by key, never
//! with a secret ([P8](crate::design::P8)).

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::api::wire::instant;
use crate::membership::Timestamp;

/// What a reading of the configuration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It said something else, and that is applied.
    Applied,
    /// It was not taken: the one before stays.
    Refused,
    /// It says what runs, or only what needs a restart.
    Unchanged,
}

impl Reload {
    /// Every outcome, for metrics that show zeros.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Refused, Self::Unchanged];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What is known of the configuration on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationState {
    /// Why it was refused, if it was when it was last read.
    pub refused: Option<RefusedConfiguration>,
    /// When one that is good was last read; at first when the daemon started.
    pub last_success_at: Timestamp,
    /// How often it was read since then, by what that came to: as in [`Reload::ALL`].
    pub reloads: [u64; Reload::ALL.len()],
}

/// A configuration that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedConfiguration {
    /// Since when there has been none that could be taken.
    pub since: Timestamp,
    /// Its file; `None`: it comes from the environment alone.
    pub file: Option<String>,
    /// What is wrong with it, each in a line.
    pub faults: Vec<String>,
}

/// What the last reading of the configuration came to; clones share it.
#[derive(Clone, Debug)]
pub struct Configuration(Arc<Mutex<ConfigurationState>>);

impl Configuration {
    /// The daemon has started with one that is good.
    #[must_use]
    pub fn started(at: Timestamp) -> Self {
        let reloads = [0; Reload::ALL.len()];
        let state = ConfigurationState { refused: None, last_success_at: at, reloads };
        Self(Arc::new(Mutex::new(state)))
    }

    /// It was read again and is good. Whatever was wrong with the one before is over.
    pub fn read(&self, changed: bool, at: Timestamp) {
        let outcome = if changed { Reload::Applied } else { Reload::Unchanged };
        self.with(|state| {
            state.refused = None;
            state.last_success_at = at;
            state.reloads[outcome as usize] += 1;
        });
    }

    /// It was read again and is refused for these faults.
    pub fn refused(&self, file: Option<String>, faults: Vec<String>, at: Timestamp) {
        self.with(|state| {
            let since = state.refused.as_ref().map_or(at, |before| before.since);
            state.refused = Some(RefusedConfiguration { since, file, faults });
            state.reloads[Reload::Refused as usize] += 1;
        });
    }

    /// As it is now.
    #[must_use]
    pub fn state(&self) -> ConfigurationState {
        self.with(|state| state.clone())
    }

    fn with<R>(&self, act: impl FnOnce(&mut ConfigurationState) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A configuration on disk that is refused, as `/status` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// Since when there has been none that could be taken.
    pub refused_since: String,
    /// Its file; not there: it comes from the environment alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong with it, each in a line.
    pub faults: Vec<String>,
}

impl ConfigurationStatus {
    /// `None`: the one on disk is good.
    #[must_use]
    pub fn of(state: ConfigurationState) -> Option<Self> {
        let RefusedConfiguration { since, file, faults } = state.refused?;
        Some(Self { refused_since: instant(since), file, faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_refused_since_the_first_that_was_until_one_is_good() {
        let configuration = Configuration::started(Timestamp(1));
        let refuse = |fault: &str, at| {
            configuration.refused(Some("a.toml".to_owned()), vec![fault.to_owned()], Timestamp(at));
        };
        let refused = || configuration.state().refused;
        assert_eq!(refused(), None);
        refuse("one", 2);
        refuse("two", 3);
        let expected = RefusedConfiguration {
            since: Timestamp(2),
            file: Some("a.toml".to_owned()),
            faults: vec!["two".to_owned()],
        };
        assert_eq!(refused(), Some(expected));
        assert_eq!(configuration.state().last_success_at, Timestamp(1));
        configuration.read(false, Timestamp(4));
        assert_eq!(refused(), None, "mended back to what runs");
        refuse("three", 5);
        configuration.read(true, Timestamp(6));
        let state = configuration.state();
        assert_eq!((state.last_success_at, state.reloads), (Timestamp(6), [1, 3, 1]));
        assert_eq!(ConfigurationStatus::of(state), None);
    }
}
