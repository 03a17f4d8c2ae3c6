//! The manual: a page for each topic, for those who operate cohortd. `cohortd help TOPIC` prints a page,
//! `/manual` on the admin listener serves them all, and the README links to their files.
//!
//! It depends on no other part of the daemon, so that every part may refer to a [`Place`] in it.
//!
//! # What always holds
//! * Every link resolves (src/design/citations.rs), and so does every [`Place`] that the daemon refers to.
//! * What a page lists (keys, metrics, reasons, routes, exit codes, commands) matches the code; the tests
//!   stand beside the code's own lists.
//! * A test loads or runs every snippet, or lists it with the reason why it does not (tests/it/manual.rs).

use std::fmt;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A page of the manual.
#[derive(Debug, PartialEq, Eq)]
pub struct Topic {
    /// The name typed after `cohortd help`; also the name of its file.
    pub name: &'static str,
    /// One line on what the page answers.
    pub summary: &'static str,
    /// The page's Markdown source.
    pub text: &'static str,
}

macro_rules! topic {
    ($name:literal, $summary:literal) => {
        Topic {
            name: $name,
            summary: $summary,
            text: include_str!(concat!("manual/", $name, ".md")),
        }
    };
}

/// Every page, in the order in which they are listed.
pub const TOPICS: [Topic; 11] = [
    topic!(
        "configuration",
        "where settings come from, what each key means, secrets, routes, reloading"
    ),
    topic!("mapping", "how an event becomes a change of a segment, and why one is rejected"),
    topic!("deployment", "Docker, Docker Compose, Kubernetes, systemd, and what stands in front"),
    topic!(
        "replicas",
        "several processes that share a ledger in PostgreSQL: set-up, failover, limits"
    ),
    topic!(
        "operations",
        "states, answers, exit codes, commands, the API, backup, restore, upgrade"
    ),
    topic!("troubleshooting", "by symptom: what you see, where to look, what to do"),
    topic!("security", "who is trusted with what, what a signature covers, every limit"),
    topic!("metrics", "Prometheus, Grafana, every metric, traces"),
    topic!(
        "compatibility",
        "what can send, what Segment and LaunchDarkly do, differences from the hosted integration"
    ),
    topic!("performance", "how fast it is, how much memory and disk it takes, and what limits it"),
    topic!("changelog", "what has changed, version by version"),
];

/// The page with this name.
#[must_use]
pub fn topic(name: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|topic| topic.name == name)
}

/// A heading and the text below it, up to the next heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// The fragment of a link to this heading; see [`anchor`].
    pub anchor: String,
    /// The text, without Markdown's markup.
    pub text: String,
}

impl Topic {
    /// The page as a stream of Markdown events.
    #[must_use]
    pub fn parsed(&self) -> Parser<'static> {
        Parser::new_ext(self.text, Options::ENABLE_TABLES)
    }

    /// The page's sections in order; the first begins with the page's title.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        let mut is_heading = false;
        for part in self.parsed() {
            if let Event::Start(Tag::Heading { .. }) = part {
                let (title, anchor, text) = Default::default();
                sections.push(Section { title, anchor, text });
                is_heading = true;
                continue;
            }
            let Some(section) = sections.last_mut() else { continue };
            let to = if is_heading { &mut section.title } else { &mut section.text };
            match part {
                Event::End(TagEnd::Heading(_)) => {
                    section.anchor = anchor(&section.title);
                    is_heading = false;
                }
                Event::Text(text) | Event::Code(text) => to.push_str(&text),
                // ends of cells, items and paragraphs separate words
                Event::SoftBreak | Event::HardBreak | Event::End(_) if !is_heading => {
                    if matches!(part, Event::End(end) if is_inline(end)) {
                        continue;
                    }
                    to.push(' ');
                }
                _ => {}
            }
        }
        sections
    }

    /// The page's title: its first heading.
    #[must_use]
    pub fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches("# ")
    }
}

fn is_inline(end: TagEnd) -> bool {
    matches!(end, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Strikethrough)
}

/// The anchor of a heading, by GitHub's rules.
#[must_use]
pub fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

/// A heading of a page. Its `Display` is its path on the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    topic: &'static str,
    anchor: &'static str,
}

impl Place {
    /// The heading with that anchor. Existence is not checked; a test should assert
    /// [`is_there`](Self::is_there).
    #[must_use]
    pub const fn new(topic: &'static str, anchor: &'static str) -> Self {
        Self { topic, anchor }
    }

