//! The commands: what was typed, what runs for it, and the exit code it ends with.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | `explain`: the event is rejected |
//! | 64 | bad usage or configuration, or what is asked for is not there |
//! | 69 | a needed service is unavailable |
//! | 70 | internal fault or damaged ledger |
//! | 75 | `status`: a destination is held or behind, or the ledger's clock is ahead |
//! | 130 | Ctrl-C, as of any command, or no was the answer |
//! | 130 | Ctrl-C, as for any command, or a confirmation was answered with no |
//! A command's answer goes to standard output, everything else to standard error.

mod addressee;
mod allocator;
mod asking;
pub mod check;
mod consent;
mod copy;
mod daemon;
pub mod eval;
mod examples;
pub mod explain;
mod follow;
pub mod healthcheck;
mod help;
pub mod ledger;
mod man;
pub mod operator;
mod place;
mod reaching;
pub mod reload;
pub mod send;
pub mod status;
mod table;
mod typesetting;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::{Shell, generate};
use rustix::fs::Mode;

use crate::certificate;
use crate::config::{Config, Destination, LedgerPlace, ReadFrom, Reading, Source, absolute};
use crate::launchdarkly::wire::USER_AGENT;
use crate::ledger::OpenError;
use crate::operate::api::wire::instant;
use crate::operate::logging::{self, chain};
use crate::sandbox::{Program, SandboxError};
use crate::service::{Origin, ServiceError};

/// How a command ends; determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Did what was asked.
    Done,
    /// The explained event would be rejected.
    Rejected,
    /// The command line or the configuration is wrong; the same call would fail again.
    BadUsage,
    /// A service it needs did not answer as it should; the same call may work later.
    Unavailable,
    /// An internal fault.
    Internal,
    /// A destination is held or behind, so somebody should look at it.
    Behind,
    /// The user interrupted it or declined the confirmation.
    Interrupted,
    /// The daemon's own exit code.
    Service(u8),
}

impl Exit {
    /// Of a command that cannot open the ledger.
    fn of(error: &OpenError) -> Self {
        match crate::service::of_ledger(error) {
            64 => Self::BadUsage,
            69 => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Rejected => 1,
            Exit::BadUsage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Behind => 75,
            Exit::Interrupted => 130,
            Exit::Service(code) => code,
        })
    }
}

const CONFIG_HELP: &str = "The configuration file [env: COHORTD_CONFIG] \
                           [default: ./cohortd.toml, else /etc/cohortd/cohortd.toml]";

/// Brings Twilio Segment audiences into LaunchDarkly segments.
#[derive(Parser)]
#[command(name = "cohortd", version, propagate_version = true, disable_help_subcommand = true)]
struct CommandLine {
    // Read by `Config::load`, so that an empty environment variable counts as unset.
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon
    Run,
    /// Run the daemon with a LaunchDarkly stand-in and sample traffic; no account is needed
    Sandbox {
        /// Stop after this many sample events
        #[arg(long, value_name = "N")]
        events: Option<u64>,
        /// Simulate no failures
        #[arg(long, conflicts_with = "events")]
        calm: bool,
    },
    /// Check the configuration
    Check(check::Check),
    /// Ask the daemon whether it is ready, for a container's health check
    Healthcheck,
    /// Have the running daemon reload its configuration
    Reload(reload::ReloadCommand),
    /// Show the state of each destination of the running daemon
    Status(status::StatusCommand),
    /// List audiences with their pending and parked members
    Audiences(operator::AudiencesCommand),
    /// Show every audience of a person: what should be, and what LaunchDarkly knows
    Member(operator::MemberCommand),
    /// List, requeue or discard members that LaunchDarkly refused
    Parked(operator::ParkedCommand),
    /// List, replay or discard events that could not be mapped
    Rejected(operator::RejectedCommand),
    /// List, release or discard what the guard holds: audiences that changed too much at once
    Guard(operator::GuardCommand),
    /// Send every member to LaunchDarkly again
    Resync(operator::ResyncCommand),
    /// Bring an audience to what a file says: who is in it enters, who is not leaves
    Reconcile(operator::ReconcileCommand),
    /// Pause delivery to a destination; events are kept
    Pause(operator::SteerCommand),
    /// Resume delivery to a destination
    Resume(operator::SteerCommand),
    /// Remove a person everywhere and erase what is known of them
    Forget(operator::ForgetCommand),
    /// Forget an audience or a destination
    Drop(operator::DropCommand),
    /// Sign and post an event as Segment would
    Send(Box<send::Send>),
    /// Check, export, back up, restore or copy the ledger, rename in it, or reset its clock
    Ledger(ledger::LedgerCommand),
    /// Explain what happens to one event and why
    Explain(explain::Explain),
    /// Evaluate JSON lines from standard input without a daemon
    Eval(Eval),
    /// Print a script for shell completion
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man(man::ManCommand),
    /// Print a page of the manual, or the help of a command
    Help(help::HelpCommand),
}

