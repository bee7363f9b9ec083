//! Managed locks: Lock, RLock, and what a managed condition needs of them.
//!
//! The rules are those of Python's `threading`: anybody may release a Lock, only its owner an RLock; the owner is a client (a
//! process). Who waits is served in the order of coming. Unlike Python's, a lock whose holder is dead is an error for whoever wants it,
//! until somebody makes it free ([`Grip`]).
//!
//! Source: CPython's Library Reference, threading, Lock Objects and RLock Objects.

use super::{Args, Object, Outcome, Ticket, Turn, Verdict, Why, seconds, truth, unsupported};
use crate::error::{Kind, Result, raise};
use crate::managers::protocol::Op;
use crate::managers::server::{ClientId, Grip};
use mphost_core::clock::Deadline;
use rhai::Dynamic;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// A lock that a condition may share.
pub(in super::super) type SharedLock = Rc<RefCell<LockState>>;

/// An operation that gets the lock when it is free.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: Ticket,
    /// What its client has then.
    pub(super) grip: Grip,
    /// How often it holds the lock then.
    pub(super) count: u64,
    /// What it is answered then.
    pub(super) then: Verdict,
    /// Whether it comes from a condition's `wait`: then it must have the lock, whatever else it is told.
    pub(super) waking: bool,
}

/// The state of a lock.
#[derive(Debug)]
pub(in super::super) struct LockState {
    recursive: bool,
    /// Who holds it, and how often; `None`: it is free.
    held: Option<(Grip, u64)>,
    waiters: VecDeque<Waiter>,
}

impl LockState {
    pub(super) fn new(recursive: bool) -> SharedLock {
        Rc::new(RefCell::new(LockState {
            recursive,
            held: None,
            waiters: VecDeque::new(),
        }))
    }

    /// Takes the lock if that goes at once.
    fn try_acquire(&mut self, client: ClientId, grip: &Grip) -> bool {
        match &mut self.held {
            None => self.held = Some((grip.clone(), 1)),
            Some((owner, count)) if self.recursive && owner.is_of(client) => *count += 1,
            Some(_) => return false,
        }
        true
    }

