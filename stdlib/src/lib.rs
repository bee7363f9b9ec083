//! What mphost scripts see: Python's `multiprocessing` and the modules around it, for Rhai.
//!
//! Each Python name has a room of its own name: `os.rs`, `queues.rs`, `pool.rs`. A room registers its calls through
//! [`api`], which checks arguments, gives errors a place and keeps the documentation. Rust programs run scripts in one of two ways:
//! [`register`] gives an engine of theirs all that scripts see, [`host`] is a whole program with its engine, as the command line uses it.

mod address;
pub mod api;
pub mod assertions;
pub mod atexit;
mod bars;
pub mod builtins;
pub mod catches;
pub mod connection;
pub mod context;
pub mod convert;
pub mod copies;
pub mod core_error;
pub mod embed;
pub mod error;
pub mod errors;
pub mod file;
pub mod formatting;
pub mod given;
mod habits;
pub mod handle;
pub mod host;
pub mod interactive;
pub mod items;
pub mod json;
pub mod later;
pub mod logging;
pub mod managers;
pub mod message;
pub mod modules;
pub mod nudge;
pub mod os;
pub mod output;
pub mod picture;
pub mod places;
pub mod pool;
pub mod process;
pub mod queue;
pub mod queues;
pub mod random;
pub mod range;
pub mod reference;
pub mod room;
pub mod runtime;
pub mod shared_memory;
pub mod sharedctypes;
pub mod signal;
pub mod socket;
pub mod spelling;
pub mod stack;
mod standard;
pub mod stuck;
pub mod subprocess;
pub mod synchronize;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod time;
pub mod traceback;
pub mod tries;
pub mod with;

pub use embed::register;

use api::Registry;
use error::Result;
use rhai::{Engine, NativeCallContext, Token};

/// Registers every room.
pub fn register_all(registry: &mut Registry) {
    builtins::register(registry);
    room::register(registry);
    assertions::register(registry);
    errors::register(registry);
    os::register(registry);
    sys::register(registry);
    time::register(registry);
    random::register(registry);
    json::register(registry);
    atexit::register(registry);
    signal::register(registry);
    queue::register(registry);
    context::register(registry);
    process::register(registry);
    queues::register(registry);
    synchronize::register(registry);
    sharedctypes::register(registry);
    shared_memory::register(registry);
    connection::register(registry);
    socket::register(registry);
    subprocess::register(registry);
    pool::register(registry);
    managers::register(registry);
    logging::register(registry);
}

/// Makes `spawn`, `exit` and `debug` names like others (Rhai reserves the words), and shows `catches` where the catch blocks are.
pub(crate) fn spawn_syntax(engine: &mut Engine) {
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    engine.on_parse_token(|token, position, _| {
        catches::watch(&token, position);
        match token {
            Token::Reserved(word) if matches!(word.as_str(), "spawn" | "exit" | "debug") => {
                Token::Identifier(word)
            }
            other => other,
        }
    });
}

/// What this process does about a signal that it has caught.
pub(crate) fn handle_signal(signal: i32) -> Result<()> {
    if signal == nix::sys::signal::Signal::SIGINT as i32 && runtime::ignores_interrupts() {
        return Ok(());
    }
    signal::dispatch(runtime::runtime().engine(), signal)
}

/// Drops what a forked child has in memory but doesn't own.
pub(crate) fn forget_parent() {
    pool::forget_parent();
    atexit::clear();
    file::forget_input();
    random::reseed();
    managers::forget_parent();
    connection::forget_parent();
}

/// Runs what the script registered for its end.
pub(crate) fn run_exit_handlers(ctx: &NativeCallContext<'_>) -> Result<()> {
    // Each one's error matters; as in Python the last is the one that is shown at the end.
    let mut errors = atexit::run_all(ctx.engine());
    // The script's handlers may still use its pools; the children are ended next.
    pool::end_all();
    let last = errors.pop();
    for error in errors {
        let _ = process::ending::report_uncaught(
            &error.into_rhai(ctx.call_source(), rhai::Position::NONE),
        );
    }
    last.map_or(Ok(()), Err)
}
