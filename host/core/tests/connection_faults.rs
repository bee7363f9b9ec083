//! Connections when something goes wrong: dead peers, malformed messages, interrupts, callbacks.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::connections::*;
use common::*;
use mphost_core::clock::Deadline;
use mphost_core::connection::{Connection, ConnectionError, Framing};
use mphost_core::session::session;
use mphost_core::{CoreError, Result, signals, wait};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use nix::unistd::{getpid, getppid};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::{Cell, RefCell};
use std::io::{IoSlice, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

#[test]
fn a_sender_killed_in_mid_message_tears_it() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            let child = Child::run(|| {
                here.put(&vec![7; 8 * LARGE]).unwrap();
            });
            here.close();
            // Now the message has begun, and it is far larger than what the kernel keeps for us.
            assert_eq!(there.poll(Deadline::NEVER, P), Ok(true));
            child.kill();
            let mut message = vec![1, 2, 3];
            let result = there.recv(&mut message, None, P).map(drop);
            assert_eq!(
                result,
                Err(error(ConnectionError::TornMessage)),
                "{:?}",
                there.framing()
            );
            assert!(message.is_empty(), "nobody sees half a message");
            assert_eq!(there.take(), Err(error(ConnectionError::TornMessage)));
        }
    });
}

#[test]
fn a_receiver_killed_in_mid_message_breaks_the_pipe() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            let child = Child::run(|| {
                here.close();
                there.put(b"ready").unwrap();
                assert_eq!(there.poll(Deadline::NEVER, P), Ok(true));
                kill(getpid(), Signal::SIGKILL).unwrap();
            });
            there.close();
            assert_eq!(here.take().unwrap(), b"ready");
            assert_eq!(
                here.put(&vec![7; 8 * LARGE]),
                Err(error(ConnectionError::BrokenPipe)),
                "{:?}",
                here.framing()
            );
            assert_eq!(finish(child.0).code(), -9);
            assert_eq!(here.put(b"more"), Err(error(ConnectionError::BrokenPipe)));
        }
    });
}

#[test]
fn sending_to_nobody_is_a_broken_pipe_and_no_signal() {
    in_session(|| {
        for duplex in [false, true] {
            for length in [0, 10, LARGE] {
                let (reader, writer) = Connection::pipe(duplex, P).unwrap();
                let child = Child::run(|| {
                    // SAFETY: no handler is installed, the default action is.
                    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
                    reader.close();
                    writer.put(b"wait for it").unwrap();
                    // The parent's copy is closed at some time.
                    let failure = loop {
                        if let Err(failure) = writer.put(&vec![7; length]) {
                            break failure;
                        }
                    };
                    assert_eq!(failure, error(ConnectionError::BrokenPipe));
                    assert_eq!(writer.put(b""), Err(error(ConnectionError::BrokenPipe)));
                });
                writer.close();
                assert_eq!(reader.take().unwrap(), b"wait for it");
                reader.close();
                child.finish();
            }
        }
    });
}

/// Sends raw packets to the other end, and closes.
fn raw_packets(packets: &[Vec<u8>]) -> Connection {
    let (reader, writer) = Connection::pipe(false, P).unwrap();
    for packet in packets {
        let _ = sendmsg::<()>(
            writer.fileno().unwrap(),
            &[IoSlice::new(packet)],
            &[ControlMessage::ScmRights(&[writer.fileno().unwrap()])],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        );
    }
    shutdown(writer.fileno().unwrap(), Shutdown::Write).unwrap();
    reader
}

fn beside(number: u64, length: u32) -> Vec<u8> {
    [&[6][..], &number.to_le_bytes(), &length.to_le_bytes()].concat()
}

fn first(length: u64) -> Vec<u8> {
    [&[1][..], &length.to_le_bytes()].concat()
}

