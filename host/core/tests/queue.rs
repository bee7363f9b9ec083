//! Queues between processes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::CoreError;
use mphost_core::clock::Deadline;
use mphost_core::queue::Queue;
use mphost_core::session::{ObjectKind, session};
use mphost_core::{table, wait};
use std::time::Duration;

fn queue(maxsize: u64) -> Queue {
    Queue::create(ObjectKind::JoinableQueue, maxsize, P).unwrap()
}

fn put(q: &Queue, n: u64) {
    q.put(&n.to_ne_bytes(), &[], 0, long(), P).unwrap();
}

fn get(q: &Queue) -> u64 {
    q.get(long(), P, |i| {
        u64::from_ne_bytes(i.payload.try_into().unwrap())
    })
    .unwrap()
}

#[test]
fn items_come_in_order_through_all_chunks() {
    in_session(|| {
        let q = queue(0);
        // A backlog through many chunks, then a steady state in one, then a backlog again.
        for n in 0..50_000 {
            put(&q, n);
        }
        assert_eq!(q.qsize().unwrap(), 50_000);
        for n in 0..200_000 {
            assert_eq!(get(&q), n);
            put(&q, n + 50_000);
        }
        for n in 200_000..250_000 {
            assert_eq!(get(&q), n);
        }
        assert!(q.empty().unwrap());
        assert_eq!(q.get(Deadline::NOW, P, |_| ()), Err(CoreError::Empty));
        assert!(session().usage().unwrap().pages < 600);
        let pages = session().usage().unwrap().pages;
        for n in 0..100_000 {
            put(&q, n);
            assert_eq!(get(&q), n);
        }
        assert!(session().usage().unwrap().pages <= pages);
    });
}

#[test]
fn items_of_all_sizes_are_whole() {
    in_session(|| {
        let q = queue(0);
        let mut seed = 7_u64;
        let mut sizes = vec![];
        for round in 0..2000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let r = seed >> 33;
            let size = match r % 10 {
                0 => 0,
                1..=5 => r % 100,
                6..=8 => r % 20_000,
                _ => r % 1_000_000,
            } as usize;
            let byte = round as u8;
            let mut data = vec![byte; size];
            if let Some(last) = data.last_mut() {
                *last = byte.wrapping_add(1);
            }
            q.put(&data, &[], round as u32, long(), P).unwrap();
            sizes.push((size, byte));
            if r.is_multiple_of(3) || round == 1999 {
                for (size, byte) in sizes.drain(..) {
                    q.get(long(), P, |item| {
                        assert_eq!(item.payload.len(), size);
                        assert_eq!(item.flags as u8, byte);
                        if let Some((last, rest)) = item.payload.split_last() {
                            assert_eq!(*last, byte.wrapping_add(1));
                            assert!(rest.iter().all(|b| *b == byte));
                        }
                    })
                    .unwrap();
                }
            }
        }
    });
}

