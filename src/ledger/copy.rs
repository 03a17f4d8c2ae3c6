//! Copies a ledger from a directory into a database, or from a database into a directory, while nobody uses either.
//!
//! # What always holds
//! * Everything arrives, or nothing counts: the copy is a ledger only once both sides were read again from the beginning
//!   and have the same rows. Until then every daemon refuses it.
//! * It can end anywhere: the same copy, begun again, goes on behind the last page that was written.
//! * It is of one moment: if somebody has used the source since the copy was begun, it does not go on.
//! * The source stays as it is, but for a mark.
//! * Memory does not grow with the ledger, but with the number of its audiences.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rand::RngExt;

use super::copied::{Found, Kind, Once, Page, Position, Progress, Rows, Summary};
use super::embedded::{DirectoryCopy, OpenError};
use super::postgres::{DatabaseAddress, DatabaseCopy, Failure};

/// A side of a copy.
#[derive(Clone, Debug)]
pub enum CopyEnd {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A database.
    Database(Box<DatabaseAddress>),
}

/// Why a ledger was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What was asked for is not done; the text says what to do instead.
    #[error("{0}")]
    Refused(String),
    /// The side in a directory cannot be read or written.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The side in a database cannot be reached, read or written; the text says why.
    #[error("{0}")]
    Database(String),
    /// The copy has other rows than the source.
    #[error("the copy differs from the source in its {}", .0.join(", "))]
    Differs(Vec<&'static str>),
    /// Whoever was shown a step wanted no more.
    #[error("the copy was stopped")]
    Stopped,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// Both sides can be used; a new copy begins.
    Begins,
    /// Both sides can be used; a copy that was not finished goes on.
    GoesOn,
    /// So many rows of this kind were written by this command so far.
    Written(&'static str, u64),
    /// Both sides are read again; so many rows of this kind are the same so far.
    Read(&'static str, u64),
    /// They are the same; the copy becomes a ledger.
    Finishes,
}

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What it has, kind by kind; empty if it was finished before.
    pub rows: Vec<CopiedRows>,
}

/// Rows of one kind, the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedRows {
    /// What they are called.
    pub name: &'static str,
    /// How many there are.
    pub count: u64,
    /// Their checksum, in whatever order.
    pub checksum: u128,
}

/// An opened side.
enum Side {
    Directory(Box<DirectoryCopy>),
    Database(Box<DatabaseCopy>),
}

/// What a lost mark or a place that another command writes to is called by the database's side.
fn changed(failure: Failure) -> CopyError {
    match failure {
        Failure::Stale => CopyError::Refused(CHANGED.to_owned()),
        other => CopyError::Database(other.to_string()),
    }
}

const CHANGED: &str = "a daemon or another copy has used one side since this copy was begun, so that what was copied so far is \
     of another ledger: empty the place of the copy (remove the directory, or drop and create the schema), and begin again";

impl Side {
    async fn once(&self) -> Result<Once, CopyError> {
        match self {
            Self::Directory(side) => Ok(side.once()?),
            Self::Database(side) => side.once().await.map_err(changed),
        }
    }

    async fn set_mark(&mut self, copy: Option<&str>) -> Result<(), CopyError> {
        match self {
            Self::Directory(side) => Ok(side.set_mark(copy)?),
            Self::Database(side) => side.set_mark(copy).await.map_err(changed),
        }
    }

    fn go_on(&mut self, copy: &str) {
        if let Self::Database(side) = self {
            side.go_on(copy);
        }
    }

    async fn page(&mut self, at: &Position) -> Result<Page, CopyError> {
        match self {
            Self::Directory(side) => Ok(side.page(at)?),
            Self::Database(side) => side.page(at).await.map_err(changed),
        }
    }

    async fn begin(&mut self, progress: &Progress, once: &Once) -> Result<(), CopyError> {
        match self {
            Self::Directory(side) => Ok(side.begin(progress, once)?),
            Self::Database(side) => side.begin(progress, once).await.map_err(changed),
        }
    }

    async fn write(
        &mut self,
        rows: &Rows,
        before: &Progress,
        after: &Progress,
    ) -> Result<(), CopyError> {
        match self {
            Self::Directory(side) => Ok(side.write(rows, after)?),
            Self::Database(side) => side.write(rows, before, after).await.map_err(changed),
        }
    }

    async fn finish(&mut self, copy: &str) -> Result<(), CopyError> {
        match self {
            Self::Directory(side) => Ok(side.finish(copy)?),
            Self::Database(side) => side.finish(copy).await.map_err(changed),
        }
    }
}

/// Opens the source; the copy whose mark it has.
async fn source(end: &CopyEnd) -> Result<(Side, Option<String>), CopyError> {
    match end {
        CopyEnd::Directory(directory) => {
            let side = DirectoryCopy::source(directory)?;
            let mark = side.mark()?;
            Ok((Side::Directory(Box::new(side)), mark))
        }
        CopyEnd::Database(address) => {
            let side = DatabaseCopy::new((**address).clone());
            let mark = side.source().await.map_err(changed)?;
            Ok((Side::Database(Box::new(side)), mark))
        }
    }
}