#[test]
fn packets_that_make_no_message_are_refused() {
    in_session(|| {
        let cases = [
            (vec![vec![9]], ConnectionError::Malformed),
            (vec![vec![2, 0]], ConnectionError::Malformed),
            (vec![vec![3, 0]], ConnectionError::Malformed),
            (vec![vec![1, 0]], ConnectionError::Malformed),
            (vec![vec![0; 70_000]], ConnectionError::Malformed),
            (vec![first(10)], ConnectionError::TornMessage),
            (
                vec![first(10), vec![2, 7], vec![2, 8]],
                ConnectionError::TornMessage,
            ),
            (vec![first(10), vec![3, 7]], ConnectionError::Malformed),
            (vec![first(2), vec![2, 7, 8]], ConnectionError::Malformed),
            (vec![first(2), vec![2, 7, 8, 9]], ConnectionError::Malformed),
            (vec![first(2), vec![0, 7, 8]], ConnectionError::Malformed),
            (vec![first(10), first(10)], ConnectionError::Malformed),
            (
                vec![first(u64::MAX), vec![2, 7]],
                ConnectionError::TornMessage,
            ),
            // Pieces beside the socket, of which there are none.
            (
                vec![first(100_000), beside(0, 70_000)],
                ConnectionError::Malformed,
            ),
            (vec![first(100), beside(0, 0)], ConnectionError::Malformed),
            (vec![first(100), beside(0, 101)], ConnectionError::Malformed),
            (
                vec![first(u64::MAX), beside(u64::MAX, u32::MAX)],
                ConnectionError::Malformed,
            ),
            (
                vec![first(100), beside(0, 70)[..12].to_vec()],
                ConnectionError::Malformed,
            ),
            (vec![beside(0, 70)], ConnectionError::Malformed),
            (vec![], ConnectionError::EndOfFile),
        ];
        for (packets, expected) in cases {
            let reader = raw_packets(&packets);
            let mut message = Vec::new();
            assert_eq!(
                reader.recv(&mut message, None, P).map(drop),
                Err(error(expected)),
                "{packets:?}"
            );
            assert!(
                message.is_empty() && message.capacity() < 1 << 20,
                "{} bytes reserved",
                message.capacity()
            );
            assert!(reader.take().is_err());
        }
    });
}

fn raw_stream(bytes: &[u8]) -> Connection {
    let (mut raw, end) = UnixStream::pair().unwrap();
    raw.write_all(bytes).unwrap();
    Connection::from_stream_fd(end.into())
}

#[test]
fn streams_speak_python() {
    in_session(|| {
        let (mut raw, end) = UnixStream::pair().unwrap();
        let connection = Connection::from_stream_fd(end.into());
        assert_eq!(connection.framing(), Framing::Stream);
        connection.put(b"hello").unwrap();
        connection.put(b"").unwrap();
        let mut bytes = [0; 13];
        raw.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0\x05hello\0\0\0\0");
        raw.write_all(b"\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0\0\0\0\x03abc\0\0\0\0")
            .unwrap();
        drop(raw);
        for message in [&b"hi"[..], b"abc", b""] {
            assert_eq!(connection.take().unwrap(), message);
        }
        assert_eq!(connection.take(), Err(error(ConnectionError::EndOfFile)));
    });
}

#[test]
fn streams_that_make_no_message_are_refused() {
    in_session(|| {
        let cases: [(&[u8], ConnectionError); 8] = [
            (b"", ConnectionError::EndOfFile),
            (b"\0\0\0", ConnectionError::TornMessage),
            (b"\0\0\0\x05hell", ConnectionError::TornMessage),
            (b"\xff\xff\xff\xfehello", ConnectionError::Malformed),
            (b"\xff\xff\xff\xff\0\0", ConnectionError::TornMessage),
            (
                b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xffhello",
                ConnectionError::TornMessage,
            ),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffhello",
                ConnectionError::TornMessage,
            ),
            (b"\x7f\xff\xff\xffhello", ConnectionError::TornMessage),
        ];
        for (bytes, expected) in cases {
            let connection = raw_stream(bytes);
            let mut message = Vec::new();
            assert_eq!(
                connection.recv(&mut message, None, P).map(drop),
                Err(error(expected)),
                "{bytes:?}"
            );
            assert!(
                message.is_empty() && message.capacity() < 1 << 20,
                "{} bytes reserved",
                message.capacity()
            );
            assert!(connection.take().is_err());
        }
    });
}

