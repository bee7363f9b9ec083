//! Connections between processes: what is sent arrives, whole and in order.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::connections::*;
use common::*;
use mphost_core::CoreError;
use mphost_core::clock::Deadline;
use mphost_core::connection::{Connection, ConnectionError, DESCRIPTOR_LIMIT};
use mphost_core::session::session;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::MsgFlags;
use nix::unistd::pipe;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[test]
fn a_child_echoes_messages_of_every_size() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            let child = Child::run(|| {
                here.close();
                loop {
                    match there.take() {
                        Ok(message) => there.put(&message).unwrap(),
                        Err(end) => return assert_eq!(end, error(ConnectionError::EndOfFile)),
                    }
                }
            });
            there.close();
            for length in [
                0, 1, 2, 1000, 65_535, 65_536, 65_537, 131_072, 131_073, 1_000_000, LARGE,
            ] {
                let message = pattern(length);
                here.put(&message).unwrap();
                assert!(
                    here.take().unwrap() == message,
                    "{length} bytes over {:?}",
                    here.framing()
                );
            }
            here.close();
            child.finish();
        }
    });
}

#[test]
fn messages_are_never_merged() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            for message in ["a", "b", "", "cd"] {
                here.put(message.as_bytes()).unwrap();
            }
            for message in ["a", "b", "", "cd"] {
                assert!(there.poll(Deadline::after_secs(60.0), P).unwrap());
                assert!(there.ready().unwrap(), "poll takes nothing");
                assert_eq!(there.take().unwrap(), message.as_bytes());
            }
            assert!(!there.ready().unwrap());
        }
    });
}

#[test]
fn poll_waits_as_long_as_it_is_told() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            assert_eq!(there.ready(), Ok(false));
            assert_eq!(there.poll(Deadline::after_secs(-1.0), P), Ok(false));
            let start = std::time::Instant::now();
            assert_eq!(there.poll(Deadline::after_secs(0.05), P), Ok(false));
            assert!(start.elapsed().as_secs_f64() >= 0.05);
            let child = Child::run(|| here.put(b"late").unwrap());
            assert_eq!(there.poll(Deadline::NEVER, P), Ok(true));
            assert_eq!(there.take().unwrap(), b"late");
            child.finish();
            here.close();
            // The end is something to be received, too.
            assert_eq!(there.poll(Deadline::NEVER, P), Ok(true));
            assert_eq!(there.take(), Err(error(ConnectionError::EndOfFile)));
            assert_eq!(there.ready(), Ok(true));
        }
    });
}

