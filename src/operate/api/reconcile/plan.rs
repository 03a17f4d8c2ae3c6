//! What a snapshot would change, and whether that looks like a mistake.

use super::target::Target;
use super::walk::Walk;
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::comparison::Finding;
use crate::operate::reconcile::spool::Spool;

/// Context keys shown as examples.
const EXAMPLES: usize = 5;

/// What the snapshot would change.
#[derive(Default)]
pub(super) struct Plan {
    pub enter: u64,
    pub leave: u64,
    pub stay: u64,
    pub newer: u64,
    /// Those of them that are in.
    newer_in: u64,
    /// How many members the ledger has to change for it.
    pub changes: u64,
    /// What was found first, and says what the snapshot is of: what is recorded first.
    pub first: Option<Finding>,
    pub entering: Vec<String>,
    pub leaving: Vec<String>,
    is_forgotten: bool,
}

impl Plan {
    /// Looks at all of both, and changes nothing.
    pub async fn of(api: &Api, target: &Target, spool: &Spool) -> Result<Self, Problem> {
        let mut plan = Self { is_forgotten: target.is_forgotten, ..Self::default() };
        let mut walk = Walk::begin(spool)?;
        while let Some(findings) = walk.next(api, target).await? {
            for finding in findings {
                plan.changes += u64::from(target.is_changed_by(&finding));
                plan.count(&finding);
                plan.first.get_or_insert(finding);
            }
        }
        Ok(plan)
    }

    fn count(&mut self, finding: &Finding) {
        let (count, example) = match finding {
            Finding::Enters(entry) => (&mut self.enter, Some((&mut self.entering, &*entry.key))),
            Finding::Leaves(key) => (&mut self.leave, Some((&mut self.leaving, key.as_str()))),
            Finding::Stays { .. } => (&mut self.stay, None),
            Finding::StaysOut(_) => return,
            Finding::Newer { is_in, .. } => {
                self.newer_in += u64::from(*is_in);
                (&mut self.newer, None)
            }
        };
        *count += 1;
        if let Some((examples, key)) = example
            && examples.len() < EXAMPLES
        {
            examples.push(key.to_owned());
        }
    }

    /// Why it looks like a mistake, if it does.
    pub fn refusal(&self, max_exits: u8) -> Option<String> {
        let included = self.leave + self.stay + self.newer_in;
        let named = self.enter + self.stay;
        if included > 0 && self.stay.saturating_mul(100) < included.min(named) {
            return Some(format!(
                "of {included} members in the ledger and {named} in the file, {} are in both: this looks like \
                 another audience's file, another column or another kind of key; --yes does it all the same",
                self.stay
            ));
        }
        if self.leave.saturating_mul(100) > included.saturating_mul(max_exits.into()) {
            return Some(format!(
                "{} of {included} members would leave, more than {max_exits} %: look at a --dry-run, then \
                 raise --max-exits or use --yes",
                self.leave
            ));
        }
        (self.is_forgotten && self.enter > 0).then(|| {
            format!(
                "the file is older than the ledger remembers who left (ledger.tombstone_ttl_s), so some of \
                 the {} that would enter may have left since; --yes does it all the same",
                self.enter
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_mistake_is_refused_with_the_reason() {
        let plan =
            |enter, leave, stay, newer_in| Plan { enter, leave, stay, newer_in, ..Plan::default() };
        let rows = [
            (plan(5, 0, 0, 0), 20, ""),
            (plan(0, 20, 80, 0), 20, ""),
            (plan(0, 21, 79, 0), 20, "21 of 100 members would leave, more than 20 %"),
            (plan(0, 21, 69, 10), 21, ""),
            (plan(0, 1, 99, 0), 0, "1 of 100 members would leave"),
            (plan(1000, 1000, 9, 0), 100, "9 are in both"),
            (plan(1000, 1000, 11, 0), 100, ""),
            (plan(0, 3, 0, 0), 100, ""),
            (
                Plan { is_forgotten: true, ..plan(1, 0, 9, 0) },
                20,
                "older than the ledger remembers",
            ),
            (Plan { is_forgotten: true, ..plan(0, 1, 9, 0) }, 20, ""),
        ];
        for (plan, max_exits, expected) in rows {
            let said = plan.refusal(max_exits).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        }
    }
}
