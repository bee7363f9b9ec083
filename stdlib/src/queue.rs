//! The module `queue`: queues within one process.
//!
//! A process that runs a script has one thread, so nobody else can fill a queue that its reader finds empty: Python would wait for
//! ever there. Unless something may still come, from a signal's handler or a pool's callback ([`expect_callbacks`]), such a wait is
//! a `DeadlockError` at once.
//!
//! Invariant: a priority queue's items are in descending order, so that the next one is the last.
//!
//! Source: CPython Library Reference, `queue`. In another process such a queue is a copy of its contents.

use crate::api::{Call, Registry, type_name};
use crate::error::{Kind, Result, raise};
use crate::nudge::Nudge;
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::wait::WaitKind;
use rhai::{Array, Dynamic, ImmutableString};
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

/// In which order a queue gives its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// The oldest first.
    Fifo,
    /// The youngest first.
    Lifo,
    /// The smallest first.
    Priority,
}

impl Discipline {
    fn name(self) -> &'static str {
        match self {
            Discipline::Fifo => "Queue",
            Discipline::Lifo => "LifoQueue",
            Discipline::Priority => "PriorityQueue",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Discipline::Fifo, Discipline::Lifo, Discipline::Priority]
            .into_iter()
            .find(|d| d.name() == name)
    }
}

struct State {
    discipline: Discipline,
    maxsize: i64,
    items: RefCell<VecDeque<Dynamic>>,
    unfinished: Cell<u64>,
    changed: Nudge,
}

/// A queue within one process; copying it copies the reference.
#[derive(Clone)]
pub struct LocalQueue(Rc<State>);

thread_local! {
    static EXPECTED: Cell<fn() -> bool> = const { Cell::new(|| false) };
}

/// Says how a waiting queue finds out whether something outside of the script's own flow may still change it: results whose
/// callbacks are to come, signals with handlers.
pub fn expect_callbacks(may_come: fn() -> bool) {
    EXPECTED.set(may_come);
}

impl LocalQueue {
    /// An empty queue; a `maxsize` of 0 or less is no bound.
    #[must_use]
    pub fn new(discipline: Discipline, maxsize: i64) -> Self {
        Self(Rc::new(State {
            discipline,
            maxsize,
            items: RefCell::default(),
            unfinished: Cell::new(0),
            changed: Nudge::default(),
        }))
    }

    /// How many items it has.
    #[must_use]
    pub fn qsize(&self) -> usize {
        self.0.items.borrow().len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether it has as many as it may.
    #[must_use]
    pub fn full(&self) -> bool {
        usize::try_from(self.0.maxsize).is_ok_and(|most| most > 0 && self.qsize() >= most)
    }

    /// Puts an item in, whether it is full or not.
    ///
    /// # Errors
    /// `TypeError` where a priority queue can't compare it.
    pub fn push(&self, item: Dynamic) -> Result<()> {
        let mut items = self.0.items.borrow_mut();
        match self.0.discipline {
            Discipline::Fifo | Discipline::Lifo => items.push_back(item),
            Discipline::Priority => {
                // The first place whose item is not greater: equal ones leave in the order in which they came.
                let (mut low, mut high) = (0, items.len());
                while low < high {
                    let middle = low.midpoint(high);
                    if compare(&items[middle], &item)? == Ordering::Greater {
                        low = middle + 1
                    } else {
                        high = middle
                    }
                }
                items.insert(low, item);
            }
        }
        drop(items);
        self.0.unfinished.set(self.0.unfinished.get() + 1);
        self.0.changed.nudge();
        Ok(())
    }

    /// Takes the next item out, if there is one.
    #[must_use]
    pub fn pop(&self) -> Option<Dynamic> {
        let mut items = self.0.items.borrow_mut();
        let item = match self.0.discipline {
            Discipline::Fifo => items.pop_front(),
            Discipline::Lifo | Discipline::Priority => items.pop_back(),
        };
        drop(items);
        if item.is_some() {
            self.0.changed.nudge();
        }
        item
    }

    /// `put(item, block, timeout)`.
    ///
    /// # Errors
    /// `Full`; `DeadlockError` where nobody can ever make room.
    pub fn put(
        &self,
        item: Dynamic,
        block: bool,
        timeout: Option<f64>,
        at: Position,
    ) -> Result<()> {
        let full = || raise(Kind::Full, "");
        if self.full()
            && !self.wait(block, timeout, at, || !self.full(), "put into a full queue")?
        {
            return Err(full());
        }
        self.push(item)
    }

    /// `get(block, timeout)`.
    ///
    /// # Errors
    /// `Empty`; `DeadlockError` where nobody can ever put anything in.
    pub fn get(&self, block: bool, timeout: Option<f64>, at: Position) -> Result {
        if let Some(item) = self.pop() {
            return Ok(item);
        }
        self.wait(
            block,
            timeout,
            at,
            || !self.empty(),
            "get from an empty queue",
        )?;
        self.pop().ok_or_else(|| raise(Kind::Empty, ""))
    }

    /// One item that was taken out has been dealt with.
    ///
    /// # Errors
    /// `ValueError` where it is called more often than items were put in.
    pub fn task_done(&self) -> Result<()> {
        let Some(left) = self.0.unfinished.get().checked_sub(1) else {
            return Err(raise(Kind::ValueError, "task_done() called too many times"));
        };
        self.0.unfinished.set(left);
        self.0.changed.nudge();
        Ok(())
    }

    /// Whether every item has been dealt with.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.unfinished.get() == 0
    }

