//! Processes killed at random instants: the others go on, and nothing is lost but what the killed
//! one was itself handling.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::CoreError;
use mphost_core::barrier::Barrier;
use mphost_core::clock::Deadline;
use mphost_core::condition::{AnyLock, Condition};
use mphost_core::connection::{Connection, ConnectionError};
use mphost_core::permit::{BoundedSemaphore, Lock, RLock};
use mphost_core::queue::Queue;
use mphost_core::session::{ObjectKind, session};
use mphost_core::shared::Block;
use mphost_core::table::{self, SlotId};
use mphost_core::wait;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Kills one of `crew` after a random short while, and replaces it by what `hire` starts in its place.
fn kill_one(random: &mut Random, crew: &mut [SlotId], hire: impl FnOnce(usize) -> SlotId) -> usize {
    wait::sleep(Duration::from_micros(random.below(2500)), P).unwrap();
    let victim = random.below(crew.len() as u64) as usize;
    kill(crew[victim]);
    assert_eq!(
        finish(crew[victim]).code(),
        -9,
        "it failed before it was killed"
    );
    crew[victim] = hire(victim);
    victim
}

fn dismiss(crew: &[SlotId]) {
    crew.iter().for_each(|c| kill(*c));
    crew.iter()
        .for_each(|c| assert_eq!(finish(*c).code(), -9, "it failed before it was killed"));
}

/// Kills one of two producers (0 and 1) and two consumers, so many times, and in the end all of them: what each producer was at when it was killed,
/// by what it had written into `book`, and how many consumers were killed.
fn kill_two_and_two(
    seed: u64,
    kills: u32,
    book: &Block,
    hire: impl Fn(usize) -> SlotId,
) -> ([Vec<u64>; 2], u32) {
    let mut crew: Vec<SlotId> = (0..4).map(&hire).collect();
    let mut random = Random(seed);
    let mut consumers_killed = 2;
    let mut skipped = [vec![], vec![]];
    for _ in 0..kills {
        let victim = kill_one(&mut random, &mut crew, |i| {
            if i < 2 {
                skipped[i].push(book.get::<u64>(8 * i).unwrap());
            }
            hire(i)
        });
        consumers_killed += u32::from(victim >= 2);
    }
    dismiss(&crew);
    (skipped, consumers_killed)
}

/// What item `n` of producer `p` looks like.
fn check(payload: &[u8], flags: u32) -> (usize, u64) {
    let head = |at: usize| u64::from_ne_bytes(payload[at..at + 8].try_into().unwrap());
    let (p, n) = (head(0) as usize, head(8));
    assert_eq!(flags, n as u32, "torn");
    assert_eq!(payload.len(), size_of(p, n), "torn");
    assert!(payload[16..].iter().all(|b| *b == n as u8), "torn");
    (p, n)
}

fn size_of(p: usize, n: u64) -> usize {
    let r = Random(n << 8 | p as u64).below(1000) as usize;
    16 + if r < 20 { r * 3000 } else { r % 200 }
}

