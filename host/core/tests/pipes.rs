//! Pipes within a program: what goes by a lane in shared memory, and what by the socket beside it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::connections::*;
use common::*;
use mphost_core::CoreError;
use mphost_core::clock::Deadline;
use mphost_core::connection::{Connection, ConnectionError};
use mphost_core::permit::Lock;
use mphost_core::session::session;
use mphost_core::wait::{PollFd, WaitInfo, WaitKind, wait_fds_or};
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Lengths of messages for lanes, for more room than a lane has at first, and for the socket.
const LENGTHS: [usize; 8] = [0, 1, 100, 4000, 70_000, 600_000, 2_000_000, 3_000_000];

/// Longer than what has room in a lane, in a ring and in a socket.
const LONG: usize = 3_000_000;

fn descriptor(end: &Connection) -> OwnedFd {
    // SAFETY: the connection keeps it open meanwhile.
    let fd = unsafe { BorrowedFd::borrow_raw(end.fileno().unwrap()) };
    fd.try_clone_to_owned().unwrap()
}

#[test]
fn messages_come_in_order_by_lane_and_socket() {
    in_session(|| {
        let (here, there) = Connection::pipe(true, P).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let lengths = || (0..400).map(|n| (n, LENGTHS[n * n % 31 % LENGTHS.len()] + n % 3));
        let send = |end: &Connection| {
            for (n, length) in lengths() {
                let fds = [file.as_fd()];
                let fds = if n % 5 == 0 { &fds[..] } else { &[] };
                end.send(&pattern(length), fds, P).unwrap();
            }
        };
        let receive = |end: &Connection| {
            let mut message = vec![];
            for (n, length) in lengths() {
                let fds = end.recv(&mut message, None, P).unwrap();
                assert_eq!(fds.len(), usize::from(n % 5 == 0), "message {n}");
                assert!(
                    message == pattern(length),
                    "message {n}: {} instead of {length} bytes",
                    message.len()
                );
            }
        };
        let child = Child::run(|| {
            here.close();
            receive(&there);
            send(&there);
        });
        there.close();
        send(&here);
        receive(&here);
        assert_eq!(here.take(), Err(error(ConnectionError::EndOfFile)));
        child.finish();
    });
}

#[test]
fn who_has_no_room_learns_that_nobody_receives_any_more() {
    in_session(|| {
        for length in [100, 50_000] {
            for kill in [true, false] {
                let (receiver, sender) = Connection::pipe(false, P).unwrap();
                let (go, told) = Connection::pipe(false, P).unwrap();
                let child = Child::run(|| {
                    sender.close();
                    told.close();
                    let _ = go.take();
                    if kill {
                        nix::sys::signal::raise(nix::sys::signal::SIGKILL).unwrap();
                    }
                });
                let other = Child::run(|| {
                    told.close();
                    receiver.close();
                    let message = vec![0; length];
                    let mut sent = 0;
                    let refused = loop {
                        match sender.put(&message) {
                            Ok(()) => sent += 1,
                            Err(refused) => break refused,
                        }
                    };
                    assert_eq!(refused, error(ConnectionError::BrokenPipe));
                    assert!(sent * length > 100_000, "{sent} messages");
                });
                receiver.close();
                sender.close();
                until_waiting(other.0);
                told.close();
                other.finish();
                if kill {
                    assert_eq!(finish(child.0).code(), -9);
                } else {
                    child.finish();
                }
            }
        }
    });
}

#[test]
fn who_has_no_room_goes_on_when_there_is_some() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| {
            receiver.close();
            for n in 0..50_000_u64 {
                sender.put(&n.to_le_bytes()).unwrap();
            }
        });
        sender.close();
        // Each time it has to wait again.
        let mut expected = 0..50_000_u64;
        for _ in 0..3 {
            until_waiting(child.0);
            for n in expected.by_ref().take(9000) {
                assert_eq!(receiver.take().unwrap(), n.to_le_bytes());
            }
        }
        for n in expected {
            assert_eq!(receiver.take().unwrap(), n.to_le_bytes());
        }
        assert_eq!(receiver.take(), Err(error(ConnectionError::EndOfFile)));
        child.finish();
    });
}

#[test]
fn an_end_that_is_waited_for_with_others_says_what_it_has() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| {
            let mut descriptor_ready = false;
            loop {
                // What was seen is received; the descriptor alone says that another look is worth it.
                while receiver.look(descriptor_ready).unwrap() == Some(true) {
                    match receiver.take() {
                        Ok(message) => assert_eq!(message, b"message"),
                        Err(end) => return assert_eq!(end, error(ConnectionError::EndOfFile)),
                    }
                }
                sender.close();
                let mut polled = [PollFd {
                    fd: receiver.fileno().unwrap(),
                    events: libc::POLLIN,
                    revents: 0,
                }];
                let info = WaitInfo::new(WaitKind::Descriptors, 0, P);
                wait_fds_or(&mut polled, info, Deadline::NEVER, &|| {
                    receiver.has_message()
                })
                .unwrap();
                descriptor_ready = polled[0].revents != 0;
            }
        });
        for _ in 0..3 {
            until_waiting(child.0);
            sender.put(b"message").unwrap();
            sender.put(b"message").unwrap();
        }
        sender.close();
        child.finish();
        assert_eq!(receiver.look(true), Ok(Some(true)));
    });
}

