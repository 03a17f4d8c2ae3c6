//! A value that is replaced as a whole while others read it.

use std::sync::{Arc, PoisonError, RwLock};

/// A shared current value. A reader keeps the value it got even after it is replaced.
#[derive(Debug)]
pub struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Current<T> {
    /// Starts with this value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies `wanted` to the present value under the read lock; [`Current::set`] blocks until it
    /// returns.
    pub fn look<R>(&self, wanted: impl FnOnce(&T) -> R) -> R {
        wanted(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
