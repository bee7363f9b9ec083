//! A pool's record: who has which task, whatever happens in between; and the alarm.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::clock::{self, Deadline};
use mphost_core::pool::{Claims, LARGEST_TASK, Stage};
use mphost_core::queue::Queue;
use mphost_core::session::{ObjectKind, session};
use mphost_core::wait::{self, WaitKind};
use mphost_core::{CoreError, alarm, table};
use std::cell::Cell;
use std::time::Duration;

fn queue() -> Queue {
    Queue::create(ObjectKind::SimpleQueue, 0, P).unwrap()
}

#[test]
fn who_has_begun_and_has_no_task_is_idle() {
    in_session(|| {
        let claims = Claims::create(3, P).unwrap();
        let idle = || claims.idle().unwrap();
        assert_eq!(idle(), 0);
        claims.set_stage(0, Stage::Initialising).unwrap();
        assert_eq!(idle(), 0);
        claims.set_stage(0, Stage::Ready).unwrap();
        claims.set_stage(2, Stage::Ready).unwrap();
        assert_eq!(idle(), 2);
        claims.claim(2, 5, 0).unwrap();
        assert_eq!(idle(), 1);
        assert!(claims.finish(2, 5).unwrap());
        claims.set_stage(0, Stage::Leaving).unwrap();
        assert_eq!(idle(), 1);
        // Who is about to be ended takes no other task.
        claims.claim(2, 6, 1).unwrap();
        assert!(claims.doom(2, 6).unwrap());
        assert!(!claims.finish(2, 6).unwrap());
        assert_eq!(idle(), 0);
        claims.reset(2).unwrap();
        assert_eq!(idle(), 0);
    });
}

#[test]
fn a_claim_ends_once() {
    in_session(|| {
        let claims = Claims::create(3, P).unwrap();
        assert_eq!(claims.workers(), 3);
        assert_eq!(claims.owner().unwrap(), session().me());
        assert_eq!(claims.get(1).unwrap(), None);
        assert_eq!(claims.stage(1).unwrap(), Stage::Starting);

        claims.set_stage(1, Stage::Ready).unwrap();
        claims.claim(1, LARGEST_TASK, 7).unwrap();
        let claim = claims.get(1).unwrap().unwrap();
        assert_eq!((claim.task, claim.number), (LARGEST_TASK, 7));
        assert!(!claim.doomed && claim.since <= clock::now());
        assert_eq!(claims.stage(1).unwrap(), Stage::Ready);
        assert_eq!(claims.get(0).unwrap(), None);

        // Either it is finished, or its worker is doomed.
        assert!(!claims.doom(1, 5).unwrap(), "that isn't its task");
        assert!(claims.finish(1, LARGEST_TASK).unwrap());
        assert!(!claims.doom(1, LARGEST_TASK).unwrap());
        claims.claim(1, 6, 8).unwrap();
        assert!(claims.doom(1, 6).unwrap());
        assert!(!claims.finish(1, 6).unwrap());
        assert!(claims.get(1).unwrap().unwrap().doomed);

        assert!(claims.shared_by_another(0, 8).unwrap());
        assert!(!claims.shared_by_another(1, 8).unwrap());
        claims.reset(1).unwrap();
        assert_eq!(claims.get(1).unwrap(), None);
        assert!(matches!(claims.get(3), Err(CoreError::Value(_))));
        assert!(matches!(
            claims.claim(usize::MAX, 1, 1),
            Err(CoreError::Value(_))
        ));
        let Err(CoreError::Type(_)) = Claims::from_ref(queue().obj().clone()) else {
            panic!("a queue is no pool's record");
        };
    });
}

/// A worker takes the queue's next item on record, and dies where `at` says.
fn take_and_die(tasks: &Queue, claims: &Claims, worker: usize, before_commit: bool) {
    let die = || nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    let task = Cell::new(0);
    tasks
        .get_with(
            long(),
            P,
            |item| task.set(u64::from_ne_bytes(item.payload.try_into().unwrap())),
            |number| {
                claims.claim(worker, task.get(), number).unwrap();
                if before_commit {
                    die();
                }
            },
        )
        .unwrap();
    die();
}

