//! Event, Condition and Barrier: what processes meet at.

use super::permits::Guard;
use crate::api::{Call, Registry};
use crate::convert::{Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::places;
use mphost_core::clock::Deadline;
use mphost_core::condition::AnyLock;
use mphost_core::error::CoreError;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use mphost_core::{barrier, condition, event};
use rhai::{Dynamic, FnPtr};
use std::rc::Rc;

/// A flag that processes wait for.
#[derive(Clone)]
pub struct Event(event::Event);

/// A place to wait, under a lock, until somebody says that something has changed.
#[derive(Clone)]
pub struct Condition(Rc<ConditionParts>);

struct ConditionParts {
    core: condition::Condition,
    lock: Guard,
}

/// A place where a fixed number of processes wait for each other.
#[derive(Clone)]
pub struct Barrier(Rc<BarrierParts>);

struct BarrierParts {
    core: barrier::Barrier,
    action: Option<FnPtr>,
    timeout: Option<f64>,
}

impl Handle for Event {
    const KIND: HandleKind = HandleKind::Event;

    fn object(&self) -> &ObjRef {
        self.0.obj()
    }

    fn rebuild(object: ObjRef, _decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self(event::Event::from_ref(object)?))
    }
}

impl Handle for Condition {
    const KIND: HandleKind = HandleKind::Condition;
    const ATTRIBUTES: usize = 1;

    fn object(&self) -> &ObjRef {
        self.0.core.obj()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        self.0.lock.write(encoder)
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let core = condition::Condition::from_ref(object)?;
        let lock = Guard::from_value(&decoder.value()?)?;
        Ok(Self(Rc::new(ConditionParts { core, lock })))
    }
}

impl Handle for Barrier {
    const KIND: HandleKind = HandleKind::Barrier;
    const ATTRIBUTES: usize = 2;

    fn object(&self) -> &ObjRef {
        self.0.core.obj()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        encoder.value(&self.0.action.clone().map_or(Dynamic::UNIT, Dynamic::from))?;
        encoder.value(&self.0.timeout.map_or(Dynamic::UNIT, Dynamic::from))
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let core = barrier::Barrier::from_ref(object)?;
        let action = decoder.value()?.try_cast::<FnPtr>();
        let timeout = decoder.value()?.as_float().ok();
        Ok(Self(Rc::new(BarrierParts { core, action, timeout })))
    }
}

/// Registers the three types.
pub(super) fn register(registry: &mut Registry) {
    register_event(registry);
    register_condition(registry);
    register_barrier(registry);
}

fn register_event(registry: &mut Registry) {
    registry.constructor("Event()", "A flag that processes can set, clear and wait for.", |call| {
        Ok(Dynamic::from(Event(event::Event::create(places::of_call(call.ctx))?)))
    });
    let mut class = registry.class::<Event>("Event");
    handle::register(&mut class);
    class
        .display(|event| {
            let state = match event.0.is_set() {
                Ok(true) => "set",
                Ok(false) => "unset",
                Err(_) => "unknown",
            };
            format!("<Event at {:#x} {state}>", handle::identity(event.object()))
        })
        .method("set()", "Sets the flag and releases everybody who waits for it.", |call| {
            call.this::<Event>().0.set()?;
            Ok(Dynamic::UNIT)
        })
        .method("clear()", "Clears the flag.", |call| {
            call.this::<Event>().0.clear()?;
            Ok(Dynamic::UNIT)
        })
        .method("is_set()", "The flag.", |call| Ok(Dynamic::from(call.this::<Event>().0.is_set()?)))
        .method(
            "wait(timeout: seconds = ())",
            "Waits until the flag is set, with `timeout` at most that long; gives the flag.",
            |call| {
                let deadline = handle::timeout(call, 0);
                Ok(Dynamic::from(call.this::<Event>().0.wait(deadline, places::of_call(call.ctx))?))
            },
        );
}

impl Condition {
    fn wait(&self, call: &Call<'_>, deadline: Deadline) -> Result<bool> {
        if !self.is_mine()? {
            return Err(raise(Kind::AssertionError, "must acquire() condition before using wait()"));
        }
        let lock = match &self.0.lock {
            Guard::Lock(lock) => AnyLock::Lock(lock.core().clone()),
            Guard::RLock(lock) => AnyLock::RLock(lock.core().clone()),
            Guard::Semaphore(_) | Guard::BoundedSemaphore(_) => return Err(wrong_lock()),
        };
        Ok(self.0.core.wait(&lock, deadline, places::of_call(call.ctx))?)
    }

    fn notify(&self, n: u32) -> Result {
        if !self.is_mine()? {
            return Err(raise(Kind::AssertionError, "lock is not owned"));
        }
        self.0.core.notify(n)?;
        Ok(Dynamic::UNIT)
    }

    /// Whether this process holds the lock.
    fn is_mine(&self) -> Result<bool> {
        let owner = match &self.0.lock {
            Guard::Lock(lock) => lock.core().owner()?,
            Guard::RLock(lock) => lock.core().owner()?,
            Guard::Semaphore(_) | Guard::BoundedSemaphore(_) => return Err(wrong_lock()),
        };
        Ok(owner.is_some_and(|owner| owner.mine))
    }
}

fn wrong_lock() -> Error {
    raise(Kind::TypeError, "Condition(): 'lock' must be a Lock or an RLock")
}

