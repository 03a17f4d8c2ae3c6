//! How far a reconciliation is, and how it has ended, as any replica shows it.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::complain;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::follow::{Bar, in_words};
use crate::cli::operator::{Told, of};
use crate::operate::api::wire::{
    Done, Nothing, ProgressList, ReconcileInfo, ReconcileList, ReconcileStage, ReconcileStop, Work,
};

/// Time between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a daemon that has answered before may say nothing until it counts as gone: longer than a restart.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// The reconciliation that was asked for.
pub(super) struct Followed<'a> {
    daemon: &'a Daemon,
    destination: &'a str,
    audience: &'a str,
    as_of: &'a str,
    /// When those began that were there before it.
    before: Vec<String>,
    /// How far it was when it was last seen.
    seen: Cell<Option<ReconcileStage>>,
}

impl<'a> Followed<'a> {
    /// That of an audience with a snapshot of this time, which is asked for next.
    pub async fn new(
        daemon: &'a Daemon,
        destination: &'a str,
        (audience, as_of): (&'a str, &'a str),
    ) -> Told<Self> {
        let (before, seen) = (Vec::new(), Cell::new(None));
        let mut followed = Self { daemon, destination, audience, as_of, before, seen };
        match followed.all().await {
            Ok(all) => followed.before = all.into_iter().map(|info| info.since).collect(),
            Err(silent) if silent.is_of_the_daemon() => return Err(silent),
            Err(_) => {} // an older daemon does not tell
        }
        Ok(followed)
    }

    async fn all(&self) -> Told<Vec<ReconcileInfo>> {
        let path = of(self.destination, &["reconcile"]);
        Ok(self.daemon.get::<ReconcileList>(&path, &Nothing {}).await?.value.items)
    }

    /// Ends it where it is, whoever is at it; what to say.
    pub async fn stop(&self) -> Silent {
        let what = ReconcileStop { audience: self.audience.to_owned() };
        let path = of(self.destination, &["reconcile", "stop"]);
        let stopped: Told<Answer<Done>> = self.daemon.post(&path, &what).await;
        Silent::interrupted(if stopped.is_ok() {
            "stopped; what was recorded stays, and the same command does what is left"
        } else {
            "the daemon cannot be asked to stop: if all was sent, it goes on by itself once it runs; GET …/reconcile of the \
             API shows that, and POST …/reconcile/stop ends it"
        })
    }

    /// Shows how far it is, without end.
    pub async fn show(&self) -> Infallible {
        let mut bar = Bar::new();
        loop {
            sleep(LOOK_EVERY).await;
            // Whoever cannot be asked now says so in the answer to the request itself.
            let _ = self.look(&mut bar).await;
        }
    }

    /// The answer was lost, or the daemon stops: returns how it has ended, once all of it is recorded.
    pub async fn to_its_end(&self, lost: Silent) -> Told<ReconcileInfo> {
        let mut bar = Bar::new();
        let mut answered = Instant::now();
        loop {
            match self.look(&mut bar).await {
                Ok(Some(info)) if info.stage.is_under_way() => answered = Instant::now(),
                Ok(Some(info)) if info.stage == ReconcileStage::Complete => return Ok(info),
                Ok(Some(_)) => {
                    return Err(lost.after(
                        "it has ended early: it was stopped, or broken off before the ledger had all that it changes; what \
                         was recorded stays, and the same again does what is left: ",
                    ));
                }
                Ok(None) => {
                    return Err(lost.after(
                        "it is not under way, and none such has ended within the last minute; the same again does what is \
                         left: ",
                    ));
                }
                Err(_) if answered.elapsed() < GONE_AFTER => {}
                Err(_) => {
                    let goes_on = self.seen.get() == Some(ReconcileStage::Recording);
                    return Err(lost.after(if goes_on {
                        "it goes on by itself once the daemon runs again, or at another replica; GET …/reconcile of the API \
                         shows how far it is: "
                    } else {
                        "if the ledger had all that it changes, it goes on by itself once the daemon runs again; GET \
                         …/reconcile of the API shows whether it does, and if not, type the same again: "
                    }));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Looks how far it is, and shows it.
    async fn look(&self, bar: &mut Bar) -> Told<Option<ReconcileInfo>> {
        let found = self.all().await?.into_iter().rev().find(|info| self.is_it(info));
        let Some(info) = found else { return Ok(None) };
        let before = self.seen.replace(Some(info.stage));
        if info.stage == ReconcileStage::Comparing && before.is_none() {
            complain("the file is being read and compared with the ledger");
        }
        if info.stage == ReconcileStage::Recording {
            self.show_recorded(bar).await?;
        }
        Ok(Some(info))
    }

    async fn show_recorded(&self, bar: &mut Bar) -> Told<()> {
        let path = of(self.destination, &["progress"]);
        let all = self.daemon.get::<ProgressList>(&path, &Nothing {}).await?.value;
        let is_it = |audience: Option<&str>| audience == Some(self.audience);
        let items = all.items.iter();
        let mine = items.filter(|item| item.kind == Work::Reconcile);
        if let Some(item) = mine.into_iter().find(|item| is_it(item.audience.as_deref())) {
            let left = item.remaining_s.map(|left| format!("about {} left", in_words(left)));
            bar.show(item.done, item.total, &left.unwrap_or_default());
        }
        Ok(())
    }

    /// Whether it is the one that was asked for. Before it was compared, only the audience is known.
    fn is_it(&self, info: &ReconcileInfo) -> bool {
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        info.audience == self.audience
            && !self.before.contains(&info.since)
            && info.as_of.as_deref().is_none_or(|as_of| time(as_of) == time(self.as_of))
    }
}
