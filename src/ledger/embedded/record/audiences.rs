//! The audiences of one record: each stands in it once, and deltas point to it.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::membership::MembershipDelta;

#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Hash)]
pub(super) struct Audience<'a> {
    pub id: &'a str,
    pub key: &'a str,
    pub kind: &'a str,
}

/// Up to this many audiences a linear search is faster; most requests have one.
const FEW_AUDIENCES: usize = 8;

/// The distinct audiences of a request.
#[derive(Default)]
pub(super) struct Audiences<'a> {
    pub list: Vec<Audience<'a>>,
    /// Positions of those after the first few.
    positions: HashMap<Audience<'a>, u32>,
    /// The previous result: neighbouring deltas mostly have the same audience.
    last: Option<(Audience<'a>, u32)>,
}

impl<'a> Audiences<'a> {
    pub fn position(&mut self, delta: &'a MembershipDelta) -> u32 {
        let (id, key) = (delta.audience.as_str(), delta.audience_key.as_str());
        let audience = Audience { id, key, kind: delta.context_kind.as_str() };
        if let Some((last, position)) = self.last
            && last == audience
        {
            return position;
        }
        let position = match self.find(&audience) {
            Some(position) => position,
            None => self.add(audience),
        };
        self.last = Some((audience, position));
        position
    }

    fn find(&self, audience: &Audience<'a>) -> Option<u32> {
        let mut few = self.list.iter().take(FEW_AUDIENCES).zip(0..);
        let among_few = few.find(|(other, _)| *other == audience).map(|(_, position)| position);
        among_few.or_else(|| self.positions.get(audience).copied())
    }

    fn add(&mut self, audience: Audience<'a>) -> u32 {
        let position = self.list.len();
        self.list.push(audience);
        let number = u32::try_from(position).expect("a request has fewer events than that");
        if position >= FEW_AUDIENCES {
            self.positions.insert(audience, number);
        }
        number
    }
}
