//! As `stepping`, for what is behind the objects that scripts see: the tables of objects, references, names and processes, descriptors in
//! queues, the record of a pool.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::stepping::*;
use common::*;
use mphost_core::clock::Deadline;
use mphost_core::condition::AnyLock;
use mphost_core::permit::{BoundedSemaphore, Lock};
use mphost_core::pool::Claims;
use mphost_core::queue::Queue;
use mphost_core::session::{ObjectKind, Usage, session};
use mphost_core::shared::Block;
use mphost_core::{names, table};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};

fn usage() -> Usage {
    session().usage().unwrap()
}

/// After all these kills an object may be lost for each, and nothing else is.
fn assert_no_more_than_leaks(before: &Usage) {
    let after = usage();
    assert_eq!(after.processes, before.processes, "{}", setting());
    let kills = if std::env::var("MPHOST_STEPS").is_ok() {
        1 << 20
    } else {
        10 * TRIES
    };
    assert!(after.objects <= before.objects + kills, "{after:?}");
}

#[test]
fn objects() {
    in_session(|| {
        let make = || {
            let lock = Lock::create(P).unwrap();
            let block = Block::create(5000, P).unwrap();
            drop((lock, block));
        };
        let before = usage();
        let check = |_| {
            // The tables can be used, and what the dead one had made is gone, but perhaps for what it was just making.
            make();
            assert_eq!(usage().processes, before.processes, "{}", setting());
        };
        step_through("create and drop", &|| {}, &make, &make, &check);
        // More permits than an entry has room for lie in pages.
        let make = || drop(BoundedSemaphore::create(27, P).unwrap());
        let check = |_| make();
        step_through("create in pages", &|| {}, &make, &make, &check);
        assert_no_more_than_leaks(&before);
    });
}

#[test]
fn references_in_messages() {
    in_session(|| {
        let before = usage();
        let queue = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let block = Block::create(100, P).unwrap();
        let put = || {
            queue
                .put(b"1", &[block.obj().export()], 0, long(), P)
                .unwrap()
        };
        let take = || {
            let taken = queue.get(Deadline::NOW, P, |item| {
                for handle in item.handles {
                    drop(session().claim(*handle).unwrap());
                }
            });
            taken.is_ok()
        };
        let check = |_| {
            while take() {}
            block.set(0, 7_u64).unwrap();
            assert_eq!(block.get::<u64>(0).unwrap(), 7, "{}", setting());
        };
        step_through("put of a handle", &|| {}, &|| {}, &put, &check);
        step_through("get of a handle", &put, &|| {}, &|| assert!(take()), &check);
        drop(block);
        drop(queue);
        assert_no_more_than_leaks(&before);
    });
}

#[test]
fn descriptors_in_queues() {
    in_session(|| {
        let queue = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let ends: RefCell<Option<(OwnedFd, OwnedFd)>> = RefCell::default();
        let fresh = || drop(ends.replace(Some(nix::unistd::pipe().unwrap())));
        let put = || {
            let ends = ends.borrow();
            let (_, write) = ends.as_ref().unwrap();
            queue
                .put_fds(b"1", &[], &[write.as_fd()], 0, long(), P)
                .unwrap();
        };
        let take = || {
            let fds = queue.get(Deadline::NOW, P, |item| item.fds());
            fds.map(|fds| assert_eq!(fds.unwrap().len(), 1, "{}", setting()))
                .is_ok()
        };
        let check = |_| {
            while take() {}
            // All copies of the end are closed: wherever the victim had come to, nobody keeps one.
            let (read, write) = ends.take().unwrap();
            drop(write);
            let mut polled = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut polled, PollTimeout::from(60_000_u16)).unwrap();
            assert_eq!(ready, 1, "the end stays open: {}", setting());
        };
        step_through("put of a descriptor", &fresh, &|| {}, &put, &check);
        let sent = || {
            fresh();
            put();
        };
        step_through(
            "get of a descriptor",
            &sent,
            &|| {},
            &|| assert!(take()),
            &check,
        );
    });
}