#[test]
fn a_large_item_comes_and_its_memory_goes() {
    in_session(|| {
        let before = session().usage().unwrap();
        let q = queue(0);
        q.put_with(300 << 20, &[], 0, long(), P, |room| room.fill(5))
            .unwrap();
        let child = start("child", || {
            let sum = q.get(long(), P, |i| {
                i.payload
                    .iter()
                    .step_by(4096)
                    .map(|b| u64::from(*b))
                    .sum::<u64>()
            });
            assert_eq!(sum.unwrap(), (300 << 20) / 4096 * 5);
            // The head leaves the large chunk with the next item.
            get(&q);
        });
        put(&q, 1);
        finish_well(child);
        put(&q, 2);
        get(&q);
        drop(q);
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn bounded_queues_block_and_time_out() {
    in_session(|| {
        let q = queue(2);
        put(&q, 1);
        put(&q, 2);
        assert!(q.full().unwrap());
        assert_eq!(q.put(b"", &[], 0, Deadline::NOW, P), Err(CoreError::Full));
        assert_eq!(q.put(b"", &[], 0, secs(0.02), P), Err(CoreError::Full));
        let child = start("putter", || {
            for n in 3..2000 {
                put(&q, n);
            }
        });
        until_waiting(child);
        for n in 1..2000 {
            assert!(q.qsize().unwrap() <= 2);
            assert_eq!(get(&q), n);
        }
        finish_well(child);
        assert_eq!(q.get(secs(0.02), P, |_| ()), Err(CoreError::Empty));
    });
}

#[test]
fn many_to_many_loses_nothing() {
    in_session(|| {
        for maxsize in [0, 3] {
            let q = queue(maxsize);
            let out = queue(0);
            const EACH: u64 = 3000;
            let producers: Vec<_> = (0..3)
                .map(|p| {
                    start("producer", || {
                        for n in 0..EACH {
                            put(&q, p << 32 | n);
                        }
                    })
                })
                .collect();
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    start("consumer", || {
                        let mut last = [None; 3];
                        let mut count = 0;
                        loop {
                            let n = get(&q);
                            if n == u64::MAX {
                                break;
                            }
                            let (p, n) = ((n >> 32) as usize, n as u32);
                            assert!(
                                last[p].is_none_or(|l| l < n),
                                "items of one producer out of order"
                            );
                            last[p] = Some(n);
                            count += 1;
                        }
                        put(&out, count);
                    })
                })
                .collect();
            producers.into_iter().for_each(finish_well);
            (0..3).for_each(|_| put(&q, u64::MAX));
            consumers.into_iter().for_each(finish_well);
            let total: u64 = (0..3).map(|_| get(&out)).sum();
            assert_eq!(total, 3 * EACH);
        }
    });
}

#[test]
fn join_waits_for_task_done() {
    in_session(|| {
        let q = queue(0);
        assert!(matches!(q.task_done(), Err(CoreError::Value(_))));
        assert!(q.join(Deadline::NOW, P).unwrap());
        (0..10).for_each(|n| put(&q, n));
        assert!(!q.join(secs(0.01), P).unwrap());
        let worker = start("worker", || {
            for _ in 0..10 {
                get(&q);
                wait::sleep(Duration::from_millis(1), P).unwrap();
                q.task_done().unwrap();
            }
        });
        assert!(q.join(long(), P).unwrap());
        finish_well(worker);
        assert!(matches!(q.task_done(), Err(CoreError::Value(_))));
    });
}

#[test]
fn the_claim_is_noted_before_the_item_is_gone() {
    in_session(|| {
        let q = queue(0);
        put(&q, 5);
        put(&q, 6);
        let child = start("claims and dies", || {
            let _ = q.get_with(long(), P, |_| (), |_| exit_at_once(9));
        });
        assert_eq!(finish(child).code(), 9);
        // It died before the commit: the item is still there, and the lock is free.
        let mut seen = None;
        let n = q
            .get_with(long(), P, |i| i.payload.to_vec(), |seq| seen = Some(seq))
            .unwrap();
        assert_eq!((n, seen), (5_u64.to_ne_bytes().to_vec(), Some(0)));
        assert_eq!(get(&q), 6);
    });
}

#[test]
fn a_putter_that_dies_inside_leaves_no_trace() {
    in_session(|| {
        let q = queue(0);
        put(&q, 1);
        let pages = session().usage().unwrap().pages;
        let child = start("dies", || {
            let _ = q.put_with(50 << 20, &[], 0, long(), P, |_| exit_at_once(9));
        });
        assert_eq!(finish(child).code(), 9);
        put(&q, 2);
        assert_eq!((get(&q), get(&q)), (1, 2));
        assert_eq!(session().usage().unwrap().pages, pages);
    });
}

#[test]
fn waiting_is_published() {
    in_session(|| {
        let q = queue(0);
        let at = mphost_core::position::Position::new(1, 20, 3);
        assert_eq!(q.getters_asleep().unwrap(), 0);
        let child = start("getter", || {
            q.get(Deadline::NEVER, at, |_| ()).unwrap();
        });
        until_waiting(child);
        assert_eq!(q.getters_asleep().unwrap(), 1);
        let waiting = table::info(child).unwrap().waiting.unwrap();
        assert_eq!(waiting.kind, wait::WaitKind::QueueGet);
        assert_eq!(waiting.object, q.obj().handle().to_u64());
        assert_eq!(waiting.position, at);
        assert!(!waiting.timed);
        put(&q, 1);
        finish_well(child);
        assert_eq!(q.getters_asleep().unwrap(), 0);
    });
}

/// The two ends of a pipe.
fn pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

fn take_fds(q: &Queue) -> Vec<std::os::fd::OwnedFd> {
    q.get(long(), P, |item| item.fds()).unwrap().unwrap()
}

/// Whether every copy of the other end is closed.
fn at_end(read: &std::os::fd::OwnedFd) -> bool {
    let mut poll = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(read),
        nix::poll::PollFlags::POLLIN,
    )];
    nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO).unwrap();
    poll[0]
        .revents()
        .unwrap()
        .contains(nix::poll::PollFlags::POLLHUP)
}

