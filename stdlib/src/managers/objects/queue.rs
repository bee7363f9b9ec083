//! A managed queue: Queue and JoinableQueue, which in a manager are the same.
//!
//! Whoever waits for an item, or for room, is served in the order of coming.
//!
//! Source: CPython's Library Reference, queue.

use super::{
    Args, Object, Outcome, Ticket, Turn, Verdict, Why, length, seconds, take, truth, unsupported,
};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::Op;
use crate::queue::LocalQueue;
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::collections::VecDeque;

/// See the module.
pub(super) struct Queue {
    /// The items; the script's own queue, where a registered callable has returned it.
    items: LocalQueue,
    getters: VecDeque<Ticket>,
    putters: VecDeque<(Ticket, Dynamic)>,
    joiners: Vec<Ticket>,
}

impl Queue {
    /// A managed queue over one of this process.
    pub(super) fn of(items: LocalQueue) -> Queue {
        Queue {
            items,
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            joiners: Vec::new(),
        }
    }

    /// Takes an item in, and hands one to who waits for one.
    fn push(&mut self, item: Dynamic, turn: &mut Turn<'_>) -> Result<()> {
        self.items.push(item)?;
        if !self.getters.is_empty()
            && let Some(item) = self.items.pop()
            && let Some(getter) = self.getters.pop_front()
        {
            turn.answer(getter, Verdict::Done(item));
        }
        Ok(())
    }

    fn pop(&mut self, turn: &mut Turn<'_>) -> Option<Dynamic> {
        let item = self.items.pop()?;
        if let Some((putter, waiting)) = self.putters.pop_front() {
            let verdict = match self.push(waiting, turn) {
                Ok(()) => Verdict::Done(Dynamic::UNIT),
                Err(error) => Verdict::Thrown(error),
            };
            turn.answer(putter, verdict);
        }
        Some(item)
    }

    fn task_done(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        self.items.task_done()?;
        if self.items.is_done() {
            for joiner in self.joiners.drain(..) {
                turn.answer(joiner, Verdict::Done(Dynamic::UNIT));
            }
        }
        Ok(())
    }
}

/// When `block` and `timeout`, at these places, say that it is enough; `None`: don't wait at all.
fn patience(args: &Args, block: usize) -> Result<Option<Deadline>> {
    if !truth(args, block, true) {
        return Ok(None);
    }
    let timeout = seconds(args, block + 1);
    if timeout.is_some_and(|timeout| timeout < 0.0 || timeout.is_nan()) {
        return Err(raise(
            Kind::ValueError,
            "'timeout' must be a non-negative number",
        ));
    }
    Ok(Some(Deadline::from_timeout(true, timeout)))
}

fn empty() -> Error {
    raise(Kind::Empty, "")
}

fn full() -> Error {
    raise(Kind::Full, "")
}

impl Object for Queue {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let value = match op {
            Op::Put => {
                if self.items.full() {
                    let deadline = patience(&args, 1)?.ok_or_else(full)?;
                    self.putters.push_back((turn.ticket, take(&mut args, 0)));
                    return Ok(Outcome::Wait(deadline));
                }
                self.push(take(&mut args, 0), turn)?;
                Dynamic::UNIT
            }
            Op::Get => match self.pop(turn) {
                Some(item) => item,
                None => {
                    let deadline = patience(&args, 0)?.ok_or_else(empty)?;
                    self.getters.push_back(turn.ticket);
                    return Ok(Outcome::Wait(deadline));
                }
            },
            Op::TaskDone => {
                self.task_done(turn)?;
                Dynamic::UNIT
            }
            Op::Join => {
                if !self.items.is_done() {
                    self.joiners.push(turn.ticket);
                    return Ok(Outcome::Wait(Deadline::NEVER));
                }
                Dynamic::UNIT
            }
            Op::QSize => length(self.items.qsize()),
            Op::Empty => self.items.empty().into(),
            Op::Full => self.items.full().into(),
            _ => return Err(unsupported(op)),
        };
        Ok(Outcome::Value(value))
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        let getters = self.getters.len();
        self.getters.retain(|getter| *getter != ticket);
        let was_getter = self.getters.len() < getters;
        self.putters.retain(|(putter, _)| *putter != ticket);
        self.joiners.retain(|joiner| *joiner != ticket);
        let timeout = || Verdict::Thrown(if was_getter { empty() } else { full() });
        if let Some(verdict) = why.verdict(timeout) {
            turn.answer(ticket, verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::queue::Discipline;

    fn item(value: i64) -> Vec<Dynamic> {
        vec![value.into()]
    }

    #[test]
    fn items_go_to_who_waits_and_room_to_who_has_one() {
        let mut bench = Bench::new(Queue::of(LocalQueue::new(Discipline::Fifo, 1)));
        assert_eq!(bench.says(1, Op::Get, vec![]), "waits");
        assert_eq!(bench.says(2, Op::Get, vec![]), "waits");
        bench.expire(1, Why::Gone);
        assert_eq!(bench.says(3, Op::Put, item(10)), "");
        assert_eq!(bench.answers(), ["2: 10"]);
        assert_eq!(bench.says(3, Op::Put, item(11)), "");
        assert_eq!(
            bench.says(3, Op::Put, vec![12_i64.into(), false.into()]),
            "Full"
        );
        assert_eq!(bench.says(3, Op::Put, item(12)), "waits");
        assert_eq!(bench.says(4, Op::Put, item(13)), "waits");
        assert_eq!(bench.says(1, Op::Get, vec![]), "11");
        assert_eq!(bench.answers(), ["3: "]);
        bench.expire(4, Why::Timeout);
        assert_eq!(bench.answers(), ["4: Full"]);
        assert_eq!(bench.says(1, Op::Get, vec![]), "12");
        assert_eq!(bench.says(1, Op::Get, vec![false.into()]), "Empty");
        assert_eq!(bench.says(1, Op::Get, vec![]), "waits");
        bench.expire(1, Why::Timeout);
        assert_eq!(bench.answers(), ["1: Empty"]);
    }

    #[test]
    fn join_waits_for_every_task() {
        let mut bench = Bench::new(Queue::of(LocalQueue::new(Discipline::Fifo, 0)));
        assert_eq!(bench.says(1, Op::Join, vec![]), "");
        for value in [1, 2] {
            assert_eq!(bench.says(1, Op::Put, item(value)), "");
            assert_eq!(bench.says(2, Op::Get, vec![]), value.to_string());
        }
        assert_eq!(bench.says(1, Op::Join, vec![]), "waits");
        assert_eq!(bench.says(2, Op::TaskDone, vec![]), "");
        assert!(bench.answers().is_empty());
        assert_eq!(bench.says(2, Op::TaskDone, vec![]), "");
        assert_eq!(bench.answers(), ["1: "]);
        assert_eq!(
            bench.says(2, Op::TaskDone, vec![]),
            "ValueError: task_done() called too many times"
        );
    }
}
