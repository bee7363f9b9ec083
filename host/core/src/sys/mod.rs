//! What needs `unsafe` and the kernel: futexes, the memory that processes share, signals.
//!
//! Each module here gives a small safe surface; the rest of the crate is written on it.

pub(crate) mod atomic;
pub(crate) mod futex;
pub(crate) mod memory;
pub(crate) mod mutex;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod socket;
