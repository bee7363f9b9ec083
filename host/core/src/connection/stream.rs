//! Messages over a byte stream (TCP, or SOCK_STREAM in the local domain): what listeners, clients and managers speak.
//!
//! The framing is that of CPython's `multiprocessing.connection`: the length as a signed number of 4 bytes, most significant first, or -1 and
//! then 8 bytes where it needs more; then the message. The length is read alone, and of the body no byte more than it has, so nothing is
//! ever read ahead. Over the local domain descriptors come with the length's first byte.

use std::os::fd::{OwnedFd, RawFd};

use super::payload::Payload;
use super::port::Port;
use super::{ConnectionError, room_for};
use crate::error::{CoreError, Result};

/// How much of a body is asked for at a time, in bytes: the most that is reserved before anything has arrived.
const PIECE: usize = 256 << 10;

/// A body of at most this many bytes has a length of 4 bytes.
const SHORT_LIMIT: usize = i32::MAX as usize;

/// Sends one message.
pub(super) fn send(port: &Port<'_>, payload: &Payload<'_>, fds: &[RawFd]) -> Result<()> {
    let mut header = [0xff; 12];
    let header: &[u8] = if payload.len() <= SHORT_LIMIT {
        header[..4].copy_from_slice(&(payload.len() as u32).to_be_bytes());
        &header[..4]
    } else {
        header[4..].copy_from_slice(&(payload.len() as u64).to_be_bytes());
        &header
    };
    // Until something has been sent, nothing is broken.
    let mut sent = port.send(&payload.behind(header), fds)?;
    let total = header.len() + payload.len();
    if sent == total {
        return Ok(());
    }
    port.in_message(|| {
        while sent < total {
            let left = header.get(sent..).unwrap_or_default();
            let (_, rest) = payload.split(sent.saturating_sub(header.len()));
            sent += port.send(&rest.behind(left), &[])?;
        }
        Ok(())
    })
}

/// Receives one message into `into`, which is empty.
pub(super) fn receive(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    let mut header = [0; 12];
    // The first read decides whether there is a message at all; from its first byte on the message has to be finished.
    let received = port.receive(&mut header[..4], into, 0, &mut fds)?;
    if received.bytes == 0 {
        return Err(ConnectionError::EndOfFile.into());
    }
    port.in_message(|| {
        fill(port, &mut header[received.bytes..4])?;
        let length = match i32::from_be_bytes([header[0], header[1], header[2], header[3]]) {
            -1 => {
                fill(port, &mut header[4..])?;
                let (_, long) = header.split_last_chunk().expect("the header has 12 bytes");
                u64::from_be_bytes(*long)
            }
            length => u64::try_from(length).map_err(|_| ConnectionError::Malformed)?,
        };
        let length = usize::try_from(length).map_err(|_| ConnectionError::BadMessageLength)?;
        if maxlength.is_some_and(|maxlength| length > maxlength) {
            return Err(ConnectionError::BadMessageLength.into());
        }
        while into.len() < length {
            let room = room_for(into, length, PIECE);
            if port.receive(&mut [], into, room, &mut Vec::new())?.bytes == 0 {
                return Err(ConnectionError::TornMessage.into());
            }
        }
        Ok(())
    })?;
    if received.descriptors_lost {
        return Err(CoreError::Os {
            call: "recvmsg",
            errno: libc::EMFILE,
        });
    }
    Ok(fds)
}

/// Receives exactly as much as `header` holds.
fn fill(port: &Port<'_>, mut header: &mut [u8]) -> Result<()> {
    while !header.is_empty() {
        match port
            .receive(header, &mut Vec::new(), 0, &mut Vec::new())?
            .bytes
        {
            0 => return Err(ConnectionError::TornMessage.into()),
            bytes => header = &mut header[bytes..],
        }
    }
    Ok(())
}
