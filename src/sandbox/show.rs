//! The sandbox's output: texts made from a scene, and the screen that they are drawn on.

use std::io::{IsTerminal, Result, Write};
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::sender::Posted;
use super::{CallCounts, Difference};

/// Narrow enough for any terminal: a line that wraps cannot be overwritten in place.
pub(super) const WIDTH: usize = 79;

/// A snapshot of the sandbox.
#[derive(Debug, Default)]
pub(super) struct Scene {
    pub elapsed: Duration,
    pub posted: Posted,
    pub calls: CallCounts,
    /// Members that LaunchDarkly has not been told about yet.
    pub waiting: u64,
    /// Who entered or left which audience last, in words.
    pub latest: Option<String>,
    pub segments: Vec<Glimpse>,
}

/// A segment with a few of its members.
#[derive(Debug)]
pub(super) struct Glimpse {
    pub name: String,
    pub members: usize,
    pub some: Vec<String>,
}

/// The addresses of everything that was started.
pub(super) struct Places<'a> {
    pub webhook: &'a Url,
    pub dashboard: &'a Url,
    /// Address of the admin listener, for the command line.
    pub admin: SocketAddr,
    pub launchdarkly: &'a Url,
    pub shared_secret: &'a str,
    /// An event to post by hand.
    pub event: &'a str,
    pub signature: &'a str,
}

/// Explains what is shown, where it is, and how to take part.
pub(super) fn introduction(places: &Places<'_>) -> String {
    let Places { webhook, dashboard, admin, launchdarkly, shared_secret, event, signature } =
        places;
    format!(
        "\
cohortd sandbox: nothing leaves this machine, and nothing is kept afterwards.

  Segment (sample traffic)  -- webhooks -->  cohortd  -- API calls -->  LaunchDarkly (a stand-in)

  cohortd takes events at   {webhook}
  signed with the secret    {shared_secret}
  its dashboard is at       {dashboard}
  the stand-in listens at   {launchdarkly}

People enter and leave two audiences. Segment posts every change twice, as an Identify and as a
Track. cohortd stores it, answers, and brings LaunchDarkly's segments up to date in batches.

Take part while this runs. This puts ada into the segment \"Beta testers\":

curl -i {webhook} -H 'X-Signature: {signature}' -d '{event}'

To use the commands with it, in another terminal:

export COHORTD_ADMIN__ADDRESS={admin}
cohortd status        # from here: cargo run --release -- status

What to do next: \"Set up\" in README.md. Ctrl-C stops the sandbox.

"
    )
}

/// The scene as a block of lines, which is drawn over the previous block.
fn block(scene: &Scene) -> Vec<String> {
    let Scene { posted, calls, waiting, latest, segments, .. } = scene;
    let mut lines = vec![
        format!("  received from Segment  {}", counted(posted.accepted, "event")),
        format!(
            "  told to LaunchDarkly   {} in {}",
            counted(calls.members, "member"),
            counted(calls.total, "API call")
        ),
        format!("  waiting for delivery   {}", counted(*waiting, "member")),
        format!("  latest change          {}", latest.as_deref().unwrap_or("none yet")),
        String::new(),
        format!("  {:<28} {:>8}  for example", "segment in LaunchDarkly", "members"),
    ];
    lines.extend(segments.iter().map(|Glimpse { name, members, some }| {
        let more = if *members > some.len() { ", …" } else { "" };
        format!("  {name:<28} {:>8}  {}{more}", grouped(*members as u64), some.join(", "))
    }));
    lines.into_iter().map(|line| line.chars().take(WIDTH).collect()).collect()
}

/// The scene as one line, for a log or a pipe.
fn line(scene: &Scene) -> String {
    let Scene { elapsed, posted, calls, waiting, segments, .. } = scene;
    let segments: Vec<String> = segments
        .iter()
        .map(|segment| format!("{} {}", segment.name, grouped(segment.members as u64)))
        .collect();
    format!(
        "{:>4} s  {} -> {}, {} told, {} waiting; {}",
        elapsed.as_secs(),
        counted(posted.accepted, "event"),
        counted(calls.total, "API call"),
        counted(calls.members, "member"),
        grouped(*waiting),
        if segments.is_empty() { "no segment yet".to_owned() } else { segments.join(", ") }
    )
}

/// The outcome.
#[derive(Debug)]
pub(super) enum Verdict {
    /// How the segments differ from the audiences.
    Compared(Vec<Difference>),
    /// Interrupted while this many members were still waiting to be told.
    NotCompared { waiting: u64 },
}

