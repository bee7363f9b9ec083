//! What it costs to hand something to another process: a wake-up, a few bytes, a mebibyte.
//!
//! The socket pairs are of the kind that mphost's `Pipe` is made of (SOCK_SEQPACKET), where every write is a packet.
//!
//! Invariant: the other side goes on for as long as it is let, so that only this side counts and looks at the clock.

use super::children::{Child, Line, futex_wait, futex_wake, shared};
use super::{Figure, failed, mean};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt::SndBuf,
};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const MEBIBYTE: usize = 1 << 20;

/// The bytes of a packet of a large message: as many as `Pipe` sends in one (`FRAGMENT` in core's `connection/packet.rs`).
const FRAGMENT: usize = 64 << 10;

pub(super) fn futex_one_way() -> Figure {
    futex_round_trip().map(|figure| figure / 2.0)
}

pub(super) fn futex_round_trip() -> Figure {
    let words = shared::<Line>(2)?;
    let (there, back) = (&words[0].0, &words[1].0);
    let _other = Child::start(|| {
        loop {
            take(there);
            post(back);
        }
    })?;
    mean(100, || {
        post(there);
        take(back);
        Ok(())
    })
}

fn post(word: &AtomicU32) {
    word.store(1, Ordering::Release);
    futex_wake(word);
}

fn take(word: &AtomicU32) {
    while word.swap(0, Ordering::Acquire) == 0 {
        futex_wait(word, 0);
    }
}

pub(super) fn socket_round_trip() -> Figure {
    let (mine, theirs) = packet_pair()?;
    round_trip::<8>(mine, theirs)
}

/// So many bytes to another process and back.
pub(super) fn round_trip<const SIZE: usize>(
    mut mine: impl Read + Write,
    mut theirs: impl Read + Write,
) -> Figure {
    let _other = Child::start(|| {
        loop {
            receive(&mut theirs, &mut [0; SIZE])?;
            send(&mut theirs, &[7; SIZE])?;
        }
    })?;
    // When the other side dies, this one has to see the end.
    drop(theirs);
    mean(100, || {
        send(&mut mine, &[7; SIZE])?;
        receive(&mut mine, &mut [0; SIZE])
    })
}

pub(super) fn pipe_packets() -> Figure {
    let (mine, theirs) = std::io::pipe().map_err(failed("pipe"))?;
    one_way(mine, theirs, 16, 1)
}

pub(super) fn socket_packets() -> Figure {
    let (mine, theirs) = packet_pair()?;
    one_way(mine, theirs, 16, 1)
}

pub(super) fn socket_mebibyte() -> Figure {
    let (mine, theirs) = packet_pair()?;
    // Several packets fit, so that both sides work at once. Only a matter of speed: the default does as well.
    let _ = setsockopt(&theirs, SndBuf, &(4 * FRAGMENT));
    one_way(mine, theirs, FRAGMENT, MEBIBYTE / FRAGMENT)
}

/// Messages of so many packets of so many bytes, from another process to this one.
fn one_way(mut mine: impl Read, mut theirs: impl Write, size: usize, packets: usize) -> Figure {
    let _other = Child::start(|| {
        let message = vec![7; size];
        loop {
            send(&mut theirs, &message)?;
        }
    })?;
    drop(theirs);
    let mut room = vec![0; size * packets];
    // A look at the clock for every thousand small ones, or for every large one.
    let batch = if packets == 1 { 1000 } else { 1 };
    mean(batch, || {
        room.chunks_mut(size)
            .try_for_each(|packet| receive(&mut mine, packet))
    })
}

/// Two connected sockets that keep packets apart.
fn packet_pair() -> Result<(File, File), String> {
    let (first, second) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(failed("socketpair"))?;
    Ok((first.into(), second.into()))
}

pub(super) fn send(to: &mut impl Write, bytes: &[u8]) -> Result<(), String> {
    to.write_all(bytes).map_err(failed("write"))
}

pub(super) fn receive(from: &mut impl Read, room: &mut [u8]) -> Result<(), String> {
    from.read_exact(room).map_err(failed("read"))
}
