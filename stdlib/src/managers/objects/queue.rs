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
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::collections::VecDeque;

/// See the module.
pub(super) struct Queue {
    /// The most items; none: no bound.
    most: Option<usize>,
    items: VecDeque<Dynamic>,
    unfinished: u64,
    getters: VecDeque<Ticket>,
    putters: VecDeque<(Ticket, Dynamic)>,
    joiners: Vec<Ticket>,
}

impl Queue {
    /// A queue of at most `maxsize` items; 0 or less is no bound.
    pub(super) fn new(maxsize: i64) -> Queue {
        Queue {
            most: usize::try_from(maxsize).ok().filter(|most| *most > 0),
            items: VecDeque::new(),
            unfinished: 0,
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            joiners: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.items.len() >= most)
    }

    /// Takes an item in, or hands it to who waits for one.
    fn push(&mut self, item: Dynamic, turn: &mut Turn<'_>) {
        self.unfinished += 1;
        match self.getters.pop_front() {
            Some(getter) => turn.answer(getter, Verdict::Done(item)),
            None => self.items.push_back(item),
        }
    }

    fn pop(&mut self, turn: &mut Turn<'_>) -> Option<Dynamic> {
        let item = self.items.pop_front()?;
        if let Some((putter, waiting)) = self.putters.pop_front() {
            self.push(waiting, turn);
            turn.answer(putter, Verdict::Done(Dynamic::UNIT));
        }
        Some(item)
    }

    fn task_done(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        let left = self.unfinished.checked_sub(1);
        self.unfinished =
            left.ok_or_else(|| raise(Kind::ValueError, "task_done() called too many times"))?;
        if self.unfinished == 0 {
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
                if self.is_full() {
                    let deadline = patience(&args, 1)?.ok_or_else(full)?;
                    self.putters.push_back((turn.ticket, take(&mut args, 0)));
                    return Ok(Outcome::Wait(deadline));
                }
                self.push(take(&mut args, 0), turn);
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
                if self.unfinished > 0 {
                    self.joiners.push(turn.ticket);
                    return Ok(Outcome::Wait(Deadline::NEVER));
                }
                Dynamic::UNIT
            }
            Op::QSize => length(self.items.len()),
            Op::Empty => self.items.is_empty().into(),
            Op::Full => self.is_full().into(),
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

    fn item(value: i64) -> Vec<Dynamic> {
        vec![value.into()]
    }

    #[test]
    fn items_go_to_who_waits_and_room_to_who_has_one() {
        let mut bench = Bench::new(Queue::new(1));
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
        let mut bench = Bench::new(Queue::new(0));
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
