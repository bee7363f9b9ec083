//! The session: processes, deaths, references, memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::*;
use mphost_core::CoreError;
use mphost_core::permit::Lock;
use mphost_core::queue::Queue;
use mphost_core::session::{ObjectKind, RawHandle, session};
use mphost_core::shared::Block;
use mphost_core::table::{self, SlotId, SlotStatus};
use mphost_core::{clock::Deadline, reap, signals, wait};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[test]
fn statuses_of_children() {
    in_session(|| {
        let well = start("well", || {});
        let badly = start("badly", || exit_at_once(3));
        let killed = start("killed", || wait::sleep(LONG, P).unwrap());
        until_waiting(killed);
        assert_eq!(table::status(killed), SlotStatus::Live);
        assert_eq!(table::children_of(session().me()).len(), 4);
        kill(killed);
        assert_eq!(finish(well).code(), 0);
        assert_eq!(finish(badly).code(), 3);
        assert_eq!(finish(killed).code(), -9);
        assert_eq!(table::status(killed), SlotStatus::Gone);
        assert!(table::join(killed, Deadline::NEVER, P).unwrap());
    });
}

/// How often this process went to sleep so far (getrusage(2)).
fn sleeps() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    usage.voluntary_context_switches() as u64
}

#[test]
fn a_death_wakes_each_waiter_once() {
    in_session(|| {
        const WAITERS: usize = 40;
        const DEATHS: usize = 10;
        let queue = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let slept = Block::create(8, P).unwrap();
        let hire = |_| {
            start("waiter", || {
                let before = sleeps();
                queue.get(Deadline::NEVER, P, |_| ()).unwrap();
                let all = slept.atomic(0).unwrap();
                all.fetch_add(sleeps() - before, Ordering::SeqCst);
            })
        };
        let mut crew: Vec<SlotId> = (0..WAITERS + DEATHS).map(hire).collect();
        crew.iter().for_each(|waiter| until_waiting(*waiter));
        for victim in crew.split_off(WAITERS) {
            kill(victim);
            finish(victim);
        }
        for _ in &crew {
            queue.put(b"", &[], 0, long(), P).unwrap();
        }
        crew.into_iter().for_each(finish_well);
        let slept: u64 = slept.get(0).unwrap();
        println!("{WAITERS} waiters slept {slept} times while {DEATHS} died");
        assert!(slept <= 3 * (WAITERS * DEATHS) as u64, "{slept}");
    });
}

#[test]
fn join_times_out_and_says_so() {
    in_session(|| {
        let child = start("child", || wait::sleep(LONG, P).unwrap());
        assert!(!table::join(child, secs(0.05), P).unwrap());
        assert!(!table::join(child, Deadline::NOW, P).unwrap());
        kill(child);
        finish(child);
    });
}

#[test]
fn slots_are_used_again_and_the_table_has_an_end() {
    in_session(|| {
        let me = session().me();
        let all: Vec<SlotId> =
            std::iter::from_fn(|| table::allocate("x", me, false, 0).ok()).collect();
        assert!(all.len() > 500);
        assert_eq!(
            table::allocate("x", me, false, 0),
            Err(CoreError::ProcessTableFull)
        );
        all.iter().for_each(|s| table::release(*s));
        let again = table::allocate(&"long name ".repeat(20), me, true, 2).unwrap();
        assert!(!all.contains(&again));
        let info = table::info(again).unwrap();
        assert_eq!(
            (info.daemon, info.start_method, info.name.len()),
            (true, 2, 64)
        );
    });
}

#[test]
fn a_thousand_queues_leave_nothing() {
    in_session(|| {
        let before = session().usage().unwrap();
        for round in 0..2 {
            let queues: Vec<Queue> = (0..1000)
                .map(|i| {
                    let q = Queue::create(ObjectKind::Queue, 0, P).unwrap();
                    q.put(&vec![7; i * (1 + round)], &[], 0, Deadline::NOW, P)
                        .unwrap();
                    q
                })
                .collect();
            assert_eq!(session().usage().unwrap().objects, before.objects + 1000);
            drop(queues);
            assert_eq!(session().usage().unwrap(), before);
        }
    });
}