    /// Whether `client` may do what only a holder may. A Lock doesn't know its holder: that it is held is enough, as in Python.
    pub(super) fn is_owned(&self, client: ClientId) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|(owner, _)| !self.recursive || owner.is_of(client))
    }

    /// Whether it is held by one who is dead, and whom nobody else can do that for.
    fn is_lost(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|(owner, _)| owner.is_dead(self.recursive))
    }

    fn release(&mut self, client: ClientId, turn: &mut Turn<'_>) -> Result<()> {
        if self.recursive && !self.is_owned(client) && !self.is_lost() {
            return Err(raise(Kind::RuntimeError, "cannot release un-acquired lock"));
        }
        match &mut self.held {
            None => return Err(raise(Kind::RuntimeError, "release unlocked lock")),
            Some((owner, count)) if *count > 1 && owner.is_of(client) => *count -= 1,
            Some(_) => self.free(turn),
        }
        Ok(())
    }

    /// Makes the lock free if its holder is dead: whether that was so.
    fn recover(&mut self, turn: &mut Turn<'_>) -> bool {
        let lost = self.is_lost();
        if lost {
            self.free(turn);
        }
        lost
    }

    /// Gives the lock up altogether: who held it, and how often.
    pub(super) fn release_all(&mut self, turn: &mut Turn<'_>) -> Option<(Grip, u64)> {
        let held = self.held.take();
        self.pass_on(turn);
        held
    }

    fn free(&mut self, turn: &mut Turn<'_>) {
        self.held = None;
        self.pass_on(turn);
    }

    /// Gives a free lock to the first who waits; one that will never be free is an error for all of them.
    pub(super) fn pass_on(&mut self, turn: &mut Turn<'_>) {
        match &self.held {
            None => {
                if let Some(waiter) = self.waiters.pop_front() {
                    self.held = Some((waiter.grip, waiter.count));
                    turn.answer(waiter.ticket, waiter.then);
                }
            }
            Some((owner, _)) => {
                let mut left = std::mem::take(&mut self.waiters);
                left.retain(|waiter| match owner.check(self.recursive) {
                    Ok(()) => true,
                    Err(error) => {
                        // One that doesn't want to wait any more has an error of its own.
                        let verdict = match waiter.then {
                            Verdict::Cancelled => Verdict::Cancelled,
                            _ => Verdict::Thrown(error),
                        };
                        turn.answer(waiter.ticket, verdict);
                        false
                    }
                });
                self.waiters = left;
            }
        }
    }

    /// Answers `waiter` as soon as it has the lock: perhaps now.
    pub(super) fn give_to(&mut self, waiter: Waiter, turn: &mut Turn<'_>) {
        self.waiters.push_back(waiter);
        self.pass_on(turn);
    }

    /// Strikes a waiter out.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let at = self
            .waiters
            .iter()
            .position(|waiter| waiter.ticket == ticket)?;
        self.waiters.remove(at)
    }

    /// `acquire(blocking, timeout)`, whose arguments are checked as `threading` does.
    pub(super) fn acquire(&mut self, args: &Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let blocking = truth(args, 0, true);
        // -1 stands for none, as in Python.
        let timeout = seconds(args, 1).filter(|timeout| *timeout != -1.0);
        if let Some(timeout) = timeout {
            if !blocking {
                return Err(raise(
                    Kind::ValueError,
                    "can't specify a timeout for a non-blocking call",
                ));
            }
            if timeout < 0.0 || timeout.is_nan() {
                return Err(raise(
                    Kind::ValueError,
                    "timeout value must be a non-negative number",
                ));
            }
        }
        let grip = turn.grip(args);
        if self.try_acquire(turn.client, &grip) {
            return Ok(Outcome::Value(true.into()));
        }
        if let Some((owner, _)) = &self.held {
            owner.check(self.recursive)?;
        }
        if !blocking {
            return Ok(Outcome::Value(false.into()));
        }
        self.waiters.push_back(Waiter {
            ticket: turn.ticket,
            grip,
            count: 1,
            then: Verdict::Done(true.into()),
            waking: false,
        });
        Ok(Outcome::Wait(Deadline::from_timeout(true, timeout)))
    }

    /// The operations that a lock and a condition have in common.
    pub(super) fn call(&mut self, op: Op, args: &Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        match op {
            Op::Acquire => self.acquire(args, turn),
            Op::Release => self
                .release(turn.client, turn)
                .map(|()| Outcome::Value(Dynamic::UNIT)),
            Op::Recover => Ok(Outcome::Value(self.recover(turn).into())),
            Op::Locked => Ok(Outcome::Value(self.held.is_some().into())),
            _ => Err(unsupported(op)),
        }
    }

    /// Ends the wait of an `acquire`. One that wakes from a condition has no limit any more; it gets the lock, and then its answer.
    pub(super) fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        let waking = self
            .waiters
            .iter_mut()
            .find(|waiter| waiter.ticket == ticket && waiter.waking);
        if let Some(waiter) = waking
            && why != Why::Gone
        {
            if why == Why::Cancelled {
                waiter.then = Verdict::Cancelled;
            }
            return;
        }
        if self.remove(ticket).is_some()
            && let Some(verdict) = why.verdict(|| Verdict::Done(false.into()))
        {
            turn.answer(ticket, verdict);
        }
    }
}

/// A managed Lock or RLock.
pub(super) struct Lock {
    state: SharedLock,
}

impl Lock {
    pub(super) fn new(recursive: bool) -> Lock {
        Lock {
            state: LockState::new(recursive),
        }
    }
}

