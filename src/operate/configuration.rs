//! The result of the last read of the configuration: whether the one on disk is the one that runs.
//!
//! `service` updates it, everything else only reads it. Faults are worded as `cohortd check` prints
//! them: by key, never with a secret ([P8](crate::design::P8)).

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::api::wire::instant;
use crate::membership::Timestamp;

/// The outcome of reading the configuration again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It has changed, and the changes are applied.
    Applied,
    /// It was rejected: the previous one stays.
    Refused,
    /// Nothing has changed, or only what needs a restart.
    Unchanged,
}

impl Reload {
    /// Every outcome, so that metrics can show zeros.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Refused, Self::Unchanged];

    /// Its word.
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
    /// Why it was rejected, if the last read failed.
    pub refused: Option<RefusedConfiguration>,
    /// When a valid one was last read; initially the start of the daemon.
    pub last_success_at: Timestamp,
    /// How often it was read again since the daemon started, by outcome in the order of
    /// [`Reload::ALL`].
    pub reloads: [u64; Reload::ALL.len()],
}

/// A configuration that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedConfiguration {
    /// When it was first rejected; no valid one has been read since.
    pub since: Timestamp,
    /// Its file; `None` if it comes from the environment alone.
    pub file: Option<String>,
    /// What is wrong with it, one line per fault.
    pub faults: Vec<String>,
}

/// The result of the last read of the configuration; clones share it.
#[derive(Clone, Debug)]
pub struct Configuration(Arc<Mutex<ConfigurationState>>);

impl Configuration {
    /// The daemon has started with a valid configuration.
    #[must_use]
    pub fn started(at: Timestamp) -> Self {
        let reloads = [0; Reload::ALL.len()];
        let state = ConfigurationState { refused: None, last_success_at: at, reloads };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The configuration was read again and is valid, so earlier faults are over.
    pub fn read(&self, changed: bool, at: Timestamp) {
        let outcome = if changed { Reload::Applied } else { Reload::Unchanged };
        self.with(|state| {
            state.refused = None;
            state.last_success_at = at;
            state.reloads[outcome as usize] += 1;
        });
    }

    /// The configuration was read again and rejected for these faults.
    pub fn refused(&self, file: Option<String>, faults: Vec<String>, at: Timestamp) {
        self.with(|state| {
            let since = state.refused.as_ref().map_or(at, |before| before.since);
            state.refused = Some(RefusedConfiguration { since, file, faults });
            state.reloads[Reload::Refused as usize] += 1;
        });
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> ConfigurationState {
        self.with(|state| state.clone())
    }

    fn with<R>(&self, act: impl FnOnce(&mut ConfigurationState) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A rejected configuration on disk, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// When it was first rejected; no valid one has been read since.
    pub refused_since: String,
    /// Its file; absent if it comes from the environment alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is wrong with it, one line per fault.
    pub faults: Vec<String>,
}

impl ConfigurationStatus {
    /// `None` if the configuration on disk is valid.
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
        assert_eq!(refused(), None, "fixed back to what runs");
        refuse("three", 5);
        configuration.read(true, Timestamp(6));
        let state = configuration.state();
        assert_eq!((state.last_success_at, state.reloads), (Timestamp(6), [1, 3, 1]));
        assert_eq!(ConfigurationStatus::of(state), None);
    }
}