#[test]
fn items_keep_what_they_refer_to() {
    in_session(|| {
        let before = session().usage().unwrap();
        let outer = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let stale: RawHandle;
        {
            let inner = Queue::create(ObjectKind::SimpleQueue, 0, P).unwrap();
            let lock = Lock::create(P).unwrap();
            inner
                .put(b"lock", &[lock.obj().export()], 0, Deadline::NOW, P)
                .unwrap();
            outer
                .put(b"queue", &[inner.obj().export()], 0, Deadline::NOW, P)
                .unwrap();
            stale = lock.obj().handle();
        }
        assert_eq!(session().usage().unwrap().objects, before.objects + 3);
        let inner = outer
            .get(Deadline::NOW, P, |item| session().claim(item.handles[0]))
            .unwrap()
            .and_then(Queue::from_ref)
            .unwrap();
        assert_eq!(session().usage().unwrap().objects, before.objects + 3);
        drop(outer);
        assert_eq!(session().usage().unwrap().objects, before.objects + 2);
        // The unread item's lock goes with the queue.
        drop(inner);
        assert_eq!(session().usage().unwrap(), before);
        assert_eq!(session().claim(stale), Err(CoreError::ObjectGone));
    });
}

#[test]
fn a_refused_item_drops_its_references() {
    in_session(|| {
        let before = session().usage().unwrap();
        let q = Queue::create(ObjectKind::Queue, 1, P).unwrap();
        q.put(b"", &[], 0, Deadline::NOW, P).unwrap();
        let lock = Lock::create(P).unwrap();
        let full = q.put(b"", &[lock.obj().export()], 0, Deadline::NOW, P);
        assert_eq!(full, Err(CoreError::Full));
        drop(lock);
        assert_eq!(session().usage().unwrap().objects, before.objects + 1);
    });
}

