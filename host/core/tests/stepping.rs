//! A process that is killed at every instruction of an operation on shared memory, not only at the likely ones: the others go on.
//!
//! A victim is killed right before an instruction of an operation; then the others must find the object as it was before the operation or as
//! it is after it, and be able to use it. Repeated for one instruction after another, until the operation comes to its end.
//!
//! `common/stepping.rs` says how, and how often; `stepping_tables.rs` has the operations on what is behind the objects.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::stepping::*;
use common::*;
use mphost_core::CoreError;
use mphost_core::barrier::Barrier;
use mphost_core::clock::Deadline;
use mphost_core::condition::{AnyLock, Condition};
use mphost_core::event::Event;
use mphost_core::permit::{BoundedSemaphore, Lock, RLock, Semaphore};
use mphost_core::queue::Queue;
use mphost_core::session::ObjectKind;
use mphost_core::shared::Block;
use std::time::Duration;

#[test]
fn queues() {
    in_session(|| {
        // An item of each size: one that fits, one that needs a chunk of its own.
        for (maxsize, large) in [(0, 10), (0, 6000), (8, 10)] {
            let queue = Queue::create(ObjectKind::Queue, maxsize, P).unwrap();
            let other = Queue::create(ObjectKind::Queue, maxsize, P).unwrap();
            let item = vec![3; large];
            let fill = || {
                assert_eq!(items(&queue).len(), 0);
                put(&queue, b"1");
                put(&queue, b"2");
            };
            let warm = || {
                put(&other, &item);
                items(&other);
            };
            let whole = |allowed: &[&[&[u8]]]| {
                put(&queue, b"last");
                let mut left = items(&queue);
                assert_eq!(left.pop().unwrap(), b"last", "{}", setting());
                assert!(
                    allowed.iter().any(|items| *items == left),
                    "{left:?}: {}",
                    setting()
                );
            };
            step_through(
                "put",
                &fill,
                &warm,
                &|| put(&queue, &item),
                &|finished| match finished {
                    true => whole(&[&[b"1", b"2", &item]]),
                    false => whole(&[&[b"1", b"2"], &[b"1", b"2", &item]]),
                },
            );
            let get = || {
                queue.get(Deadline::NOW, P, |_| ()).unwrap();
            };
            step_through("get", &fill, &warm, &get, &|finished| match finished {
                true => whole(&[&[b"2"]]),
                false => whole(&[&[b"1", b"2"], &[b"2"]]),
            });
        }
    });
}

#[test]
fn queues_that_are_waited_for() {
    use mphost_core::wait::WaitKind;
    in_session(|| {
        // Waits that end at their time limit: all the steps of publishing them, and of taking that back.
        let soon = || Deadline::after(Duration::from_micros(50));
        let queue = Queue::create(ObjectKind::Queue, 1, P).unwrap();
        let get = || assert_eq!(queue.get(soon(), P, |_| ()), Err(CoreError::Empty));
        step_through("get in vain", &|| {}, &get, &get, &|_| {
            put(&queue, b"1");
            assert_eq!(items(&queue), [b"1"], "{}", setting());
        });
        let full = || put(&queue, b"1");
        let put_in_vain = || assert_eq!(queue.put(b"2", &[], 0, soon(), P), Err(CoreError::Full));
        step_through("put in vain", &full, &put_in_vain, &put_in_vain, &|_| {
            assert_eq!(items(&queue), [b"1"], "{}", setting());
        });

        // What a dead one has put is counted as work that isn't done, or isn't there.
        let queue = Queue::create(ObjectKind::JoinableQueue, 0, P).unwrap();
        let counted = |_| {
            let there = items(&queue).len();
            for _ in 0..there {
                queue.task_done().unwrap();
            }
            assert!(queue.task_done().is_err(), "{}", setting());
            assert!(queue.join(long(), P).unwrap(), "{}", setting());
        };
        step_through(
            "put of work",
            &|| {},
            &|| {},
            &|| put(&queue, b"1"),
            &counted,
        );
        let waiter = Waiter::start(|| assert!(queue.join(Deadline::NEVER, P).unwrap()));
        let one = || {
            put(&queue, b"1");
            items(&queue);
            waiter.send(WaitKind::QueueJoin);
        };
        step_through(
            "task_done",
            &one,
            &|| {},
            &|| queue.task_done().unwrap(),
            &|finished| {
                // Where it was counted, its death woke the waiter.
                let again = queue.task_done();
                assert!(again.is_err() || !finished, "{}", setting());
                assert!(waiter.went_on(long()), "{}", setting());
            },
        );
        waiter.end();
    });
}