#[test]
fn descriptors_travel_with_items() {
    use std::os::fd::AsFd;
    in_session(|| {
        let q = queue(0);
        let other = queue(0);
        let (read, write) = pipe();
        // One that stays in front of the others in the post office.
        let (stays_read, stays_write) = pipe();
        other
            .put_fds(b"", &[], &[stays_write.as_fd()], 0, long(), P)
            .unwrap();
        drop(stays_write);
        q.put_fds(
            b"one",
            &[q.obj().export()],
            &[write.as_fd(), read.as_fd()],
            3,
            long(),
            P,
        )
        .unwrap();
        put(&q, 7);
        let child = start("child", || {
            let fds = q
                .get(long(), P, |item| {
                    assert_eq!((item.payload, item.flags), (&b"one"[..], 3));
                    assert_eq!(item.handles.len(), 1);
                    item.fds()
                })
                .unwrap()
                .unwrap();
            assert_eq!(fds.len(), 2);
            assert_eq!(get(&q), 7);
            nix::unistd::write(&fds[0], b"hello").unwrap();
        });
        finish_well(child);
        let mut text = [0; 5];
        nix::unistd::read(&read, &mut text).unwrap();
        assert_eq!(&text, b"hello");
        assert!(!at_end(&read));
        drop(write);
        // Nobody else has it any more, the post office neither.
        assert!(at_end(&read));
        assert!(!at_end(&stays_read));
        // A queue that goes takes them along.
        drop(other);
        assert!(at_end(&stays_read));
    });
}

#[test]
fn a_reader_that_dies_loses_no_descriptors() {
    use std::os::fd::AsFd;
    in_session(|| {
        let q = queue(0);
        let (read, write) = pipe();
        q.put_fds(b"", &[], &[write.as_fd()], 0, long(), P).unwrap();
        drop(write);
        let dies = start("dies before the commit", || {
            let _ = q.get(long(), P, |item| {
                assert_eq!(item.fds().unwrap().len(), 1);
                exit_at_once(1)
            });
        });
        finish(dies);
        assert!(!at_end(&read));
        let fds = take_fds(&q);
        assert!(!at_end(&read));
        drop(fds);
        assert!(at_end(&read));
    });
}

#[test]
fn too_many_waiting_descriptors_are_an_error_and_no_hang() {
    use std::os::fd::AsFd;
    in_session(|| {
        let q = queue(0);
        let (read, write) = pipe();
        let fd = [write.as_fd()];
        let mut count = 0;
        let error = loop {
            match q.put_fds(b"", &[], &fd, 0, long(), P) {
                Ok(()) => count += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(error, CoreError::Runtime(_)), "{error}");
        assert!(count > 100, "only {count}");
        assert_eq!(q.qsize().unwrap(), count);
        // Taken in turns, they go on for ever.
        for _ in 0..count {
            assert_eq!(take_fds(&q).len(), 1);
            q.put_fds(b"", &[], &fd, 0, long(), P).unwrap();
        }
        drop(write);
        for left in (0..count).rev() {
            assert!(!at_end(&read));
            take_fds(&q);
            assert_eq!(q.qsize().unwrap(), left);
        }
        assert!(at_end(&read));
        let (_read, write) = pipe();
        let many = vec![write.as_fd(); 254];
        assert!(matches!(
            q.put_fds(b"", &[], &many, 0, long(), P),
            Err(CoreError::Value(_))
        ));
    });
}
