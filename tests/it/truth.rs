//! What was posted and how it was answered, and so what the segments must be.
//!
//! A request whose answer was lost may or may not have been recorded: for each member the outcome must be that of the
//! accepted events and of some subset of the unanswered requests.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use cohortd::sandbox::SegmentState;

use crate::harness::identify;

const MEMBERS: usize = 60;
const AUDIENCES: [&str; 3] = ["beta_testers", "vip", "cart_abandoners"];
const EPOCH_MS: i64 = 1_750_000_000_000;
/// Range of random event times in milliseconds: small enough that times are shared by members, and most
/// events arrive out of order.
const SPAN_MS: i64 = 20_000;

/// An audience and a user.
pub type Member = (&'static str, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub at_ms: i64,
    pub enters: bool,
}

/// One request: its events, and their outcome for each member.
#[derive(Clone)]
pub struct Post {
    pub events: Vec<Value>,
    pub is_batch: bool,
    says: BTreeMap<Member, Told>,
}

/// The requests sent and their outcomes.
#[derive(Default)]
pub struct Truth {
    /// Times already used for each member. Requests never share one, so that their order of arrival, which
    /// is unknown, does not matter.
    used: BTreeSet<(Member, i64)>,
    pub accepted: BTreeMap<Member, Told>,
    pub unanswered: Vec<Post>,
    pub events_accepted: usize,
    pub requests_accepted: usize,
    pub refused: usize,
}

impl Truth {
    pub fn request(&mut self, chance: &mut StdRng) -> Post {
        let is_batch = chance.random_bool(0.4);
        let events = if is_batch { chance.random_range(1..=20) } else { 1 };
        let mut post = Post { events: Vec::new(), is_batch, says: BTreeMap::new() };
        let mut times_here: Vec<(Member, i64)> = Vec::new();
        for _ in 0..events {
            let drawn = times_here.choose(chance).filter(|_| chance.random_bool(0.2)).cloned();
            let (member, at_ms) = match drawn {
                Some(tie) => tie, // within a request the later item wins
                None => self.fresh(chance),
            };
            times_here.push((member.clone(), at_ms));
            let told = Told { at_ms, enters: chance.random_bool(0.5) };
            let (audience, user) = (member.0, member.1.clone());
            post.events.push(identify(&user, audience, told.enters, at_ms));
            let said = post.says.entry(member).or_insert(told);
            if told.at_ms >= said.at_ms {
                *said = told;
            }
        }
        post
    }

    fn fresh(&mut self, chance: &mut StdRng) -> (Member, i64) {
        loop {
            let audience = *AUDIENCES.choose(chance).expect("not empty");
            let user = format!("user_{:02}", chance.random_range(0..MEMBERS));
            let drawn = ((audience, user), EPOCH_MS + chance.random_range(0..SPAN_MS));
            if self.used.insert(drawn.clone()) {
                return drawn;
            }
        }
    }

    pub fn note(&mut self, post: Post, answer: Option<(u16, Value)>) {
        match answer {
            Some((200, account)) => {
                assert_eq!(account["accepted"], post.events.len(), "{account}");
                self.events_accepted += post.events.len();
                self.requests_accepted += 1;
                for (member, told) in post.says {
                    let winner = self.accepted.entry(member).or_insert(told);
                    if told.at_ms >= winner.at_ms {
                        *winner = told;
                    }
                }
            }
            // It may have been recorded nevertheless.
            Some((503, _)) => {
                self.refused += 1;
                self.unanswered.push(post);
            }
            Some(other) => panic!("a good request is answered {other:?}"),
            None => self.unanswered.push(post),
        }
    }

    /// The possible final values of each member; a member without any is not in the segment.
    fn outcomes(&self) -> BTreeMap<Member, BTreeSet<bool>> {
        let mut outcomes: BTreeMap<Member, BTreeSet<bool>> = BTreeMap::new();
        for (member, told) in &self.accepted {
            outcomes.entry(member.clone()).or_default().insert(told.enters);
        }
        for (member, told) in self.unanswered.iter().flat_map(|post| &post.says) {
            let winner = self.accepted.get(member);
            if winner.is_none() {
                outcomes.entry(member.clone()).or_default().insert(false);
            }
            if winner.is_none_or(|winner| told.at_ms >= winner.at_ms) {
                outcomes.entry(member.clone()).or_default().insert(told.enters);
            }
        }
        outcomes
    }

    /// Panics unless the segments are what was answered; what each member may be.
    pub fn agrees_with(
        &self,
        segments: &BTreeMap<String, SegmentState>,
    ) -> BTreeMap<Member, BTreeSet<bool>> {
        let is_in = |(audience, user): &Member| {
            segments.get(&format!("aud_{audience}")).is_some_and(|of| of.members.contains(user))
        };
        let outcomes = self.outcomes();
        let differences: Vec<_> =
            outcomes.iter().filter(|(member, may_be)| !may_be.contains(&is_in(member))).collect();
        assert!(differences.is_empty(), "{} differences: {differences:?}", differences.len());
        let strangers =
            segments.iter().flat_map(|(id, of)| of.members.iter().map(move |user| (id, user)));
        for (id, user) in strangers {
            let audience = AUDIENCES.iter().find(|key| format!("aud_{key}") == *id);
            let member = (*audience.expect("an audience that was posted"), user.clone());
            assert!(outcomes.contains_key(&member), "{member:?} was never posted");
        }
        outcomes
    }
}
