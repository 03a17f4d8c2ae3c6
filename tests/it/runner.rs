//! Runs the tests as the standard harness does, except that a test can be ignored for what its machine
//! lacks, which is known only at run time.
//!
//! Each file ends with a list of its tests, [`tests!`], and `main` has a list of the files. A test in no
//! list is dead code, which the lints refuse.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fmt::{Arguments, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use clap::Parser;
use libtest_mimic::{Completion, Conclusion, Failed, FormatSetting, Trial};

use crate::needs::{self, Lack, Need};
use crate::postgresql;

/// The tests of a file, by name. Each may be followed by method calls on its [`Test`]:
/// `a_kill_loses_nothing.needs(&STRACE)`.
macro_rules! tests {
    ($($name:ident $(.$how:ident($what:expr))*),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::runner::Test> {
            vec![$(
                $crate::runner::Test::new(concat!(module_path!(), "::", stringify!($name)), $name)
                    $(.$how($what))*
            ),+]
        }
    };
}

/// Notes a measurement, with the syntax of `println!`. It is shown if the test fails, or at once with
/// `--nocapture`.
macro_rules! note {
    ($($words:tt)*) => { $crate::runner::note(format_args!($($words)*)) };
}

pub struct Test {
    name: &'static str,
    needs: Vec<&'static Need>,
    workers: usize,
    body: Box<dyn FnOnce(usize) + Send>,
}

impl Test {
    /// `path` is the function's path, including its crate.
    pub fn new<Kind>(path: &'static str, body: impl Body<Kind>) -> Self {
        let (_, name) = path.split_once("::").expect("a crate comes first");
        // At least one thread remains for the stand-in while the test waits for a process.
        Self { name, needs: Vec::new(), workers: 2, body: Box::new(|workers| body.run(workers)) }
    }

    /// The same test with the ledger in a database.
    pub fn on_postgresql(self) -> Self {
        let name = format!("{}{}", postgresql::PREFIX, self.name);
        Self { name: name.leak(), ..self }.needs(&needs::POSTGRESQL)
    }

    /// Whether it is this one, by the end of its name.
    pub fn is(&self, name: &str) -> bool {
        self.name.ends_with(name)
    }

    /// Ignores the test where this is not available.
    pub fn needs(mut self, need: &'static Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Sets the number of threads of its runtime.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    fn run(self) -> Result<Completion, Failed> {
        let lacks: Vec<Lack> = self.needs.iter().filter_map(|need| need.lack()).collect();
        if !lacks.is_empty() {
            return needs::without(self.name, lacks);
        }
        heard().insert(self.name.to_owned(), String::new());
        // Output of a thread with this name belongs to the test.
        let named = thread::Builder::new().name(self.name.to_owned());
        let running = named.spawn(move || (self.body)(self.workers)).expect("a thread can be had");
        let ended = running.join();
        let said = heard().remove(self.name).unwrap_or_default();
        ended.map(|()| Completion::Completed).map_err(|_| said.trim_end().into())
    }
}

/// A function without arguments, `async` or not, which panics if the test fails.
pub trait Body<Kind>: Send + 'static {
    fn run(self, workers: usize);
}

pub struct Plain;
pub struct Async;

impl<F: FnOnce() + Send + 'static> Body<Plain> for F {
    fn run(self, _: usize) {
        self();
    }
}

impl<F: FnOnce() -> R + Send + 'static, R: Future<Output = ()>> Body<Async> for F {
    fn run(self, workers: usize) {
        let name = thread::current().name().expect("that of the test").to_owned();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(workers).thread_name(name).enable_all();
        runtime.build().expect("threads can be had").block_on(Box::pin(self()));
    }
}

/// `--nocapture`.
static SHOWN_AT_ONCE: AtomicBool = AtomicBool::new(false);
/// Output of the running tests so far, by name.
static HEARD: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

fn heard() -> MutexGuard<'static, BTreeMap<String, String>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::print_stderr, reason = "it was asked for, or belongs to no test")]
pub fn note(words: Arguments<'_>) {
    let words = words.to_string(); // may panic, and that is captured too
    let thread = thread::current();
    let mut heard = heard();
    let kept = thread.name().and_then(|name| heard.get_mut(name));
    match kept.filter(|_| !SHOWN_AT_ONCE.load(Ordering::Relaxed)) {
        Some(kept) => _ = writeln!(kept, "{words}"), // memory does not fail
        None => eprintln!("{words}"),
    }
}

/// The frames of the backtrace that are in our own code.
fn the_way_there() -> String {
    let all = Backtrace::force_capture().to_string();
    let lines: Vec<&str> = all.lines().collect();
    let ours = lines.windows(2).filter(|pair| {
        let place = pair[1].trim_start();
        let here = ["at ./src/", "at ./tests/", concat!("at ", env!("CARGO_MANIFEST_DIR"))];
        here.iter().any(|here| place.starts_with(here)) && !place.contains("/it/runner.rs:")
    });
    ours.flatten().copied().collect::<Vec<_>>().join("\n")
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    usual: libtest_mimic::Arguments,
    /// More filters for names.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the tests that the command line selects, and lists at the end those that were ignored.
pub fn run(tests: Vec<Test>) -> Conclusion {
    let CommandLine { mut usual, filters } = CommandLine::parse();
    SHOWN_AT_ONCE.store(usual.nocapture, Ordering::Relaxed);
    std::panic::set_hook(Box::new(|panic| {
        note(format_args!("{} {panic}", thread::current().name().unwrap_or("a thread")));
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0") {
            note(format_args!("{}", the_way_there()));
        }
    }));
    if usual.test_threads.is_none() {
        usual.test_threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|n| n.parse().ok());
    }
    let trial = |test: Test| Trial::ignorable_test(test.name, || test.run());
    let mut trials: Vec<Trial> = tests.into_iter().map(trial).collect();
    trials.sort_by(|one, other| one.name().cmp(other.name()));
    if !filters.is_empty() {
        let filters: Vec<String> = usual.filter.take().into_iter().chain(filters).collect();
        let mut alone = usual.clone();
        trials.retain(|trial| {
            filters.iter().any(|filter| {
                alone.filter = Some(filter.clone());
                !alone.is_filtered_out(trial)
            })
        });
    }
    let conclusion = libtest_mimic::run(&usual, trials);
    if usual.format != Some(FormatSetting::Json) {
        needs::say_what_was_not_checked();
    }
    conclusion
}

/// Under this harness a function with such an attribute is neither run nor reported as dead code.
fn no_test_hides_behind_an_attribute() {
    fn look(folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("the sources are there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                look(&path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let is_one = |line: &str| line.contains("test]") || line.contains("test(");
            let mut attributes = text.lines().map(str::trim).filter(|line| line.starts_with("#["));
            let found = attributes.find(|line| is_one(line));
            assert_eq!(found, None, "{}: list it instead", path.display());
        }
    }
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"));
}

tests![no_test_hides_behind_an_attribute];