#[test]
fn locks() {
    in_session(|| {
        let lock = || AnyLock::Lock(Lock::create(P).unwrap());
        let rlock = || AnyLock::RLock(RLock::create(P).unwrap());
        for (lock, other) in [(lock(), lock()), (rlock(), rlock())] {
            let warm = || {
                acquire(&other);
                other.release().unwrap();
            };
            let usable = |_| {
                acquire(&lock);
                lock.release().unwrap();
                acquire(&other);
                other.release().unwrap();
            };
            step_through("acquire", &|| {}, &warm, &|| acquire(&lock), &usable);
            let held = || acquire(&lock);
            let release = || lock.release().unwrap();
            step_through("release", &|| {}, &held, &release, &usable);
            if let AnyLock::RLock(_) = lock {
                let again = || acquire(&lock);
                step_through("acquire again", &|| {}, &held, &again, &usable);
                let twice = || (0..2).for_each(|_| acquire(&lock));
                step_through("release of two", &|| {}, &twice, &release, &usable);
            }
        }
    });
}

#[test]
fn semaphores() {
    in_session(|| {
        let bounded = BoundedSemaphore::create(2, P).unwrap();
        let free = |bounded: &BoundedSemaphore| {
            while bounded.recover().unwrap() {}
            assert_eq!(bounded.get_value().unwrap(), 2, "{}", setting());
        };
        let take = || assert!(bounded.acquire(long(), P).unwrap());
        let usable = |_| free(&bounded);
        step_through("bounded acquire", &|| {}, &|| {}, &take, &usable);
        let give = || bounded.release().unwrap();
        step_through("bounded release", &|| {}, &take, &give, &usable);

        let plain = Semaphore::create(3, P).unwrap();
        let reset = || while plain.acquire(Deadline::NOW, P).unwrap() {};
        let fill = || {
            reset();
            (0..3).for_each(|_| plain.release().unwrap());
        };
        let lower = || assert!(plain.acquire(long(), P).unwrap());
        step_through("acquire", &fill, &|| {}, &lower, &|finished| {
            let value = plain.get_value().unwrap();
            assert!(value == 2 || !finished && value == 3, "{}", setting());
        });
        let raise = || plain.release().unwrap();
        step_through("release", &fill, &|| {}, &raise, &|finished| {
            let value = plain.get_value().unwrap();
            assert!(value == 4 || !finished && value == 3, "{}", setting());
        });
    });
}

#[test]
fn events() {
    use mphost_core::wait::WaitKind;
    in_session(|| {
        let event = Event::create(P).unwrap();
        let waiter = Waiter::start(|| assert!(event.wait(Deadline::NEVER, P).unwrap()));
        let prepare = || {
            event.clear().unwrap();
            waiter.send(WaitKind::Event);
        };
        let check = |finished: bool| {
            if !event.is_set().unwrap() {
                assert!(!finished, "{}", setting());
                event.set().unwrap();
            }
            // Set by one who died before it could wake anybody: the death does.
            assert!(waiter.went_on(long()), "{}", setting());
        };
        step_through("set", &prepare, &|| {}, &|| event.set().unwrap(), &check);

        // A wait that ends at its time limit: all the steps of publishing it, and of taking that back.
        let other = Event::create(P).unwrap();
        let wait = || {
            assert!(
                !other
                    .wait(Deadline::after(Duration::from_micros(50)), P)
                    .unwrap()
            )
        };
        let usable = |_| {
            other.set().unwrap();
            assert!(other.wait(long(), P).unwrap());
            other.clear().unwrap();
        };
        step_through("wait", &|| {}, &wait, &wait, &usable);
        waiter.end();
    });
}