#[test]
fn the_end_comes_after_the_data_and_for_the_last_copy() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        let (go_reader, go_writer) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| {
            go_writer.close();
            writer.put(b"from the child").unwrap();
            // Holds its copy of the writer until it is told to end.
            assert_eq!(go_reader.take(), Err(error(ConnectionError::EndOfFile)));
        });
        writer.put(b"from the parent").unwrap();
        writer.close();
        let mut messages = [reader.take().unwrap(), reader.take().unwrap()];
        messages.sort();
        assert_eq!(
            messages,
            [b"from the child".to_vec(), b"from the parent".to_vec()]
        );
        assert_eq!(
            reader.poll(Deadline::after_secs(0.05), P),
            Ok(false),
            "the child's copy is open"
        );
        go_writer.close();
        child.finish();
        assert_eq!(reader.take(), Err(error(ConnectionError::EndOfFile)));
        assert_eq!(reader.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

#[test]
fn a_killed_child_closes_its_end() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        let child = Child::run(|| {
            writer.put(b"one").unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        writer.close();
        assert_eq!(reader.take().unwrap(), b"one");
        child.kill();
        assert_eq!(reader.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

#[test]
fn what_a_closed_end_left_unread_hides_nothing() {
    in_session(|| {
        let (here, there) = Connection::pipe(true, P).unwrap();
        here.put(b"never read").unwrap();
        there.put(b"the answer").unwrap();
        there.close();
        assert_eq!(here.ready(), Ok(true));
        assert_eq!(here.take().unwrap(), b"the answer");
        assert_eq!(here.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

#[test]
fn ends_have_directions() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        assert!(reader.readable() && !reader.writable());
        assert!(!writer.readable() && writer.writable());
        assert_eq!(reader.put(b"x"), Err(error(ConnectionError::ReadOnly)));
        assert_eq!(writer.take(), Err(error(ConnectionError::WriteOnly)));
        assert_eq!(writer.ready(), Err(error(ConnectionError::WriteOnly)));
        // Not even by the descriptor itself.
        let raw = nix::sys::socket::send(reader.fileno().unwrap(), b"x", MsgFlags::MSG_NOSIGNAL);
        assert_eq!(raw, Err(nix::errno::Errno::EPIPE));
        writer.put(b"x").unwrap();
        assert_eq!(reader.take().unwrap(), b"x");
        assert_eq!(reader.ready(), Ok(false));

        let (left, right) = Connection::pipe(true, P).unwrap();
        assert!(left.readable() && left.writable() && right.readable() && right.writable());
        left.put(b"to the right").unwrap();
        right.put(b"to the left").unwrap();
        assert_eq!(left.take().unwrap(), b"to the left");
        assert_eq!(right.take().unwrap(), b"to the right");
    });
}

#[test]
fn a_closed_end_is_of_no_use() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        for end in [reader, writer] {
            let fd = end.fileno().unwrap();
            assert!(!end.closed());
            end.close();
            end.close();
            assert!(end.closed());
            assert_eq!(end.fileno(), Err(error(ConnectionError::Closed)));
            assert_eq!(end.put(b""), Err(error(ConnectionError::Closed)));
            assert_eq!(end.take(), Err(error(ConnectionError::Closed)));
            assert_eq!(end.ready(), Err(error(ConnectionError::Closed)));
            // SAFETY: the number is only asked about.
            let gone = fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD);
            assert_eq!(gone, Err(nix::errno::Errno::EBADF));
        }
        assert_eq!(
            error(ConnectionError::Closed).to_string(),
            "handle is closed"
        );
        assert_eq!(
            error(ConnectionError::ReadOnly).to_string(),
            "connection is read-only"
        );
        assert_eq!(
            error(ConnectionError::WriteOnly).to_string(),
            "connection is write-only"
        );
        assert_eq!(
            error(ConnectionError::BadMessageLength).to_string(),
            "bad message length"
        );
        assert_eq!(
            error(ConnectionError::TornMessage).to_string(),
            "got end of file during message"
        );
    });
}

#[test]
fn a_message_may_be_as_long_as_allowed() {
    in_session(|| {
        for length in [4, 100_000] {
            for (here, there) in duplex_pairs() {
                let child = Child::run(|| {
                    for extra in [0, 1] {
                        here.put(&pattern(length + extra)).unwrap();
                    }
                    assert_eq!(here.take().unwrap(), b"still writable");
                });
                assert_eq!(there.take_within(length).unwrap(), pattern(length));
                assert_eq!(
                    there.take_within(length),
                    Err(error(ConnectionError::BadMessageLength))
                );
                assert!(!there.readable() && there.writable() && !there.closed());
                assert_eq!(there.take(), Err(error(ConnectionError::WriteOnly)));
                there.put(b"still writable").unwrap();
                child.finish();
            }
            let (reader, writer) = Connection::pipe(false, P).unwrap();
            writer.put(&pattern(length + 1)).unwrap();
            assert_eq!(
                reader.take_within(length),
                Err(error(ConnectionError::BadMessageLength))
            );
            assert!(reader.closed());
        }
    });
}

#[test]
fn the_buffer_is_used_again_and_holds_one_message() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        let mut message = b"what was there before".to_vec();
        writer.put(b"first").unwrap();
        writer.put(b"second").unwrap();
        reader.recv(&mut message, None, P).unwrap();
        assert_eq!(message, b"first");
        let memory = message.as_ptr();
        reader.recv(&mut message, None, P).unwrap();
        assert_eq!(message, b"second");
        assert_eq!(message.as_ptr(), memory);
    });
}

#[test]
fn an_end_may_be_handed_on_between_two_messages() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            here.put(b"for the parent").unwrap();
            here.put(b"for the child").unwrap();
            assert_eq!(there.take().unwrap(), b"for the parent");
            Child::run(|| {
                assert_eq!(there.take().unwrap(), b"for the child");
                assert_eq!(there.ready(), Ok(false));
            })
            .finish();
            assert_eq!(there.ready(), Ok(false));
        }
    });
}

