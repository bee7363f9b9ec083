//! What mphost scripts see: Python's `multiprocessing` and the modules around it, for Rhai.
//!
//! Each Python name has a room of its own name: `os.rs`, `queues.rs`, `pool.rs`. A room registers its calls through
//! [`api`], which checks arguments, gives errors a place and keeps the documentation. [`host`] runs programs; an
//! embedding Rust program needs only that.

pub mod api;
pub mod connection;
pub mod context;
pub mod convert;
pub mod core_error;
pub mod error;
pub mod given;
pub mod handle;
pub mod host;
pub mod message;
pub mod output;
pub mod places;
pub mod pool;
pub mod process;
pub mod queues;
pub mod runtime;
pub mod shared_memory;
pub mod sharedctypes;
pub mod synchronize;
pub mod traceback;
pub mod with;

use api::Registry;
use error::Result;
use rhai::{Engine, NativeCallContext, Token};

/// Registers every room.
pub fn register_all(registry: &mut Registry) {
    context::register(registry);
    process::register(registry);
    queues::register(registry);
    synchronize::register(registry);
    sharedctypes::register(registry);
    shared_memory::register(registry);
    connection::register(registry);
    pool::register(registry);
}

/// Makes `spawn` callable: Rhai reserves the word.
pub(crate) fn spawn_syntax(engine: &mut Engine) {
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if matches!(word.as_str(), "spawn" | "exit") => {
            Token::Identifier(word)
        }
        other => other,
    });
}

/// What this process does about a signal that it has caught.
pub(crate) fn handle_signal(signal: i32) -> Result<()> {
    if signal == nix::sys::signal::Signal::SIGINT as i32 && !runtime::ignores_interrupts() {
        return Err(error::raise(error::Kind::KeyboardInterrupt, ""));
    }
    Ok(())
}

/// Drops what a forked child has in memory but doesn't own.
pub(crate) fn forget_parent() {
    pool::forget_parent();
}

/// Runs what the script registered for its end.
pub(crate) fn run_exit_handlers(_ctx: &NativeCallContext<'_>) -> Result<()> {
    // The script's handlers may still use its pools; the children are ended next.
    pool::end_all();
    Ok(())
}
