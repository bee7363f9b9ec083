//! What peers can do who don't have the key, or don't keep to the protocol: end their own connection.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::connections::Child;
use common::*;
use mphost_core::authentication;
use mphost_core::connection::{Connection, ConnectionError};
use mphost_core::transport::{
    Acceptor, Address, Fill, Handshake, Link, Listener, STRANGERS, connect, connect_with_key,
};
use mphost_core::{CoreError, clock::Deadline};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

const KEY: &[u8] = b"the key";

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap()
}

/// Somebody between the two sides of a handshake, who changes what passes. Gives what the sides come to: `None` while they wait.
fn in_the_middle(mut change: impl FnMut(&mut Vec<u8>)) -> [Option<Result<(), CoreError>>; 2] {
    let (a, to_a) = pair();
    let (b, to_b) = pair();
    let mut sides = [Handshake::listening(a).unwrap(), Handshake::connecting(b)];
    let wires = [UnixStream::from(to_a), UnixStream::from(to_b)];
    wires
        .iter()
        .for_each(|wire| wire.set_nonblocking(true).unwrap());
    let mut results = [None, None];
    for _ in 0..8 {
        for from in 0..2 {
            let mut passing = vec![0; 4096];
            let length = (&wires[from]).read(&mut passing).unwrap_or(0);
            passing.truncate(length);
            if length > 0 {
                change(&mut passing);
                let _ = (&wires[1 - from]).write(&passing);
            }
            let to = 1 - from;
            if results[to].is_none() {
                results[to] = match sides[to].advance(KEY) {
                    Ok(true) => Some(Ok(())),
                    Ok(false) => None,
                    Err(error) => Some(Err(error)),
                };
            }
        }
    }
    results
}

#[test]
fn whoever_only_listens_in_the_middle_changes_nothing() {
    assert_eq!(in_the_middle(|_| ()), [Some(Ok(())), Some(Ok(()))]);
}

