//! The id spaces of the embedded store, one type each, so that a position is not taken for a row.

/// The row of a destination in its table. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DestinationRowId(pub i64);

/// The row of an audience in its table; part of the key of each of its members' rows. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AudienceRowId(pub i64);

/// The position of a destination in the writer's memory, configured or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DestinationIndex(pub usize);

/// The position of an audience in the writer's memory. Free for another one once the audience is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AudienceIndex(pub usize);

/// The number of a dirty member's slot in the arena of its audience. Free for another one after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotNumber(pub u32);