#[test]
fn pipes_survive_300_kills() {
    in_session(|| {
        const ROOM: u64 = 400_000;
        let before = session().usage().unwrap();
        {
            let (receiver, sender) = Connection::pipe(false, P).unwrap();
            // As for queues, below.
            let book = Block::create((16 + 2 * ROOM) as usize, P).unwrap();
            let producer = |p: usize| {
                let (sender, book) = (&sender, &book);
                start("producer", move || {
                    let done = book.atomic(8 * p).unwrap();
                    let first = done.fetch_add(1, SeqCst) + 1;
                    let file = std::fs::File::open("/dev/null").unwrap();
                    let mut data = vec![];
                    for n in first..ROOM {
                        data.clear();
                        data.extend((p as u64).to_ne_bytes());
                        data.extend(n.to_ne_bytes());
                        data.resize(size_of(p, n), n as u8);
                        // Descriptors take the socket.
                        let fds = [file.as_fd()];
                        let fds = if n % 64 == 0 { &fds[..] } else { &[] };
                        sender.send(&data, fds, P).unwrap();
                        done.store(n + 1, SeqCst);
                    }
                    wait::sleep(LONG, P).unwrap();
                })
            };
            let take = |data: &mut Vec<u8>| {
                let fds = receiver.recv(data, None, P).unwrap();
                let n = u64::from_ne_bytes(data[8..16].try_into().unwrap());
                let (p, n) = check(data, n as u32);
                assert_eq!(fds.len(), usize::from(n % 64 == 0));
                let at = 16 + p * ROOM as usize + n as usize;
                book.set(at, book.get::<u8>(at).unwrap() + 1).unwrap();
            };
            let consumer = || {
                start("consumer", || {
                    let mut data = vec![];
                    loop {
                        take(&mut data);
                    }
                })
            };
            let hire = |i: usize| if i < 2 { producer(i) } else { consumer() };
            let (skipped, consumers_killed) = kill_two_and_two(3, 300, &book, hire);
            let mut data = vec![];
            while receiver.poll(Deadline::NOW, P).unwrap() {
                take(&mut data);
            }
            let (mut lost, mut total) = (0, 0);
            for (p, skipped) in skipped.iter().enumerate() {
                let done = book.get::<u64>(8 * p).unwrap().min(ROOM);
                for n in 1..done {
                    let times = book.get::<u8>(16 + p * ROOM as usize + n as usize).unwrap();
                    assert!(times <= 1, "message {n} of {p} came {times} times");
                    lost += u32::from(times == 0 && !skipped.contains(&n));
                    total += 1;
                }
            }
            // What a consumer had in its hand when it was killed.
            assert!(
                lost <= consumers_killed,
                "{lost} messages of {total} are lost"
            );
            assert!(total > 1000, "hardly anything happened: {total}");
        }
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn long_messages_survive_150_kills() {
    in_session(|| {
        let before = session().usage().unwrap();
        let mut random = Random(11);
        let message = |n: usize| vec![n as u8; 2_500_000 + 300_000 * (n % 7)];
        let (mut whole, mut torn) = (0, 0);
        for round in 0..150 {
            let (receiver, sender) = Connection::pipe(false, P).unwrap();
            let (begun, told) = Connection::pipe(false, P).unwrap();
            let (receiver, sender, told) = (&receiver, &sender, &told);
            let send = start("sender", move || {
                receiver.close();
                for n in 0.. {
                    if let Err(failure) = sender.send(&message(n), &[], P) {
                        assert_eq!(failure, CoreError::Connection(ConnectionError::BrokenPipe));
                        break;
                    }
                }
            });
            let receive = start("receiver", move || {
                sender.close();
                let mut data = vec![];
                for n in 0.. {
                    match receiver.recv(&mut data, None, P) {
                        Ok(_) => {
                            assert!(data == message(n), "message {n}");
                            told.send(&[], &[], P).unwrap();
                        }
                        Err(CoreError::Connection(ConnectionError::EndOfFile)) => exit_at_once(1),
                        Err(CoreError::Connection(ConnectionError::TornMessage)) => exit_at_once(2),
                        Err(other) => panic!("{other}"),
                    }
                }
            });
            receiver.close();
            sender.close();
            begun.recv(&mut vec![], None, P).unwrap();
            wait::sleep(Duration::from_micros(random.below(8000)), P).unwrap();
            let (victim, survivor) = match round % 3 {
                0 => (receive, send),
                _ => (send, receive),
            };
            kill(victim);
            assert_eq!(finish(victim).code(), -9, "it failed before it was killed");
            match (round % 3, finish(survivor).code()) {
                (0, 0) => {}
                (0, other) => panic!("the sender ended with {other}"),
                (_, 1) => whole += 1,
                (_, 2) => torn += 1,
                (_, other) => panic!("the receiver ended with {other}"),
            }
        }
        assert!(torn > 10, "{whole} whole, {torn} torn");
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn queues_survive_500_kills() {
    in_session(|| {
        const ROOM: u64 = 400_000;
        for (maxsize, kills, seed) in [(0, 250, 1), (20, 250, 2)] {
            let before = session().usage().unwrap();
            {
                let q = Queue::create(ObjectKind::Queue, maxsize, P).unwrap();
                // Words 0 and 1: what each producer has put for certain. Then: how often each
                // item was read, a byte each, two producers' items side by side.
                let book = Block::create((16 + 2 * ROOM) as usize, P).unwrap();
                let producer = |p: usize| {
                    let (q, book) = (&q, &book);
                    start("producer", move || {
                        let done = book.atomic(8 * p).unwrap();
                        // The one that the killed one was putting may be there or not: skip it.
                        let first = done.fetch_add(1, SeqCst) + 1;
                        let mut data = vec![];
                        for n in first..ROOM {
                            data.clear();
                            data.extend((p as u64).to_ne_bytes());
                            data.extend(n.to_ne_bytes());
                            data.resize(size_of(p, n), n as u8);
                            q.put(&data, &[], n as u32, long(), P).unwrap();
                            done.store(n + 1, SeqCst);
                        }
                        wait::sleep(LONG, P).unwrap();
                    })
                };
                let take = |deadline| {
                    q.get(deadline, P, |item| {
                        let (p, n) = check(item.payload, item.flags);
                        let at = 16 + p * ROOM as usize + n as usize;
                        book.set(at, book.get::<u8>(at).unwrap() + 1).unwrap();
                    })
                };
                let consumer = || start("consumer", || while take(long()).is_ok() {});
                let hire = |i: usize| if i < 2 { producer(i) } else { consumer() };
                let (skipped, consumers_killed) = kill_two_and_two(seed, kills, &book, hire);
                while take(Deadline::NOW).is_ok() {}
                assert_eq!(q.qsize().unwrap(), 0);
                let mut again = 0;
                let mut total = 0;
                for (p, skipped) in skipped.iter().enumerate() {
                    // A producer that begins after the last item puts nothing.
                    let done = book.get::<u64>(8 * p).unwrap().min(ROOM);
                    for n in 1..done {
                        let times = book.get::<u8>(16 + p * ROOM as usize + n as usize).unwrap();
                        // Unless its producer was killed at it.
                        assert!(times > 0 || skipped.contains(&n), "item {n} of {p} is lost");
                        again += u32::from(times.saturating_sub(1));
                        total += 1;
                    }
                }
                // Read again only after a consumer was killed before it could commit.
                assert!(again <= consumers_killed, "{again} items twice");
                assert!(total > 1000, "hardly anything happened: {total}");
            }
            assert_eq!(session().usage().unwrap(), before);
        }
    });
}

#[test]
fn locks_survive_300_kills() {
    in_session(|| {
        let rlock = RLock::create(P).unwrap();
        let any = [
            AnyLock::Lock(Lock::create(P).unwrap()),
            AnyLock::RLock(rlock),
        ];
        for lock in any {
            let block = Block::create(24, P).unwrap();
            let hire = |_| {
                start("worker", || {
                    loop {
                        match lock.acquire(long(), P) {
                            Ok(taken) => assert!(taken),
                            Err(CoreError::OwnerDied { exitcode: -9, .. }) => {
                                match &lock {
                                    AnyLock::Lock(l) => l.recover().unwrap(),
                                    AnyLock::RLock(l) => l.recover().unwrap(),
                                };
                                continue;
                            }
                            Err(e) => panic!("{e}"),
                        }
                        // Nobody else inside, unless it died there.
                        let inside = SlotId::from_u64(block.get(8).unwrap());
                        let status = table::status(inside);
                        assert!(
                            !matches!(
                                status,
                                table::SlotStatus::Live | table::SlotStatus::Starting
                            ),
                            "two inside"
                        );
                        block.set(8, session().me().to_u64()).unwrap();
                        let n: u64 = block.get(0).unwrap();
                        block.set(0, n + 1).unwrap();
                        block.set(8, 0_u64).unwrap();
                        lock.release().unwrap();
                    }
                })
            };
            let mut crew: Vec<SlotId> = (0..3).map(hire).collect();
            let mut random = Random(3);
            let mut last = 0;
            for i in 0..150 {
                kill_one(&mut random, &mut crew, hire);
                if i % 50 == 49 {
                    let deadline = long();
                    while block.get::<u64>(0).unwrap() == last {
                        assert!(!deadline.has_passed(), "nobody gets the lock");
                        std::thread::yield_now();
                    }
                    last = block.get(0).unwrap();
                }
            }
            dismiss(&crew);
        }
    });
}

#[test]
fn semaphores_survive_150_kills() {
    in_session(|| {
        let semaphore = BoundedSemaphore::create(2, P).unwrap();
        let inside = Block::create(8, P).unwrap();
        let hire = |_| {
            start("worker", || {
                loop {
                    match semaphore.acquire(long(), P) {
                        Ok(taken) => assert!(taken),
                        Err(CoreError::OwnerDied { .. }) => {
                            semaphore.recover().unwrap();
                            continue;
                        }
                        Err(e) => panic!("{e}"),
                    }
                    inside.atomic(0).unwrap().fetch_add(1, SeqCst);
                    semaphore.release().unwrap();
                }
            })
        };
        let mut crew: Vec<SlotId> = (0..4).map(hire).collect();
        let mut random = Random(4);
        for _ in 0..150 {
            kill_one(&mut random, &mut crew, hire);
        }
        dismiss(&crew);
        semaphore.recover().unwrap();
        assert_eq!(semaphore.get_value().unwrap(), 2);
        assert!(inside.get::<u64>(0).unwrap() > 100);
    });
}

#[test]
fn conditions_and_barriers_survive_kills() {
    in_session(|| {
        let lock = AnyLock::Lock(Lock::create(P).unwrap());
        let condition = Condition::create(P).unwrap();
        let counts = Block::create(16, P).unwrap();
        let acquire = || {
            while let Err(e) = lock.acquire(long(), P) {
                assert!(matches!(e, CoreError::OwnerDied { .. }), "{e}");
                let AnyLock::Lock(l) = &lock else {
                    unreachable!()
                };
                l.recover().unwrap();
            }
        };
        let hire = |_| {
            start("waiter", || {
                loop {
                    acquire();
                    match condition.wait(&lock, long(), P) {
                        Ok(notified) => assert!(notified),
                        Err(CoreError::OwnerDied { .. }) => continue,
                        Err(e) => panic!("{e}"),
                    }
                    counts.atomic(0).unwrap().fetch_add(1, SeqCst);
                    lock.release().unwrap();
                }
            })
        };
        let mut crew: Vec<SlotId> = (0..3).map(hire).collect();
        let mut random = Random(5);
        for _ in 0..100 {
            kill_one(&mut random, &mut crew, hire);
            acquire();
            condition.notify(1).unwrap();
            lock.release().unwrap();
        }
        // Whoever lives can be notified.
        let deadline = long();
        let before = counts.get::<u64>(0).unwrap();
        while counts.get::<u64>(0).unwrap() < before + 3 {
            assert!(!deadline.has_passed(), "nobody is notified any more");
            acquire();
            condition.notify_all().unwrap();
            lock.release().unwrap();
            wait::sleep(Duration::from_millis(1), P).unwrap();
        }
        dismiss(&crew);

        let barrier = Barrier::create(3, P).unwrap();
        let hire = |_| {
            start("party", || {
                loop {
                    let action = || {
                        counts.atomic(8).unwrap().fetch_add(1, SeqCst);
                        Ok(())
                    };
                    match barrier.wait(long(), P, action) {
                        Ok(n) => assert!(n < 3),
                        Err(CoreError::BrokenBarrier) => barrier.reset().unwrap(),
                        Err(e) => panic!("{e}"),
                    }
                }
            })
        };
        let mut crew: Vec<SlotId> = (0..3).map(hire).collect();
        for _ in 0..100 {
            kill_one(&mut random, &mut crew, hire);
        }
        let rounds = counts.get::<u64>(8).unwrap();
        let deadline = long();
        while counts.get::<u64>(8).unwrap() < rounds + 10 {
            assert!(!deadline.has_passed(), "the barrier is stuck");
            std::thread::yield_now();
        }
        dismiss(&crew);
    });
}

#[test]
fn references_survive_200_kills() {
    in_session(|| {
        let before = session().usage().unwrap();
        {
            let q = Queue::create(ObjectKind::Queue, 10, P).unwrap();
            let hire = |i: usize| {
                start("trader", || {
                    loop {
                        if i.is_multiple_of(2) {
                            let own = Queue::create(ObjectKind::Queue, 0, P).unwrap();
                            let lock = Lock::create(P).unwrap();
                            own.put(b"lock", &[lock.obj().export()], 0, long(), P)
                                .unwrap();
                            q.put(b"queue", &[own.obj().export()], 0, long(), P)
                                .unwrap();
                        } else {
                            let own = q
                                .get(long(), P, |item| session().claim(item.handles[0]))
                                .unwrap()
                                .and_then(Queue::from_ref)
                                .unwrap();
                            let lock = own
                                .get(long(), P, |item| session().claim(item.handles[0]))
                                .unwrap()
                                .and_then(Lock::from_ref)
                                .unwrap();
                            assert!(lock.acquire(Deadline::NOW, P).unwrap());
                            lock.release().unwrap();
                        }
                    }
                })
            };
            let mut crew: Vec<SlotId> = (0..4).map(hire).collect();
            let mut random = Random(6);
            for _ in 0..200 {
                kill_one(&mut random, &mut crew, hire);
            }
            dismiss(&crew);
        }
        // A kill leaks at most what the victim was just handling.
        let after = session().usage().unwrap();
        assert!(after.objects <= before.objects + 400, "{after:?}");
    });
}
