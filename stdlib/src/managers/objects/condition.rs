//! A managed condition: waiting, under a lock, until somebody says that something has changed.
//!
//! Whoever waits gives the lock up, and gets the answer when it has the lock again: after a notification, at the deadline, and when its
//! client was interrupted too.
//!
//! Source: CPython's Library Reference, threading, Condition Objects.

use super::lock::{LockState, SharedLock, Waiter};
use super::{Args, Object, Outcome, Ticket, Turn, Verdict, Why, int, seconds};
use crate::error::{Kind, Result, raise};
use crate::managers::protocol::Op;
use crate::managers::proxy::Proxy;
use crate::managers::server::{Grip, Server};
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::collections::VecDeque;
use std::rc::Rc;

/// A client that waits, and how often it held the lock.
struct Sleeper {
    ticket: Ticket,
    grip: Grip,
    count: u64,
}

/// See the module.
pub(super) struct Condition {
    lock: SharedLock,
    sleepers: VecDeque<Sleeper>,
}

impl Condition {
    /// A condition with the lock behind a proxy of this server, or an RLock of its own.
    pub(super) fn new(server: &Rc<Server>, lock: &Dynamic) -> Result<Condition> {
        let lock = if lock.is_unit() {
            LockState::new(true)
        } else {
            let proxy = Proxy::of(lock).filter(|proxy| proxy.is_in(server));
            let object = proxy.map(|proxy| server.object(proxy.id())).transpose()?;
            object
                .and_then(|object| object.borrow().lock())
                .ok_or_else(|| {
                    raise(
                        Kind::TypeError,
                        "Condition(): 'lock' must be a Lock or RLock of the same manager",
                    )
                })?
        };
        Ok(Condition {
            lock,
            sleepers: VecDeque::new(),
        })
    }

    fn notify(&mut self, most: usize, turn: &mut Turn<'_>) {
        let most = most.min(self.sleepers.len());
        for sleeper in self.sleepers.drain(..most) {
            wake(&self.lock, sleeper, Verdict::Done(true.into()), turn);
        }
    }
}

/// Lets a sleeper have its lock again, and then its answer.
fn wake(lock: &SharedLock, sleeper: Sleeper, then: Verdict, turn: &mut Turn<'_>) {
    let Sleeper {
        ticket,
        grip,
        count,
    } = sleeper;
    lock.borrow_mut().give_to(
        Waiter {
            ticket,
            grip,
            count,
            then,
            waking: true,
        },
        turn,
    );
}

impl Object for Condition {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let owned = |what: &str| {
            if self.lock.borrow().is_owned(turn.client) {
                Ok(())
            } else {
                Err(raise(
                    Kind::RuntimeError,
                    format!("cannot {what} on un-acquired lock"),
                ))
            }
        };
        match op {
            Op::Wait => {
                owned("wait")?;
                let timeout = seconds(&args, 0);
                let mine = turn.grip(&Args::new());
                let held = self.lock.borrow_mut().release_all(turn);
                let (grip, count) = match held {
                    Some((held, count)) => (mine.since(&held), count),
                    None => (mine, 1),
                };
                self.sleepers.push_back(Sleeper {
                    ticket: turn.ticket,
                    grip,
                    count,
                });
                Ok(Outcome::Wait(Deadline::from_timeout(true, timeout)))
            }
            Op::Notify => {
                owned("notify")?;
                self.notify(
                    usize::try_from(int(&args, 0).unwrap_or(1)).unwrap_or(0),
                    turn,
                );
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            Op::NotifyAll => {
                owned("notify")?;
                self.notify(usize::MAX, turn);
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            _ => self.lock.borrow_mut().call(op, &args, turn),
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        if let Some(at) = self
            .sleepers
            .iter()
            .position(|sleeper| sleeper.ticket == ticket)
        {
            let Some(sleeper) = self.sleepers.remove(at) else {
                return;
            };
            if let Some(verdict) = why.verdict(|| Verdict::Done(false.into())) {
                wake(&self.lock, sleeper, verdict, turn);
            }
            return;
        }
        self.lock.borrow_mut().expire(ticket, why, turn);
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        self.lock.borrow_mut().pass_on(turn);
    }

    fn lock(&self) -> Option<SharedLock> {
        Some(self.lock.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn bench() -> Bench<Condition> {
        Bench::new(Condition {
            lock: LockState::new(true),
            sleepers: VecDeque::new(),
        })
    }

    #[test]
    fn who_waits_gets_the_lock_again_before_the_answer() {
        let mut bench = bench();
        assert_eq!(
            bench.says(1, Op::Wait, vec![]),
            "RuntimeError: cannot wait on un-acquired lock"
        );
        for _ in 0..2 {
            assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
        }
        assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
        // However often it was held, it is free now.
        assert_eq!(bench.says(2, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(2, Op::Notify, vec![]), "");
        assert!(bench.answers().is_empty());
        assert_eq!(bench.says(2, Op::Release, vec![]), "");
        assert_eq!(bench.answers(), ["1: true"]);
        for _ in 0..2 {
            assert_eq!(bench.says(1, Op::Release, vec![]), "");
        }
        assert_eq!(bench.says(1, Op::Locked, vec![]), "false");
    }

    #[test]
    fn a_wait_that_ends_early_takes_the_lock_too() {
        for (why, answer) in [(Why::Timeout, "1: false"), (Why::Cancelled, "1: cancelled")] {
            let mut bench = bench();
            assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
            assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
            assert_eq!(bench.says(2, Op::Acquire, vec![]), "true");
            bench.expire(1, why);
            assert!(bench.answers().is_empty());
            assert_eq!(bench.says(2, Op::Release, vec![]), "");
            assert_eq!(bench.answers(), [answer]);
            assert_eq!(bench.says(2, Op::Acquire, vec![false.into()]), "false");
        }
    }

    #[test]
    fn one_who_is_gone_gets_neither_lock_nor_notification() {
        let mut bench = bench();
        for client in [1, 2] {
            assert_eq!(bench.says(client, Op::Acquire, vec![]), "true");
            assert_eq!(bench.says(client, Op::Wait, vec![]), "waits");
        }
        bench.expire(1, Why::Gone);
        assert_eq!(bench.says(3, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(3, Op::Notify, vec![]), "");
        // On the way to its lock, too.
        bench.expire(2, Why::Gone);
        assert_eq!(bench.says(3, Op::Release, vec![]), "");
        assert!(bench.answers().is_empty());
        assert_eq!(bench.says(3, Op::Locked, vec![]), "false");
    }

    #[test]
    fn who_wakes_for_a_dead_ones_lock_is_told() {
        let mut bench = bench();
        assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
        assert_eq!(bench.says(2, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(2, Op::Notify, vec![]), "");
        bench.ends(2, false);
        let answers = bench.answers();
        assert!(answers[0].starts_with("1: OwnerDiedError: "), "{answers:?}");
        assert_eq!(bench.says(1, Op::Recover, vec![]), "true");
        // One whose wait ends afterwards finds it the same way.
        assert_eq!(bench.says(1, Op::Acquire, vec![]), "true");
        assert_eq!(bench.says(1, Op::Wait, vec![]), "waits");
        assert_eq!(bench.says(3, Op::Acquire, vec![]), "true");
        bench.ends(3, false);
        assert!(bench.answers().is_empty());
        bench.expire(1, Why::Timeout);
        let answers = bench.answers();
        assert!(answers[0].starts_with("1: OwnerDiedError: "), "{answers:?}");
    }
}