#[test]
fn names_of_memory() {
    in_session(|| {
        let block = Block::create(8, P).unwrap();
        // The first table stays.
        assert!(names::publish("first", block.obj(), P).unwrap());
        let before = usage();
        let publish = || assert!(names::publish("name", block.obj(), P).unwrap());
        let remove = || assert!(names::remove("name").unwrap());
        let check = |is_there: Option<bool>| {
            let found = names::find("name").unwrap();
            assert!(
                found.as_ref().is_none_or(|found| found == block.obj()),
                "{}",
                setting()
            );
            if let Some(expected) = is_there {
                assert_eq!(found.is_some(), expected, "{}", setting());
            }
            // Either it is taken, or it can be.
            let published = names::publish("name", block.obj(), P).unwrap();
            assert_eq!(published, found.is_none(), "{}", setting());
            remove();
            assert!(names::find("first").unwrap().is_some(), "{}", setting());
        };
        let published = |finished: bool| check(finished.then_some(true));
        step_through("publish", &|| {}, &|| {}, &publish, &published);
        let removed = |finished: bool| check(finished.then_some(false));
        step_through("remove", &publish, &|| {}, &remove, &removed);
        let find = || assert!(names::find("name").unwrap().is_some());
        step_through("find", &publish, &|| {}, &find, &|_| check(Some(true)));
        assert_no_more_than_leaks(&before);
    });
}

#[test]
fn processes() {
    in_session(|| {
        let before = usage();
        let me = session().me();
        let announce = || table::allocate("child", me, false, 0).unwrap();
        let make = || {
            let slot = announce();
            table::grant_all(slot).unwrap();
            table::release(slot);
        };
        let check = |_| {
            // What a dead one was about to start is nobody's: its slot is free again.
            make();
            assert_eq!(usage().processes, before.processes, "{}", setting());
        };
        step_through("announce", &|| {}, &|| {}, &make, &check);

        // A process that died with a lock, and the one that buries it dies as well.
        let lock = AnyLock::Lock(Lock::create(P).unwrap());
        let dead = Cell::new(table::SlotId::NONE);
        let die = || {
            dead.set(start("dead", || {
                acquire(&lock);
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            }));
            assert!(table::join(dead.get(), long(), P).unwrap());
        };
        let bury = || table::release(dead.get());
        let check = |_| {
            bury();
            assert_eq!(usage().processes, before.processes, "{}", setting());
            acquire(&lock);
            lock.release().unwrap();
        };
        step_through("bury", &die, &|| {}, &bury, &check);
        assert_no_more_than_leaks(&before);
    });
}

#[test]
fn claims_of_a_pool() {
    in_session(|| {
        let tasks = Queue::create(ObjectKind::SimpleQueue, 0, P).unwrap();
        let claims = Claims::create(1, P).unwrap();
        // Whether the task was run to its end.
        let ran = Block::create(8, P).unwrap();
        let submit = || {
            claims.reset(0).unwrap();
            ran.set(0, 0_u64).unwrap();
            tasks.put(b"task", &[], 0, long(), P).unwrap();
        };
        let work = || {
            let claim = |number| claims.claim(0, 5, number).unwrap();
            tasks.get_with(long(), P, |_| (), claim).unwrap();
            ran.set(0, 1_u64).unwrap();
            assert!(claims.finish(0, 5).unwrap());
        };
        let check = |finished: bool| {
            let there = items(&tasks).len();
            let claim = claims.get(0).unwrap();
            let number = tasks.gets().unwrap() - 1;
            let has_run = ran.get::<u64>(0).unwrap() == 1;
            match (there, claim) {
                // Not taken, whatever it claimed.
                (1, _) => assert!(!has_run && !finished, "{}", setting()),
                // Taken, and on record as this worker's.
                (0, Some(claim)) => {
                    assert_eq!((claim.task, claim.number), (5, number), "{}", setting());
                }
                // Taken, and no longer on record only if it is done.
                (0, None) => assert!(has_run, "{}", setting()),
                other => panic!("{other:?}: {}", setting()),
            }
        };
        step_through("a task", &submit, &|| {}, &work, &check);
    });
}