#[test]
fn conditions() {
    use mphost_core::wait::WaitKind;
    in_session(|| {
        let lock = AnyLock::Lock(Lock::create(P).unwrap());
        let condition = Condition::create(P).unwrap();
        let waiter = Waiter::start(|| {
            acquire(&lock);
            match condition.wait(&lock, Deadline::NEVER, P) {
                Ok(notified) => assert!(notified),
                // It was notified by one who died with the lock.
                Err(CoreError::OwnerDied { .. }) => acquire(&lock),
                Err(e) => panic!("{e}"),
            }
            lock.release().unwrap();
        });
        let prepare = || waiter.send(WaitKind::Condition);
        let notify = || {
            acquire(&lock);
            condition.notify(1).unwrap();
            lock.release().unwrap();
        };
        let check = |finished: bool| {
            if !finished {
                // For one who was notified before, this is for nobody.
                notify();
            }
            assert!(waiter.went_on(long()), "{}", setting());
            assert_eq!(condition.waiters().unwrap(), 0, "{}", setting());
        };
        step_through("notify", &prepare, &|| {}, &notify, &check);

        // One that comes and goes swallows nothing that is meant for the other.
        let visit = || {
            acquire(&lock);
            let _ = condition.wait(&lock, Deadline::NOW, P).unwrap();
            lock.release().unwrap();
        };
        let check = |_| {
            notify();
            assert!(waiter.went_on(long()), "{}", setting());
        };
        step_through("wait", &prepare, &visit, &visit, &check);
        waiter.end();
    });
}

#[test]
fn barriers() {
    use mphost_core::wait::WaitKind;
    in_session(|| {
        let barrier = Barrier::create(2, P).unwrap();
        let rounds = Block::create(8, P).unwrap();
        let arrive = |deadline: Deadline| {
            barrier.wait(deadline, P, || {
                rounds
                    .atomic(0)?
                    .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Ok(())
            })
        };
        let waiter = Waiter::start(|| match arrive(Deadline::NEVER) {
            Ok(_) | Err(CoreError::BrokenBarrier) => {}
            Err(e) => panic!("{e}"),
        });
        let prepare = || {
            barrier.reset().unwrap();
            waiter.send(WaitKind::Barrier);
        };
        let check = |finished: bool| {
            if !finished {
                // It may wait still, or have gone on with the victim or because that died.
                while !waiter.went_on(Deadline::NOW) {
                    match arrive(Deadline::after(Duration::from_millis(20))) {
                        Ok(_) | Err(CoreError::BrokenBarrier) => {}
                        Err(e) => panic!("{e}: {}", setting()),
                    }
                }
            } else {
                assert!(waiter.went_on(long()), "{}", setting());
            }
            // It can be used again.
            barrier.reset().unwrap();
            assert_eq!(barrier.n_waiting().unwrap(), 0, "{}", setting());
        };
        let last = || {
            arrive(long()).unwrap();
        };
        step_through("the last one's wait", &prepare, &|| {}, &last, &check);

        // One that comes first and gives up at once, which breaks the barrier.
        let first = || assert_eq!(arrive(Deadline::NOW), Err(CoreError::BrokenBarrier));
        let usable = |_| {
            barrier.reset().unwrap();
            waiter.send(WaitKind::Barrier);
            arrive(long()).unwrap();
            assert!(waiter.went_on(long()), "{}", setting());
        };
        let fresh = || barrier.reset().unwrap();
        step_through("a wait that is given up", &fresh, &|| {}, &first, &usable);
        waiter.end();
    });
}
