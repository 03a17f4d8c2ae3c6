//! Where random tests keep what once failed, so that it is tried first from then on.

use proptest::test_runner::{Config, FailurePersistence, FileFailurePersistence};

/// The defaults, with the seeds in `file` below the package's folder.
pub(crate) fn kept_in(file: &'static str) -> Config {
    let kept: Box<dyn FailurePersistence> = Box::new(FileFailurePersistence::Direct(file));
    Config { failure_persistence: Some(kept), ..Config::default() }
}
