//! Python's `multiprocessing.managers`: objects that live in a server process and are used by many.
//!
//! | room | what |
//! |---|---|
//! | `manager/` | what `Manager()`, `SyncManager`, `BaseManager` give: the server's life, making objects |
//! | `server/` | the server process: its loop, its clients, who holds what |
//! | `objects/` | the objects in it, each a state machine that never waits |
//! | `registered.rs` | objects of a script's own |
//! | `client.rs` | this process's connections to servers |
//! | `authkeys.rs` | the keys by which servers know them |
//! | `proxy.rs`, `proxies/` | references to objects, and their methods |
//!
//! Problem: a server has many clients, some slow, some that die, some that wait for each other; none may hold up another. So the server is
//! one thread around one loop, and everything that would wait is parked.
//!
//! A server belongs to the process that started it: it ends with it, at `shutdown()` or when its program ends, and leaves nothing behind.

mod authkeys;
mod client;
mod comparison;
mod keys;
mod manager;
mod objects;
mod protocol;
mod proxies;
mod proxy;
mod registered;
mod server;

pub(crate) use authkeys::{known_keys, learn_keys};
pub(crate) use comparison::equal;
pub(crate) use manager::shutdown_all;

use crate::api::Registry;
use crate::runtime::runtime;
use rhai::{NativeCallContext, Position};

/// Words without which no process of a program comes to a manager or a proxy: what makes them, and what brings values from other programs.
const WORDS: [&str; 4] = ["Manager", "managers", "Client", "Listener"];

/// Registers managers and their proxies.
pub fn register(registry: &mut Registry) {
    if !WORDS.iter().any(|word| registry.needs(word)) {
        return;
    }
    proxies::register(registry);
    manager::register(registry);
}

/// In a forked child: the parent's connections and servers aren't this process's.
pub(crate) fn forget_parent() {
    client::forget_parent();
    proxies::forget_parent();
    server::Server::forget();
    manager::forget_parent();
}

/// Says to servers what there is left to say: before this process ends.
pub(crate) fn flush() {
    client::flush_all();
}

/// Says to servers that this process ends with exit code 0, as the last thing.
pub(crate) fn take_leave() {
    client::take_leave();
}

/// A context for calls that Rhai didn't make: from a conversion, an iterator, an object that is dropped.
fn with_context<R>(work: impl FnOnce(&NativeCallContext<'_>) -> R) -> R {
    let runtime = runtime();
    let engine = runtime.engine();
    let mut global = engine.new_global_runtime_state();
    global.lib.push(runtime.ast().shared_lib().clone());
    global.source = Some(runtime.program().path.as_str().into());
    work(&NativeCallContext::new_with_all_fields(
        engine,
        "",
        None,
        &global,
        Position::NONE,
    ))
}
