//! i

mod conformance;
