//! Conditions and barriers between processes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::CoreError;
use mphost_core::barrier::Barrier;
use mphost_core::clock::Deadline;
use mphost_core::condition::{AnyLock, Condition};
use mphost_core::permit::{Lock, RLock};
use mphost_core::session::session;
use mphost_core::shared::Block;
use mphost_core::table::SlotId;
use mphost_core::wait;
use std::sync::atomic::Ordering::SeqCst;

fn locks() -> [AnyLock; 2] {
    [
        AnyLock::Lock(Lock::create(P).unwrap()),
        AnyLock::RLock(RLock::create(P).unwrap()),
    ]
}

/// A process that waits for one notification and counts it.
fn waiter(condition: &Condition, lock: &AnyLock, woken: &Block) -> SlotId {
    let child = start("waiter", || {
        lock.acquire(long(), P).unwrap();
        assert!(condition.wait(lock, Deadline::NEVER, P).unwrap());
        assert!(lock.is_mine().unwrap());
        woken.atomic(0).unwrap().fetch_add(1, SeqCst);
        lock.release().unwrap();
    });
    until_waiting_on(child, wait::WaitKind::Condition);
    child
}

fn until_waiting_on(child: SlotId, kind: wait::WaitKind) {
    let deadline = long();
    while mphost_core::table::info(child).is_none_or(|i| i.waiting.is_none_or(|w| w.kind != kind)) {
        assert!(!deadline.has_passed(), "it never waits");
        std::thread::yield_now();
    }
}

fn until(block: &Block, value: u64) {
    let deadline = long();
    while block.atomic(0).unwrap().load(SeqCst) != value {
        assert!(!deadline.has_passed(), "{value} is never reached");
        std::thread::yield_now();
    }
}

fn notify(condition: &Condition, lock: &AnyLock, n: usize) {
    lock.acquire(long(), P).unwrap();
    condition.notify(n).unwrap();
    lock.release().unwrap();
}

#[test]
fn notify_wakes_exactly_n() {
    in_session(|| {
        for lock in locks() {
            let condition = Condition::create(P).unwrap();
            let woken = Block::create(8, P).unwrap();
            notify(&condition, &lock, 5);
            let waiters: Vec<_> = (0..5).map(|_| waiter(&condition, &lock, &woken)).collect();
            notify(&condition, &lock, 0);
            notify(&condition, &lock, 2);
            until(&woken, 2);
            // The longest waiting went first; the others still wait.
            finish_well(waiters[0]);
            finish_well(waiters[1]);
            notify(&condition, &lock, 1);
            until(&woken, 3);
            notify(&condition, &lock, usize::MAX);
            waiters[2..].iter().for_each(|w| finish_well(*w));
            assert_eq!(woken.get::<u64>(0).unwrap(), 5);
        }
    });
}

#[test]
fn a_wait_gives_the_lock_up_and_times_out() {
    in_session(|| {
        let lock = RLock::create(P).unwrap();
        let any = AnyLock::RLock(lock.clone());
        let condition = Condition::create(P).unwrap();
        assert!(matches!(
            condition.wait(&any, Deadline::NOW, P),
            Err(CoreError::Assertion(_))
        ));
        lock.acquire(long(), P).unwrap();
        lock.acquire(long(), P).unwrap();
        assert!(!condition.wait(&any, secs(0.02), P).unwrap());
        assert_eq!(lock.count().unwrap(), 2);
        let child = start("notifier", || {
            lock.acquire(long(), P).unwrap();
            condition.notify(1).unwrap();
            lock.release().unwrap();
        });
        assert!(condition.wait(&any, long(), P).unwrap());
        assert_eq!(lock.count().unwrap(), 2);
        finish_well(child);
    });
}

