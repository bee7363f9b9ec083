//! The atomics of shared memory.
//!
//! They are the standard library's. In the crate's own tests they are those of the models (see `models`), which run the
//! crate's real code under every order of steps, with processes that die between them.

#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, fence};

#[cfg(test)]
pub(crate) use crate::models::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, fence};

pub(crate) use std::sync::atomic::Ordering;