#[derive(Debug, Args)]
struct Eval {
    #[command(subcommand)]
    what: EvalWhat,
}

#[derive(Debug, Subcommand)]
enum EvalWhat {
    /// Resolve the directives of a mapping against a payload
    Mapping,
    /// Say whether a subscription selects an event
    Subscription,
    /// Map requests to the calls that LaunchDarkly would get
    Sync,
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let fixed = allocator::fix_sizes(); // first: it may execute the process again
    // Fails only if a provider is already installed, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    keep_files_to_ourselves();
    let typed = examples::shown_in(CommandLine::command()).try_get_matches();
    let line = match typed.and_then(|typed| CommandLine::from_arg_matches(&typed)) {
        Ok(line) => line,
        Err(message) if message.use_stderr() => {
            let _ = message.print(); // as in `complain`
            return Exit::BadUsage.into();
        }
        // Help and version are answers on standard output.
        Err(message) => return answered(message.print().map(|()| Exit::Done)).into(),
    };
    let file = line.config.as_deref();
    let exit = match line.command {
        Command::Run => run(file, fixed),
        Command::Sandbox { events, calm } => {
            let endless = if calm { Program::Calm } else { Program::Acts };
            let program = events.map_or(endless, Program::Events);
            served(crate::sandbox::run(program), SandboxError::exit_code, complain)
        }
        Command::Check(check) => answered(waited(check.run(file, &mut std::io::stdout()))),
        Command::Healthcheck => waited(healthcheck::healthcheck(file)),
        Command::Reload(reload) => asked(async |out| reload.run(file, out).await),
        Command::Status(status) => asked(async |out| status.run(file, out).await),
        Command::Audiences(list) => asked(async |out| list.run(file, out).await),
        Command::Member(show) => asked(async |out| show.run(file, out).await),
        Command::Parked(parked) => asked(async |out| parked.run(file, out).await),
        Command::Rejected(events) => asked(async |out| events.run(file, out).await),
        Command::Guard(guard) => asked(async |out| guard.run(file, out).await),
        Command::Resync(resync) => asked(async |out| resync.run(file, out).await),
        Command::Reconcile(reconcile) => asked(async |out| reconcile.run(file, out).await),
        Command::Pause(pause) => asked(async |out| pause.run("pause", file, out).await),
        Command::Resume(resume) => asked(async |out| resume.run("resume", file, out).await),
        Command::Forget(forget) => asked(async |out| forget.run(file, out).await),
        Command::Drop(drop) => asked(async |out| drop.run(file, out).await),
        Command::Send(send) => load(file)
            .map_or_else(|exit| exit, |config| asked(async |out| send.send(&config, out).await)),
        Command::Ledger(command) => {
            let mut output = std::io::BufWriter::new(std::io::stdout().lock());
            // A failed command keeps its exit code even if the reader has closed the pipe.
            let result = command.run(file, &mut output);
            answered(result.and_then(|exit| match (exit, output.flush()) {
                (Exit::Done, Err(error)) => Err(error),
                (exit, _) => Ok(exit),
            }))
        }
        Command::Explain(explain) => load(file).map_or_else(
            |exit| exit,
            |config| answered(explain.explain(&config, &mut std::io::stdout())),
        ),
        Command::Eval(Eval { what }) => {
            let input = std::io::stdin().lock();
            let mut output = std::io::BufWriter::new(std::io::stdout().lock());
            let result = match what {
                EvalWhat::Mapping => eval::mapping(input, &mut output),
                EvalWhat::Subscription => eval::subscription(input, &mut output),
                EvalWhat::Sync => eval::sync(input, &mut output),
            };
            answered(result.and_then(|()| output.flush()).map(|()| Exit::Done))
        }
        Command::Completions { shell } => {
            // Generated into memory first: the generator panics if it writes to a closed pipe.
            let mut script = Vec::new();
            generate(shell, &mut CommandLine::command(), "cohortd", &mut script);
            answered(std::io::stdout().write_all(&script).map(|()| Exit::Done))
        }
        Command::Man(man) => {
            answered(man.run(CommandLine::command(), &mut std::io::stdout()).map(|()| Exit::Done))
        }
        Command::Help(help) => {
            let of = examples::shown_in(CommandLine::command());
            answered(help.run(of, &mut std::io::stdout()))
        }
    };
    exit.into()
}