/// Runs a property in a session; proptest's own macro knows no way to wrap all its cases.
fn property<S: Strategy>(
    strategy: S,
    test: impl Fn(S::Value) -> std::result::Result<(), TestCaseError>,
) {
    in_session(|| {
        let config = ProptestConfig {
            cases: 128,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        TestRunner::new(config).run(&strategy, test).unwrap();
    });
}

#[test]
fn arbitrary_packets_do_no_harm() {
    let body = prop::collection::vec(0u8..9, 0..12);
    property(prop::collection::vec((0u8..7, body), 0..12), |packets| {
        let before = open_descriptors();
        {
            let packets: Vec<Vec<u8>> = packets
                .into_iter()
                .map(|(kind, body)| [vec![kind], body].concat())
                .collect();
            let reader = raw_packets(&packets);
            let mut message = Vec::new();
            // Each call takes a packet at least, and the end is an error.
            let mut calls = 0;
            while reader.recv(&mut message, None, P).is_ok() {
                calls += 1;
                prop_assert!(calls <= packets.len());
            }
        }
        prop_assert_eq!(
            open_descriptors(),
            before,
            "descriptors that nobody asked for were kept"
        );
        Ok(())
    });
}

#[test]
fn arbitrary_streams_do_no_harm() {
    let byte = prop_oneof![4 => 0u8..4, 1 => any::<u8>()];
    property(prop::collection::vec(byte, 0..300), |bytes| {
        let connection = raw_stream(&bytes);
        let mut message = Vec::new();
        while connection.recv(&mut message, None, P).is_ok() {
            prop_assert!(message.len() < bytes.len());
        }
        prop_assert!(message.capacity() < 1 << 20);
        Ok(())
    });
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Sends SIGUSR1 to the main process each time it has gone to sleep, until it has been killed itself.
fn disturb_parent() -> Child {
    let parent = session().me();
    Child::run(|| {
        loop {
            until_waiting(parent);
            kill(getppid(), Signal::SIGUSR1).unwrap();
        }
    })
}

#[test]
fn signals_do_not_disturb() {
    in_session(|| {
        signals::catch(libc::SIGUSR1).unwrap();
        for (here, there) in duplex_pairs() {
            let disturber = disturb_parent();
            let child = Child::run(|| {
                for _ in 0..20 {
                    let message = there.take().unwrap();
                    there.put(&message).unwrap();
                }
            });
            for _ in 0..20 {
                let message = pattern(300_000);
                here.put(&message).unwrap();
                assert!(here.take().unwrap() == message);
            }
            child.finish();
            disturber.kill();
        }
    });
}

/// From now on SIGUSR1 is an error of the wait that it interrupts.
fn mind_interrupts() {
    signals::catch(libc::SIGUSR1).unwrap();
    wait::set_interrupt_hook(interrupt);
}

/// From now on it isn't, not even one that has come already.
fn forget_interrupts() {
    wait::set_interrupt_hook(|| Ok(()));
    signals::ignore(libc::SIGUSR1).unwrap();
    while signals::take_pending().is_some() {}
}

fn interrupt() -> Result<()> {
    signals::take_pending().map_or(Ok(()), |signo| Err(CoreError::Interrupted(signo as u64)))
}

fn interrupted() -> CoreError {
    CoreError::Interrupted(libc::SIGUSR1 as u64)
}

#[test]
fn an_interrupt_between_messages_harms_nothing() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            mind_interrupts();
            let disturber = disturb_parent();
            assert_eq!(there.take(), Err(interrupted()));
            assert_eq!(there.poll(Deadline::NEVER, P), Err(interrupted()));
            let mut sent = 0;
            if here.framing() == Framing::Packet {
                // Until the kernel takes no more.
                let refused = loop {
                    match here.put(b"small") {
                        Ok(()) => sent += 1,
                        Err(refused) => break refused,
                    }
                };
                assert_eq!(refused, interrupted());
            }
            forget_interrupts();
            disturber.kill();
            for _ in 0..sent {
                assert_eq!(there.take().unwrap(), b"small");
            }
            assert_eq!(there.ready(), Ok(false));
            here.put(b"works still").unwrap();
            assert_eq!(there.take().unwrap(), b"works still");
        }
    });
}

