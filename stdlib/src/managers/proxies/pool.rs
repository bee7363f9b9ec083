//! `PoolProxy`, and the proxies of its results and iterators.

use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::containers::items;
use super::{AsyncResultProxy, IteratorProxy, PoolProxy, ask, class, forward, in_iterator};
use crate::api::{Call, Registry};
use crate::error::{Kind, Result};
use crate::with;
use mphost_core::position::Position;
use rhai::{Dynamic, EvalAltResult, Map};

/// A method without arguments that goes by its name.
fn named<T: Typed>(name: &'static str) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    move |call| ask(call.this::<T>().proxy(), Op::Call, &[&name.into()], call)
}

/// The options of a call that were given, `names` in the order of the signature behind the first two arguments.
fn options(call: &mut Call<'_>, names: &[&str]) -> Dynamic {
    let mut map = Map::new();
    for (index, name) in names.iter().enumerate() {
        if call.has(index + 2) {
            map.insert((*name).into(), call.take(index + 2));
        }
    }
    Dynamic::from_map(map)
}

fn apply(name: &'static str) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    move |call| {
        let (func, args) = (call.take(0), Dynamic::from_array(call.array(1)));
        let options = options(
            call,
            &["kwds", "callback", "error_callback", "timeout", "retries"],
        );
        ask(
            call.this::<PoolProxy>().proxy(),
            Op::Call,
            &[&name.into(), &func, &args, &options],
            call,
        )
    }
}

fn map(name: &'static str) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    move |call| {
        let func = call.take(0);
        let given = call.take(1);
        let given = Dynamic::from_array(items(call.ctx, given)?);
        let options = options(
            call,
            &[
                "chunksize",
                "callback",
                "error_callback",
                "timeout",
                "retries",
            ],
        );
        ask(
            call.this::<PoolProxy>().proxy(),
            Op::Call,
            &[&name.into(), &func, &given, &options],
            call,
        )
    }
}

/// The results one by one.
struct Results(Proxy);

impl Iterator for Results {
    type Item = std::result::Result<Dynamic, Box<EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.call(Op::Get, &[], Position::NONE) {
            Ok(value) => Some(Ok(value)),
            Err(crate::error::Error::Script(error)) if error.kind() == Kind::StopIteration => None,
            Err(error) => Some(Err(in_iterator(error))),
        }
    }
}

const ASYNC: &str = "Returns at once, with a result to ask later. Callbacks run in the server.";

/// Registers them.
pub(super) fn register(registry: &mut Registry) {
    with::context::<PoolProxy>(None, "terminate");
    class::<PoolProxy>(registry, "PoolProxy")
        .method(
            "apply(func: callable, args: array = [], *, kwds: map = (), callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            "Calls `func(…args)` in a worker and gives its value.",
            apply("apply"),
        )
        .method(
            "apply_async(func: callable, args: array = [], *, kwds: map = (), callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            ASYNC,
            apply("apply_async"),
        )
        .method(
            "map(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            "Calls `func(item)` for each item, in the workers; gives an array of the values, in order.",
            map("map"),
        )
        .method(
            "map_async(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            ASYNC,
            map("map_async"),
        )
        .method(
            "starmap(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            "Like `map`, where each item is an array of arguments.",
            map("starmap"),
        )
        .method(
            "starmap_async(func: callable, iterable: items, chunksize: int = (), *, callback: callable = (), error_callback: callable = (), timeout: seconds = (), retries: int = ())",
            ASYNC,
            map("starmap_async"),
        )
        .method(
            "imap(func: callable, iterable: items, chunksize: int = ())",
            "Like `map`, but gives an iterator over the values, in the order of the items.",
            map("imap"),
        )
        .method(
            "imap_unordered(func: callable, iterable: items, chunksize: int = ())",
            "Like `imap`, but gives each value as soon as it is there.",
            map("imap_unordered"),
        )
        .method("close()", "Takes no more work.", named::<PoolProxy>("close"))
        .method("terminate()", "Ends the workers at once.", named::<PoolProxy>("terminate"))
        .method("join()", "Waits until all work is done. Before `close()`: `ValueError`.", named::<PoolProxy>("join"));
    class::<AsyncResultProxy>(registry, "AsyncResultProxy")
        .method(
            "get(timeout: seconds = ())",
            "The result, once it is there; raises what the task threw. Not there in time: `TimeoutError`.",
            forward::<AsyncResultProxy>(Op::Get, 1),
        )
        .method("wait(timeout: seconds = ())", "Waits until the result is there.", forward::<AsyncResultProxy>(Op::Wait, 1))
        .method("ready()", "Whether the result is there.", named::<AsyncResultProxy>("ready"))
        .method("successful()", "Whether the task ended without an error.", named::<AsyncResultProxy>("successful"))
        .method("cancel()", "Cancels the task; whether that came in time.", named::<AsyncResultProxy>("cancel"));
    class::<IteratorProxy>(registry, "IteratorProxy")
        .method(
            "next(timeout: seconds = ())",
            "The next result. After the last: `StopIteration`; not there in time: `TimeoutError`.",
            forward::<IteratorProxy>(Op::Get, 1),
        )
        .iterate(|this| Results(this.proxy().clone()));
}
