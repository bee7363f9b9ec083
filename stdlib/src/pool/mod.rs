//! Python's `multiprocessing.pool`: `Pool`, its results and iterators.
//!
//! A pool belongs to the process that made it. What it does there is in `inner`: jobs, callbacks, time limits, retries. Where its
//! tasks run is behind `dispatch::Dispatch`: in `local` they go to worker processes of this machine through shared queues, and
//! `worker` is what runs in those. `task` has the messages between the two.
//!
//! Unlike Python's, a pool outlives its workers: a task whose worker died fails alone, an initializer that fails breaks the pool
//! instead of being tried for ever, and a callback that throws is reported.

mod attend;
mod calls;
mod dispatch;
mod imap;
mod inner;
mod items;
mod job;
mod link;
mod local;
mod progress;
mod result;
mod submit;
mod task;
mod tasks;
mod worker;

use crate::api::{Call, Registry};
use crate::error::{Kind, Result, raise};
use crate::{context, places, process, runtime, with};
use inner::{Inner, State};
use local::{Local, Reach, Recipe};
use mphost_core::clock::{self, Deadline};
use mphost_core::{alarm, pool::Claims, queue::Queue};
use rhai::{Dynamic, FnPtr, NativeCallContext};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The module of the hidden function that workers run, and its name as a value.
const MODULE: &str = "mp::pool";
const NATIVE_WORKER: &str = "mp__pool____worker";

thread_local! {
    /// The pools of this process that may still have something to do.
    static POOLS: RefCell<Vec<Rc<Inner>>> = const { RefCell::new(Vec::new()) };
    /// When this process's alarm rings; 0 for never.
    static ARMED: Cell<u64> = const { Cell::new(0) };
}

/// A pool, as scripts see it. Copies are the same pool.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<Inner>,
    reach: Reach,
}

impl Pool {
    /// Keeps in mind what the script can reach now, for callbacks and for workers that are started later.
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile types so; the version is pinned"
    )]
    fn remember(&self, ctx: &NativeCallContext<'_>) {
        let known = self.reach.borrow().global.constants.is_some();
        if !known && ctx.global_runtime_state().constants.is_some() {
            *self.reach.borrow_mut() = store(ctx);
        }
    }
}

#[expect(
    deprecated,
    reason = "Rhai marks its volatile types so; the version is pinned"
)]
fn store(ctx: &NativeCallContext<'_>) -> Rc<rhai::NativeCallContextStore> {
    Rc::new(ctx.store_data())
}