/// Loads the configuration, or prints every fault in it.
fn load(file: Option<&Path>) -> Result<Config, Exit> {
    Config::load(file).map_err(|faults| {
        complain(&faults.to_string());
        Exit::BadUsage
    })
}

/// Runs a command that makes requests and prints their answers.
fn asked(command: impl AsyncFnOnce(&mut std::io::Stdout) -> std::io::Result<Exit>) -> Exit {
    let mut out = std::io::stdout();
    let result = waited(command(&mut out));
    answered(result.and_then(|exit| out.flush().map(|()| exit)))
}

/// Clears the group's and others' bits in the umask: what is written here may hold personal data, so nobody
/// else may read it, whatever the umask of the shell.
fn keep_files_to_ourselves() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

fn run(file: Option<&Path>, fixed: std::io::Result<()>) -> Exit {
    let source = Source::locate(file);
    let Reading { config, files, from } = source.read();
    let config = match config {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults.to_string());
            return Exit::BadUsage;
        }
    };
    let logging = match logging::init(&config.log) {
        Ok(logging) => logging,
        Err(error) => {
            complain(&format!("cohortd ends: logging cannot be set up: {error}"));
            return Exit::Internal;
        }
    };
    let _flushed = logging.lines.flush_at_end();
    say_what_was_read(&config, &from);
    if let LedgerPlace::Directory(directory) = &config.ledger.place
        && let Some(refusal) = place::left_behind(directory)
    {
        tracing::error!("cohortd ends: {refusal}");
        return Exit::BadUsage;
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = fixed {
        tracing::warn!(
            %error,
            "freed memory may not be returned to the system: the daemon could not re-execute itself with its \
             allocator settings"
        );
    }
    leave_no_core();
    let say = |error: &str| tracing::error!("{error}");
    let origin = Origin { source, files, logging };
    served(crate::service::run(config, origin), ServiceError::exit_code, say)
}

/// The first line of the log: which files and variables the configuration was read from.
fn say_what_was_read(config: &Config, from: &ReadFrom) {
    let shown = |path: &Path| absolute(path).display().to_string();
    let (directory, database) = match &config.ledger.place {
        LedgerPlace::Directory(directory) => (Some(directory), None),
        LedgerPlace::Database(address) => (None, Some(address)),
    };
    let mut looked_for: Vec<String> = from.looked_for.iter().map(|path| shown(path)).collect();
    looked_for.dedup(); // the working directory may be one of the places
    tracing::info!(
        file = from.file.as_deref().map(shown),
        looked_for = (!looked_for.is_empty()).then(|| looked_for.join(", ")),
        variables = (!from.variables.is_empty()).then(|| from.variables.join(", ")),
        ledger.path = directory.map(|of| shown(&of.path)),
        ledger.database = database.map(ToString::to_string),
        version = env!("CARGO_PKG_VERSION"),
        "configuration read"
    );
}

