//! Condition: a place to wait, under a lock, until somebody says that something has changed.

use super::permits::Guard;
use crate::api::{Call, Registry};
use crate::convert::{Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::places;
use mphost_core::clock::Deadline;
use mphost_core::condition::{self, AnyLock};
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::Dynamic;
use std::rc::Rc;

/// A place to wait, under a lock, until somebody says that something has changed.
#[derive(Clone)]
pub struct Condition(Rc<ConditionParts>);

struct ConditionParts {
    core: condition::Condition,
    lock: Guard,
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

impl Condition {
    fn wait(&self, call: &Call<'_>, deadline: Deadline) -> Result<bool> {
        let lock = self.lock()?;
        if !lock.is_mine()? {
            return Err(raise(
                Kind::AssertionError,
                "must acquire() condition before using wait()",
            ));
        }
        Ok(self
            .0
            .core
            .wait(&lock, deadline, places::of_call(call.ctx))?)
    }

    fn notify(&self, n: usize) -> Result {
        if !self.lock()?.is_mine()? {
            return Err(raise(Kind::AssertionError, "lock is not owned"));
        }
        self.0.core.notify(n)?;
        Ok(Dynamic::UNIT)
    }

    fn lock(&self) -> Result<AnyLock> {
        match &self.0.lock {
            Guard::Lock(lock) => Ok(AnyLock::Lock(lock.core().clone())),
            Guard::RLock(lock) => Ok(AnyLock::RLock(lock.core().clone())),
            Guard::Semaphore(_) | Guard::BoundedSemaphore(_) => Err(wrong_lock()),
        }
    }
}

fn wrong_lock() -> Error {
    raise(
        Kind::TypeError,
        "Condition(): 'lock' must be a Lock or an RLock",
    )
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Condition(lock: plain = ())",
        "A condition: processes wait until another says that something has changed. `lock` is a Lock or an RLock, by default an RLock \
         of its own; it must be held for `wait` and `notify`.\n\n```rhai\nlet c = Condition();\nwith c {\n    print(c.wait_for(|| true, 1));\n    c.notify_all();\n}\n```",
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
            call.this::<Condition>().notify(usize::try_from(n.max(0)).unwrap_or(usize::MAX))
        })
        .method("notify_all()", "Wakes all processes that wait.", |call| call.this::<Condition>().notify(usize::MAX));
}