    /// What tells this queue from any other of this process, as long as it is there.
    #[must_use]
    pub fn identity(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    /// Waits until every item has been dealt with.
    ///
    /// # Errors
    /// `DeadlockError` where nobody can ever do so.
    pub fn join(&self, at: Position) -> Result<()> {
        if self.0.unfinished.get() == 0 {
            return Ok(());
        }
        let done = || self.0.unfinished.get() == 0;
        self.wait(
            true,
            None,
            at,
            done,
            "join() of a queue with unfinished tasks",
        )
        .map(|_| ())
    }

    fn wait(
        &self,
        block: bool,
        timeout: Option<f64>,
        at: Position,
        mut done: impl FnMut() -> bool,
        what: &str,
    ) -> Result<bool> {
        if !block {
            return Ok(false);
        }
        if let Some(seconds) = timeout {
            return self
                .0
                .changed
                .wait(WaitKind::Sleep, Deadline::after_secs(seconds), at, done);
        }
        loop {
            mphost_core::wait::poll_interrupts()?;
            if done() {
                return Ok(true);
            }
            if !EXPECTED.get()() {
                let advice = "only this process could change it; Queue() is the one that several processes share";
                return Err(raise(
                    Kind::DeadlockError,
                    format!("{what} would wait for ever: {advice}"),
                ));
            }
            // Looked at again now and then: what was expected may have come without touching this queue.
            self.0
                .changed
                .wait(WaitKind::Sleep, Deadline::after_secs(1.0), at, &mut done)?;
        }
    }
}

/// Python's `<` for what has an order: numbers, texts, truth values, arrays of them.
fn compare(a: &Dynamic, b: &Dynamic) -> Result<Ordering> {
    let number = |v: &Dynamic| v.as_int().ok().or_else(|| v.as_bool().ok().map(i64::from));
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(a.cmp(&b));
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "an order among numbers needs no more"
    )]
    let float = |v: &Dynamic| {
        v.as_float()
            .ok()
            .or_else(|| number(v).map(|int| int as f64))
    };
    if let (Some(a), Some(b)) = (float(a), float(b)) {
        return Ok(a.partial_cmp(&b).unwrap_or(Ordering::Equal));
    }
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_char()) {
        return Ok(a.cmp(&b));
    }
    if let (Some(a), Some(b)) = (
        a.read_lock::<ImmutableString>(),
        b.read_lock::<ImmutableString>(),
    ) {
        return Ok(a.as_str().cmp(b.as_str()));
    }
    if let (Some(a), Some(b)) = (a.read_lock::<Array>(), b.read_lock::<Array>()) {
        for (a, b) in a.iter().zip(b.iter()) {
            let order = compare(a, b)?;
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        return Ok(a.len().cmp(&b.len()));
    }
    let (a, b) = (type_name(a), type_name(b));
    Err(raise(
        Kind::TypeError,
        format!("'<' not supported between instances of '{a}' and '{b}'"),
    ))
}

fn parts(value: &Dynamic) -> Array {
    let queue = value
        .read_lock::<LocalQueue>()
        .expect("registered for this type");
    let items: Array = queue.0.items.borrow().iter().cloned().collect();
    let unfinished = i64::try_from(queue.0.unfinished.get()).unwrap_or(i64::MAX);
    vec![
        queue.0.discipline.name().into(),
        queue.0.maxsize.into(),
        unfinished.into(),
        Dynamic::from_array(items),
    ]
}