/// A core dump would hold tokens and events, and a watchdog ends the daemon with one (SIGABRT). Only the
/// soft limit is lowered: `prlimit --core=unlimited` lets an administrator have one all the same. The
/// process stays dumpable (`PR_SET_DUMPABLE`), because otherwise it could not be traced by its own user.
fn leave_no_core() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(0);
    if let Err(error) = setrlimit(Resource::Core, limit) {
        tracing::warn!(%error, "core dumps could not be disabled (RLIMIT_CORE)");
    }
}

/// Runs a service until it ends; `say` reports the error if it failed.
fn served<E: std::error::Error>(
    service: impl Future<Output = Result<(), E>>,
    exit_code: fn(&E) -> u8,
    say: fn(&str),
) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(service)) {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) => {
            say(&format!("cohortd ends: {}", chain(&error)));
            Exit::Service(exit_code(&error))
        }
        Err(error) => {
            say(&format!("cohortd ends: the async runtime cannot be started: {error}"));
            Exit::Internal
        }
    }
}

/// Runs a short asynchronous command on a single-threaded runtime.
fn waited<T>(command: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs only memory and a few file handles").block_on(command)
}

/// A reader that has seen enough (`cohortd check | head -1`) is no fault. An output that is full, or an input that
/// breaks off, is not ours.
fn answered(result: std::io::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Exit::Done;
        }
        complain(&format!("cohortd: {error}"));
        Exit::Unavailable
    })
}

/// Prints to standard error; ignores failure, since there is no other place to report it.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// For a connection, TLS included, to what is on this host or near it.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Asks a daemon and nobody else: no redirects, no proxy from the environment.
fn to_the_daemon(patience: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(patience)
        .connect_timeout(CONNECTS_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(USER_AGENT)
        .no_proxy()
}

/// Describes a `reqwest` error without the URL, which may hold a proxy's password or personal data.
fn unreached(error: reqwest::Error) -> String {
    if error.is_timeout() {
        let what = if error.is_connect() { "no connection" } else { "no answer" };
        return format!("{what} in time");
    }
    if let Some(words) = certificate::words(&error, "what this machine trusts") {
        return words;
    }
    if error.is_connect() {
        // The outer errors only name the layers; of the chain of causes, the last one is about the network.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        return format!("cannot connect: {cause}");
    }
    chain(&error.without_url())
}

/// The destination with that name; without a name, the only one configured.
fn destination<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Destination, String> {
    let names = || {
        let names: Vec<&str> = config.destinations.iter().map(|d| d.name.as_str()).collect();
        names.join(", ")
    };
    match (name, &config.destinations[..]) {
        (Some(name), _) => config
            .destination(name)
            .ok_or_else(|| format!("there is no destination {name:?}; there are: {}", names())),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("say which destination: {}", names())),
    }
}

/// The contents of a file; `-` is standard input.
fn read_file(path: &Path) -> Result<String, String> {
    if path.as_os_str() == "-" {
        let text = std::io::read_to_string(std::io::stdin());
        return text.map_err(|error| format!("standard input: {error}"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_broken_pipe_ends_quietly_and_a_full_disk_does_not() {
        let failed = |kind: std::io::ErrorKind| answered(Err(kind.into()));
        assert_eq!(failed(std::io::ErrorKind::BrokenPipe), Exit::Done);
        assert_eq!(failed(std::io::ErrorKind::StorageFull), Exit::Unavailable);
    }
}
