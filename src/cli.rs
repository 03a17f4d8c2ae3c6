//! To be filled.

pub mod eval;
