//! What scripts see of managed objects: a type of proxies for each kind, with Python's methods.
//!
//! Most methods only carry their arguments to the server and the result back; [`forward`] makes those. What needs the script itself
//! (key functions, predicates, iterating over whatever was given) happens here, in the client.

mod containers;
mod dict;
mod list;
mod namespace;
mod pool;
mod queue;
mod set;
mod synchronize;
mod values;

pub(super) use containers::{items, pairs};
pub(super) use namespace::forget_parent;

use super::protocol::{Op, Tag};
use super::proxy::{Proxy, Typed, decode, encode};
use crate::api::{Call, Class, Registry};
use crate::convert;
use crate::error::{Error, Kind, Result, raise};
use crate::places;
use mphost_core::value::HandleKind;
use rhai::{Dynamic, EvalAltResult, ImmutableString, NativeCallContext};

/// Declares the types of proxies.
macro_rules! proxies {
    ($($(#[$doc:meta])* $name:ident: $($tag:ident)|+,)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone)]
            pub(super) struct $name(Proxy);

            impl Typed for $name {
                fn proxy(&self) -> &Proxy {
                    &self.0
                }
            }
        )+

        /// A proxy as a script has it.
        pub(super) fn typed(proxy: Proxy) -> Dynamic {
            match proxy.tag() {
                $($(Tag::$tag)|+ => Dynamic::from($name(proxy)),)+
            }
        }

        /// The proxy in a script's value, if it is one.
        pub(super) fn proxy_of(value: &Dynamic) -> Option<Proxy> {
            $(
                if let Some(proxy) = value.read_lock::<$name>() {
                    return Some(proxy.0.clone());
                }
            )+
            None
        }

        /// What all proxies can do: travel, be compared and printed.
        fn common(registry: &mut Registry) {
            convert::decoder(HandleKind::Proxy, decode);
            $(
                convert::portable::<$name>(|value, encoder| {
                    let proxy = value.read_lock::<$name>().expect("encoders are found by the type of the value");
                    encode(&proxy.0, encoder)
                });
                registry
                    .class::<$name>(stringify!($name))
                    .equality(|a, b| a.0.same(&b.0))
                    .method(
                        "_callmethod(name: string, args: array = [])",
                        "Calls a method of the object by its name.",
                        |call| super::registered::call_method(&call.this::<$name>().0, call),
                    )
                    .method("_getvalue()", "A copy of the object in this process.", |call| {
                        value_of(&call.this::<$name>().0, call)
                    });
                let module = registry.module("");
                module.set_native_fn("to_string", |ctx: NativeCallContext<'_>, this: &mut $name| {
                    Ok(ImmutableString::from(shown(&ctx, &this.0)))
                });
                module.set_native_fn("to_debug", |this: &mut $name| Ok(ImmutableString::from(this.0.describe())));
            )+
        }
    };
}

proxies! {
    /// A dict.
    DictProxy: Dict,
    /// A list.
    ListProxy: List,
    /// A set.
    SetProxy: Set,
    /// A namespace.
    NamespaceProxy: Namespace,
    /// A value.
    ValueProxy: Value,
    /// An array of numbers.
    ArrayProxy: Array,
    /// A Lock or RLock.
    LockProxy: Lock | RLock,
    /// A semaphore.
    SemaphoreProxy: Semaphore | BoundedSemaphore,
    /// A condition.
    ConditionProxy: Condition,
    /// An event.
    EventProxy: Event,
    /// A barrier.
    BarrierProxy: Barrier,
    /// A queue.
    QueueProxy: Queue | JoinableQueue,
    /// A pool.
    PoolProxy: Pool,
    /// A result of a pool.
    AsyncResultProxy: AsyncResult,
    /// A pool's results, one by one.
    IteratorProxy: Iterator,
    /// An object of a script's own.
    AutoProxy: Object,
}

/// Registers all of them.
pub(super) fn register(registry: &mut Registry) {
    common(registry);
    dict::register(registry);
    list::register(registry);
    set::register(registry);
    namespace::register(registry);
    values::register(registry);
    synchronize::register(registry);
    queue::register(registry);
    pool::register(registry);
    super::registered::register(registry);
}

/// A method's body that carries its arguments to the server as they are.
fn forward<T: Typed>(
    op: Op,
    arguments: usize,
) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    move |call| {
        let this = call.this::<T>();
        let mut args: smallvec::SmallVec<[Dynamic; 3]> =
            (0..arguments).map(|index| call.take(index)).collect();
        // What was left out at the end isn't sent.
        while args.last().is_some_and(Dynamic::is_unit) && !call.given(args.len() - 1) {
            args.pop();
        }
        let args: smallvec::SmallVec<[&Dynamic; 3]> = args.iter().collect();
        this.proxy().call(op, &args, places::of_call(call.ctx))
    }
}

/// The same for an operation that changes how many items there are.
fn forward_change<T: Typed>(
    op: Op,
    arguments: usize,
) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    let forward = forward::<T>(op, arguments);
    move |call| {
        call.this::<T>().proxy().changed();
        forward(call)
    }
}

/// An operation asked for by code of ours that runs inside of a call.
fn ask(proxy: &Proxy, op: Op, args: &[&Dynamic], call: &Call<'_>) -> Result {
    proxy.call(op, args, places::of_call(call.ctx))
}

type Fallible<T = Dynamic> = std::result::Result<T, Box<EvalAltResult>>;

/// The result of an operator, whose error gets the operator's place.
fn placed<T>(ctx: &NativeCallContext<'_>, result: Result<T>) -> Fallible<T> {
    result.map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
}

/// Adds methods to one type.
fn class<'r, T: Typed>(registry: &'r mut Registry, name: &'static str) -> Class<'r, T> {
    registry.class::<T>(name)
}

/// What `print` shows: the value behind the proxy.
fn shown(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> String {
    let text = match proxy.tag() {
        Tag::Dict => dict::text(ctx, proxy),
        Tag::List => list::text(ctx, proxy),
        Tag::Set => set::text(ctx, proxy),
        Tag::Namespace => namespace::text(ctx, proxy),
        Tag::Value => values::value_text(ctx, proxy),
        Tag::Array => values::array_text(ctx, proxy),
        Tag::Object => super::registered::text(ctx, proxy),
        _ => return proxy.describe(),
    };
    text.unwrap_or_else(|_| {
        // Printing never fails, as in Python.
        let mut text = proxy.describe();
        text.pop();
        text.push_str("; '__str__()' failed>");
        text
    })
}

/// A copy of what is behind a proxy, where that can travel.
fn value_of(proxy: &Proxy, call: &Call<'_>) -> Result {
    match proxy.tag() {
        Tag::Dict => dict::plain(proxy, call.ctx),
        Tag::List | Tag::Array => Ok(items(call.ctx, typed(proxy.clone()))?.into()),
        Tag::Set | Tag::Namespace => ask(proxy, Op::Items, &[], call),
        Tag::Value => ask(proxy, Op::Get, &[], call),
        _ => Err(raise(
            Kind::PicklingError,
            format!("{} can't travel to another process", proxy.describe()),
        )),
    }
}

/// An error on the way out of an iterator, which knows no place.
fn in_iterator(error: Error) -> Box<EvalAltResult> {
    error.into_rhai(None, rhai::Position::NONE)
}