    /// Whether the page and the heading exist.
    #[must_use]
    pub fn is_there(self) -> bool {
        let is_it = |section: &Section| section.anchor == self.anchor;
        topic(self.topic).is_some_and(|topic| topic.sections().iter().any(is_it))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/manual/{}#{}", self.topic, self.anchor)
    }
}

/// Where a link of a page leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads<'a> {
    /// To a page of the manual, or a heading of one.
    Topic(&'static Topic, Option<&'a str>),
    /// To a heading of the same page.
    Here(&'a str),
    /// To another site.
    Web(&'a str),
    /// To a file of the repository, by its path from the repository's root.
    Source(&'a str),
}

impl<'a> Leads<'a> {
    /// Parses the target of a link as written in a page.
    #[must_use]
    pub fn of(target: &'a str) -> Self {
        if let Some(heading) = target.strip_prefix('#') {
            return Self::Here(heading);
        }
        if target.contains("://") || target.starts_with("mailto:") {
            return Self::Web(target);
        }
        let (file, heading) = match target.split_once('#') {
            Some((file, heading)) => (file, Some(heading)),
            None => (target, None),
        };
        match file.strip_suffix(".md").and_then(topic) {
            Some(topic) => Self::Topic(topic, heading),
            None => Self::Source(file.trim_start_matches("../")),
        }
    }
}

/// A section that contains every word of a query.
#[derive(Debug)]
pub struct Hit {
    /// The page it belongs to.
    pub topic: &'static Topic,
    /// The section.
    pub section: Section,
    /// The text around the first match.
    pub excerpt: String,
}

/// Characters that an excerpt shows before and after the match.
const BEFORE: usize = 60;
const BEHIND: usize = 160;
/// Most hits returned: nobody reads further.
const MOST_HITS: usize = 50;

/// Sections that contain every word of a query, ignoring case; the more of the words are in the heading,
/// the earlier.
#[must_use]
pub fn search(query: &str) -> Vec<Hit> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() {
        return Vec::new();
    }
    let mut hits: Vec<(usize, Hit)> = Vec::new();
    for topic in &TOPICS {
        for section in topic.sections() {
            let title = section.title.to_lowercase();
            let text = section.text.to_lowercase();
            if words.iter().all(|word| title.contains(word) || text.contains(word)) {
                let in_title = words.iter().filter(|word| title.contains(*word)).count();
                let excerpt = excerpt(&section.text, &words);
                hits.push((in_title, Hit { topic, section, excerpt }));
            }
        }
    }
    hits.sort_by_key(|(in_title, _)| std::cmp::Reverse(*in_title)); // stable: ties stay in page order
    hits.into_iter().take(MOST_HITS).map(|(_, hit)| hit).collect()
}

/// The text around the first match of any of the words; the beginning of the text if none matches.
fn excerpt(text: &str, words: &[String]) -> String {
    let text: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    // lowercasing can change a text's length and so shift positions: each character is compared by itself
    let lower = |c: &char| c.to_lowercase().next().unwrap_or(*c);
    let found = words.iter().filter_map(|word| {
        let word: Vec<char> = word.chars().collect();
        text.windows(word.len()).position(|part| part.iter().map(lower).eq(word.iter().copied()))
    });
    let at = found.min().unwrap_or_default();
    let whole_word = |at: &usize| *at == 0 || text[*at - 1] == ' ';
    let from = (at.saturating_sub(BEFORE)..=at).find(whole_word).unwrap_or(at);
    let to = text.len().min(at + BEHIND);
    let to = (to..text.len()).find(|at| text[*at] == ' ').unwrap_or(text.len());
    let shown: String = text[from..to].iter().collect();
    let before = if from > 0 { "… " } else { "" };
    let behind = if to < text.len() { " …" } else { "" };
    format!("{before}{shown}{behind}")
}

/// The cells, as written, of the table below a heading. For tests that compare such a table with the code.
#[cfg(test)]
pub(crate) fn rows(topic_name: &str, anchored: &str) -> Vec<Vec<&'static str>> {
    let text = topic(topic_name).expect("a page").text;
    let is_heading = |line: &&str| line.starts_with('#');
    let mut lines = text
        .lines()
        .skip_while(|line| !is_heading(line) || anchor(line.trim_start_matches('#')) != anchored);
    assert!(lines.next().is_some(), "{topic_name} has no heading {anchored}");
    let below = lines.take_while(|line| !is_heading(line));
    let rows = below.filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    let rows: Vec<_> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    assert!(rows.len() > 2, "{topic_name} has no table below {anchored}");
    rows.into_iter().skip(2).collect()
}

