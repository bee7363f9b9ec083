//! Managed semaphores, by the rules of Python's `threading`: anybody may give a permit back. Only of a BoundedSemaphore is it known who
//! holds them: where one of those is dead and none is free, that is an error for whoever wants one, until somebody makes it free.
//!
//! Source: CPython's Library Reference, threading, Semaphore Objects.

use super::{Args, Object, Outcome, Ticket, Turn, Verdict, Why, int, seconds, truth, unsupported};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::Op;
use crate::managers::server::{ClientId, Grip};
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::collections::VecDeque;

/// A Semaphore, or a BoundedSemaphore if it has a bound.
pub(super) struct Semaphore {
    permits: i64,
    bound: Option<i64>,
    /// Who holds the permits of a BoundedSemaphore that aren't free.
    held: Vec<Grip>,
    waiters: VecDeque<(Ticket, Grip)>,
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
            held: Vec::new(),
            waiters: VecDeque::new(),
        })
    }

    /// Takes a permit that is free.
    fn take(&mut self, grip: Grip) {
        self.permits -= 1;
        if self.bound.is_some() {
            self.held.push(grip);
        }
    }

    /// A permit is given back: the client's own, else a dead one's, else anybody's.
    fn strike_out(&mut self, client: ClientId) {
        let own = self.held.iter().position(|grip| grip.is_of(client));
        let dead = || self.held.iter().position(|grip| grip.is_dead(false));
        if !self.held.is_empty() {
            self.held.remove(own.or_else(dead).unwrap_or(0));
        }
    }

    /// The error for who wants a permit, if none is free and a holder is dead.
    fn lost(&self) -> Option<Error> {
        if self.permits > 0 {
            return None;
        }
        self.held.iter().find_map(|grip| grip.check(false).err())
    }

    /// Gives free permits to those who wait.
    fn pass_on(&mut self, turn: &mut Turn<'_>) {
        while self.permits > 0
            && let Some((ticket, grip)) = self.waiters.pop_front()
        {
            self.take(grip);
            turn.answer(ticket, Verdict::Done(true.into()));
        }
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
                let grip = turn.grip(&args);
                if self.permits > 0 {
                    self.take(grip);
                    return Ok(Outcome::Value(true.into()));
                }
                if let Some(error) = self.lost() {
                    return Err(error);
                }
                if !blocking {
                    return Ok(Outcome::Value(false.into()));
                }
                self.waiters.push_back((turn.ticket, grip));
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
                if self.bound.is_some() {
                    (0..count).for_each(|_| self.strike_out(turn.client));
                }
                self.pass_on(turn);
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            Op::Recover => {
                let before = self.held.len();
                self.held.retain(|grip| !grip.is_dead(false));
                let freed = before - self.held.len();
                self.permits += i64::try_from(freed).expect("as many were taken");
                self.pass_on(turn);
                Ok(Outcome::Value((freed > 0).into()))
            }
            Op::Locked => Ok(Outcome::Value((self.permits == 0).into())),
            Op::Get => Ok(Outcome::Value(self.permits.into())),
            _ => Err(unsupported(op)),
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        self.waiters.retain(|(waiter, _)| *waiter != ticket);
        if let Some(verdict) = why.verdict(|| Verdict::Done(false.into())) {
            turn.answer(ticket, verdict);
        }
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        while let Some(error) = self.lost()
            && let Some((ticket, _)) = self.waiters.pop_front()
        {
            turn.answer(ticket, Verdict::Thrown(error));
        }
    }
}

#[cfg(test)]
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

    #[test]
    fn a_dead_holders_permit_is_missed_only_where_none_is_free() {
        let args: Args = std::iter::once(Dynamic::from(2_i64)).collect();
        let mut bench = Bench::new(Semaphore::new(&args, true).unwrap());
        for client in [1, 2] {
            assert_eq!(bench.says(client, Op::Acquire, vec![]), "true");
        }
        assert_eq!(bench.says(3, Op::Acquire, vec![]), "waits");
        bench.ends(1, false);
        let dead = "OwnerDiedError: the process that held this died while holding it (pid 101); release() or recover() makes it free";
        assert_eq!(bench.answers(), [format!("3: {dead}")]);
        // The living one's permit goes round.
        assert_eq!(bench.says(2, Op::Release, vec![]), "");
        assert_eq!(bench.says(3, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(4, Op::Acquire, vec![false.into()]), dead);
        assert_eq!(bench.says(4, Op::Recover, vec![]), "true");
        assert_eq!(bench.says(4, Op::Recover, vec![]), "false");
        assert_eq!(bench.says(4, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(4, Op::Get, vec![]), "0");
        // Of a plain one nobody knows who has its permits.
        let mut bench = Bench::new(Semaphore::new(&args, false).unwrap());
        for _ in 0..2 {
            assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
        }
        bench.ends(1, false);
        assert_eq!(bench.says(2, Op::Recover, vec![]), "false");
        assert_eq!(bench.says(2, Op::Acquire, vec![]), "waits");
    }
}
