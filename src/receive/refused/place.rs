//! The path of a request: an existing one, or one that does not exist.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ANYWHERE, ELSEWHERE};
use crate::membership::DestinationName;
use crate::nearest::nearest;
use crate::receive::Doors;
use crate::receive::doors::Door;

/// Longest path chosen by a stranger that is shown.
const LONGEST_SHOWN: usize = 48;
/// The path of a request, as its route knows it.
#[derive(Debug)]
pub(in crate::receive) enum At<'a> {
    /// `/segment/{name}`, and the rest of the path.
    Door(&'a Door, &'static str),
    /// A call of the Tracking API, and the door that its write key opens.
    Call(&'static str, Option<&'a Door>),
    /// Any other path.
    Astray(&'a str),
}

/// The path of a request, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::receive) struct Place {
    /// The path it is remembered under.
    pub path: String,
    /// Whether nothing can succeed there.
    pub is_astray: bool,
    /// The name that was probably meant, if the path does not exist.
    pub nearest: Option<String>,
    /// The section of the configuration that governs it, such as `destinations.production`.
    pub section: String,
    /// The destinations that it concerns.
    pub destinations: Vec<DestinationName>,
}

impl Place {
    /// The place of a connection on which no request was read: it concerns all destinations.
    pub fn anywhere(doors: &Doors) -> Self {
        let doors = doors.all();
        let all = doors.iter().flat_map(|door| door.destinations.iter().map(|of| of.name.clone()));
        Self {
            path: ANYWHERE.to_owned(),
            is_astray: false,
            nearest: None,
            section: "listen".to_owned(),
            destinations: all.collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }
}

impl<'a> At<'a> {
    pub fn door(&self) -> Option<&'a Door> {
        match self {
            Self::Door(door, _) => Some(door),
            Self::Call(_, door) => *door,
            Self::Astray(_) => None,
        }
    }

    /// The path, if it exists.
    pub fn path(&self) -> Option<String> {
        match self {
            Self::Door(door, rest) => Some(format!("/segment/{}{rest}", door.name)),
            Self::Call(call, _) => Some(format!("/v1/{call}")),
            Self::Astray(_) => None,
        }
    }

    /// The path that it is counted under.
    pub fn label(&self) -> String {
        self.path().unwrap_or_else(|| ELSEWHERE.to_owned())
    }

    /// Whether nothing can succeed there.
    pub fn is_astray(&self, doors: &Doors) -> bool {
        match self {
            Self::Door(..) => false,
            Self::Call(..) => !doors.have_write_keys(),
            Self::Astray(_) => true,
        }
    }

    pub fn place(&self, doors: &Doors) -> Place {
        let slip = match self {
            Self::Astray(path) => doors.slip(path),
            _ => None,
        };
        let (path, nearest) = match slip {
            Some((path, nearest)) => (path.to_owned(), Some(nearest)),
            None => (self.label(), None),
        };
        Place {
            path,
            is_astray: self.is_astray(doors),
            section: match self.door() {
                Some(door) if door.is_route() => format!("routes.{}", door.name),
                Some(door) => format!("destinations.{}", door.name),
                None => "destinations.<name>".to_owned(),
            },
            destinations: self.concerned(doors, nearest.as_deref()),
            nearest,
        }
    }

    /// The destinations whose events a request probably carried.
    fn concerned(&self, doors: &Doors, nearest: Option<&str>) -> Vec<DestinationName> {
        if let Some(door) = self.door() {
            return door.destinations.iter().map(|of| of.name.clone()).collect();
        }
        let takes_calls = doors.have_write_keys();
        let is_meant = |door: &Door| match (self, nearest) {
            (Self::Call(..), _) => door.gate.has_write_keys() || !takes_calls,
            (_, Some(nearest)) => door.name == nearest,
            (_, None) => true,
        };
        let all = doors.all();
        let concerned: BTreeSet<&DestinationName> = all
            .iter()
            .filter(|door| is_meant(door))
            .flat_map(|door| door.destinations.iter().map(|of| &of.name))
            .collect();
        concerned.into_iter().cloned().collect()
    }
}

impl Doors {
    /// Recognises a path that is a misspelling of a door's name, and returns it with that name. No other path
    /// that a stranger chose is shown: it may be anything, such as somebody's id, or a secret in the wrong
    /// place.
    pub(in crate::receive) fn slip<'p>(&self, path: &'p str) -> Option<(&'p str, String)> {
        let name = path.strip_prefix("/segment/")?;
        let name = name.strip_suffix('/').unwrap_or(name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if path.len() > LONGEST_SHOWN || !name.chars().all(is_plain) {
            return None;
        }
        let all = self.all();
        let names: Vec<&str> = all.iter().map(|door| door.name.as_str()).collect();
        let nearest = nearest(name, &names)?;
        let is_secret = all.iter().any(|door| door.gate.is_secret(name.as_bytes()));
        (!is_secret).then(|| (path, nearest.to_owned()))
    }
}

/// As much of a path as is ever looked at; the rest would stay in memory while a body is awaited.
pub(in crate::receive) fn shortened(path: &str) -> String {
    path.chars().take(LONGEST_SHOWN + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::fake::entrance;

    #[test]
    fn a_path_that_nobody_has_is_shown_where_it_is_a_slip() {
        let doors = Doors::new([entrance("production"), entrance("keys")]);
        let long = format!("/segment/{}", "production".repeat(5));
        // path, shown, nearest
        let table = [
            ("/segment/prodution", "/segment/prodution", Some("production")),
            ("/segment/Production/", "/segment/Production/", Some("production")),
            ("/segment/production/audiences", "-", None),
            ("/ada/prodution", "-", None),
            ("/segment/ada", "-", None),
            ("/segment/production%20", "-", None),
            ("/webhook", "-", None),
            (&long, "-", None),
            // this name is a write key
            ("/segment/key", "-", None),
            ("", "-", None),
        ];
        for (path, shown, nearest) in table {
            let place = At::Astray(path).place(&doors);
            assert_eq!((&*place.path, place.nearest.as_deref()), (shown, nearest), "{path}");
            assert!(place.is_astray && At::Astray(path).label() == "-", "{path}");
            let concerned: Vec<_> =
                place.destinations.iter().map(DestinationName::as_str).collect();
            let expected = nearest.map_or_else(|| vec!["keys", "production"], |name| vec![name]);
            assert_eq!(concerned, expected, "{path}");
        }
    }
}
