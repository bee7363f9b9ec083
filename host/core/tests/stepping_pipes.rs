//! As `stepping`, for pipes: what a process that is killed leaves in a lane and in the socket beside it.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
use common::connections::Short;
use common::stepping::*;
use common::*;
use mphost_core::clock::Deadline;
use mphost_core::connection::Connection;
use mphost_core::wait::{PollFd, WaitInfo, WaitKind, wait_fds_or};
use nix::poll::{PollFlags, PollTimeout, poll};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A message that fits into a lane's room, and one that the room has to grow for.
const SIZES: [usize; 2] = [10, 40_000];
/// So many of [`PART`] bytes that a lane has no room for 2,500 more.
const MANY: usize = 17;
const PART: usize = 15_390;

/// What is there to be received.
fn received(end: &Connection) -> Vec<Vec<u8>> {
    let mut all = vec![];
    while end.ready().unwrap() {
        all.push(end.take().unwrap());
    }
    all
}

/// Whatever has come before, the pipe can be used, and what is in it is one of `allowed`.
fn check_whole(sender: &Connection, receiver: &Connection, allowed: &[&[&[u8]]]) {
    sender.put(b"last").unwrap();
    let mut left = received(receiver);
    assert_eq!(left.pop().unwrap(), b"last", "{}", setting());
    assert!(
        allowed.iter().any(|messages| *messages == left),
        "{} messages: {}",
        left.len(),
        setting()
    );
}

#[test]
fn messages() {
    in_session(|| {
        for size in SIZES {
            let (receiver, sender) = Connection::pipe(false, P).unwrap();
            let (other_receiver, other) = Connection::pipe(false, P).unwrap();
            let message = vec![3; size];
            let fill = || {
                assert_eq!(received(&receiver).len(), 0, "{}", setting());
                sender.put(b"1").unwrap();
                sender.put(b"2").unwrap();
            };
            let warm = || {
                other.put(&message).unwrap();
                other_receiver.take().unwrap();
            };
            let check = |finished| match finished {
                true => check_whole(&sender, &receiver, &[&[b"1", b"2", &message]]),
                false => check_whole(
                    &sender,
                    &receiver,
                    &[&[b"1", b"2"], &[b"1", b"2", &message]],
                ),
            };
            let send = || sender.put(&message).unwrap();
            step_through("send", &fill, &warm, &send, &check);
            let receive = || {
                receiver.take().unwrap();
            };
            step_through(
                "receive",
                &fill,
                &warm,
                &receive,
                &|finished| match finished {
                    true => check_whole(&sender, &receiver, &[&[b"2"]]),
                    false => check_whole(&sender, &receiver, &[&[b"1", b"2"], &[b"2"]]),
                },
            );
        }
    });
}

#[test]
fn messages_with_descriptors() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let send = || sender.send(b"fds", &[file.as_fd()], P).unwrap();
        let receive = || {
            let mut message = vec![];
            receiver.recv(&mut message, None, P).unwrap();
        };
        let drain = || {
            while receiver.ready().unwrap() {
                receive();
            }
        };
        let go_on = |_| {
            // What is sent next comes, in whichever way, and in order.
            for message in [b"a", b"b", b"c"] {
                sender.put(message).unwrap();
            }
            send();
            let mut all = vec![];
            let mut message = vec![];
            while receiver.ready().unwrap() {
                receiver.recv(&mut message, None, P).unwrap();
                all.push(message.clone());
            }
            let rest = if all[0] == b"fds" { &all[1..] } else { &all };
            assert_eq!(rest, [b"a".as_slice(), b"b", b"c", b"fds"], "{}", setting());
        };
        step_through("send with a descriptor", &drain, &|| {}, &send, &go_on);
        let one = || {
            drain();
            send();
        };
        step_through("receive with a descriptor", &one, &|| {}, &receive, &go_on);
    });
}