/// Opens the place of the copy; what is in it.
async fn target(end: &CopyEnd) -> Result<(Side, Found), CopyError> {
    match end {
        CopyEnd::Directory(directory) => {
            let (side, found) = DirectoryCopy::target(directory)?;
            Ok((Side::Directory(Box::new(side)), found))
        }
        CopyEnd::Database(address) => {
            let side = DatabaseCopy::new((**address).clone());
            let found = side.target().await.map_err(changed)?;
            Ok((Side::Database(Box::new(side)), found))
        }
    }
}

/// Copies the ledger of one place to another, or goes on with it. Each step is shown to `see`, until it breaks.
///
/// # Errors
/// Why it is not done, or not finished. The source is a ledger as before whatever happens.
pub async fn copy(
    from: &CopyEnd,
    to: &CopyEnd,
    mut see: impl FnMut(CopyStep) -> ControlFlow<()>,
) -> Result<Copied, CopyError> {
    let refused = |words: &str| Err(CopyError::Refused(words.to_owned()));
    match (from, to) {
        (CopyEnd::Directory(_), CopyEnd::Directory(_)) => {
            return refused(
                "both are directories: a ledger in a directory is copied with `cohortd ledger backup` and `restore`",
            );
        }
        (CopyEnd::Database(_), CopyEnd::Database(_)) => {
            return refused(
                "both are databases: a ledger in a database is copied with the database's own tools (pg_dump)",
            );
        }
        _ => {}
    }
    let mut see = move |step| match see(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CopyError::Stopped),
    };
    let (mut source, mark) = source(from).await?;
    let (mut target, found) = target(to).await?;
    let mut progress = match found {
        Found::Ledger { copy: Some(copy) } if mark.as_deref() == Some(&copy) => {
            source.set_mark(None).await?;
            return Ok(Copied { rows: Vec::new() });
        }
        Found::Ledger { .. } => {
            return refused(
                "there is a ledger in the place of the copy already: name another place, or an empty one",
            );
        }
        Found::Unfinished(progress) if mark.as_deref() == Some(&progress.copy) => {
            source.go_on(&progress.copy);
            see(CopyStep::GoesOn)?;
            progress
        }
        Found::Unfinished(_) => return refused(CHANGED),
        Found::Nothing => {
            let copy = hex::encode(rand::rng().random::<[u8; 16]>());
            source.set_mark(Some(&copy)).await?;
            see(CopyStep::Begins)?;
            let progress = Progress { copy, at: Some(Position::start()) };
            target.begin(&progress, &source.once().await?).await?;
            progress
        }
    };
    write(&mut source, &mut target, &mut progress, &mut see).await?;
    let rows = compare(&mut source, &mut target, &mut see).await?;
    see(CopyStep::Finishes)?;
    target.finish(&progress.copy).await?;
    source.set_mark(None).await?;
    Ok(Copied { rows })
}

/// Writes every row behind where the copy is.
async fn write(
    source: &mut Side,
    target: &mut Side,
    progress: &mut Progress,
    see: &mut impl FnMut(CopyStep) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    let mut written = Summary::default();
    while let Some(at) = progress.at.clone() {
        let Page { rows, next } = source.page(&at).await?;
        let after = Progress { copy: progress.copy.clone(), at: next };
        target.write(&rows, progress, &after).await?;
        written.add(&rows);
        let (count, _) = written.of[at.kind as usize];
        *progress = after;
        see(CopyStep::Written(at.kind.name(), count))?;
    }
    Ok(())
}

/// Reads both sides from the beginning; what they have, if it is the same.
async fn compare(
    source: &mut Side,
    target: &mut Side,
    see: &mut impl FnMut(CopyStep) -> Result<(), CopyError>,
) -> Result<Vec<CopiedRows>, CopyError> {
    let of_source = summary(source, see).await?;
    let of_target = summary(target, see).await?;
    let differ = |kind: &Kind| of_source.of[*kind as usize] != of_target.of[*kind as usize];
    let differences: Vec<_> = Kind::ALL.into_iter().filter(differ).map(Kind::name).collect();
    if !differences.is_empty() {
        return Err(CopyError::Differs(differences));
    }
    let rows = |kind: Kind| {
        let (count, checksum) = of_source.of[kind as usize];
        CopiedRows { name: kind.name(), count, checksum }
    };
    Ok(Kind::ALL.map(rows).into())
}

async fn summary(
    side: &mut Side,
    see: &mut impl FnMut(CopyStep) -> Result<(), CopyError>,
) -> Result<Summary, CopyError> {
    let mut summary = Summary::default();
    let mut next = Some(Position::start());
    while let Some(at) = next {
        let page = side.page(&at).await?;
        summary.add(&page.rows);
        let (count, _) = summary.of[at.kind as usize];
        see(CopyStep::Read(at.kind.name(), count))?;
        next = page.next;
    }
    Ok(summary)
}
