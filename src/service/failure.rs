//! Why the daemon did not start, or why it ended by itself.

use std::net::SocketAddr;

use crate::deliver::CourierError;
use crate::launchdarkly::ClientError;
use crate::ledger::{OpenError, StoreError, WriterFailure};
use crate::membership::DestinationName;

/// Why the daemon did not start, or why it ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The port is taken, or the address does not belong to this machine.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// The configuration key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The ledger cannot be used.
    #[error("the ledger cannot be opened")]
    Open(#[from] StoreError),
    /// A destination's client cannot be built.
    #[error("the LaunchDarkly client of destination {destination} cannot be built")]
    Client {
        /// The destination's name.
        destination: DestinationName,
        /// Why the client could not be built.
        #[source]
        source: ClientError,
    },
    /// A certificate or its key cannot be used, although it could when the configuration was read.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The client that exports telemetry cannot be built.
    #[error("the telemetry client cannot be built")]
    Telemetry(#[source] reqwest::Error),
    /// The thread of the couriers cannot be started.
    #[error("the couriers' thread cannot be started")]
    CourierThread(#[source] std::io::Error),
    /// The operating system does not let the daemon listen for signals.
    #[error("signal handlers cannot be installed")]
    Signals(#[source] std::io::Error),
    /// The ledger's writer ended.
    #[error("the ledger's writer failed")]
    Writer(#[source] WriterFailure),
    /// A courier ended.
    #[error("the courier of {destination} failed")]
    Courier {
        /// The destination's name.
        destination: DestinationName,
        /// Why the courier ended.
        #[source]
        source: CourierError,
    },
    /// A listener ended.
    #[error("a listener failed")]
    Listener(#[source] std::io::Error),
    /// A task ended without being asked to.
    #[error("{0} ended unexpectedly")]
    EndedByItself(String),
    /// A task panicked with this message.
    #[error("a task panicked: {0}")]
    Panicked(String),
}

impl ServiceError {
    /// The exit code of the process: 64 what the configuration names is of no use, 69 something it needs
    /// is taken or missing, 70 an internal fault or a damaged ledger.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tls(_) => 64,
            Self::Bind { .. } | Self::Open(StoreError::Shared(_)) => 69,
            Self::Open(StoreError::Embedded(error)) => of_ledger(error),
            _ => 70,
        }
    }
}

/// The exit code of whoever cannot open a ledger, the same whether a start or a command meets it: 64 what was named is
/// not the ledger, or not one of this version, 69 it is missing or cannot be used now, 70 it is damaged.
#[must_use]
pub fn of_ledger(error: &OpenError) -> u8 {
    match error {
        OpenError::NotALedger(_)
        | OpenError::Newer { .. }
        | OpenError::NewerJournal { .. }
        | OpenError::Older { .. }
        | OpenError::Overlooked { .. }
        | OpenError::NotItsOwn { .. } => 64,
        OpenError::Missing(_)
        | OpenError::InUse(_)
        | OpenError::Unfinished(_)
        | OpenError::Reconciling
        | OpenError::Merging(_)
        | OpenError::Stalled { .. }
        | OpenError::NoSpace { .. }
        | OpenError::Directory { .. } => 69,
        OpenError::Database(_) | OpenError::Failed(_) | OpenError::Damaged(_) => 70,
    }
}

/// A task that has ended.
#[derive(Debug)]
pub(super) enum Ended {
    Listener(std::io::Result<()>),
    Courier(DestinationName, Result<(), CourierError>),
    Exporter,
    History,
    /// The task that tells other replicas the status of this one.
    Saying,
    Note,
    /// The task that records what is left of reconciliations.
    Reconciling,
    /// The thread that writes the log ended.
    Log,
    /// The watch over the clocks.
    ClockWatch,
    Refusals,
    /// The watch over a certificate's files.
    Watch,
    Writer(Result<(), WriterFailure>),
}

impl Ended {
    /// The failure that this means if the task was not asked to end.
    pub(super) fn unasked(self) -> ServiceError {
        match self {
            Self::Listener(Err(error)) => ServiceError::Listener(error),
            Self::Listener(Ok(())) => ServiceError::EndedByItself("a listener".into()),
            Self::Courier(destination, Err(source)) => {
                ServiceError::Courier { destination, source }
            }
            Self::Courier(destination, Ok(())) => {
                ServiceError::EndedByItself(format!("the courier of {destination}"))
            }
            Self::Exporter => ServiceError::EndedByItself("the telemetry exporter".into()),
            Self::History => ServiceError::EndedByItself("the history of counts".into()),
            Self::Note => ServiceError::EndedByItself(
                "the task that saves the record of refused requests".into(),
            ),
            Self::Reconciling => {
                ServiceError::EndedByItself("the task that reconciles audiences".into())
            }
            Self::Saying => {
                ServiceError::EndedByItself("the task that tells other replicas the status".into())
            }
            Self::Log => ServiceError::EndedByItself("the log thread".into()),
            Self::ClockWatch => ServiceError::EndedByItself("the clock watch".into()),
            Self::Refusals => {
                ServiceError::EndedByItself("the task that logs refused requests".into())
            }
            Self::Watch => ServiceError::EndedByItself("the watch on a certificate".into()),
            Self::Writer(Err(error)) => ServiceError::Writer(error),
            Self::Writer(Ok(())) => ServiceError::EndedByItself("the ledger's writer".into()),
        }
    }
}
