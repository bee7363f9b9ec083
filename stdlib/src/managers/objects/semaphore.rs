//! Managed semaphores, by the rules of Python's `threading`: nobody owns a permit.
//!
//! Source: CPython's Library Reference, threading, Semaphore Objects.

use super::{Args, Object, Outcome, Ticket, Turn, Verdict, Why, int, seconds, truth, unsupported};
use crate::error::{Kind, Result, raise};
use crate::managers::protocol::Op;
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::collections::VecDeque;

/// A Semaphore, or a BoundedSemaphore if it has a bound.
pub(super) struct Semaphore {
    permits: i64,
    bound: Option<i64>,
    waiters: VecDeque<Ticket>,
}

impl Semaphore {
    /// A semaphore with as many permits as the first argument says, one if there is none.
    pub(super) fn new(args: &Args, bounded: bool) -> Result<Semaphore> {
        let permits = int(args, 0).unwrap_or(1);
        if permits < 0 {
            return Err(raise(
                Kind::ValueError,
                "semaphore initial value must be >= 0",
            ));
        }
        Ok(Semaphore {
            permits,
            bound: bounded.then_some(permits),
            waiters: VecDeque::new(),
        })
    }
}

impl Object for Semaphore {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        match op {
            Op::Acquire => {
                let (blocking, timeout) = (truth(&args, 0, true), seconds(&args, 1));
                if !blocking && timeout.is_some() {
                    return Err(raise(
                        Kind::ValueError,
                        "can't specify timeout for non-blocking acquire",
                    ));
                }
                if self.permits > 0 {
                    self.permits -= 1;
                    return Ok(Outcome::Value(true.into()));
                }
                if !blocking {
                    return Ok(Outcome::Value(false.into()));
                }
                self.waiters.push_back(turn.ticket);
                Ok(Outcome::Wait(Deadline::from_timeout(true, timeout)))
            }
            Op::Release => {
                let count = int(&args, 0).unwrap_or(1);
                if count < 1 {
                    return Err(raise(Kind::ValueError, "n must be one or more"));
                }
                let after = self.permits.checked_add(count);
                let after = after.filter(|after| self.bound.is_none_or(|bound| *after <= bound));
                self.permits = after
                    .ok_or_else(|| raise(Kind::ValueError, "Semaphore released too many times"))?;
                while self.permits > 0
                    && let Some(ticket) = self.waiters.pop_front()
                {
                    self.permits -= 1;
                    turn.answer(ticket, Verdict::Done(true.into()));
                }
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            Op::Locked => Ok(Outcome::Value((self.permits == 0).into())),
            Op::Get => Ok(Outcome::Value(self.permits.into())),
            _ => Err(unsupported(op)),
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        self.waiters.retain(|waiter| *waiter != ticket);
        if let Some(verdict) = why.verdict(|| Verdict::Done(false.into())) {
            turn.answer(ticket, verdict);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    #[test]
    fn permits_go_to_who_waits() {
        let args: Args = std::iter::once(Dynamic::from(1_i64)).collect();
        let mut bench = Bench::new(Semaphore::new(&args, true).unwrap());
        assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(2, Op::Acquire, vec![]), "waits");
        assert_eq!(bench.says(3, Op::Acquire, vec![]), "waits");
        bench.expire(2, Why::Cancelled);
        assert_eq!(bench.says(1, Op::Release, vec![]), "");
        assert_eq!(bench.answers(), ["2: cancelled", "3: true"]);
        assert_eq!(bench.says(3, Op::Release, vec![]), "");
        assert_eq!(
            bench.says(3, Op::Release, vec![]),
            "ValueError: Semaphore released too many times"
        );
        let negative: Args = std::iter::once(Dynamic::from(-1_i64)).collect();
        assert!(Semaphore::new(&negative, false).is_err());
    }
}
