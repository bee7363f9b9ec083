//! A managed event: a flag to wait for.
//!
//! Source: CPython's Library Reference, threading, Event Objects.

use super::{Args, Object, Outcome, Ticket, Turn, Verdict, Why, seconds, unsupported};
use crate::error::Result;
use crate::managers::protocol::Op;
use mphost_core::clock::Deadline;
use rhai::Dynamic;

/// See the module.
#[derive(Default)]
pub(super) struct Event {
    flag: bool,
    waiters: Vec<Ticket>,
}

impl Object for Event {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        match op {
            Op::IsSet => return Ok(Outcome::Value(self.flag.into())),
            Op::Set => {
                self.flag = true;
                for ticket in self.waiters.drain(..) {
                    turn.answer(ticket, Verdict::Done(true.into()));
                }
            }
            Op::Clear => self.flag = false,
            Op::Wait if self.flag => return Ok(Outcome::Value(true.into())),
            Op::Wait => {
                self.waiters.push(turn.ticket);
                return Ok(Outcome::Wait(Deadline::from_timeout(
                    true,
                    seconds(&args, 0),
                )));
            }
            _ => return Err(unsupported(op)),
        }
        Ok(Outcome::Value(Dynamic::UNIT))
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        self.waiters.retain(|waiter| *waiter != ticket);
        if let Some(verdict) = why.verdict(|| Verdict::Done(false.into())) {
            turn.answer(ticket, verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    #[test]
    fn setting_wakes_everybody() {
        let mut bench = Bench::new(Event::default());
        assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
        assert_eq!(bench.says(2, Op::Wait, vec![]), "waits");
        assert_eq!(bench.says(3, Op::Wait, vec![]), "waits");
        bench.expire(3, Why::Timeout);
        assert_eq!(bench.says(4, Op::Set, vec![]), "");
        assert_eq!(bench.answers(), ["3: false", "1: true", "2: true"]);
        assert_eq!(bench.says(4, Op::Wait, vec![]), "true");
        assert_eq!(bench.says(4, Op::Clear, vec![]), "");
        assert_eq!(bench.says(4, Op::IsSet, vec![]), "false");
    }
}
