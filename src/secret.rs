//! Text that must never be printed or logged: tokens and shared secrets.

use std::fmt;

/// A secret. `Debug` prints `***`, there is no `Display`, and it does not serialise ([P8](crate::design::P8)).
///
/// ```
/// use cohortd::secret::Secret;
///
/// let token = Secret::new("api-0123");
/// assert_eq!(format!("{token:?}"), "***");
/// assert_eq!(token.expose(), "api-0123");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text unchanged: secrets are opaque.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret in plain text. Use it right away; do not store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
