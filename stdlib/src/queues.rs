//! Python's `multiprocessing.queues`: Queue, JoinableQueue and SimpleQueue.
//!
//! Unlike Python's they have no feeder thread: an item is in the queue when `put` returns, so there is nothing to flush, and
//! `join_thread` and `cancel_join_thread` only exist for the scripts that call them.
//!
//! Closing is a process's own affair: it marks this process's handle, other processes go on.

use crate::api::{Call, Class, Registry};
use crate::convert::Decoder;
use crate::error::{Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::{message, places};
use mphost_core::clock::Deadline;
use mphost_core::queue as core;
use mphost_core::session::{ObjRef, ObjectKind};
use mphost_core::value::HandleKind;
use rhai::Dynamic;
use std::cell::Cell;
use std::rc::Rc;

struct Port {
    core: core::Queue,
    closed: Cell<bool>,
}

/// The three kinds of queues, as far as they are alike.
trait Kinded: Handle {
    const NAME: &'static str;
    const OBJECT: ObjectKind;
    fn over(port: Rc<Port>) -> Self;
    fn port(&self) -> &Rc<Port>;
}

macro_rules! queues {
    ($($(#[$doc:meta])* $name:ident;)+) => { $(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Rc<Port>);

        impl Kinded for $name {
            const NAME: &'static str = stringify!($name);
            const OBJECT: ObjectKind = ObjectKind::$name;

            fn over(port: Rc<Port>) -> Self {
                Self(port)
            }

            fn port(&self) -> &Rc<Port> {
                &self.0
            }
        }

        impl Handle for $name {
            const KIND: HandleKind = HandleKind::$name;

            fn object(&self) -> &ObjRef {
                self.0.core.obj()
            }

            fn rebuild(object: ObjRef, _decoder: &mut Decoder<'_>) -> Result<Self> {
                Ok(Self(Rc::new(Port { core: core::Queue::from_ref(object)?, closed: Cell::new(false) })))
            }
        }

        impl $name {
            /// The queue of the session behind it.
            #[must_use]
            pub fn core(&self) -> &core::Queue {
                &self.0.core
            }
        }
    )+ };
}

queues! {
    /// A queue of items for any number of processes.
    Queue;
    /// A queue that counts the items that are not done with yet.
    JoinableQueue;
    /// A queue with `put`, `get` and `empty` alone.
    SimpleQueue;
}

/// Registers the queues.
pub fn register(registry: &mut Registry) {
    registry.constructor(
        "Queue(maxsize: int = 0)",
        "A queue that any process may put items into and take items from.\n\n\
         `maxsize` bounds the number of items; with 0 or less, memory alone does. An item is visible to every process as soon as \
         `put` returns.\n\n\
         ```rhai\nlet q = Queue();\nq.put([42, (), \"hello\"]);\nprint(q.get());\n```",
        |call| create::<Queue>(call, call.int(0)),
    );
    registry.constructor(
        "JoinableQueue(maxsize: int = 0)",
        "A `Queue` that knows which items are not done with: each `get` is followed by a `task_done`, and `join` waits for all of them.\n\n```rhai\nlet q = JoinableQueue();\nq.put(1);\nq.get();\nq.task_done();\nq.join();\n```",
        |call| create::<JoinableQueue>(call, call.int(0)),
    );
    registry.constructor(
        "SimpleQueue()",
        "A queue with `put`, `get`, `empty` and `close` alone.\n\n```rhai\nlet q = SimpleQueue();\nq.put(\"item\");\nprint(q.get());\n```",
        |call| create::<SimpleQueue>(call, None),
    );

    full_queue(&mut registry.class::<Queue>("Queue"));

    let mut joinable = registry.class::<JoinableQueue>("JoinableQueue");
    full_queue(&mut joinable);
    joinable
        .method(
            "task_done()",
            "Says that one item that was taken is done with. More often than items were put is a `ValueError`.",
            |call| {
                call.this::<JoinableQueue>().0.core.task_done()?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("join()", "Waits until all items that were put are done with.", |call| {
            call.this::<JoinableQueue>().0.core.join(Deadline::NEVER, places::of_call(call.ctx))?;
            Ok(Dynamic::UNIT)
        });

    simple_queue(&mut registry.class::<SimpleQueue>("SimpleQueue"));
}

fn create<T: Kinded>(call: &Call<'_>, maxsize: Option<i64>) -> Result {
    let maxsize = u64::try_from(maxsize.unwrap_or(0)).unwrap_or(0);
    let core = core::Queue::create(T::OBJECT, maxsize, places::of_call(call.ctx))?;
    Ok(Dynamic::from(T::over(Rc::new(Port {
        core,
        closed: Cell::new(false),
    }))))
}

fn show<T: Kinded>(queue: &T) -> String {
    format!(
        "<{} object at {:#x}>",
        T::NAME,
        handle::identity(queue.object())
    )
}

/// The queue of the session, unless this process has closed it.
fn open<T: Kinded>(queue: &T) -> Result<&core::Queue> {
    let port = queue.port();
    if port.closed.get() {
        return Err(match T::OBJECT {
            ObjectKind::SimpleQueue => raise(Kind::OSError, "handle is closed"),
            _ => raise(Kind::ValueError, "Queue is closed"),
        });
    }
    Ok(&port.core)
}

fn full_queue<T: Kinded>(class: &mut Class<'_, T>) {
    handle::register(class);
    class
        .display(show::<T>)
        .method(
            "put(item: any, block: bool = true, timeout: seconds = ())",
            "Puts an item. On a full queue it waits, with `timeout` at most that long, then raises `Full`; with `block` false at once.\n\n\
             An item that can't travel is a `PicklingError` here, and the queue is as before.",
            |call| put::<T>(call, |call| handle::deadline(call, 1, 2)),
        )
        .method("put_nowait(item: any)", "`put(item, false)`.", |call| put::<T>(call, |_| Deadline::NOW))
        .method(
            "get(block: bool = true, timeout: seconds = ())",
            "Takes the oldest item. On an empty queue it waits, with `timeout` at most that long, then raises `Empty`; with `block` \
             false at once.",
            |call| get::<T>(call, handle::deadline(call, 0, 1)),
        )
        .method("get_nowait()", "`get(false)`.", |call| get::<T>(call, Deadline::NOW))
        .method("qsize()", "How many items are in the queue: exact.", |call| {
            let size = open(&call.this::<T>())?.qsize()?;
            Ok(Dynamic::from(i64::try_from(size).unwrap_or(i64::MAX)))
        })
        .method("empty()", "Whether no item is in the queue.", |call| {
            Ok(Dynamic::from(open(&call.this::<T>())?.empty()?))
        })
        .method("full()", "Whether `put` would have to wait.", |call| {
            Ok(Dynamic::from(open(&call.this::<T>())?.full()?))
        })
        .method(
            "close()",
            "Says that this process won't use the queue any more: later use by it is a `ValueError`. Other processes go on.",
            |call| {
                call.this::<T>().port().closed.set(true);
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "join_thread()",
            "Does nothing, since items are in the queue when `put` returns; before `close` it is an `AssertionError`, as in Python.",
            |call| {
                let queue = call.this::<T>();
                if !queue.port().closed.get() {
                    return Err(raise(Kind::AssertionError, format!("Queue {} not closed", show(&queue))));
                }
                Ok(Dynamic::UNIT)
            },
        )
        .method("cancel_join_thread()", "Does nothing, since no process waits for its items at its end.", |_| {
            Ok(Dynamic::UNIT)
        });
}

fn simple_queue(class: &mut Class<'_, SimpleQueue>) {
    handle::register(class);
    class
        .display(show::<SimpleQueue>)
        .method("put(item: any)", "Puts an item.", |call| {
            put::<SimpleQueue>(call, |_| Deadline::NEVER)
        })
        .method("get()", "Takes the oldest item; waits for one.", |call| {
            get::<SimpleQueue>(call, Deadline::NEVER)
        })
        .method("empty()", "Whether no item is in the queue.", |call| {
            Ok(Dynamic::from(open(&call.this::<SimpleQueue>())?.empty()?))
        })
        .method(
            "close()",
            "Says that this process won't use the queue any more: later use by it is an `OSError`.",
            |call| {
                call.this::<SimpleQueue>().0.closed.set(true);
                Ok(Dynamic::UNIT)
            },
        );
}

fn put<T: Kinded>(call: &mut Call<'_>, deadline: impl Fn(&Call<'_>) -> Deadline) -> Result {
    let queue = call.this::<T>();
    let core = open(&queue)?;
    let deadline = deadline(call);
    let item = call.take(0);
    message::put(core, "item", &item, deadline, places::of_call(call.ctx))?;
    Ok(Dynamic::UNIT)
}

fn get<T: Kinded>(call: &Call<'_>, deadline: Deadline) -> Result {
    let queue = call.this::<T>();
    message::get(open(&queue)?, deadline, places::of_call(call.ctx))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] =
            &[crate::builtins::register, crate::errors::register];
        crate::testing::run_examples(others, super::register);
    }
}
