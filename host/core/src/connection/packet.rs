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
//!
//! So no packet is empty, and an empty message isn't taken for the end of the connection (a read of 0 bytes).

use std::io::IoSlice;
use std::os::fd::{OwnedFd, RawFd};

use super::{ConnectionError, Port, room_for};
use crate::error::{CoreError, Result};

const SMALL: u8 = 0;
const FIRST: u8 = 1;
const MORE: u8 = 2;
const LAST: u8 = 3;

/// The largest body of a packet, in bytes. Well below the smallest send buffer that Linux is configured with by default (208 KiB),
/// so that several packets fit, and the two sides work at the same time.
pub(super) const FRAGMENT: usize = 64 << 10;

/// Up to how many bytes it is cheaper to copy a body behind its packet's first byte than to have the kernel gather the two.
const COPIED: usize = 63;

/// Sends one message.
pub(super) fn send(port: &Port<'_>, payload: &[u8], fds: &[RawFd]) -> Result<()> {
    if payload.len() <= FRAGMENT {
        return send_packet(port, SMALL, payload, fds);
    }
    send_packet(port, FIRST, &(payload.len() as u64).to_le_bytes(), fds)?;
    port.in_message(|| {
        let mut fragments = payload.chunks(FRAGMENT).peekable();
        while let Some(fragment) = fragments.next() {
            let kind = if fragments.peek().is_some() {
                MORE
            } else {
                LAST
            };
            send_packet(port, kind, fragment, &[])?;
        }
        Ok(())
    })
}

fn send_packet(port: &Port<'_>, kind: u8, body: &[u8], fds: &[RawFd]) -> Result<()> {
    // A packet is sent whole or not at all.
    let mut copy = [kind; 1 + COPIED];
    let sent = if let Some(to) = copy.get_mut(1..=body.len()) {
        to.copy_from_slice(body);
        port.send(&[IoSlice::new(&copy[..=body.len()])], fds)
    } else {
        port.send(&[IoSlice::new(&[kind]), IoSlice::new(body)], fds)
    };
    sent.map(drop)
}

/// Receives one message into `into`, which is empty.
pub(super) fn receive(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    let mut descriptors_lost = false;
    match receive_packet(port, into, FRAGMENT, &mut fds, &mut descriptors_lost)? {
        None => return Err(ConnectionError::EndOfFile.into()),
        Some(SMALL) => {
            if maxlength.is_some_and(|maxlength| into.len() > maxlength) {
                into.clear();
                return Err(ConnectionError::BadMessageLength.into());
            }
        }
        Some(FIRST) => {
            let length = u64::from_le_bytes(
                into.as_slice()
                    .try_into()
                    .map_err(|_| ConnectionError::Malformed)?,
            );
            let length = usize::try_from(length).map_err(|_| ConnectionError::BadMessageLength)?;
            into.clear();
            if maxlength.is_some_and(|maxlength| length > maxlength) {
                return Err(ConnectionError::BadMessageLength.into());
            }
            port.in_message(|| receive_fragments(port, into, length, &mut descriptors_lost))?;
        }
        Some(_) => return Err(ConnectionError::Malformed.into()),
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

fn receive_fragments(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    length: usize,
    descriptors_lost: &mut bool,
) -> Result<()> {
    // None are expected here; those of a peer that misbehaves are closed on return.
    let mut stray = Vec::new();
    loop {
        let room = room_for(into, length, FRAGMENT);
        let kind = receive_packet(port, into, room, &mut stray, descriptors_lost)?
            .ok_or(ConnectionError::TornMessage)?;
        match (kind, into.len() == length) {
            (MORE, false) => {}
            (LAST, true) => return Ok(()),
            _ => return Err(ConnectionError::Malformed.into()),
        }
    }
}

/// Receives one packet, its body after the end of `into`; its kind, or none at the end of the connection.
fn receive_packet(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    room: usize,
    fds: &mut Vec<OwnedFd>,
    descriptors_lost: &mut bool,
) -> Result<Option<u8>> {
    let mut kind = [0];
    let received = port.receive(&mut kind, into, room, fds)?;
    *descriptors_lost |= received.descriptors_lost;
    match received.bytes {
        0 => Ok(None),
        _ if received.truncated => Err(ConnectionError::Malformed.into()),
        _ => Ok(Some(kind[0])),
    }
}