#[test]
fn receivers_that_sleep() {
    in_session(|| {
        // All processes have both ends, so that no death says anything.
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let waiter = Waiter::start(|| drop(receiver.take().unwrap()));
        let send = || sender.put(b"message").unwrap();
        let step_through_send = |waiter: &Waiter| {
            let prepare = || {
                assert_eq!(received(&receiver).len(), 0, "{}", setting());
                waiter.send(WaitKind::Descriptors);
            };
            let check = |finished: bool| {
                // What was committed is received, without anybody's doing anything more.
                if !finished {
                    if waiter.went_on(secs(0.05)) {
                        return;
                    }
                    if !receiver.ready().unwrap() {
                        sender.put(b"next").unwrap();
                    }
                }
                assert!(waiter.went_on(long()), "it sleeps on: {}", setting());
            };
            step_through("send to one who sleeps", &prepare, &|| {}, &send, &check);
        };
        step_through_send(&waiter);
        // The same with one who waits for descriptors, as for several.
        let other = Waiter::start(|| {
            let mut descriptor_ready = false;
            while receiver.look(descriptor_ready).unwrap() != Some(true) {
                let mut polled = [PollFd {
                    fd: receiver.fileno().unwrap(),
                    events: libc::POLLIN,
                    revents: 0,
                }];
                let info = WaitInfo::new(WaitKind::Descriptors, 0, P);
                let seen = || receiver.has_message();
                wait_fds_or(&mut polled, info, Deadline::NEVER, &seen).unwrap();
                descriptor_ready = polled[0].revents != 0;
            }
            receiver.take().unwrap();
        });
        step_through_send(&other);
        other.end();

        // Two who sleep, of whom one is killed on its way to the message.
        let prepare = || {
            assert_eq!(received(&receiver).len(), 0, "{}", setting());
            waiter.send(WaitKind::Descriptors);
            sender.put(b"message").unwrap();
        };
        let receive = || {
            // The other one may have been first.
            receiver
                .poll(Deadline::after(Duration::from_micros(50)), P)
                .unwrap();
        };
        let check = |_| {
            assert!(waiter.went_on(long()), "{}", setting());
            check_whole(&sender, &receiver, &[&[]]);
        };
        step_through(
            "poll beside one who sleeps",
            &prepare,
            &receive,
            &receive,
            &check,
        );
        waiter.end();
    });
}

#[test]
fn polls_that_find_nothing() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let poll = || {
            let deadline = Deadline::after(Duration::from_micros(50));
            assert!(!receiver.poll(deadline, P).unwrap());
        };
        let check = |_| check_whole(&sender, &receiver, &[&[]]);
        step_through("poll", &|| {}, &poll, &poll, &check);
    });
}

#[test]
fn a_lane_that_is_full() {
    in_session(|| {
        // The message for which there is no room.
        let message = [7; 3000];
        let scene = RefCell::default();
        let prepare = || {
            let (receiver, sender) = Connection::pipe(false, P).unwrap();
            for _ in 0..MANY {
                sender.put(&[1; PART]).unwrap();
            }
            let fd = receiver.fileno().unwrap();
            // Reads when the socket says that somebody has no room.
            let reader = Waiter::start(|| {
                // SAFETY: the connection keeps it open.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                let mut polled = [nix::poll::PollFd::new(fd, PollFlags::POLLIN)];
                poll(&mut polled, PollTimeout::NONE).unwrap();
                let mut small = 0;
                loop {
                    match receiver.take().unwrap().len() {
                        PART => {}
                        3000 => small += 1,
                        _ => break,
                    }
                }
                assert!(small <= 1, "{small}");
            });
            reader.go();
            scene.replace(Some((reader, sender, receiver)));
        };
        let send = || {
            let scene = scene.borrow();
            let (_, sender, _) = scene.as_ref().unwrap();
            sender.put(&message).unwrap();
        };
        let check = |_| {
            let (reader, sender, receiver) = scene.take().unwrap();
            sender.put(&message[..2500]).unwrap();
            assert!(reader.went_on(long()), "{}", setting());
            check_whole(&sender, &receiver, &[&[]]);
            reader.end();
        };
        step_through("send to a full lane", &prepare, &|| {}, &send, &check);
    });
}