#[test]
fn the_dead_swallow_no_notification() {
    in_session(|| {
        for lock in locks() {
            let condition = Condition::create(P).unwrap();
            let woken = Block::create(8, P).unwrap();
            let waiters: Vec<_> = (0..4).map(|_| waiter(&condition, &lock, &woken)).collect();
            // Dead before the notification …
            kill(waiters[0]);
            finish(waiters[0]);
            notify(&condition, &lock, 1);
            finish_well(waiters[1]);
            assert_eq!(woken.get::<u64>(0).unwrap(), 1);
            // … and between it and going on: stopped, it can't.
            let pid = nix::unistd::Pid::from_raw(mphost_core::table::pid(waiters[2]).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
            notify(&condition, &lock, 1);
            kill(waiters[2]);
            finish_well(waiters[3]);
            finish(waiters[2]);
            assert_eq!(woken.get::<u64>(0).unwrap(), 2);
        }
    });
}

#[test]
fn one_killed_on_its_way_back_to_the_lock_hands_its_notification_on() {
    in_session(|| {
        for lock in locks() {
            let condition = Condition::create(P).unwrap();
            let woken = Block::create(8, P).unwrap();
            let first = waiter(&condition, &lock, &woken);
            let second = waiter(&condition, &lock, &woken);
            lock.acquire(long(), P).unwrap();
            condition.notify(1).unwrap();
            let kind = match lock {
                AnyLock::Lock(_) => wait::WaitKind::Lock,
                AnyLock::RLock(_) => wait::WaitKind::RLock,
            };
            until_waiting_on(first, kind);
            kill(first);
            assert_eq!(finish(first).code(), -9);
            lock.release().unwrap();
            until(&woken, 1);
            finish_well(second);
        }
    });
}

#[test]
fn a_barrier_lets_all_go_with_numbers_of_their_own() {
    in_session(|| {
        const ROUNDS: usize = 200;
        let barrier = Barrier::create(3, P).unwrap();
        let block = Block::create(8 * (ROUNDS + 1), P).unwrap();
        let parties: Vec<_> = (0..3)
            .map(|_| {
                start("party", || {
                    for round in 0..ROUNDS {
                        let actions = || {
                            block.atomic(0).unwrap().fetch_add(1, SeqCst);
                            Ok(())
                        };
                        let number = barrier.wait(long(), P, actions).unwrap();
                        assert_eq!(block.get::<u64>(0).unwrap() as usize / (round + 1), 1);
                        let bit = 1 << number;
                        let before = block.atomic(8 * (round + 1)).unwrap().fetch_or(bit, SeqCst);
                        assert_eq!(before & bit, 0, "a number twice");
                    }
                })
            })
            .collect();
        parties.into_iter().for_each(finish_well);
        assert_eq!(block.get::<u64>(0).unwrap(), ROUNDS as u64);
        for round in 0..ROUNDS {
            assert_eq!(block.get::<u64>(8 * (round + 1)).unwrap(), 7);
        }
        assert!(!barrier.broken().unwrap());
    });
}

fn ok() -> mphost_core::Result<()> {
    Ok(())
}

#[test]
fn a_barrier_breaks_and_is_reset() {
    in_session(|| {
        assert!(matches!(Barrier::create(0, P), Err(CoreError::Value(_))));
        let barrier = Barrier::create(2, P).unwrap();
        assert_eq!(barrier.parties().unwrap(), 2);
        let broken = |how: &dyn Fn()| {
            let child = start("party", || {
                assert_eq!(barrier.wait(long(), P, ok), Err(CoreError::BrokenBarrier));
            });
            until_waiting(child);
            assert_eq!(barrier.n_waiting().unwrap(), 1);
            how();
            finish_well(child);
            assert_eq!(barrier.n_waiting().unwrap(), 0);
        };
        // A time-out; an abort; a reset; an action that fails.
        assert_eq!(
            barrier.wait(secs(0.02), P, ok),
            Err(CoreError::BrokenBarrier)
        );
        assert!(barrier.broken().unwrap());
        assert_eq!(barrier.wait(long(), P, ok), Err(CoreError::BrokenBarrier));
        barrier.reset().unwrap();
        broken(&|| barrier.abort().unwrap());
        assert!(barrier.broken().unwrap());
        barrier.reset().unwrap();
        broken(&|| barrier.reset().unwrap());
        assert!(!barrier.broken().unwrap());
        broken(&|| {
            let failed = barrier.wait(long(), P, || Err(CoreError::Runtime("x".into())));
            assert_eq!(failed, Err(CoreError::Runtime("x".into())));
        });
        assert!(barrier.broken().unwrap());
        barrier.reset().unwrap();
        // A runner that dies.
        broken(&|| {
            let runner = start("runner", || {
                let _ = barrier.wait(long(), P, || exit_at_once(4));
            });
            assert_eq!(finish(runner).code(), 4);
        });
        barrier.reset().unwrap();
        let child = start("party", || assert_eq!(barrier.wait(long(), P, ok), Ok(0)));
        until_waiting(child);
        assert_eq!(barrier.wait(long(), P, ok), Ok(1));
        finish_well(child);
    });
}

#[test]
fn a_killed_party_is_replaced() {
    in_session(|| {
        let before = session().usage().unwrap();
        let barrier = Barrier::create(3, P).unwrap();
        let victim = start("victim", || {
            let _ = barrier.wait(long(), P, ok);
        });
        until_waiting(victim);
        let first = start("first", || assert_eq!(barrier.wait(long(), P, ok), Ok(1)));
        until_waiting(first);
        kill(victim);
        finish(victim);
        assert_eq!(barrier.n_waiting().unwrap(), 1);
        let second = start("second", || assert_eq!(barrier.wait(long(), P, ok), Ok(0)));
        until_waiting(second);
        assert_eq!(barrier.wait(long(), P, ok), Ok(2));
        finish_well(first);
        finish_well(second);
        drop(barrier);
        assert_eq!(session().usage().unwrap(), before);
    });
}