#[test]
fn references_of_the_dead_are_dropped() {
    in_session(|| {
        let before = session().usage().unwrap();
        let q = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let out = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let child = start("child", || {
            // The child's own, and one that only it keeps.
            let own = Block::create(100_000, P).unwrap();
            own.set(8, 5_u64).unwrap();
            out.put(b"", &[own.obj().export()], 0, Deadline::NOW, P)
                .unwrap();
            wait::sleep(LONG, P).unwrap();
        });
        let block = out
            .get(long(), P, |item| session().claim(item.handles[0]))
            .unwrap()
            .and_then(Block::from_ref)
            .unwrap();
        drop(q);
        // The child still holds the queue that it inherited.
        assert_eq!(session().usage().unwrap().objects, before.objects + 3);
        kill(child);
        finish(child);
        assert_eq!(session().usage().unwrap().objects, before.objects + 2);
        assert_eq!(block.get::<u64>(8).unwrap(), 5);
        drop((block, out));
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn granted_references_outlive_the_granter() {
    in_session(|| {
        let before = session().usage().unwrap();
        let lock = Lock::create(P).unwrap();
        let handle = lock.obj().handle();
        let me = session().me();
        let slot = table::allocate("child", me, false, 0).unwrap();
        assert_eq!(
            session().adopt_granted(RawHandle {
                index: 9999,
                generation: 1
            }),
            Err(CoreError::ObjectGone)
        );
        table::grant(slot, &[handle]).unwrap();
        drop(lock);
        assert_eq!(session().usage().unwrap().objects, before.objects + 1);
        // It never starts.
        table::release(slot);
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn foreign_children_keep_their_status() {
    in_session(|| {
        // SAFETY: the process has one thread.
        let pid = signals::blocked(|| match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => exit_at_once(7),
            nix::unistd::ForkResult::Parent { child } => {
                reap::register_foreign(child.as_raw()).unwrap();
                child.as_raw()
            }
        });
        assert_eq!(
            reap::wait_foreign(pid, long(), P).unwrap().unwrap().code(),
            7
        );
        reap::forget_foreign(pid);
        assert_eq!(reap::foreign_status(pid), None);
    });
}

#[test]
fn orphans_are_reaped_by_the_main_process_and_swept() {
    in_session(|| {
        let q = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let parent = start("parent", || {
            let child = start("child", || wait::sleep(LONG, P).unwrap());
            q.put(&child.to_u64().to_ne_bytes(), &[], 0, Deadline::NOW, P)
                .unwrap();
            wait::sleep(LONG, P).unwrap();
        });
        let child = q
            .get(long(), P, |i| {
                u64::from_ne_bytes(i.payload.try_into().unwrap())
            })
            .unwrap();
        let child = SlotId::from_u64(child);
        kill(parent);
        finish(parent);
        // Its parent's death killed it.
        assert!(table::join(child, long(), P).unwrap());
        table::sweep(session());
        assert_eq!(table::status(child), SlotStatus::Gone);
    });
}

static HOOKS: AtomicU32 = AtomicU32::new(0);

fn hook() -> mphost_core::Result<()> {
    HOOKS.fetch_add(1, Ordering::SeqCst);
    match signals::take_pending() {
        Some(libc::SIGINT) => Err(CoreError::Interrupted(2)),
        _ => Ok(()),
    }
}

#[test]
fn kicks_and_signals_reach_every_kind_of_wait() {
    in_session(|| {
        wait::set_interrupt_hook(hook);
        signals::catch(libc::SIGINT).unwrap();
        let q = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        type Waiter<'a> = &'a dyn Fn() -> mphost_core::Result<()>;
        let waits: [Waiter<'_>; 3] = [
            &|| q.get(Deadline::NEVER, P, |_| ()),
            &|| wait::sleep(LONG, P),
            &|| {
                let (read, _write) = nix::unistd::pipe().unwrap();
                use std::os::fd::AsRawFd;
                let mut fds = [libc::pollfd {
                    fd: read.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                }];
                let info = wait::WaitInfo::new(wait::WaitKind::Descriptors, 0, P);
                wait::wait_fds(&mut fds, info, Deadline::NEVER).map(|_| ())
            },
        ];
        for waiter in waits {
            let child = start("waiter", || {
                let done = waiter();
                assert_eq!(done, Err(CoreError::Interrupted(2)));
                exit_at_once(HOOKS.load(Ordering::SeqCst) as i32)
            });
            until_waiting(child);
            let sequence = table::info(child).unwrap().waiting.unwrap().sequence;
            assert!(table::kick(child));
            // The hook ran, and it waits again.
            let limit = Instant::now() + LONG;
            while table::info(child)
                .unwrap()
                .waiting
                .is_none_or(|w| w.sequence == sequence)
            {
                assert!(Instant::now() < limit);
                std::thread::yield_now();
            }
            let pid = nix::unistd::Pid::from_raw(table::pid(child).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
            assert!(finish(child).code() >= 2);
            assert!(!table::kick(child));
        }
    });
}

#[test]
fn a_sleep_lasts_as_long_as_asked_in_spite_of_kicks() {
    in_session(|| {
        wait::set_interrupt_hook(hook);
        let me = session().me();
        let kicker = start("kicker", || {
            for _ in 0..20 {
                table::kick(me);
                wait::sleep(Duration::from_millis(5), P).unwrap();
            }
        });
        let begin = Instant::now();
        wait::sleep(Duration::from_millis(300), P).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(300));
        assert!(HOOKS.load(Ordering::SeqCst) > 0);
        finish_well(kicker);
    });
}

#[test]
fn blocks_hold_numbers_and_bytes() {
    in_session(|| {
        for len in [0_usize, 1, 40, 432, 433, 5000, 3 << 20] {
            let block = Block::create(len, P).unwrap();
            assert_eq!(block.len(), len);
            let mut all = vec![1; len];
            block.read(0, &mut all).unwrap();
            assert!(all.iter().all(|b| *b == 0));
            assert!(matches!(block.get::<u64>(len), Err(CoreError::Value(_))));
            assert!(block.set(usize::MAX, 1_u8).is_err());
            if len >= 40 {
                block.set(8, -1.5_f64).unwrap();
                block.set(17, 77_i32).unwrap();
                block.set(len - 2, 0xabcd_u16).unwrap();
                let child = start("child", || {
                    assert_eq!(block.get::<f64>(8).unwrap(), -1.5);
                    assert_eq!(block.get::<i32>(17).unwrap(), 77);
                    block.write(24, b"hello").unwrap();
                });
                finish_well(child);
                let mut text = [0; 5];
                block.read(24, &mut text).unwrap();
                assert_eq!(&text, b"hello");
                assert_eq!(block.get::<u16>(len - 2).unwrap(), 0xabcd);
            }
        }
        // Pages that were used before come back as zeroes.
        let block = Block::create(3 << 20, P).unwrap();
        assert_eq!(block.get::<u64>(24).unwrap(), 0);
        assert!(matches!(
            Block::create(usize::MAX / 2, P),
            Err(CoreError::OutOfMemory)
        ));
    });
}
