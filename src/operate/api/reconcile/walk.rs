//! Goes through snapshot and ledger side by side, a slice at a time.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;

use super::beside::blocking;
use super::target::Target;
use crate::ledger::Standing;
use crate::membership::ContextKey;
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::comparison::{Finding, compare};
use crate::operate::reconcile::reading::Fault;
use crate::operate::reconcile::spool::{Merged, Spool};

/// Members in one page of the ledger.
const PAGE: u32 = 2000;
/// Findings that are made together.
const SLICE: usize = 1000;

/// Snapshot and ledger, side by side.
pub(super) struct Walk {
    snapshot: Peekable<Merged>,
    page: VecDeque<Standing>,
    after: Option<ContextKey>,
    ledger_ended: bool,
    is_over: bool,
}

impl Walk {
    pub fn begin(spool: &Spool) -> Result<Self, Problem> {
        let snapshot = spool.read().map_err(Fault::Disk)?.peekable();
        let page = VecDeque::new();
        Ok(Self { snapshot, page, after: None, ledger_ended: false, is_over: false })
    }

    /// The next findings; `None` at the end.
    pub async fn next(&mut self, api: &Api, of: &Target) -> Result<Option<Vec<Finding>>, Problem> {
        if self.is_over {
            return Ok(None);
        }
        if self.page.is_empty() && !self.ledger_ended {
            let Target { destination, audience, .. } = of;
            let after = self.after.as_ref();
            let page = api.ledger.standings(destination, audience, after, PAGE).await?;
            self.ledger_ended = page.len() < PAGE as usize;
            self.after = page.last().map(|last| last.context_key.clone());
            self.page = page.into();
        }
        // At most a few pieces of the file are read from the page cache or the disk: short, but a thread's time.
        let (as_of, ended) = (of.as_of, self.ledger_ended);
        let snapshot = std::mem::replace(&mut self.snapshot, Merged::none().peekable());
        let page = std::mem::take(&mut self.page);
        let compared = blocking(move || {
            let (mut snapshot, mut page, mut found) = (snapshot, page, Vec::new());
            let is_over = compare(&mut snapshot, (&mut page, ended), as_of, SLICE, &mut found)?;
            Ok::<_, io::Error>((snapshot, page, found, is_over))
        });
        let (snapshot, page, found, is_over) = compared.await?.map_err(Fault::Disk)?;
        (self.snapshot, self.page, self.is_over) = (snapshot, page, is_over);
        Ok(Some(found))
    }
}