/// Registers this room.
pub fn register(registry: &mut Registry) {
    registry.constructor(
        "Pool(processes: int = (), initializer: plain = (), initargs: array = [], maxtasksperchild: plain = (), *, \
         timeout: seconds = (), retries: int = 0)",
        "A pool of worker processes that calls are given to.\n\n\
         `processes` workers, as many as there are CPUs if left out. Each calls `initializer(…initargs)` first; if that fails, every task \
         raises `BrokenProcessPool` with the initializer's error as its cause. After `maxtasksperchild` tasks a worker is replaced by a fresh \
         one. A worker that dies fails the task that it ran, with `WorkerLostError` (`pid`, `exitcode`, `signal`), and is replaced.\n\n\
         `timeout`: how many seconds one task may take; the worker that overruns is ended and the error is a `TimeoutError` with its \
         `pid`. `retries`: how often a task whose worker was lost is run again. Both can be given to single calls, too.\n\n\
         At the end of `with` a pool is terminated.\n\n\
         ```rhai\nfn square(x) { x * x }\nwith Pool(2) as pool {\n    print(pool.map(square, [1, 2, 3]));\n}\n```",
        construct,
    );
    registry.function(
        MODULE,
        "__worker(tasks: any, reports: any, claims: any, index: int, initializer: any, initargs: array, share: any)",
        "The host's own.",
        work,
    );
    link::register();
    calls::register(registry);
    result::register(registry);
    imap::register(registry);
    registry
        .class::<Pool>("Pool")
        .method(
            "close()",
            "Takes no more work; the workers end when all that was submitted is done.",
            |call| {
                call.this::<Pool>().inner.close()?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "terminate()",
            "Ends the workers at once, whatever they do. Results that are still open raise `BrokenProcessPool`.",
            |call| {
                let pool = call.this::<Pool>();
                pool.inner.terminate(true)?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "join()",
            "Waits until all work is done and the workers have ended. Before `close()` or `terminate()` it is a `ValueError`.",
            |call| {
                call.this::<Pool>().inner.join(places::of_call(call.ctx))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("__enter()", "The host's own.", |call| {
            call.this::<Pool>().inner.check_running()?;
            Ok(Dynamic::UNIT)
        })
        .display(|pool| {
            let state = match pool.inner.state() {
                State::Running => "RUN",
                State::Closed => "CLOSE",
                State::Terminated => "TERMINATE",
            };
            format!("<Pool state={state} pool_size={}>", pool.inner.workers())
        })
        .equality(|a, b| Rc::ptr_eq(&a.inner, &b.inner));
    with::context::<Pool>(Some("__enter"), "terminate");
    runtime::add_service(serve);
}

fn construct(call: &mut Call<'_>) -> Result {
    let processes = match call.int(0) {
        Some(count) => usize::try_from(count).unwrap_or(0),
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    if processes < 1 {
        return Err(raise(
            Kind::ValueError,
            "Number of processes must be at least 1",
        ));
    }
    let share = call.take(3);
    let share = match share.as_int() {
        Ok(share) if share > 0 => Some(share),
        _ if share.is_unit() => None,
        _ => {
            return Err(raise(
                Kind::ValueError,
                "maxtasksperchild must be a positive int or None",
            ));
        }
    };
    let initializer = call.take(1);
    if !initializer.is_unit() && !initializer.is::<FnPtr>() {
        return Err(raise(Kind::TypeError, "initializer must be a callable"));
    }
    let recipe = Recipe {
        initializer,
        initargs: call.array(2),
        share,
        method: context::fixed_method().unwrap_or_else(process::method),
    };
    let limit = call.seconds(4);
    let retries = retries(call.int(5));
    sweep();
    let reach: Reach = Rc::new(RefCell::new(store(call.ctx)));
    let local = Local::start(processes, recipe, reach.clone(), places::of_call(call.ctx))?;
    let inner = Inner::new(Box::new(local), reach.clone(), limit, retries);
    POOLS.with_borrow_mut(|pools| pools.push(inner.clone()));
    Ok(Dynamic::from(Pool { inner, reach }))
}

/// A number of retries; negative is none.
fn retries(given: Option<i64>) -> u32 {
    given.map_or(0, |n| u32::try_from(n.max(0)).unwrap_or(u32::MAX))
}

/// What runs in a worker.
fn work(call: &mut Call<'_>) -> Result {
    let mut link = |index| link::object(call.take(index));
    let (tasks, reports, claims) = (link(0)?, link(1)?, link(2)?);
    let assignment = worker::Assignment {
        tasks: Queue::from_ref(tasks)?,
        reports: Queue::from_ref(reports)?,
        claims: Claims::from_ref(claims)?,
        index: call
            .int(3)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(usize::MAX),
        initializer: call.callable(4),
        initargs: call.array(5),
        share: call.int(6).and_then(|n| u64::try_from(n).ok()),
    };
    worker::run(&assignment, call.ctx)?;
    Ok(Dynamic::UNIT)
}

/// Looks after all pools: whenever this process has attention to spare.
fn serve() -> Result<()> {
    let pools = POOLS.with_borrow(Vec::clone);
    if pools.is_empty() {
        return Ok(());
    }
    for pool in &pools {
        pool.serve()?;
    }
    drop(pools);
    sweep();
    set_alarm();
    Ok(())
}

/// Lets go of pools that nobody can use any more.
fn sweep() {
    let dropped = POOLS.with_borrow_mut(|pools| {
        let (dropped, kept) = pools.drain(..).partition(|pool| {
            pool.state() == State::Terminated || (Rc::strong_count(pool) == 1 && pool.is_idle())
        });
        *pools = kept;
        dropped
    });
    let dropped: Vec<Rc<Inner>> = dropped;
    for pool in dropped {
        if pool.state() != State::Terminated {
            // They are reaped when the next process is started, or at the end.
            let _ = pool.terminate(false);
        }
    }
}

/// Sets this process's alarm for the next moment at which a pool must be looked at.
fn set_alarm() {
    let next = POOLS.with_borrow(|pools| pools.iter().filter_map(|pool| pool.alarm()).min());
    let Some(next) = next else { return };
    let now = clock::now();
    let armed = ARMED.get();
    // An alarm that comes too early does no harm.
    if armed > now && armed <= next {
        return;
    }
    let left = Duration::from_nanos(next.saturating_sub(now).max(1));
    if alarm::set(Deadline::after(left)).is_ok() {
        ARMED.set(next);
    }
}

/// In a forked child: the parent's pools aren't this process's.
pub(crate) fn forget_parent() {
    ARMED.set(0);
    for pool in POOLS.take() {
        pool.forget();
        // Values of the parent's script may refer to it; nothing of it may end here.
        std::mem::forget(pool);
    }
}

/// Whether results with callbacks are still to come: they may do what this process waits for.
pub(crate) fn expects_callbacks() -> bool {
    POOLS.with_borrow(|pools| pools.iter().any(|pool| pool.listeners.get() > 0))
}

/// At the end of the process: no worker is replaced any more, and all are told to end.
pub(crate) fn end_all() {
    for pool in POOLS.take() {
        // Whoever can't be told now is ended with all daemonic children.
        let _ = pool.terminate(false);
    }
}
