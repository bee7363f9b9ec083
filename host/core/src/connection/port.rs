//! One direction of a connection while a message passes: the one blocking send and the one blocking receive that the framings are written in.
//!
//! Problem: a callback that runs while one waits may close the connection or use it, and an interrupt may leave a message half through.
//!
//! Invariant: a message that was begun and can't be finished breaks its direction; what comes after it is never taken for its rest.

use super::{Connection, ConnectionError, Framing, Open, os, socket};
use crate::clock::Deadline;
use crate::error::Result;
use crate::patience::look_longer;
use crate::position::Position;
use crate::wait::{PollFd, WaitInfo, WaitKind, sleep_until_ready, wait_fds};
use nix::errno::Errno;
use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

/// The state of one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// A message is half through.
    pub(super) busy: Cell<bool>,
    /// A message was left half through: what follows would be taken for its rest.
    pub(super) broken: Cell<bool>,
}

impl Direction {
    /// Whether a message can begin in this direction; `broken` is the error if none ever will.
    pub(super) fn check(&self, broken: ConnectionError) -> Result<()> {
        if self.broken.get() {
            return Err(broken.into());
        }
        if self.busy.get() {
            return Err(ConnectionError::Busy.into());
        }
        Ok(())
    }
}

/// One direction of a connection while a message passes: the blocking operations that the framings are written in.
pub(super) struct Port<'a> {
    pub(super) connection: &'a Connection,
    pub(super) direction: &'a Direction,
    pub(super) open: &'a Rc<Open>,
    pub(super) position: Position,
}

impl Port<'_> {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.open.socket.as_fd()
    }

    /// Whether every copy of the other end is closed.
    pub(super) fn is_hung_up(&self) -> bool {
        self.open.watch.is_hung_up(self.fd())
    }

    /// Runs the part of an operation that has to be finished, since its message has begun: if it fails, the direction is broken.
    pub(super) fn in_message(&self, rest: impl FnOnce() -> Result<()>) -> Result<()> {
        // Another message may have begun while this one waited for its first packet to pass: in a callback, whose error was caught.
        self.direction
            .check(ConnectionError::TornMessage)
            .inspect_err(|_| self.direction.broken.set(true))?;
        self.direction.busy.set(true);
        let result = rest();
        self.direction.busy.set(false);
        if result.is_err() {
            self.direction.broken.set(true);
        }
        result
    }

    /// Sends `parts`, at least a byte of them, and `fds`; how many bytes have been sent.
    pub(super) fn send(&self, parts: &[IoSlice<'_>], fds: &[RawFd]) -> Result<usize> {
        let call = || socket::send(self.fd(), parts, fds);
        match self.when_ready(libc::POLLOUT, call)? {
            Ok(bytes) => Ok(bytes),
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(ConnectionError::BrokenPipe.into()),
            Err(errno) => Err(os("sendmsg", errno)),
        }
    }

    /// Receives what there is, at least a byte of it; see [`socket::receive`].
    pub(super) fn receive(
        &self,
        head: &mut [u8],
        body: &mut Vec<u8>,
        room: usize,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<socket::Received> {
        // The kernel says once that the other end was closed with messages unread in it, before it gives what that end had sent.
        let mut reset_ignored = self.connection.framing == Framing::Stream;
        let mut call = || match socket::receive(self.fd(), head, body, room, fds) {
            Err(Errno::ECONNRESET) if !reset_ignored => {
                reset_ignored = true;
                Err(Errno::EINTR)
            }
            other => other,
        };
        self.when_ready(libc::POLLIN, &mut call)?
            .map_err(|errno| os("recvmsg", errno))
    }

    /// Makes a system call that doesn't wait, as soon as it can do something; what comes of it. One that was interrupted
    /// (EINTR) is made again.
    pub(super) fn when_ready<T>(
        &self,
        events: libc::c_short,
        mut call: impl FnMut() -> std::result::Result<T, Errno>,
    ) -> Result<std::result::Result<T, Errno>> {
        let mut look = || loop {
            return Ok(match call() {
                Err(Errno::EAGAIN) => None,
                Err(Errno::EINTR) => continue,
                done => Some(done),
            });
        };
        loop {
            if let Some(done) = look()? {
                return Ok(done);
            }
            if let Some(done) = look_longer(WaitKind::Descriptors, Deadline::NEVER, &mut look)? {
                return Ok(done);
            }
            self.wait_by(sleep_until_ready, events, Deadline::NEVER)?;
        }
    }

    /// Waits until the socket has one of `events`, an error or its end; whether it has.
    pub(super) fn wait(&self, events: libc::c_short, deadline: Deadline) -> Result<bool> {
        self.wait_by(wait_fds, events, deadline)
    }

    pub(super) fn wait_by(
        &self,
        wait: impl FnOnce(&mut [PollFd], WaitInfo, Deadline) -> Result<usize>,
        events: libc::c_short,
        deadline: Deadline,
    ) -> Result<bool> {
        let fd = self.fd().as_raw_fd();
        let info = WaitInfo::new(WaitKind::Descriptors, fd as u64, self.position);
        let mut polled = [PollFd {
            fd,
            events,
            revents: 0,
        }];
        let ready = wait(&mut polled, info, deadline)? > 0;
        if self.connection.closed() {
            return Err(ConnectionError::Closed.into());
        }
        Ok(ready)
    }
}