#[test]
fn several_receivers_share_an_end_of_small_messages() {
    in_session(|| {
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        let (count_reader, count_writer) = Connection::pipe(false, P).unwrap();
        let children: Vec<_> = (0..3)
            .map(|_| {
                Child::run(|| {
                    writer.close();
                    let mut sum = 0u64;
                    while let Ok(message) = reader.take() {
                        sum += u64::from_le_bytes(message.as_slice().try_into().unwrap());
                    }
                    count_writer.put(&sum.to_le_bytes()).unwrap();
                })
            })
            .collect();
        for number in 1..=3000u64 {
            writer.put(&number.to_le_bytes()).unwrap();
        }
        writer.close();
        let sums: u64 = (0..3)
            .map(|_| {
                u64::from_le_bytes(count_reader.take().unwrap().as_slice().try_into().unwrap())
            })
            .sum();
        assert_eq!(sums, 3000 * 3001 / 2);
        children.into_iter().for_each(Child::finish);
    });
}

fn received_fds(connection: &Connection) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut message = Vec::new();
    let fds = connection.recv(&mut message, None, P).unwrap();
    (message, fds)
}

#[test]
fn descriptors_travel_along() {
    in_session(|| {
        for length in [0, 10, 200_000] {
            for (here, there) in duplex_pairs().into_iter().take(3) {
                let child = Child::run(|| {
                    here.close();
                    let (message, fds) = received_fds(&there);
                    assert_eq!(message, pattern(length));
                    let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
                    let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
                    assert!(flags.contains(FdFlag::FD_CLOEXEC));
                    std::fs::File::from(fd)
                        .write_all(b"written by the child")
                        .unwrap();
                });
                let (read, write) = pipe().unwrap();
                here.send(&pattern(length), &[write.as_fd()], P).unwrap();
                drop(write);
                // The child has inherited nothing of the pipe, and ours is closed.
                let mut text = String::new();
                there.close();
                std::fs::File::from(read).read_to_string(&mut text).unwrap();
                assert_eq!(text, "written by the child");
                child.finish();
            }
        }
    });
}

#[test]
fn a_connection_travels_through_a_connection() {
    in_session(|| {
        let (here, there) = Connection::pipe(true, P).unwrap();
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        writer.put(b"sent before").unwrap();
        // SAFETY: the connection keeps it open meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(reader.fileno().unwrap()) };
        let (object, first) = reader.shared().unwrap();
        let object = object.export();
        here.send(b"", &[fd], P).unwrap();
        reader.close();
        writer.put(b"sent while it travels").unwrap();
        writer.close();
        let (_, mut fds) = received_fds(&there);
        let object = session().adopt(object).unwrap();
        let reader =
            Connection::from_shared(fds.pop().unwrap(), true, false, object, first).unwrap();
        assert_eq!(reader.take().unwrap(), b"sent before");
        assert_eq!(reader.take().unwrap(), b"sent while it travels");
        assert_eq!(reader.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

#[test]
fn descriptors_have_a_limit() {
    in_session(|| {
        let (here, there) = Connection::pipe(true, P).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let most = vec![file.as_fd(); DESCRIPTOR_LIMIT];
        here.send(b"most", &most, P).unwrap();
        let (message, fds) = received_fds(&there);
        assert_eq!(
            (message.as_slice(), fds.len()),
            (b"most".as_slice(), DESCRIPTOR_LIMIT)
        );
        let more = vec![file.as_fd(); DESCRIPTOR_LIMIT + 1];
        let refused = here.send(b"more", &more, P);
        assert_eq!(
            refused,
            Err(error(ConnectionError::TooManyDescriptors(
                DESCRIPTOR_LIMIT + 1
            )))
        );
        assert_eq!(there.ready(), Ok(false), "nothing was sent");

        let (client, _server) = duplex_pairs().pop().unwrap();
        assert_eq!(
            client.send(b"", &most[..1], P),
            Err(error(ConnectionError::NoDescriptors))
        );
    });
}

#[test]
fn descriptors_that_find_no_room_are_an_error_for_their_message_alone() {
    in_session(|| {
        for length in [10, 200_000] {
            for (here, there) in duplex_pairs().into_iter().take(3) {
                let child = Child::run(|| {
                    let file = std::fs::File::open("/dev/null").unwrap();
                    here.send(&pattern(length), &[file.as_fd(); 200], P)
                        .unwrap();
                    here.put(b"next").unwrap();
                });
                Child::run(|| {
                    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                    setrlimit(Resource::RLIMIT_NOFILE, 60, hard).unwrap();
                    let lost = there.recv(&mut Vec::new(), None, P).map(drop);
                    assert_eq!(lost, Err(CoreError::os("recvmsg", libc::EMFILE)));
                    assert_eq!(there.take().unwrap(), b"next");
                    // Those that did arrive have been closed.
                    drop(std::fs::File::open("/dev/null").unwrap());
                })
                .finish();
                child.finish();
            }
        }
    });
}
