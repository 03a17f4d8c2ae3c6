//! Compares the segments with the audiences.

use std::collections::{BTreeMap, BTreeSet};

use super::SegmentState;

/// How a segment differs from its audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The audience's id.
    pub audience: String,
    /// People who are in the audience and not in the segment.
    pub missing: usize,
    /// People who are in the segment and not in the audience.
    pub unexpected: usize,
}

/// Compares the segments with `truth`, the people of each audience by audience id. Equal ones are left out,
/// and so are segments of audiences that `truth` does not contain: somebody tried those by hand.
#[must_use]
pub fn differences(
    truth: &BTreeMap<String, BTreeSet<String>>,
    segments: &BTreeMap<String, SegmentState>,
) -> Vec<Difference> {
    let nobody = BTreeSet::new();
    let compared = truth.iter().map(|(audience, members)| {
        let told = segments.get(audience).map_or(&nobody, |segment| &segment.members);
        Difference {
            audience: audience.clone(),
            missing: members.difference(told).count(),
            unexpected: told.difference(members).count(),
        }
    });
    compared.filter(|difference| difference.missing + difference.unexpected > 0).collect()
}
