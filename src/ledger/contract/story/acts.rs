//! What random stories are made of.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::ledger::Unheard;
use crate::membership::Timestamp;

/// An item of a request. Audiences, people and messages are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Somebody enters or leaves an audience: under the user id or the mail address, whose rule has another number.
    Changes { audience: u8, person: u8, by_mail: bool, enters: bool, when: When },
    /// The same by a message whose time depends on its arrival, or that has one that is believed now.
    Moves { audience: u8, person: u8, enters: bool, message: u8, when: Option<When> },
    /// The same under another context kind.
    OtherKind { audience: u8, person: u8 },
    /// Somebody is deleted, as of a time or on arrival.
    Deletes { person: u8, when: Option<When> },
    /// An event that could not be mapped, of somebody or nobody.
    Rejected { person: Option<u8>, when: When },
}

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    LongAgo(i64),
    /// So many half seconds after it arrives, which is an odd number: no stamp is given out then.
    Around(i64),
}

impl When {
    pub fn at(self, arrival: Timestamp) -> i64 {
        match self {
            Self::LongAgo(at) => at,
            Self::Around(half_seconds) => arrival.0 + half_seconds * 500_000,
        }
    }
}

/// What a story does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// To the one destination, or in one go to both.
    Record(Vec<Item>, bool),
    /// Of the other destination or not.
    Claim {
        of_other: bool,
        audience: u8,
        limit: usize,
    },
    ClaimAgain {
        audience: u8,
        person: u8,
    },
    ClaimTold,
    /// A claimed batch is taken.
    Settle(Index),
    /// A claimed batch is not taken.
    Release(Index, Unheard),
    /// A claimed batch is refused, with these words.
    Park(Index, u8),
    /// What was parked last was everybody's refusal.
    Unpark,
    /// A claimed batch is refused as a whole.
    Split(Index),
    /// A call that nobody answered is applied now.
    Late(Index),
    Requeue(Index),
    Discard(Index),
    DiscardRejected(Index),
    Resync(Option<u8>),
    Retract(Option<u8>),
    /// Whoever has a mail address is retracted, or whoever has none.
    RetractStale {
        audience: u8,
        by_mail: bool,
    },
    Erase(u8),
    Forget(u8),
    Pause(bool),
    /// From here on half of an audience may leave in an hour, or all of it.
    Guard(bool),
    ReleaseHeld(Option<u8>),
    DiscardHeld(Option<u8>),
    /// The other destination is configured from here on, or it is not.
    Configure(bool),
    /// Another environment, at once or by a restart.
    Move {
        by_restart: bool,
    },
    /// As long as a repeat is not sent again.
    Wait,
    Crash,
    Reopen,
    /// Whoever looks sees the same.
    Look,
}

const AUDIENCES: u8 = 2;
const PEOPLE: u8 = 4;

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        5 => (0..12_i64).prop_map(When::LongAgo),
        1 => (-2..3_i64).prop_map(|around| When::Around(2 * around + 1)),
        1 => Just(When::Around(241)),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let member = (0..AUDIENCES, 0..PEOPLE);
    prop_oneof![
        16 => (member.clone(), any::<bool>(), any::<bool>(), when()).prop_map(
            |((audience, person), by_mail, enters, when)| {
                Item::Changes { audience, person, by_mail, enters, when }
            }
        ),
        4 => (member.clone(), any::<bool>(), 0..6_u8, prop::option::of(when())).prop_map(
            |((audience, person), enters, message, when)| {
                Item::Moves { audience, person, enters, message, when }
            }
        ),
        1 => member.prop_map(|(audience, person)| Item::OtherKind { audience, person }),
        2 => (0..PEOPLE, prop::option::of(when()))
            .prop_map(|(person, when)| Item::Deletes { person, when }),
        1 => (prop::option::of(0..PEOPLE), when())
            .prop_map(|(person, when)| Item::Rejected { person, when }),
    ]
}

/// Stories of some length.
pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<Index>;
    let unheard = prop_oneof![2 => Just(Unheard::Perhaps), 1 => Just(Unheard::No), 1 => Just(Unheard::NoAndLast)];
    let told = prop_oneof![
        12 => (prop::collection::vec(item(), 1..6), any::<bool>())
            .prop_map(|(items, both)| Act::Record(items, both)),
        12 => (prop::bool::weighted(0.3), 0..AUDIENCES, 1..5_usize)
            .prop_map(|(of_other, audience, limit)| Act::Claim { of_other, audience, limit }),
        1 => (0..AUDIENCES, 0..PEOPLE)
            .prop_map(|(audience, person)| Act::ClaimAgain { audience, person }),
        1 => Just(Act::ClaimTold),
        6 => index().prop_map(Act::Settle),
        3 => (index(), unheard).prop_map(|(which, unheard)| Act::Release(which, unheard)),
        3 => (index(), any::<u8>()).prop_map(|(which, words)| Act::Park(which, words)),
        1 => Just(Act::Unpark),
        2 => index().prop_map(Act::Split),
        1 => index().prop_map(Act::Late),
    ];
    let asked = prop_oneof![
        3 => index().prop_map(Act::Requeue),
        1 => index().prop_map(Act::Discard),
        1 => index().prop_map(Act::DiscardRejected),
        1 => prop::option::of(0..AUDIENCES).prop_map(Act::Resync),
        1 => prop::option::of(0..AUDIENCES).prop_map(Act::Retract),
        1 => (0..AUDIENCES, any::<bool>())
            .prop_map(|(audience, by_mail)| Act::RetractStale { audience, by_mail }),
        1 => (0..AUDIENCES).prop_map(Act::Erase),
        1 => (0..PEOPLE).prop_map(Act::Forget),
        1 => any::<bool>().prop_map(Act::Pause),
        2 => prop::bool::weighted(0.8).prop_map(Act::Guard),
        2 => prop::option::of(0..AUDIENCES).prop_map(Act::ReleaseHeld),
        2 => prop::option::of(0..AUDIENCES).prop_map(Act::DiscardHeld),
        2 => any::<bool>().prop_map(Act::Configure),
        1 => any::<bool>().prop_map(|by_restart| Act::Move { by_restart }),
        1 => Just(Act::Wait),
    ];
    let act = prop_oneof![
        40 => told,
        10 => asked,
        2 => Just(Act::Crash),
        1 => Just(Act::Reopen),
        6 => Just(Act::Look),
    ];
    prop::collection::vec(act, 1..60)
}
