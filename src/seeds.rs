//! Where property tests keep the seeds of cases that once failed, so that those are tried first from then
//! on.

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};

/// The default configuration, with failing seeds kept in `file`, a path relative to the package's folder.
pub(crate) fn kept_in(file: &'static str) -> Config {
    let kept: Box<dyn FailurePersistence> = Box::new(FileFailurePersistence::Direct(file));
    Config { failure_persistence: Some(kept), ..Config::default() }
}
