//! Proxies of locks, semaphores, conditions, events and barriers.

use super::super::protocol::Op;
use super::super::proxy::Typed;
use super::{
    BarrierProxy, ConditionProxy, EventProxy, LockProxy, SemaphoreProxy, ask, class, forward,
};
use crate::api::{Call, Registry};
use crate::error::Result;
use crate::{handle, places, with};
use mphost_core::clock::Deadline;
use rhai::Dynamic;

const ACQUIRE: &str = "Takes it, waiting if need be: at most `timeout` seconds, or not at all if `block` is false. Gives whether it was \
                       taken. If the process that holds it has died, an `OwnerDiedError` (`pid`, `exitcode`, `acquired_at`).";
const RECOVER: &str = "Makes it free if the process that held it is dead: whether that was so.";

/// An `acquire` says where it is, for those who find its process dead.
fn acquire<T: Typed>(call: &mut Call<'_>) -> Result {
    let this = call.this::<T>();
    let (block, timeout) = (call.take(0), call.take(1));
    let place = places::of_call(call.ctx).to_bits().cast_signed().into();
    ask(this.proxy(), Op::Acquire, &[&block, &timeout, &place], call)
}

/// The methods of everything that can be acquired.
fn acquirer<T: Typed>(registry: &mut Registry, name: &'static str) {
    with::context::<T>(Some("acquire"), "release");
    class::<T>(registry, name)
        .method(
            "acquire(block: bool = true, timeout: number = ())",
            ACQUIRE,
            acquire::<T>,
        )
        .method("release()", "Gives it back.", forward::<T>(Op::Release, 0))
        .method("recover()", RECOVER, forward::<T>(Op::Recover, 0))
        .method(
            "locked()",
            "Whether it can't be taken at once.",
            forward::<T>(Op::Locked, 0),
        );
}

/// Python's `Condition.wait_for`: the predicate runs here, with the lock held.
fn wait_for(call: &mut Call<'_>) -> Result {
    let this = call.this::<ConditionProxy>();
    let predicate = call
        .callable(0)
        .expect("the signature lets only functions through");
    let deadline = Deadline::from_timeout(true, call.seconds(1));
    loop {
        let result: Dynamic = predicate.call_raw(call.ctx, None, Vec::new())?;
        if handle::truth(&result) {
            return Ok(result);
        }
        let left = match deadline.remaining() {
            None => Dynamic::UNIT,
            Some(left) if left.is_zero() => return Ok(result),
            Some(left) => left.as_secs_f64().into(),
        };
        let _: Dynamic = ask(this.proxy(), Op::Wait, &[&left], call)?;
    }
}

/// Registers all of them.
pub(super) fn register(registry: &mut Registry) {
    acquirer::<LockProxy>(registry, "LockProxy");
    acquirer::<SemaphoreProxy>(registry, "SemaphoreProxy");
    acquirer::<ConditionProxy>(registry, "ConditionProxy");
    class::<SemaphoreProxy>(registry, "SemaphoreProxy").method(
        "get_value()",
        "How many permits are free.",
        forward::<SemaphoreProxy>(Op::Get, 0),
    );
    class::<ConditionProxy>(registry, "ConditionProxy")
        .method(
            "wait(timeout: seconds = ())",
            "Gives the lock up until somebody notifies; gives whether somebody did before `timeout` seconds were over.",
            forward::<ConditionProxy>(Op::Wait, 1),
        )
        .method(
            "wait_for(predicate: callable, timeout: seconds = ())",
            "Waits until `predicate()` is true, or `timeout` seconds; gives what it returned last.",
            wait_for,
        )
        .method("notify(n: int = 1)", "Wakes `n` of those who wait.", forward::<ConditionProxy>(Op::Notify, 1))
        .method("notify_all()", "Wakes all who wait.", forward::<ConditionProxy>(Op::NotifyAll, 0));
    class::<EventProxy>(registry, "EventProxy")
        .method(
            "is_set()",
            "Whether the flag is set.",
            forward::<EventProxy>(Op::IsSet, 0),
        )
        .method(
            "set()",
            "Sets the flag, and wakes all who wait for it.",
            forward::<EventProxy>(Op::Set, 0),
        )
        .method(
            "clear()",
            "Takes the flag back.",
            forward::<EventProxy>(Op::Clear, 0),
        )
        .method(
            "wait(timeout: seconds = ())",
            "Waits until the flag is set, at most `timeout` seconds; gives the flag.",
            forward::<EventProxy>(Op::Wait, 1),
        );
    class::<BarrierProxy>(registry, "BarrierProxy")
        .method(
            "wait(timeout: seconds = ())",
            "Waits until all parties have come; gives each another number from 0. One who waits in vain breaks the barrier: \
             `BrokenBarrierError` for all.",
            forward::<BarrierProxy>(Op::Wait, 1),
        )
        .method("reset()", "Empties the barrier; those who wait get a `BrokenBarrierError`.", forward::<BarrierProxy>(Op::Reset, 0))
        .method("abort()", "Breaks the barrier.", forward::<BarrierProxy>(Op::Abort, 0))
        .getter("parties", "How many clients pass at a time.", forward::<BarrierProxy>(Op::Parties, 0))
        .getter("n_waiting", "How many wait at present.", forward::<BarrierProxy>(Op::Waiting, 0))
        .getter("broken", "Whether the barrier is broken.", forward::<BarrierProxy>(Op::Broken, 0));
}