#[test]
fn a_death_before_the_commit_loses_nothing() {
    in_session(|| {
        let (tasks, claims) = (queue(), Claims::create(2, P).unwrap());
        tasks.put(&9u64.to_ne_bytes(), &[], 0, long(), P).unwrap();
        let child = start("worker", {
            let (tasks, claims) = (tasks.clone(), claims.clone());
            move || take_and_die(&tasks, &claims, 0, true)
        });
        assert!(table::join(child, long(), P).unwrap());
        let claim = claims.get(0).unwrap().unwrap();
        assert_eq!((claim.task, claim.number), (9, 0));
        // It wasn't counted as taken: it is still there, for another.
        assert_eq!(tasks.gets().unwrap(), 0);
        let seq = tasks
            .get_with(
                long(),
                P,
                |item| item.seq,
                |number| claims.claim(1, 9, number).unwrap(),
            )
            .unwrap();
        assert_eq!(seq, claim.number);
        assert!(claims.shared_by_another(0, claim.number).unwrap());
    });
}

#[test]
fn a_death_after_the_commit_is_on_record() {
    in_session(|| {
        let (tasks, claims) = (queue(), Claims::create(2, P).unwrap());
        for n in [4u64, 5] {
            tasks.put(&n.to_ne_bytes(), &[], 0, long(), P).unwrap();
        }
        let child = start("worker", {
            let (tasks, claims) = (tasks.clone(), claims.clone());
            move || take_and_die(&tasks, &claims, 1, false)
        });
        assert!(table::join(child, long(), P).unwrap());
        let claim = claims.get(1).unwrap().unwrap();
        assert_eq!((claim.task, claim.number), (4, 0));
        assert_eq!(tasks.gets().unwrap(), 1);
        assert!(!claims.shared_by_another(1, claim.number).unwrap());
    });
}

#[test]
fn a_wait_for_many_ends_with_the_last() {
    in_session(|| {
        let (reports, claims) = (queue(), Claims::create(1, P).unwrap());
        claims.set_wanted(100).unwrap();
        let child = start("worker", {
            let (reports, claims) = (reports.clone(), claims.clone());
            move || {
                for _ in 0..100 {
                    reports.put_quietly(b"x", &[], &[], 0, long(), P).unwrap();
                    if reports.puts().unwrap() >= claims.wanted().unwrap() {
                        reports.wake_getter().unwrap();
                    }
                }
            }
        });
        let never = || false;
        assert!(
            reports
                .wait_for_puts(100, WaitKind::PoolResult, long(), P, never)
                .unwrap()
        );
        assert_eq!(reports.puts().unwrap(), 100);
        assert!(
            !reports
                .wait_for_puts(101, WaitKind::PoolResult, Deadline::NOW, P, never)
                .unwrap()
        );
        assert!(
            reports
                .wait_for_puts(101, WaitKind::PoolResult, long(), P, || true)
                .unwrap()
        );
        assert!(table::join(child, long(), P).unwrap());
    });
}

thread_local! {
    static RUNG: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn the_alarm_rings_while_nothing_is_waited_for_and_not_in_a_child() {
    in_session(|| {
        wait::set_interrupt_hook(|| {
            RUNG.set(RUNG.get() + 1);
            Ok(())
        });
        alarm::set(Deadline::after(Duration::from_millis(5))).unwrap();
        let end = long();
        while RUNG.get() == 0 && !end.has_passed() {
            wait::poll_interrupts().unwrap();
        }
        assert_eq!(RUNG.get(), 1);

        // Set later, and off again; a child has an alarm of its own.
        alarm::set(Deadline::after(LONG)).unwrap();
        let child = start("child", || {
            RUNG.set(0);
            alarm::set(Deadline::after(Duration::from_millis(5))).unwrap();
            wait::sleep(Duration::from_millis(50), P).unwrap();
            assert_eq!(RUNG.get(), 1);
        });
        assert!(table::join(child, long(), P).unwrap());
        match table::status(child) {
            table::SlotStatus::Dead(status) => assert_eq!(status.code(), 0),
            other => panic!("{other:?}"),
        }
        alarm::set(Deadline::NEVER).unwrap();
    });
}
