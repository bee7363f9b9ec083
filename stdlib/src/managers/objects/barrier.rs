//! A managed barrier: a place where a number of clients wait for each other.
//!
//! Source: CPython's Library Reference, threading, Barrier Objects.

use super::{
    Args, Object, Outcome, Ticket, Turn, Verdict, Why, int, length, seconds, take, unsupported,
};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::Op;
use mphost_core::clock::Deadline;
use rhai::{Dynamic, FnPtr};

/// See the module.
pub(super) struct Barrier {
    parties: usize,
    action: Option<FnPtr>,
    timeout: Option<f64>,
    broken: bool,
    /// Who waits, in the order of coming.
    waiters: Vec<Ticket>,
}

impl Barrier {
    /// A barrier of `parties`, with an action and a time limit for those who give none.
    pub(super) fn new(args: &mut Args) -> Result<Barrier> {
        let parties = int(args, 0)
            .and_then(|parties| usize::try_from(parties).ok())
            .filter(|parties| *parties > 0);
        let parties = parties.ok_or_else(|| raise(Kind::ValueError, "parties must be >= 1"))?;
        let action = take(args, 1).try_cast::<FnPtr>();
        Ok(Barrier {
            parties,
            action,
            timeout: seconds(args, 2),
            broken: false,
            waiters: Vec::new(),
        })
    }

    fn wait(&mut self, args: &Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        if self.broken {
            return Err(broken());
        }
        if self.waiters.len() + 1 < self.parties {
            let timeout = seconds(args, 0).or(self.timeout);
            self.waiters.push(turn.ticket);
            return Ok(Outcome::Wait(Deadline::from_timeout(true, timeout)));
        }
        if let Some(action) = &self.action
            && let Err(error) = action.call_raw(turn.script, None, Vec::new())
        {
            self.broken = true;
            self.send_away(turn);
            return Err(Error::Rhai(error));
        }
        for (index, ticket) in self.waiters.drain(..).enumerate() {
            turn.answer(ticket, Verdict::Done(length(index)));
        }
        Ok(Outcome::Value(length(self.parties - 1)))
    }

    fn send_away(&mut self, turn: &mut Turn<'_>) {
        for ticket in self.waiters.drain(..) {
            turn.answer(ticket, Verdict::Thrown(broken()));
        }
    }
}

fn broken() -> Error {
    raise(Kind::BrokenBarrierError, "")
}

impl Object for Barrier {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let value = match op {
            Op::Wait => return self.wait(&args, turn),
            Op::Reset => {
                self.broken = false;
                self.send_away(turn);
                Dynamic::UNIT
            }
            Op::Abort => {
                self.broken = true;
                self.send_away(turn);
                Dynamic::UNIT
            }
            Op::Parties => length(self.parties),
            Op::Waiting => length(self.waiters.len()),
            Op::Broken => self.broken.into(),
            _ => return Err(unsupported(op)),
        };
        Ok(Outcome::Value(value))
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        let before = self.waiters.len();
        self.waiters.retain(|waiter| *waiter != ticket);
        if self.waiters.len() == before {
            return;
        }
        if let Some(verdict) = why.verdict(|| Verdict::Thrown(broken())) {
            turn.answer(ticket, verdict);
        }
        // One who doesn't come any more would be waited for in vain: by all the others.
        self.broken = true;
        self.send_away(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn bench(parties: i64) -> Bench<Barrier> {
        Bench::new(Barrier::new(&mut std::iter::once(parties.into()).collect()).unwrap())
    }

    #[test]
    fn the_last_one_lets_all_go_on() {
        let mut bench = bench(3);
        for _ in 0..2 {
            assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
            assert_eq!(bench.says(2, Op::Wait, vec![]), "waits");
            assert_eq!(bench.says(3, Op::Waiting, vec![]), "2");
            assert_eq!(bench.says(3, Op::Wait, vec![]), "2");
            assert_eq!(bench.answers(), ["1: 0", "2: 1"]);
        }
        assert!(Barrier::new(&mut std::iter::once(0_i64.into()).collect()).is_err());
    }

    #[test]
    fn one_who_leaves_breaks_it_for_all() {
        for why in [Why::Timeout, Why::Cancelled, Why::Gone] {
            let mut bench = bench(3);
            assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
            assert_eq!(bench.says(2, Op::Wait, vec![]), "waits");
            bench.expire(1, why);
            let answers = bench.answers();
            assert_eq!(answers.last().unwrap(), "2: BrokenBarrierError");
            assert_eq!(answers.len(), if why == Why::Gone { 1 } else { 2 });
            assert_eq!(bench.says(3, Op::Wait, vec![]), "BrokenBarrierError");
            assert_eq!(bench.says(3, Op::Reset, vec![]), "");
            assert_eq!(bench.says(3, Op::Broken, vec![]), "false");
        }
    }
}
