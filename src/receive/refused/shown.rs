//! What a request reveals about its sender, as far as that explains a refusal.

use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

use crate::receive::authentication::{Credential, bearer};

/// The credential of a refused request: the one that failed, if it carried several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// It carried none, or not the required one.
    None,
    /// `X-Signature`
    Signature,
    /// `Authorization: Bearer`
    Bearer,
    /// `Authorization: Basic`
    Basic,
    /// `Authorization` with an unknown scheme, or without a scheme.
    Other,
}

impl Kind {
    /// The label in metrics, and the word that is shown.
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

/// Why a request was not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::receive) enum Doubt {
    /// It carries no credential.
    Nothing,
    /// Its credentials are good, but this one is required as well.
    Lacks(Credential),
    /// Its signature matches none of the shared secrets.
    Signature,
    /// Its signature is for another serialisation of the same event.
    Rewritten,
    /// Its signature header is not 40 lower-case hex digits.
    Malformed,
    /// Its bearer token, or write key, is not one of those configured.
    Wrong(Kind),
    /// No credential of this kind is configured, so it is ignored.
    Unexpected(Kind),
}

/// What the head of a refused request reveals.
#[derive(Clone, Copy, Debug)]
pub(in crate::receive) struct Asked {
    /// Whether it uses a method that events are sent with.
    pub sends: bool,
    pub has_signature: bool,
    /// The kind of credential in `Authorization`.
    pub authorization: Kind,
    /// Why it is not authenticated, if that is the refusal.
    pub doubt: Doubt,
    /// Whether its credential is good at the path that was probably meant.
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
            // the only thing left to fail once the head has passed
            doubt: Doubt::Signature,
            is_proven: false,
        }
    }

    /// Whether it carries a credential of any kind.
    pub fn shows_any(self) -> bool {
        self.has_signature || self.authorization != Kind::None
    }

    /// The credential that it carried, or, if `is_doubted`, the one that failed.
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
