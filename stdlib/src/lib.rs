//! What mphost scripts see: Python's `multiprocessing` and the modules around it, for Rhai.
//!
//! Each Python name has a room of its own name: `os.rs`, `queues.rs`, `pool.rs`. A room registers its calls through
//! [`api`], which checks arguments, gives errors a place and keeps the documentation. [`register`] puts everything into an engine.

pub mod api;
pub mod convert;
pub mod core_error;
pub mod error;
pub mod output;
pub mod places;
pub mod with;