fn whole(mut parts: Array) -> Result {
    let damaged = || raise(Kind::RuntimeError, "a message holds a damaged queue");
    let items = parts
        .pop()
        .and_then(Dynamic::try_cast::<Array>)
        .ok_or_else(damaged)?;
    let number = |index: usize| {
        parts
            .get(index)
            .and_then(|part| part.as_int().ok())
            .ok_or_else(damaged)
    };
    let name = parts
        .first()
        .and_then(|part| part.read_lock::<ImmutableString>().map(|name| name.clone()));
    let discipline = name
        .and_then(|name| Discipline::from_name(&name))
        .ok_or_else(damaged)?;
    let queue = LocalQueue::new(discipline, number(1)?);
    queue
        .0
        .unfinished
        .set(u64::try_from(number(2)?).map_err(|_| damaged())?);
    queue.0.items.borrow_mut().extend(items);
    Ok(Dynamic::from(queue))
}

fn this(call: &Call<'_>) -> LocalQueue {
    call.this::<LocalQueue>()
}

fn at(call: &Call<'_>) -> Position {
    crate::places::of_call(call.ctx)
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    crate::copies::travels::<LocalQueue>("queue", parts, whole);
    let mut constructor = |discipline: Discipline, signature: &'static str, doc: &'static str| {
        registry.function("queue", signature, doc, move |call| {
            Ok(Dynamic::from(LocalQueue::new(
                discipline,
                call.int(0).unwrap_or(0),
            )))
        });
    };
    constructor(
        Discipline::Fifo,
        "Queue(maxsize: int = 0)",
        "A queue within this process: the oldest item first. Sent to another process it is a copy.\n\n\
         - `maxsize`: how many items it holds; 0 is no bound.\n\n\
         ```rhai\nlet q = queue::Queue();\nq.put(1);\nq.put(2);\nif q.get() != 1 || q.qsize() != 1 { throw \"queue\"; }\n```",
    );
    constructor(
        Discipline::Lifo,
        "LifoQueue(maxsize: int = 0)",
        "A queue within this process: the youngest item first.\n\n- `maxsize`: how many items it holds; 0 is no bound.\n\n\
         ```rhai\nlet q = queue::LifoQueue();\nq.put(1);\nq.put(2);\nif q.get() != 2 { throw \"queue\"; }\n```",
    );
    constructor(
        Discipline::Priority,
        "PriorityQueue(maxsize: int = 0)",
        "A queue within this process: the smallest item first. Arrays compare item by item, so `[priority, task]` works.\n\n\
         - `maxsize`: how many items it holds; 0 is no bound.\n\n\
         ```rhai\nlet q = queue::PriorityQueue();\nq.put([2, \"later\"]);\nq.put([1, \"now\"]);\nif q.get()[1] != \"now\" { throw \"queue\"; }\n```",
    );
    let mut class = registry.class::<LocalQueue>("queue.Queue");
    class
        .method(
            "put(item: any, block: bool = true, timeout: seconds = ())",
            "Puts an item in. Where the queue is full it waits for room, at most `timeout` seconds; then it raises `Full`.",
            |call| {
                let item = call.take(0);
                this(call).put(item, call.bool(1, true), call.seconds(2), at(call)).map(|()| Dynamic::UNIT)
            },
        )
        .method("put_nowait(item: any)", "Puts an item in, or raises `Full`.", |call| {
            let item = call.take(0);
            this(call).put(item, false, None, at(call)).map(|()| Dynamic::UNIT)
        })
        .method(
            "get(block: bool = true, timeout: seconds = ())",
            "Takes the next item out. Where there is none it waits, at most `timeout` seconds; then it raises `Empty`.",
            |call| this(call).get(call.bool(0, true), call.seconds(1), at(call)),
        )
        .method("get_nowait()", "Takes the next item out, or raises `Empty`.", |call| this(call).get(false, None, at(call)))
        .method("qsize()", "How many items there are.", |call| {
            Ok(Dynamic::from(i64::try_from(this(call).qsize()).unwrap_or(i64::MAX)))
        })
        .method("empty()", "Whether there are none.", |call| Ok(Dynamic::from(this(call).empty())))
        .method("full()", "Whether there is no room.", |call| Ok(Dynamic::from(this(call).full())))
        .method("task_done()", "Says that an item that was taken out has been dealt with.", |call| {
            this(call).task_done().map(|()| Dynamic::UNIT)
        })
        .method("join()", "Waits until `task_done` has been called for every item.", |call| {
            this(call).join(at(call)).map(|()| Dynamic::UNIT)
        })
        .getter("maxsize", "How many items it holds at most; 0 is no bound.", |call| Ok(Dynamic::from(this(call).0.maxsize)))
        .display(|queue| format!("<queue.{} of {}>", queue.0.discipline.name(), queue.qsize()))
        .equality(|a, b| Rc::ptr_eq(&a.0, &b.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{self, Decoder, References};
    use crate::testing::{check, engine, run_examples};

    #[test]
    fn queues_in_scripts() {
        let engine = engine(&[crate::builtins::register, crate::errors::register, register]);
        check(
            &engine,
            &[
                (
                    "let q = queue::Queue(); q.put(1); q.put(2); [q.get(), q.get_nowait(), q.empty()]",
                    "[1, 2, true]",
                ),
                (
                    "let q = queue::LifoQueue(); q.put(1); q.put(2); [q.get(), q.get()]",
                    "[2, 1]",
                ),
                (
                    "let q = queue::PriorityQueue(); for i in [3, 1.5, 2, 1] { q.put(i); } [q.get(), q.get(), q.get(), q.get()]",
                    "[1, 1.5, 2, 3]",
                ),
                (
                    "let q = queue::PriorityQueue(); q.put([1, \"b\"]); q.put([1, \"a\"]); q.put([0]); [q.get(), q.get()]",
                    "[[0], [1, \"a\"]]",
                ),
                (
                    "let q = queue::PriorityQueue(); q.put(1); q.put(\"a\")",
                    "TypeError: '<' not supported between instances of 'int' and 'string'",
                ),
                (
                    "let q = queue::Queue(2); q.put(1); q.put(2); [q.full(), q.qsize(), q.maxsize]",
                    "[true, 2, 2]",
                ),
                (
                    "let q = queue::Queue(#{maxsize: 1}); q.put(1); q.put_nowait(2)",
                    "Full",
                ),
                ("let q = queue::Queue(1); q.put(1); q.put(2, false)", "Full"),
                ("queue::Queue().get_nowait()", "Empty"),
                ("queue::Queue().get(false)", "Empty"),
                (
                    "queue::Queue().get()",
                    "DeadlockError: get from an empty queue would wait for ever: only this process could change it; Queue() is the one that several processes share",
                ),
                (
                    "let q = queue::Queue(1); q.put(1); try { q.put(2); } catch (e) { return e.type; }",
                    "DeadlockError",
                ),
                (
                    "let q = queue::Queue(); q.put(1); q.get(); q.task_done(); q.join(); q.task_done()",
                    "ValueError: task_done() called too many times",
                ),
                (
                    "let q = queue::Queue(); q.put(1); try { q.join() } catch (e) { return e.type; }",
                    "DeadlockError",
                ),
                ("let q = queue::Queue(); let r = q; r.put(5); q.get()", "5"),
                (
                    "let q = queue::Queue(); q == q && q != queue::Queue()",
                    "true",
                ),
                (
                    "queue::Queue(\"5\")",
                    "TypeError: Queue(): 'maxsize' must be a whole number, not string",
                ),
                (
                    "queue::Queue().put()",
                    "TypeError: put(): 'item' is missing",
                ),
                (
                    "queue::Queue().putt(1)",
                    "AttributeError: 'queue.Queue' object has no method 'putt'; did you mean 'put'?",
                ),
            ],
        );
    }

    #[test]
    fn a_queue_travels_as_a_copy() {
        for discipline in [Discipline::Fifo, Discipline::Lifo, Discipline::Priority] {
            crate::copies::travels::<LocalQueue>("queue", parts, whole);
            let queue = LocalQueue::new(discipline, 7);
            for item in [2_i64, 1, 3] {
                queue.push(item.into()).unwrap();
            }
            let message = convert::encode("item", &Dynamic::from(queue.clone())).unwrap();
            let mut decoder = Decoder::new(message.bytes(), vec![], References::Claim).unwrap();
            let copy = decoder.value().unwrap().cast::<LocalQueue>();
            assert_eq!(
                (copy.0.discipline, copy.0.maxsize, copy.0.unfinished.get()),
                (discipline, 7, 3)
            );
            while let Some(item) = queue.pop() {
                assert_eq!(copy.pop().unwrap().as_int(), item.as_int());
            }
            assert!(copy.empty());
        }
    }

    #[test]
    fn damaged_queues_are_refused() {
        for parts in [
            vec![],
            vec![Dynamic::UNIT; 4],
            vec![
                "Queue".into(),
                0_i64.into(),
                (-1_i64).into(),
                Array::new().into(),
            ],
        ] {
            assert!(whole(parts).is_err());
        }
    }

    #[test]
    fn the_examples_run() {
        run_examples(&[crate::builtins::register, crate::os::register], register);
    }
}