impl Object for Lock {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        self.state.borrow_mut().call(op, &args, turn)
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        self.state.borrow_mut().expire(ticket, why, turn);
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        self.state.borrow_mut().pass_on(turn);
    }

    fn lock(&self) -> Option<SharedLock> {
        Some(self.state.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn no() -> Vec<Dynamic> {
        vec![]
    }

    #[test]
    fn a_lock_goes_to_who_came_first() {
        let mut bench = Bench::new(Lock::new(false));
        assert_eq!(bench.says(1, Op::Acquire, no()), "true");
        assert_eq!(bench.says(2, Op::Acquire, vec![false.into()]), "false");
        assert_eq!(bench.says(2, Op::Acquire, no()), "waits");
        assert_eq!(bench.says(3, Op::Acquire, no()), "waits");
        assert_eq!(bench.says(4, Op::Acquire, no()), "waits");
        bench.expire(3, Why::Gone);
        // Anybody may release a Lock.
        assert_eq!(bench.says(9, Op::Release, no()), "");
        assert_eq!(bench.answers(), ["2: true"]);
        bench.expire(4, Why::Timeout);
        assert_eq!(bench.answers(), ["4: false"]);
        assert_eq!(bench.says(2, Op::Release, no()), "");
        assert_eq!(bench.says(2, Op::Locked, no()), "false");
        assert_eq!(
            bench.says(2, Op::Release, no()),
            "RuntimeError: release unlocked lock"
        );
        assert!(bench.answers().is_empty());
    }

    #[test]
    fn a_recursive_lock_is_its_owners() {
        let mut bench = Bench::new(Lock::new(true));
        assert_eq!(bench.says(1, Op::Acquire, no()), "true");
        assert_eq!(bench.says(1, Op::Acquire, no()), "true");
        assert_eq!(bench.says(2, Op::Acquire, no()), "waits");
        assert_eq!(
            bench.says(3, Op::Release, no()),
            "RuntimeError: cannot release un-acquired lock"
        );
        assert_eq!(bench.says(1, Op::Release, no()), "");
        assert!(bench.answers().is_empty());
        assert_eq!(bench.says(1, Op::Release, no()), "");
        assert_eq!(bench.answers(), ["2: true"]);
    }

    const DEAD: &str = "OwnerDiedError: the process that held this died while holding it (pid 101); release() or recover() makes it free";
    const GONE: &str = "OwnerDiedError: the process that held this ended without giving it back (pid 101, exit code 0); release() or recover() makes it free";

    #[test]
    fn a_dead_holder_is_an_error_for_all_until_somebody_makes_it_free() {
        for recursive in [false, true] {
            for op in [Op::Release, Op::Recover] {
                let mut bench = Bench::new(Lock::new(recursive));
                assert_eq!(bench.says(2, Op::Recover, no()), "false");
                for _ in 0..if recursive { 2 } else { 1 } {
                    assert_eq!(bench.says(1, Op::Acquire, no()), "true");
                }
                assert_eq!(bench.says(2, Op::Acquire, no()), "waits");
                assert_eq!(bench.says(3, Op::Acquire, no()), "waits");
                bench.ends(1, false);
                assert_eq!(
                    bench.answers(),
                    [format!("2: {DEAD}"), format!("3: {DEAD}")]
                );
                assert_eq!(bench.says(2, Op::Acquire, no()), DEAD);
                assert_eq!(bench.says(2, Op::Acquire, vec![false.into()]), DEAD);
                assert_eq!(bench.says(2, Op::Locked, no()), "true");
                bench.says(2, op, no());
                assert_eq!(bench.says(2, Op::Locked, no()), "false");
                assert_eq!(bench.says(3, Op::Acquire, no()), "true");
                assert!(bench.answers().is_empty());
            }
        }
    }

    #[test]
    fn who_ended_well_keeps_a_lock_that_others_may_release() {
        let mut bench = Bench::new(Lock::new(false));
        assert_eq!(bench.says(1, Op::Acquire, no()), "true");
        assert_eq!(bench.says(2, Op::Acquire, no()), "waits");
        bench.ends(1, true);
        assert!(bench.answers().is_empty());
        assert_eq!(bench.says(3, Op::Recover, no()), "false");
        assert_eq!(bench.says(3, Op::Release, no()), "");
        assert_eq!(bench.answers(), ["2: true"]);
        // Nobody else could give this one back.
        let mut bench = Bench::new(Lock::new(true));
        assert_eq!(bench.says(1, Op::Acquire, no()), "true");
        assert_eq!(bench.says(2, Op::Acquire, no()), "waits");
        bench.ends(1, true);
        assert_eq!(bench.answers(), [format!("2: {GONE}")]);
        assert_eq!(bench.says(3, Op::Recover, no()), "true");
        assert_eq!(bench.says(3, Op::Acquire, no()), "true");
    }

    #[test]
    fn time_limits_are_checked_as_in_threading() {
        let mut bench = Bench::new(Lock::new(false));
        let with = |block: bool, timeout: f64| vec![Dynamic::from(block), Dynamic::from(timeout)];
        assert!(
            bench
                .says(1, Op::Acquire, with(true, -2.0))
                .starts_with("ValueError")
        );
        assert!(
            bench
                .says(1, Op::Acquire, with(false, 1.0))
                .starts_with("ValueError")
        );
        assert_eq!(bench.says(1, Op::Acquire, with(true, -1.0)), "true");
    }
}
