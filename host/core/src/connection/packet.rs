//! Messages over SOCK_SEQPACKET: what the two ends of a pipe speak.
//!
//! The kernel keeps packets apart and whole, so that a small message is one system call on either side, nothing has to be read ahead, and
//! an end can be handed to another process between any two messages. A packet begins with one byte that says what it is:
//!
//! | first byte | what follows |
//! |---|---|
//! | `SMALL` | a whole message |
//! | `FIRST` | the length of a large message, 8 bytes little-endian; its descriptors come with this packet |
//! | `MORE` | a fragment of it, in order |
//! | `LAST` | its last fragment |
//! | `BESIDE` | where a fragment of it lies in the lane's [ring](super::ring): the piece's number and length, 8 and 4 bytes little-endian |
//! | `BELL` | nothing: somebody shall look into the [lane](super::lane) |
//! | `GATE` | nothing, at length: the lane was full |
//!
//! So no packet is empty, and an empty message isn't taken for the end of the connection (a read of 0 bytes).

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::lane::Lane;
use super::payload::Payload;
use super::port::Port;
use super::socket::{self, Received};
use super::{ConnectionError, long};
use crate::error::{CoreError, Result};

const SMALL: u8 = 0;
pub(super) const FIRST: u8 = 1;
pub(super) const MORE: u8 = 2;
pub(super) const LAST: u8 = 3;
pub(crate) const BELL: u8 = 4;
pub(super) const GATE: u8 = 5;
pub(super) const BESIDE: u8 = 6;

/// The largest body of a packet, in bytes. Well below the smallest send buffer that Linux is configured with by default (208 KiB),
/// so that several packets fit, and the two sides work at the same time.
pub(super) const FRAGMENT: usize = 64 << 10;

/// Up to how many bytes it is cheaper to copy a body behind its packet's first byte than to have the kernel gather the two.
const COPIED: usize = 63;

/// Bytes of a gate: more than a quarter of the send buffer, with which a socket isn't writable any more (unix_writable in the kernel).
const GATE_LENGTH: usize = super::SEND_BUFFER / 2 + GATE_PIECE;
/// It is made of one piece of so many bytes, over and over.
const GATE_PIECE: usize = 4 << 10;

/// A packet as it came: its kind, and what there is to know about its descriptors.
pub(super) struct First {
    kind: u8,
    fds: Vec<OwnedFd>,
    descriptors_lost: bool,
}

/// Rings: who sleeps at the other side looks. Without waiting.
pub(super) fn ring(socket: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    socket::send(socket, &[IoSlice::new(&[BELL])], &[]).map(drop)
}

/// Sends a gate, without waiting.
pub(super) fn gate(socket: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    let piece = [GATE; GATE_PIECE];
    let parts = [IoSlice::new(&piece); GATE_LENGTH / GATE_PIECE];
    socket::send(socket, &parts, &[]).map(drop)
}

/// Sends one message, of a long one as much as possible by the ring of `lane`.
#[inline]
pub(super) fn send(
    port: &Port<'_>,
    payload: &Payload<'_>,
    fds: &[RawFd],
    lane: Option<Lane>,
) -> Result<()> {
    match payload.len() <= FRAGMENT {
        true => send_packet(port, SMALL, payload, fds),
        false => long::send(port, payload, fds, lane),
    }
}

/// Sends one packet.
#[inline]
pub(super) fn send_packet(
    port: &Port<'_>,
    kind: u8,
    body: &Payload<'_>,
    fds: &[RawFd],
) -> Result<()> {
    // A packet is sent whole or not at all.
    let mut copy = [kind; 1 + COPIED];
    let sent = if let Some(to) = copy.get_mut(1..=body.len()) {
        body.copy_to(to);
        port.send(&[IoSlice::new(&copy[..=body.len()])], fds)
    } else {
        port.send(&body.behind(&[kind]), fds)
    };
    sent.map(drop)
}

/// Receives one message into `into`, which is empty.
pub(super) fn receive(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
) -> Result<Vec<OwnedFd>> {
    loop {
        let mut fds = Vec::new();
        let mut descriptors_lost = false;
        let kind = receive_packet(port, into, FRAGMENT, &mut fds, &mut descriptors_lost)?;
        if let Some(BELL | GATE) = kind {
            // From when this end was its program's alone.
            into.clear();
            continue;
        }
        let first = kind.map(|kind| First {
            kind,
            fds,
            descriptors_lost,
        });
        return finish(port, first, into, maxlength, None);
    }
}

/// Receives the first packet of a message, if one is there: none of it at the end of the connection.
pub(super) fn try_receive_first(
    port: &Port<'_>,
    into: &mut Vec<u8>,
) -> Result<Option<Option<First>>> {
    let mut kind = [0];
    let mut fds = Vec::new();
    let received = match socket::receive(port.fd(), &mut kind, into, FRAGMENT, &mut fds) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNRESET) => return Ok(None),
        Err(errno) => return Err(super::os("recvmsg", errno)),
    };
    Ok(Some(kind_of(&received, kind[0])?.map(|kind| First {
        kind,
        fds,
        descriptors_lost: received.descriptors_lost,
    })))
}

/// Receives the rest of a message whose first packet is in `into`; tells `lane`, if there is one, when it has been taken whole.
#[inline]
pub(super) fn finish(
    port: &Port<'_>,
    first: Option<First>,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
    lane: Option<Lane>,
) -> Result<Vec<OwnedFd>> {
    let arrived = || lane.iter().for_each(Lane::arrived);
    let First {
        kind,
        fds,
        mut descriptors_lost,
    } = first.ok_or(ConnectionError::EndOfFile)?;
    match kind {
        SMALL => {
            arrived();
            if maxlength.is_some_and(|maxlength| into.len() > maxlength) {
                into.clear();
                return Err(ConnectionError::BadMessageLength.into());
            }
        }
        FIRST => {
            long::receive(port, into, maxlength, lane, &mut descriptors_lost)?;
            arrived();
        }
        _ => return Err(ConnectionError::Malformed.into()),
    }
    if descriptors_lost {
        // The message has been taken whole, so that the connection goes on with the next.
        return Err(CoreError::Os {
            call: "recvmsg",
            errno: libc::EMFILE,
        });
    }
    Ok(fds)
}

/// Receives one packet, its body after the end of `into`; its kind, or none at the end of the connection.
pub(super) fn receive_packet(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    room: usize,
    fds: &mut Vec<OwnedFd>,
    descriptors_lost: &mut bool,
) -> Result<Option<u8>> {
    let mut kind = [0];
    let received = port.receive(&mut kind, into, room, fds)?;
    *descriptors_lost |= received.descriptors_lost;
    kind_of(&received, kind[0])
}

/// The kind of a packet; none at the end of the connection.
fn kind_of(received: &Received, kind: u8) -> Result<Option<u8>> {
    match received.bytes {
        0 => Ok(None),
        _ if received.truncated && kind != GATE => Err(ConnectionError::Malformed.into()),
        _ => Ok(Some(kind)),
    }
}
