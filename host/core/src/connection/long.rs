//! Messages that are longer than a packet.
//!
//! Problem: a socket of packets takes some 200 KiB of them, and a message may have gigabytes; its receiver doesn't know before it is there whether it ever
//! will be. So the length goes ahead, and then fragment after fragment: in packets, and where there is a lane most of them beside the socket, in its
//! [ring](super::ring).
//!
//! Invariants: memory for a message is used as its bytes arrive, whatever its length is said to be; a message that isn't finished is never taken for one
//! that is.

use super::lane::Lane;
use super::packet::{BESIDE, FIRST, FRAGMENT, LAST, MORE, receive_packet, send_packet};
use super::payload::Payload;
use super::port::Port;
use super::ring::{Claim, PIECE};
use super::{ConnectionError, room_for};
use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::patience::look_around;
use crate::wait::WaitKind;
use std::os::fd::RawFd;

/// Bytes of a packet that says where a piece lies.
const PLACE: usize = 12;

/// Sends a message, as much of it as possible by the ring of `lane`.
#[cold]
pub(super) fn send(
    port: &Port<'_>,
    payload: &Payload<'_>,
    fds: &[RawFd],
    lane: Option<Lane>,
) -> Result<()> {
    let length = (payload.len() as u64).to_le_bytes();
    send_packet(port, FIRST, &length.as_slice().into(), fds)?;
    port.in_message(|| {
        let ring = lane.map_or(Ok(None), |lane| lane.ring())?;
        let mut rest = *payload;
        while !rest.is_empty() {
            if let Some(ring) = &ring
                && rest.len() > FRAGMENT
                && let (piece, behind) = rest.split(PIECE)
                && let Some(number) = put_beside(ring, &piece)?
            {
                let place = place(number, piece.len());
                send_packet(port, BESIDE, &place.as_slice().into(), &[])?;
                rest = behind;
                continue;
            }
            let (fragment, behind) = rest.split(FRAGMENT);
            let kind = if behind.is_empty() { LAST } else { MORE };
            send_packet(port, kind, &fragment, &[])?;
            rest = behind;
        }
        Ok(())
    })
}

/// What a packet says of a piece that lies in the ring.
fn place(number: u64, length: usize) -> [u8; PLACE] {
    let mut place = [0; PLACE];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..].copy_from_slice(&(length as u32).to_le_bytes());
    place
}

/// Puts a piece into a ring, if there is room or will be soon: its number.
fn put_beside(ring: &Claim, piece: &Payload<'_>) -> Result<Option<u64>> {
    match ring.put(piece) {
        None => look_around(WaitKind::Descriptors, Deadline::NEVER, || {
            Ok(ring.put(piece))
        }),
        number => Ok(number),
    }
}

/// Receives the message of which the length is in `into`.
#[cold]
pub(super) fn receive(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
    lane: Option<Lane>,
    descriptors_lost: &mut bool,
) -> Result<()> {
    let length = into.as_slice().try_into();
    let length = u64::from_le_bytes(length.map_err(|_| ConnectionError::Malformed)?);
    let length = usize::try_from(length).map_err(|_| ConnectionError::BadMessageLength)?;
    into.clear();
    if maxlength.is_some_and(|maxlength| length > maxlength) {
        return Err(ConnectionError::BadMessageLength.into());
    }
    if lane.is_some() {
        // Our own program says so, and addresses cost nothing: memory comes as bytes do. Where there aren't as many, `room_for` sees to it.
        let _ = into.try_reserve_exact(length);
    }
    port.in_message(|| receive_fragments(port, into, length, lane, descriptors_lost))
}

fn receive_fragments(
    port: &Port<'_>,
    into: &mut Vec<u8>,
    length: usize,
    lane: Option<Lane>,
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
            (BESIDE, _) => {
                if take_beside(lane, into, length)? {
                    return Ok(());
                }
            }
            _ => return Err(ConnectionError::Malformed.into()),
        }
    }
}

/// Takes the piece that the packet at the end of `into` tells of, in its place; whether the message is whole then.
fn take_beside(lane: Option<Lane>, into: &mut Vec<u8>, length: usize) -> Result<bool> {
    let malformed = || CoreError::from(ConnectionError::Malformed);
    let (before, place) = into.split_last_chunk::<PLACE>().ok_or_else(malformed)?;
    let (number, size) = place.split_first_chunk::<8>().ok_or_else(malformed)?;
    let number = u64::from_le_bytes(*number);
    let size = u32::from_le_bytes(size.try_into().map_err(|_| malformed())?) as usize;
    let end = before.len();
    into.truncate(end);
    if !(1..=PIECE).contains(&size) || room_for(into, length, size) != size {
        return Err(malformed());
    }
    match lane {
        Some(lane) if lane.take_piece(number, size, into) => Ok(into.len() == length),
        _ => Err(malformed()),
    }
}
