//! Processes, shared state and messages behind mphost. Plain Rust: no Rhai in it.
