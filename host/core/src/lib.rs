//! Processes, shared state and messages behind mphost. Plain Rust: no Rhai in it.

pub mod alarm;
pub mod authentication;
pub mod barrier;
mod board;
pub mod clock;
pub mod condition;
pub mod connection;
pub mod deadlock;
pub mod error;
pub mod event;
pub mod eventcount;
pub mod files;
pub mod heap;
pub mod isolate;
#[cfg(test)]
mod models;
pub mod names;
mod patience;
pub mod permit;
pub mod pool;
pub mod position;
pub mod postoffice;
pub mod process;
pub mod queue;
pub mod random;
pub mod reap;
pub mod session;
pub mod shared;
pub mod signals;
pub mod snapshot;
pub mod socket;
pub mod subprocess;
mod sys;
pub mod table;
pub mod transport;
pub mod value;
pub mod wait;
pub mod wire;

pub use error::{CoreError, Result};