proptest! {
    #[test]
    fn a_flipped_bit_lets_nobody_in(at in 0_usize..300, bit in 0_u8..8) {
        let mut seen = 0;
        let mut flipped = false;
        let results = in_the_middle(|bytes| {
            if (seen..seen + bytes.len()).contains(&at) {
                bytes[at - seen] ^= 1 << bit;
                flipped = true;
            }
            seen += bytes.len();
        });
        if flipped {
            prop_assert!(results.iter().any(|result| *result != Some(Ok(()))), "{results:?}");
            // Who was lied to didn't let anybody in: the only message that nobody answers is the last one.
            prop_assert_ne!(&results[0], &Some(Ok(())));
        }
    }

    #[test]
    fn a_cut_or_repeated_piece_lets_nobody_in(piece in 0_usize..6, keep in 0_usize..60, twice in any::<bool>()) {
        let mut count = 0;
        let results = in_the_middle(|bytes| {
            if count == piece {
                if twice {
                    let copy = bytes.clone();
                    bytes.extend(copy);
                } else {
                    bytes.truncate(keep.min(bytes.len() - 1));
                }
            }
            count += 1;
        });
        // A repeated verdict is behind the handshake already.
        let harmless = twice && piece >= 4;
        prop_assert!(harmless || results.iter().any(|result| *result != Some(Ok(()))), "{results:?}");
    }

    #[test]
    fn any_bytes_at_all_are_refused_or_waited_on(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        connecting in any::<bool>(),
    ) {
        let (ours, theirs) = pair();
        let mut side = if connecting { Handshake::connecting(ours) } else { Handshake::listening(ours).unwrap() };
        let mut wire = UnixStream::from(theirs);
        for piece in &pieces {
            let _ = wire.write_all(piece);
            match side.advance(KEY) {
                Ok(done) => prop_assert!(!done),
                Err(_) => return Ok(()),
            }
        }
    }

    /// The frames that managers and their clients exchange: whole, in order, however they are cut on their way.
    #[test]
    fn frames_survive_any_cutting(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..8),
        cuts in prop::collection::vec(1_usize..700, 1..20),
    ) {
        let (ours, theirs) = pair();
        let mut link = Link::new(ours, 4000);
        let mut wire = UnixStream::from(theirs);
        let mut bytes = Vec::new();
        for body in &bodies {
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(body);
        }
        let mut rest = bytes.as_slice();
        let mut cuts = cuts.iter().cycle();
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            wire.write_all(piece).unwrap();
            rest = after;
            prop_assert_eq!(link.fill().unwrap(), Fill::Some);
            while let Some(frame) = link.frame().unwrap() {
                seen.push(link.body(&frame).to_vec());
            }
        }
        prop_assert_eq!(seen, bodies);
    }

    #[test]
    fn any_bytes_at_all_make_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600), limit in 0_usize..500) {
        let (ours, theirs) = pair();
        let mut link = Link::new(ours, limit);
        UnixStream::from(theirs).write_all(&bytes).unwrap();
        while let Ok(Fill::Some) = link.fill() {
            loop {
                match link.frame() {
                    Ok(Some(frame)) => prop_assert!(link.body(&frame).len() <= limit),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}

fn acceptor() -> (Acceptor, Address) {
    let listener = Listener::bind(&Address::Tcp("127.0.0.1".into(), 0), 128).unwrap();
    let address = listener.address().clone();
    (
        Acceptor::new(listener, Some(KEY.to_vec())).unwrap(),
        address,
    )
}

fn tcp(address: &Address) -> TcpStream {
    match address {
        Address::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).unwrap(),
        local => panic!("{local} is no network address"),
    }
}

/// Accepts until somebody has the key; how many were refused.
fn accept_past_strangers(acceptor: &Acceptor) -> (OwnedFd, usize) {
    let mut refused = 0;
    loop {
        match acceptor.accept(P) {
            Ok(socket) => return (socket, refused),
            Err(
                CoreError::Authentication(_) | CoreError::Connection(ConnectionError::EndOfFile),
            ) => {
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn more_silent_strangers_than_may_wait_keep_nobody_out() {
    in_session(|| {
        let (acceptor, address) = acceptor();
        let mut silent = Vec::new();
        // More than the listening socket's own queue holds, so they come in turns with the client that is let in.
        for _ in 0..3 {
            for _ in 0..STRANGERS / 2 {
                silent.push(tcp(&address));
            }
            let there = address.clone();
            let child = Child::run(move || {
                let socket = connect_with_key(&there, KEY, P).unwrap();
                let end = Connection::from_stream_fd(socket);
                end.send(b"inside", &[], P).unwrap();
            });
            let (socket, refused) = accept_past_strangers(&acceptor);
            assert_eq!(refused, 0, "they have time yet");
            let mut message = Vec::new();
            let end = Connection::from_stream_fd(socket);
            end.recv(&mut message, None, P).unwrap();
            assert_eq!(message, b"inside");
            child.finish();
        }
        // The first of them were dropped: they have reached the end behind their challenge.
        let mut rest = Vec::new();
        silent[0].read_to_end(&mut rest).unwrap();
        assert!(rest.len() <= authentication::MESSAGE_LIMIT);
    });
}

#[test]
fn garbage_ends_its_own_connection_alone() {
    in_session(|| {
        let (acceptor, address) = acceptor();
        for round in 0..50_u8 {
            let mut stream = tcp(&address);
            // Some say something wrong, some hang up in the middle, some at once.
            let garbage = vec![round; usize::from(round) * 8 % 300];
            let _ = stream.write_all(&garbage);
            drop(stream);
        }
        let child = Child::run(move || {
            let end = Connection::from_stream_fd(connect_with_key(&address, KEY, P).unwrap());
            end.send(b"inside", &[], P).unwrap();
        });
        let (socket, refused) = accept_past_strangers(&acceptor);
        let mut message = Vec::new();
        let end = Connection::from_stream_fd(socket);
        end.recv(&mut message, None, P).unwrap();
        assert_eq!(message, b"inside");
        // One that resets before it was challenged isn't even seen.
        assert!(refused > 0 && refused <= 50, "{refused}");
        child.finish();
    });
}

#[test]
fn a_wrong_key_is_told_so() {
    in_session(|| {
        let (acceptor, address) = acceptor();
        let child = Child::run(move || {
            let refused = connect_with_key(&address, b"another", P).unwrap_err();
            assert_eq!(
                refused,
                CoreError::Authentication("digest sent was rejected".into())
            );
        });
        assert_eq!(
            acceptor.accept(P).unwrap_err(),
            CoreError::Authentication("digest received was wrong".into())
        );
        child.finish();
    });
}

#[test]
fn a_closed_acceptor_says_so() {
    in_session(|| {
        let (acceptor, address) = acceptor();
        let _waiting = connect(&address, Deadline::NEVER, P).unwrap();
        assert!(acceptor.close());
        assert!(!acceptor.close());
        assert!(matches!(acceptor.accept(P), Err(CoreError::Closed(_))));
        assert!(acceptor.ready_fd().is_err());
    });
}

/// The fuzzers' seeds, without a fuzzer: in `fuzz` the same bytes go the same ways.
#[test]
fn the_fuzzers_seeds_are_refused_or_read() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seeds = |target: &str| {
        let folder = std::fs::read_dir(corpus.join(target)).unwrap();
        let seeds: Vec<Vec<u8>> = folder
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty(), "{target} has seeds");
        seeds
    };
    for seed in seeds("handshake") {
        let (ours, theirs) = pair();
        let mut side = match seed[0] & 1 {
            0 => Handshake::listening(ours).unwrap(),
            _ => Handshake::connecting(ours),
        };
        UnixStream::from(theirs).write_all(&seed[1..]).unwrap();
        assert_ne!(side.advance(KEY), Ok(true));
    }
    for seed in seeds("frames") {
        let (ours, theirs) = pair();
        let mut link = Link::new(ours, 1 << 12);
        UnixStream::from(theirs).write_all(&seed).unwrap();
        while let Ok(Fill::Some) = link.fill() {
            while let Ok(Some(frame)) = link.frame() {
                assert!(link.body(&frame).len() <= 1 << 12);
            }
        }
    }
    let mut read = 0;
    for seed in seeds("value") {
        if let Ok(value) = mphost_core::wire::decode(&seed) {
            read += 1;
            mphost_core::wire::encode(&value).unwrap();
        }
    }
    assert!(read >= 2, "some of them are messages");
    in_session(|| {
        for seed in seeds("messages") {
            let (ours, theirs) = pair();
            UnixStream::from(theirs).write_all(&seed).unwrap();
            let end = Connection::from_stream_fd(ours);
            let mut message = Vec::new();
            while end.recv(&mut message, Some(1 << 20), P).is_ok() {}
            assert!(message.is_empty(), "nobody sees half a message");
        }
    });
}