#[test]
fn an_interrupt_in_mid_message_tears_it_for_both() {
    in_session(|| {
        for (here, there) in duplex_pairs() {
            mind_interrupts();
            let disturber = disturb_parent();
            assert_eq!(here.put(&vec![7; LARGE]), Err(interrupted()));
            forget_interrupts();
            disturber.kill();
            assert_eq!(here.put(b"next"), Err(error(ConnectionError::BrokenPipe)));
            assert_eq!(there.take(), Err(error(ConnectionError::TornMessage)));
            // The other direction is whole.
            there.put(b"answer").unwrap();
            assert_eq!(here.take().unwrap(), b"answer");
        }
    });
}

thread_local! {
    /// The ends that a callback uses: one that waits, and another.
    static WAITING: RefCell<Option<(Rc<Connection>, Connection)>> = const { RefCell::new(None) };
    static BUSY: Cell<u32> = const { Cell::new(0) };
    /// Whether a message is being sent: the end of a child calls the hook at other times too.
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

#[test]
fn a_callback_may_close_what_waits() {
    in_session(|| {
        signals::catch(libc::SIGUSR1).unwrap();
        wait::set_interrupt_hook(|| {
            let waiting = WAITING.take();
            // Something arrives all the same, for a descriptor that is open as long as somebody waits for it.
            if let Some((reader, writer)) = waiting {
                reader.close();
                writer.put(b"nobody takes this")?;
            }
            Ok(())
        });
        let (reader, writer) = Connection::pipe(false, P).unwrap();
        let reader = Rc::new(reader);
        let fd = reader.fileno().unwrap();
        WAITING.set(Some((reader.clone(), writer)));
        let disturber = disturb_parent();
        assert_eq!(reader.take(), Err(error(ConnectionError::Closed)));
        forget_interrupts();
        disturber.kill();
        // SAFETY: the number is only asked about.
        let gone = fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD);
        assert_eq!(gone, Err(nix::errno::Errno::EBADF));
    });
}

#[test]
fn a_callback_cannot_break_into_a_message() {
    in_session(|| {
        signals::catch(libc::SIGUSR1).unwrap();
        wait::set_interrupt_hook(|| {
            if !SENDING.get() {
                return Ok(());
            }
            WAITING.with_borrow(|waiting| {
                let (connection, _) = waiting.as_ref().unwrap();
                match connection.put(b"in between") {
                    Err(CoreError::Connection(ConnectionError::Busy)) => BUSY.set(BUSY.get() + 1),
                    Ok(()) => panic!("sent within another message"),
                    Err(other) => panic!("{other}"),
                }
            });
            Ok(())
        });
        for (here, there) in duplex_pairs() {
            let here = Rc::new(here);
            WAITING.set(Some((here.clone(), Connection::pipe(true, P).unwrap().0)));
            let main = session().main_slot();
            let child = Child::run(|| {
                until_waiting(main);
                kill(getppid(), Signal::SIGUSR1).unwrap();
                there.put(b"signal sent").unwrap();
                assert!(there.take().unwrap() == pattern(LARGE));
                assert_eq!(there.take().unwrap(), b"next");
            });
            SENDING.set(true);
            here.put(&pattern(LARGE)).unwrap();
            SENDING.set(false);
            here.put(b"next").unwrap();
            assert_eq!(here.take().unwrap(), b"signal sent");
            child.finish();
        }
        assert!(BUSY.get() >= 3);
    });
}
