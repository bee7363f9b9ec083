//! Locks, semaphores and events between processes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::CoreError;
use mphost_core::clock::Deadline;
use mphost_core::event::Event;
use mphost_core::permit::{BoundedSemaphore, Lock, RLock, Semaphore};
use mphost_core::position::Position;
use mphost_core::session::session;
use mphost_core::shared::Block;
use mphost_core::{table, wait};
use std::time::Duration;

#[test]
fn a_lock_excludes() {
    in_session(|| {
        let lock = Lock::create(P).unwrap();
        let block = Block::create(8, P).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                start("worker", || {
                    for _ in 0..2000 {
                        assert!(lock.acquire(long(), P).unwrap());
                        let n = block.get::<u64>(0).unwrap();
                        block.set(0, n + 1).unwrap();
                        lock.release().unwrap();
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(finish_well);
        assert_eq!(block.get::<u64>(0).unwrap(), 8000);
        assert!(!lock.locked().unwrap());
    });
}

#[test]
fn the_rules_of_release() {
    in_session(|| {
        let lock = Lock::create(P).unwrap();
        assert!(matches!(lock.release(), Err(CoreError::Value(_))));
        assert!(lock.acquire(Deadline::NOW, Position::new(0, 5, 1)).unwrap());
        let owner = lock.owner().unwrap().unwrap();
        assert!(owner.mine && owner.acquired_at.line() == 5 && owner.name == "MainProcess");
        assert!(!lock.acquire(Deadline::NOW, P).unwrap());
        assert!(!lock.acquire(secs(0.02), P).unwrap());
        // Another process may release a Lock …
        finish_well(start("other", || lock.release().unwrap()));
        assert!(!lock.locked().unwrap());

        let rlock = RLock::create(P).unwrap();
        assert!(matches!(rlock.release(), Err(CoreError::Assertion(_))));
        for n in 1..=3 {
            assert!(rlock.acquire(Deadline::NOW, P).unwrap());
            assert_eq!(rlock.count().unwrap(), n);
        }
        // … but not an RLock.
        finish_well(start("other", || {
            assert!(matches!(rlock.release(), Err(CoreError::Assertion(_))));
            assert!(!rlock.acquire(Deadline::NOW, P).unwrap());
        }));
        assert_eq!(rlock.release_all().unwrap(), 3);
        finish_well(start("other", || {
            assert!(rlock.acquire(Deadline::NOW, P).unwrap());
            rlock.release().unwrap();
        }));
        rlock.restore(3, P).unwrap();
        (0..3).for_each(|_| rlock.release().unwrap());
        assert!(matches!(rlock.release(), Err(CoreError::Assertion(_))));

        for n in [1, 3, 100] {
            let bounded = BoundedSemaphore::create(n, P).unwrap();
            assert!(matches!(bounded.release(), Err(CoreError::Value(_))));
            for left in (0..n as u64).rev() {
                assert!(bounded.acquire(Deadline::NOW, P).unwrap());
                assert_eq!(bounded.get_value().unwrap(), left);
            }
            assert!(!bounded.acquire(Deadline::NOW, P).unwrap());
            for _ in 0..n {
                finish_well(start("other", || bounded.release().unwrap()));
            }
            assert!(matches!(bounded.release(), Err(CoreError::Value(_))));
        }
        let semaphore = Semaphore::create(0, P).unwrap();
        assert!(!semaphore.acquire(Deadline::NOW, P).unwrap());
        semaphore.release().unwrap();
        semaphore.release().unwrap();
        assert_eq!(semaphore.get_value().unwrap(), 2);
        assert!(semaphore.acquire(Deadline::NOW, P).unwrap());
        assert!(matches!(Semaphore::create(-1, P), Err(CoreError::Value(_))));
        assert!(matches!(
            BoundedSemaphore::create(-1, P),
            Err(CoreError::Value(_))
        ));
        assert!(matches!(
            Lock::from_ref(semaphore.obj().clone()),
            Err(CoreError::Type(_))
        ));
    });
}

fn dies_holding(code: Option<i32>, acquire: impl Fn()) -> table::SlotId {
    let child = start("holder", || {
        acquire();
        match code {
            Some(code) => exit_at_once(code),
            None => wait::sleep(LONG, P).unwrap(),
        }
    });
    if code.is_none() {
        until_waiting(child);
        kill(child);
    }
    assert!(table::join(child, long(), P).unwrap());
    child
}

#[test]
fn a_dead_holder_is_an_error_until_somebody_recovers() {
    in_session(|| {
        let at = Position::new(0, 77, 5);
        for code in [None, Some(3)] {
            for release_first in [false, true] {
                let lock = Lock::create(P).unwrap();
                let child = dies_holding(code, || assert!(lock.acquire(long(), at).unwrap()));
                let pid = table::pid(child).unwrap();
                let expected = CoreError::OwnerDied {
                    pid,
                    exitcode: code.unwrap_or(-9),
                    acquired_at: at,
                };
                // Blocked or not, before the slot is released and afterwards.
                assert_eq!(lock.acquire(Deadline::NEVER, P), Err(expected.clone()));
                assert_eq!(lock.acquire(Deadline::NOW, P), Err(expected.clone()));
                if release_first {
                    finish(child);
                    assert_eq!(lock.acquire(secs(1.0), P), Err(expected));
                }
                assert_eq!(lock.owner().unwrap().unwrap().pid, pid);
                if release_first {
                    lock.release().unwrap();
                } else {
                    assert!(lock.recover().unwrap());
                    assert!(!lock.recover().unwrap());
                    finish(child);
                }
                assert!(lock.acquire(Deadline::NOW, P).unwrap());
            }
        }
        let rlock = RLock::create(P).unwrap();
        finish(dies_holding(None, || {
            rlock.acquire(long(), at).unwrap();
            rlock.acquire(long(), at).unwrap();
        }));
        assert!(matches!(
            rlock.acquire(Deadline::NEVER, P),
            Err(CoreError::OwnerDied { .. })
        ));
        rlock.release().unwrap();
        assert!(rlock.acquire(Deadline::NOW, P).unwrap());
        assert_eq!(rlock.count().unwrap(), 1);
    });
}

#[test]
fn a_holder_that_ends_well_keeps_the_lock() {
    in_session(|| {
        let lock = Lock::create(P).unwrap();
        finish(dies_holding(Some(0), || {
            assert!(lock.acquire(long(), P).unwrap())
        }));
        assert!(!lock.acquire(secs(0.02), P).unwrap());
        assert!(lock.locked().unwrap());
        lock.release().unwrap();
        assert!(lock.acquire(Deadline::NOW, P).unwrap());
    });
}

#[test]
fn a_semaphore_with_a_dead_holder_still_gives_its_other_permits() {
    in_session(|| {
        for n in [2, 40] {
            let semaphore = BoundedSemaphore::create(n, P).unwrap();
            finish(dies_holding(None, || {
                assert!(semaphore.acquire(long(), P).unwrap())
            }));
            for _ in 1..n {
                assert!(semaphore.acquire(long(), P).unwrap());
            }
            assert!(matches!(
                semaphore.acquire(Deadline::NEVER, P),
                Err(CoreError::OwnerDied { .. })
            ));
            assert!(semaphore.recover().unwrap());
            assert!(semaphore.acquire(Deadline::NOW, P).unwrap());
        }
    });
}

#[test]
fn those_who_wait_learn_of_the_death() {
    in_session(|| {
        let lock = Lock::create(P).unwrap();
        let holder = start("holder", || {
            lock.acquire(long(), P).unwrap();
            wait::sleep(LONG, P).unwrap();
        });
        while !lock.locked().unwrap() {
            std::thread::yield_now();
        }
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                start("waiter", || {
                    let e = lock.acquire(Deadline::NEVER, P);
                    assert!(matches!(e, Err(CoreError::OwnerDied { exitcode: -9, .. })));
                })
            })
            .collect();
        waiters.iter().for_each(|w| until_waiting(*w));
        kill(holder);
        waiters.into_iter().for_each(finish_well);
        finish(holder);
    });
}

#[test]
fn a_held_lock_whose_handle_was_dropped_is_known_at_the_death() {
    in_session(|| {
        let lock = Lock::create(P).unwrap();
        let handle = lock.obj().export();
        let child = start("drops", move || {
            lock.acquire(long(), P).unwrap();
            drop(lock);
            exit_at_once(1)
        });
        finish(child);
        let lock = Lock::from_ref(session().adopt(handle).unwrap()).unwrap();
        assert!(matches!(
            lock.acquire(long(), P),
            Err(CoreError::OwnerDied { exitcode: 1, .. })
        ));
    });
}

#[test]
fn events_wake_all_even_if_cleared_at_once() {
    in_session(|| {
        let event = Event::create(P).unwrap();
        assert!(!event.is_set().unwrap() && !event.wait(secs(0.02), P).unwrap());
        let waiters: Vec<_> = (0..3)
            .map(|_| start("waiter", || assert!(event.wait(long(), P).unwrap())))
            .collect();
        waiters.iter().for_each(|w| until_waiting(*w));
        event.set().unwrap();
        event.set().unwrap();
        event.clear().unwrap();
        waiters.into_iter().for_each(finish_well);
        assert!(!event.is_set().unwrap());
        event.set().unwrap();
        assert!(event.wait(Deadline::NOW, P).unwrap());
    });
}

#[test]
fn a_semaphore_signals() {
    in_session(|| {
        let ping = Semaphore::create(0, P).unwrap();
        let pong = Semaphore::create(0, P).unwrap();
        let child = start("pong", || {
            for _ in 0..2000 {
                assert!(ping.acquire(long(), P).unwrap());
                pong.release().unwrap();
            }
        });
        for _ in 0..2000 {
            ping.release().unwrap();
            assert!(pong.acquire(long(), P).unwrap());
        }
        finish_well(child);
        wait::sleep(Duration::ZERO, P).unwrap();
    });
}