#[test]
fn an_end_that_has_left_its_program_is_reached_by_its_descriptor() {
    in_session(|| {
        let (here, there) = Connection::pipe(true, P).unwrap();
        there.put(b"by the lane").unwrap();
        here.put(b"not received").unwrap();
        let refused = there.leave_program().unwrap_err();
        assert!(matches!(refused, CoreError::Value(_)), "{refused}");
        assert!(!there.may_lead_elsewhere() && !here.may_lead_elsewhere());
        assert_eq!(there.take().unwrap(), b"not received");
        // A bell may still be there.
        assert!(!there.ready().unwrap());
        there.leave_program().unwrap();
        assert!(there.may_lead_elsewhere() && here.may_lead_elsewhere());
        let stranger = Connection::from_packet_fd(descriptor(&there), true, true);
        there.close();
        stranger.put(b"by the socket").unwrap();
        for message in [b"by the lane".as_slice(), b"by the socket"] {
            assert_eq!(here.take().unwrap(), message);
        }
        for length in LENGTHS {
            let child = Child::run(|| here.put(&pattern(length)).unwrap());
            assert!(stranger.take().unwrap() == pattern(length));
            child.finish();
        }
        here.close();
        assert_eq!(stranger.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

/// The next packet as it comes, without its descriptors.
fn packet(end: &Connection) -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    let fd = end.fileno().unwrap();
    let length = nix::sys::socket::recv(fd, &mut bytes, MsgFlags::empty()).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn long_messages_lie_beside_the_socket() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| {
            receiver.close();
            let failure = sender.put(&pattern(LONG)).unwrap_err();
            assert_eq!(failure, error(ConnectionError::BrokenPipe));
        });
        sender.close();
        let length = (LONG as u64).to_le_bytes();
        assert_eq!(packet(&receiver), [&[1], length.as_slice()].concat());
        for number in 0..4_u8 {
            // Which piece it is, and its length: 256 KiB.
            let place = [6, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
            assert_eq!(packet(&receiver), place);
        }
        // There is no room for the fifth until one of them has been taken.
        let fragment = packet(&receiver);
        assert_eq!(fragment.len(), 1 + (64 << 10));
        assert!(fragment[1..] == pattern(LONG)[1 << 20..][..64 << 10]);
        receiver.close();
        child.finish();
    });
}

#[test]
fn an_end_with_pieces_beside_its_socket_stays_in_its_program() {
    in_session(|| {
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| sender.put(&pattern(LONG)).unwrap());
        until_waiting(child.0);
        let refused = receiver.leave_program().unwrap_err();
        assert!(matches!(refused, CoreError::Value(_)), "{refused}");
        assert!(receiver.take().unwrap() == pattern(LONG));
        child.finish();
        receiver.leave_program().unwrap();
        // Now there is the socket alone.
        let child = Child::run(|| sender.put(&pattern(LONG)).unwrap());
        assert_eq!(packet(&receiver)[0], 1);
        assert_eq!(packet(&receiver).len(), 1 + (64 << 10));
        child.kill();
    });
}

#[test]
fn long_messages_of_one_after_the_other_arrive() {
    in_session(|| {
        let before = session().usage().unwrap();
        let (receiver, sender) = Connection::pipe(false, P).unwrap();
        for n in 0..12 {
            let length = LONG + n;
            let child = Child::run(|| {
                sender.put(&pattern(length)).unwrap();
                if n % 2 == 0 {
                    nix::sys::signal::raise(nix::sys::signal::SIGKILL).unwrap();
                }
            });
            assert!(receiver.take().unwrap() == pattern(length));
            let code = finish(child.0).code();
            assert_eq!(code, if n % 2 == 0 { -9 } else { 0 });
        }
        drop((receiver, sender));
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn many_pipes_leave_nothing() {
    in_session(|| {
        let before = session().usage().unwrap();
        for n in 0..2000 {
            let (here, there) = Connection::pipe(n % 2 == 0, P).unwrap();
            there.put(&pattern(LENGTHS[n % 6])).unwrap();
            if n % 3 == 0 {
                here.take().unwrap();
            }
        }
        assert_eq!(session().usage().unwrap(), before);
    });
}

#[test]
fn what_an_unread_message_refers_to_goes_with_its_pipe() {
    in_session(|| {
        let before = session().usage().unwrap();
        let (here, there) = Connection::pipe(true, P).unwrap();
        let lock = Lock::create(P).unwrap();
        for end in [&here, &there] {
            for _ in 0..2 {
                end.send_with(&Default::default(), &[lock.obj().export()], &[], P)
                    .unwrap();
            }
        }
        let handle = lock.obj().handle();
        drop(lock);
        // A message that is received gives its reference to the receiver.
        here.take().unwrap();
        let lock = Lock::from_ref(session().adopt(handle).unwrap()).unwrap();
        assert!(lock.acquire(Deadline::NOW, P).unwrap());
        lock.release().unwrap();
        drop((here, there));
        assert_eq!(session().usage().unwrap().objects, before.objects + 1);
        drop(lock);
        assert_eq!(session().usage().unwrap(), before);
    });
}
