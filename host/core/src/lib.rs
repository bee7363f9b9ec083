//! Processes, shared state and messages behind mphost. Plain Rust: no Rhai in it.

pub mod value;
pub mod wire;
