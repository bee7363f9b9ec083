//! Messages of a pipe between processes of one program: by its [lanes](super::lane), and where they don't do by its socket.

use std::os::fd::OwnedFd;

use super::lane::{Found, Lane, Put};
use super::payload::Payload;
use super::port::Port;
use super::{ConnectionError, packet};
use crate::clock::Deadline;
use crate::error::Result;
use crate::patience::look_around;
use crate::session::RawHandle;
use crate::wait::{WaitKind, sleep_until_ready_or};
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Sends one message.
pub(super) fn send(
    port: &Port<'_>,
    lane: Lane,
    payload: &Payload<'_>,
    handles: &[RawHandle],
    fds: &[RawFd],
) -> Result<()> {
    if fds.is_empty() && put(port, lane, payload, handles)? {
        return Ok(());
    }
    lane.announce()?;
    let sent = packet::send(port, payload, fds, Some(lane));
    if sent.is_err() && !port.direction.broken.get() {
        lane.take_back()?;
    }
    sent
}

/// Puts a message into the lane, as soon as there is room; whether the lane takes it.
fn put(port: &Port<'_>, lane: Lane, payload: &Payload<'_>, handles: &[RawHandle]) -> Result<bool> {
    let (mut has_waited, mut was_refused) = (false, false);
    loop {
        if port.is_hung_up() {
            return Err(ConnectionError::BrokenPipe.into());
        }
        let outcome = match lane.put(&port.fd(), payload, handles)? {
            Put::Full => put_soon(port, lane, payload, handles)?,
            outcome => outcome,
        };
        match outcome {
            Put::Done => return Ok(true),
            Put::Socket => return Ok(false),
            Put::Behind if has_waited => return Ok(false),
            Put::Behind => has_waited = true,
            Put::Full => {
                lane.announce()?;
                match packet::gate(port.fd()) {
                    Ok(()) => has_waited = false,
                    Err(Errno::EPIPE) => return Err(ConnectionError::BrokenPipe.into()),
                    Err(errno) => {
                        lane.take_back()?;
                        // The socket is full itself; or it is a small one, that no gate fits into.
                        if errno != Errno::EAGAIN || was_refused {
                            return Ok(false);
                        }
                        was_refused = true;
                    }
                }
            }
        }
        port.wait(libc::POLLOUT, Deadline::NEVER)?;
    }
}

/// Puts the message into a lane that was full just now, if there is room soon: a gate costs more than the receiver takes for some messages.
#[cold]
fn put_soon(
    port: &Port<'_>,
    lane: Lane,
    payload: &Payload<'_>,
    handles: &[RawHandle],
) -> Result<Put> {
    let look = || {
        let outcome = lane.put(&port.fd(), payload, handles)?;
        Ok(Some(outcome).filter(|outcome| *outcome != Put::Full))
    };
    let found = look_around(WaitKind::Descriptors, Deadline::NEVER, look)?;
    Ok(found.unwrap_or(Put::Full))
}

/// Receives one message into `into`, which is empty.
pub(super) fn receive(
    port: &Port<'_>,
    lane: Lane,
    into: &mut Vec<u8>,
    maxlength: Option<usize>,
) -> Result<Vec<OwnedFd>> {
    loop {
        let mut take = || {
            lane.take(|payload| {
                let fits = maxlength.is_none_or(|maxlength| payload.len() <= maxlength);
                if fits {
                    into.extend_from_slice(payload);
                }
                fits
            })
        };
        let taken = match take()? {
            Some(fits) => Some(fits),
            // Until there is one, or one is to take the socket.
            None => look_around(WaitKind::Descriptors, Deadline::NEVER, || {
                Ok(match take()? {
                    None if lane.is_level() => None,
                    taken => Some(taken),
                })
            })?
            .flatten(),
        };
        match taken {
            Some(true) => return Ok(Vec::new()),
            Some(false) => return Err(ConnectionError::BadMessageLength.into()),
            None => {}
        }
        match lane.look(&port.fd(), || packet::try_receive_first(port, into))? {
            Found::InLane => {}
            Found::Packet(first) => {
                return packet::finish(port, first, into, maxlength, Some(lane));
            }
            Found::Nothing => {
                sleep(port, lane, Deadline::NEVER)?;
            }
        }
    }
}

/// Whether there is a message or the end; waits for that until `deadline`.
pub(super) fn poll(port: &Port<'_>, lane: Lane, deadline: Deadline) -> Result<bool> {
    if !deadline.is_now() {
        look_around(WaitKind::Descriptors, deadline, || {
            Ok((lane.seems_filled() || !lane.is_level()).then_some(()))
        })?;
    }
    loop {
        if is_ready(port, lane)? {
            return Ok(true);
        }
        if deadline.has_passed() {
            return Ok(false);
        }
        sleep(port, lane, deadline)?;
    }
}

/// Sleeps until the socket has something, or somebody has died who has left something in the lane.
fn sleep(port: &Port<'_>, lane: Lane, deadline: Deadline) -> Result<()> {
    let seen = || lane.seems_filled();
    port.wait_by(
        |fds, info, deadline| sleep_until_ready_or(fds, info, deadline, Some(&seen)),
        libc::POLLIN,
        deadline,
    )
    .map(drop)
}

/// Whether there is a message or the end. If not, the descriptor will say that it is worth another look.
pub(super) fn is_ready(port: &Port<'_>, lane: Lane) -> Result<bool> {
    if lane.seems_filled() {
        return Ok(true);
    }
    let found = lane.look(&port.fd(), || Ok(Some(())))?;
    Ok(!matches!(found, Found::Nothing))
}
