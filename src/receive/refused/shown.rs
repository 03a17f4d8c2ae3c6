//! What a request shows of its sender, as far as it explains a refusal.

use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

use crate::receive::authentication::{Credential, bearer};

/// The credential of a refused request: the one that failed, where it showed several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// It showed none, or not the one that is demanded.
    None,
    /// `X-Signature`
    Signature,
    /// `Authorization: Bearer`
    Bearer,
    /// `Authorization: Basic`
    Basic,
    /// `Authorization` with another scheme, or without one.
    Other,
}

impl Kind {
    /// As it is counted and shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Signature => "signature",
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::Other => "other",
        }
    }
}

/// Why a request was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::receive) enum Doubt {
    /// It shows nothing.
    Nothing,
    /// What it shows is good, and this one is demanded too.
    Lacks(Credential),
    /// Its signature is none of the shared secrets'.
    Signature,
    /// Its signature is over another text of the same event.
    Rewritten,
    /// What should be a signature is not 40 lower-case hex digits.
    Malformed,
    /// Its bearer token, or write key, is another one.
    Wrong(Kind),
    /// Nothing of this kind is configured, so that it counts for nothing.
    Unexpected(Kind),
}

/// What the head of a request shows.
#[derive(Clone, Copy, Debug)]
pub(in crate::receive) struct Asked {
    /// By a method that events are sent with.
    pub sends: bool,
    pub has_signature: bool,
    /// What `Authorization` carries.
    pub authorization: Kind,
    /// What there is to doubt, if anything is.
    pub doubt: Doubt,
    /// It would have been believed at the path that was probably meant.
    pub is_proven: bool,
}

impl Asked {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let authorization =
            match headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes) {
                None => Kind::None,
                Some(value) if bearer(value).is_some() => Kind::Bearer,
                Some(value) if value.len() >= 6 && value[..6].eq_ignore_ascii_case(b"basic ") => {
                    Kind::Basic
                }
                Some(_) => Kind::Other,
            };
        Self {
            sends: matches!(*method, Method::POST | Method::PUT | Method::PATCH),
            has_signature: headers.contains_key("x-signature"),
            authorization,
            // all that is left to go wrong once the head has passed
            doubt: Doubt::Signature,
            is_proven: false,
        }
    }

    /// Whether it shows a credential of whatever kind.
    pub fn shows_any(self) -> bool {
        self.has_signature || self.authorization != Kind::None
    }

    /// What it showed, or what of it failed where that is why it was `refused`.
    pub fn kind(self, is_doubted: bool) -> Kind {
        let shown = if self.has_signature { Kind::Signature } else { self.authorization };
        if !is_doubted {
            return shown;
        }
        match self.doubt {
            Doubt::Nothing | Doubt::Lacks(_) => Kind::None,
            Doubt::Signature | Doubt::Rewritten | Doubt::Malformed => Kind::Signature,
            Doubt::Wrong(kind) | Doubt::Unexpected(kind) => kind,
        }
    }
}