fn register_condition(registry: &mut Registry) {
    registry.constructor(
        "Condition(lock: any = ())",
        "A condition: processes wait until another says that something has changed. `lock` is a Lock or an RLock, by default an RLock \
         of its own; it must be held for `wait` and `notify`.",
        |call| {
            let position = places::of_call(call.ctx);
            let lock = match call.peek(0) {
                None => Guard::own(position)?,
                Some(value) => match Guard::from_value(value)? {
                    Guard::Semaphore(_) | Guard::BoundedSemaphore(_) => return Err(wrong_lock()),
                    lock => lock,
                },
            };
            let core = condition::Condition::create(position)?;
            Ok(Dynamic::from(Condition(Rc::new(ConditionParts { core, lock }))))
        },
    );
    let mut class = registry.class::<Condition>("Condition");
    handle::register(&mut class);
    Guard::methods(&mut class, |condition| &condition.0.lock);
    class
        .display(|condition| {
            let waiters = condition.0.core.waiters().map_or_else(|_| "unknown".into(), |n| n.to_string());
            format!("<Condition({}, {waiters})>", condition.0.lock.show())
        })
        .method(
            "wait(timeout: seconds = ())",
            "Gives the lock back, waits to be notified, and takes the lock again: `true`, or `false` if the time was up first.",
            |call| Ok(Dynamic::from(call.this::<Condition>().wait(call, handle::timeout(call, 0))?)),
        )
        .method(
            "wait_for(predicate: callable, timeout: seconds = ())",
            "Waits until `predicate()` is true, asking it whenever it is notified; gives its last value, also when the time is up.",
            |call| {
                let condition = call.this::<Condition>();
                let deadline = handle::timeout(call, 1);
                let predicate = call.callable(0).ok_or_else(|| raise(Kind::TypeError, "wait_for() needs a predicate"))?;
                loop {
                    let value = predicate.call_within_context::<Dynamic>(call.ctx, ())?;
                    if handle::truth(&value) || deadline.has_passed() {
                        return Ok(value);
                    }
                    condition.wait(call, deadline)?;
                }
            },
        )
        .method("notify(n: int = 1)", "Wakes `n` of the processes that wait.", |call| {
            let n = call.int(0).unwrap_or(1);
            call.this::<Condition>().notify(u32::try_from(n.max(0)).unwrap_or(u32::MAX))
        })
        .method("notify_all()", "Wakes all processes that wait.", |call| call.this::<Condition>().notify(u32::MAX));
}

impl Barrier {
    fn wait(&self, call: &Call<'_>) -> Result {
        let deadline = Deadline::from_timeout(true, call.seconds(0).or(self.0.timeout));
        let mut thrown = None;
        let result = self.0.core.wait(deadline, places::of_call(call.ctx), || {
            let Some(action) = &self.0.action else { return Ok(()) };
            action.call_within_context::<Dynamic>(call.ctx, ()).map(drop).map_err(|error| {
                thrown = Some(error);
                CoreError::BrokenBarrier
            })
        });
        match thrown {
            Some(error) => Err(Error::Rhai(error)),
            None => Ok(Dynamic::from(i64::from(result?))),
        }
    }
}

fn register_barrier(registry: &mut Registry) {
    registry.constructor(
        "Barrier(parties: int, action: callable = (), timeout: seconds = ())",
        "A barrier: `parties` processes wait for each other. When the last one comes, one of them runs `action`, then all go on. \
         `timeout` is what `wait` uses if it is given none.",
        |call| {
            let parties = u32::try_from(call.int(0).unwrap_or(0)).ok().filter(|n| *n > 0);
            let parties = parties.ok_or_else(|| raise(Kind::ValueError, "parties must be >= 1"))?;
            let core = barrier::Barrier::create(parties, places::of_call(call.ctx))?;
            let timeout = call.seconds(2);
            Ok(Dynamic::from(Barrier(Rc::new(BarrierParts { core, action: call.callable(1), timeout }))))
        },
    );
    let mut class = registry.class::<Barrier>("Barrier");
    handle::register(&mut class);
    class
        .display(|barrier| {
            let core = &barrier.0.core;
            let state = match (core.broken(), core.n_waiting(), core.parties()) {
                (Ok(true), ..) => "broken".into(),
                (Ok(false), Ok(waiting), Ok(parties)) => format!("waiters={waiting}/{parties}"),
                _ => "unknown".into(),
            };
            format!("<Barrier at {:#x}: {state}>", handle::identity(barrier.object()))
        })
        .method(
            "wait(timeout: seconds = ())",
            "Waits until all parties have come. Gives each of them another number from 0 to parties - 1. A time that is up breaks the \
             barrier: everybody gets a `BrokenBarrierError`.",
            |call| call.this::<Barrier>().wait(call),
        )
        .method("reset()", "Empties the barrier; whoever waits gets a `BrokenBarrierError`.", |call| {
            call.this::<Barrier>().0.core.reset()?;
            Ok(Dynamic::UNIT)
        })
        .method("abort()", "Breaks the barrier, for those who wait and those who come, until it is reset.", |call| {
            call.this::<Barrier>().0.core.abort()?;
            Ok(Dynamic::UNIT)
        })
        .getter("parties", "How many processes the barrier waits for.", |call| {
            Ok(Dynamic::from(i64::from(call.this::<Barrier>().0.core.parties()?)))
        })
        .getter("n_waiting", "How many processes are waiting.", |call| {
            Ok(Dynamic::from(i64::from(call.this::<Barrier>().0.core.n_waiting()?)))
        })
        .getter("broken", "Whether the barrier is broken.", |call| {
            Ok(Dynamic::from(call.this::<Barrier>().0.core.broken()?))
        });
}