/// The parts of a cell in backquotes.
#[cfg(test)]
pub(crate) fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_says_first_what_it_answers_and_names_no_heading_twice() {
        for topic in &TOPICS {
            let sections = topic.sections();
            assert!(topic.text.starts_with("# "), "{}", topic.name);
            assert_eq!(sections[0].title, topic.title());
            assert_eq!(anchor(topic.title()), topic.name);
            assert!(sections[0].text.len() > 20, "{} opens with a heading", topic.name);
            assert!(sections.len() > 2, "{}", topic.name);
            let anchors: BTreeSet<_> = sections.iter().map(|section| &section.anchor).collect();
            assert_eq!(
                anchors.len(),
                sections.len(),
                "{}: a heading stands there twice",
                topic.name
            );
            assert!(!topic.summary.ends_with('.'), "{}", topic.summary);
        }
    }

    /// A page that is not listed cannot be reached.
    #[test]
    fn every_page_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual");
        let files = std::fs::read_dir(folder).expect("it is there").flatten();
        let names = files.filter_map(|file| {
            file.file_name().into_string().ok()?.strip_suffix(".md").map(str::to_owned)
        });
        let listed = TOPICS.iter().map(|topic| topic.name.to_owned());
        assert_eq!(names.collect::<BTreeSet<_>>(), listed.collect());
    }

    /// The README repeats the topics' names and summaries word for word.
    #[test]
    fn readme_lists_the_topics() {
        let readme = include_str!("../README.md");
        let row = |topic: &Topic| {
            let Topic { name, summary, .. } = topic;
            format!("| [{name}](src/manual/{name}.md) | {summary} |\n")
        };
        let rows: String = TOPICS.iter().map(row).collect();
        assert!(readme.contains(&rows), "README.md should have these rows:\n\n{rows}");
        assert!(readme.len() <= 12 * 1024, "README is for newcomers: {} bytes", readme.len());
    }

    #[test]
    fn a_link_leads_to_a_page_a_heading_the_web_or_a_file() {
        let security = topic("security").expect("a page");
        let leads = |target| format!("{:?}", Leads::of(target));
        let expected = |leads: Leads<'_>| format!("{leads:?}");
        for (target, place) in [
            ("security.md", Leads::Topic(security, None)),
            ("security.md#limits", Leads::Topic(security, Some("limits"))),
            ("#limits", Leads::Here("limits")),
            ("https://example.com/a", Leads::Web("https://example.com/a")),
            ("../../config/default.toml", Leads::Source("config/default.toml")),
            ("../../.github/SECURITY.md", Leads::Source(".github/SECURITY.md")),
        ] {
            assert_eq!(leads(target), expected(place), "{target}");
        }
    }

    #[test]
    fn a_search_finds_sections_that_hold_every_word() {
        let found = |query| {
            let hits = search(query).into_iter();
            hits.map(|hit| format!("{}#{}", hit.topic.name, hit.section.anchor)).collect::<Vec<_>>()
        };
        assert_eq!(
            found("Segment says 401").first().map(String::as_str),
            Some("troubleshooting#segment-says-401")
        );
        assert!(found("otlp_endpoint").contains(&"configuration#telemetry".to_owned()));
        assert!(found("OTLP_Endpoint").contains(&"configuration#telemetry".to_owned()));
        assert_eq!(found("  "), [""; 0]);
        assert_eq!(found("segment zebra"), [""; 0]);
        assert!(found("e").len() <= MOST_HITS);
        for hit in search("bypassRequiredSegmentApproval") {
            assert!(hit.excerpt.contains("bypassRequiredSegmentApproval"), "{}", hit.excerpt);
            assert!(hit.excerpt.chars().count() < 300, "{}", hit.excerpt);
        }
    }

    #[test]
    fn headings_become_anchors_as_on_github() {
        for (heading, expected) in [
            ("Segment says 413 or 503", "segment-says-413-or-503"),
            ("Some people are missing, or have stayed", "some-people-are-missing-or-have-stayed"),
            ("What `held` means", "what-held-means"),
        ] {
            assert_eq!(anchor(heading), expected);
        }
        assert!(Place::new("security", "limits").is_there());
        assert!(!Place::new("security", "limitless").is_there());
        assert!(!Place::new("safety", "limits").is_there());
        assert_eq!(Place::new("security", "limits").to_string(), "/manual/security#limits");
    }
}