/// The closing text: all numbers, and whether the segments are right.
pub(super) fn summary(scene: &Scene, verdict: &Verdict) -> String {
    let Scene { elapsed, posted, calls, segments, .. } = scene;
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let events_per_call = match calls.total {
        0 => "-".to_owned(),
        total => format!("{:.1}", posted.accepted as f64 / total as f64),
    };
    let numbers = format!(
        "\nsummary\n  events sent          {}\n  accepted             {}\n  \
         API calls            {}\n  members told         {}\n  events per API call  {}\n  \
         time                 {:.1} s\n",
        grouped(posted.events),
        grouped(posted.accepted),
        grouped(calls.total),
        grouped(calls.members),
        events_per_call,
        elapsed.as_secs_f64(),
    );
    let segment = |Glimpse { name, members, .. }: &Glimpse| {
        format!("  segment              {name}: {}\n", counted(*members as u64, "member"))
    };
    let segments: Vec<String> = segments.iter().map(segment).collect();
    let result = match verdict {
        Verdict::NotCompared { waiting } => {
            format!(
                "  not compared, because these still wait for delivery: {}\n",
                counted(*waiting, "member")
            )
        }
        Verdict::Compared(differences) if differences.is_empty() => {
            "  the segments are equal to what Segment said\n".to_owned()
        }
        Verdict::Compared(differences) => {
            let line = |Difference { audience, missing, unexpected }: &Difference| {
                format!("  DIFFERS {audience}: {missing} missing, {unexpected} too many\n")
            };
            differences.iter().map(line).collect::<Vec<_>>().concat()
        }
    };
    numbers + &segments.concat() + &result
}

/// `1 member`, `2,000 members`.
fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Standard output. A terminal shows a block that is redrawn in place; anything else gets one line per
/// scene.
pub(super) struct Screen {
    is_terminal: bool,
    /// Number of lines of the block now on the terminal.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), drawn: 0 }
    }

    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.drawn = 0; // what is above stays: the next block begins below this text
        write_out(text)
    }

    pub(super) fn draw(&mut self, scene: &Scene) -> Result<()> {
        if !self.is_terminal {
            return write_out(&format!("{}\n", line(scene)));
        }
        let lines = block(scene);
        // moves up to where the block began, then erases each line before writing it
        let back = if self.drawn > 0 { format!("\x1b[{}F", self.drawn) } else { String::new() };
        let erased: Vec<String> = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
        self.drawn = lines.len();
        write_out(&(back + &erased.concat()))
    }
}

fn write_out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        Scene {
            elapsed: Duration::from_millis(12_300),
            posted: Posted { events: 1240, accepted: 1239 },
            calls: CallCounts { total: 31, members: 598, ..CallCounts::default() },
            waiting: 7,
            latest: Some("user_0000042 left Cart abandoners".into()),
            segments: vec![
                Glimpse { name: "Beta testers".into(), members: 1, some: vec!["ada".into()] },
                Glimpse {
                    name: "A name that is much longer than a terminal is wide".repeat(2),
                    members: 1_234_567,
                    some: vec!["user_0000001".into(); 3],
                },
            ],
        }
    }

    #[test]
    fn a_block_has_the_numbers_and_never_wraps() {
        let lines = block(&scene());
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        let text = lines.join("\n");
        for expected in [
            "received from Segment  1,239 events\n",
            "598 members in 31 API calls\n",
            "waiting for delivery   7 members\n",
            "user_0000042 left Cart abandoners\n",
            "  Beta testers                        1  ada\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_line_has_the_numbers() {
        let mut scene = scene();
        scene.segments.truncate(1);
        let expected = "  12 s  1,239 events -> 31 API calls, 598 members told, 7 waiting; \
                        Beta testers 1";
        assert_eq!(line(&scene), expected);
    }

    #[test]
    fn a_summary_says_whether_the_segments_are_right() {
        let difference = Difference { audience: "aud_1".into(), missing: 3, unexpected: 1 };
        let verdicts = [
            (Verdict::Compared(Vec::new()), "the segments are equal to what Segment said"),
            (Verdict::Compared(vec![difference]), "DIFFERS aud_1: 3 missing, 1 too many"),
            (
                Verdict::NotCompared { waiting: 2 },
                "not compared, because these still wait for delivery: 2 members",
            ),
        ];
        for (verdict, expected) in verdicts {
            let text = summary(&scene(), &verdict);
            assert!(text.ends_with(&format!("  {expected}\n")), "{text}");
            assert!(text.contains("  events per API call  40.0\n"), "{text}");
        }
        let nothing = summary(&Scene::default(), &Verdict::Compared(Vec::new()));
        assert!(nothing.contains("  events per API call  -\n"), "{nothing}");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
