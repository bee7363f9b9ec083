//! Connections: two ends, messages that arrive whole, and an end that is exact.
//!
//! A pipe is a pair of connected sockets. The kernel counts the open copies of an end in every process, so that the other end learns of the
//! last one's closing at once, by whatever death; no process has to keep books. Within a program a pipe has lanes in
//! shared memory beside them, by which most messages go.
//!
//! Two framings, one type: [`Framing::Packet`] between the ends of a pipe, [`Framing::Stream`] (CPython's) for listeners and clients. Each
//! is in a file of its own; both are written in terms of one blocking send and one blocking receive, `Port`'s. Lanes are `lane`, and
//! what goes by them is in `pipe`.
//!
//! Invariants:
//! - A message arrives whole or not at all. One that was begun and can't be finished (an interrupt, the sender's death) breaks the
//!   connection: the receiver gets [`ConnectionError::TornMessage`], never half a message, and never the next one's start as its rest.
//! - Nothing is read ahead: after each message the end can be handed to another process.
//! - A descriptor's own flags are never touched (it may be shared with other processes); each call says for itself that it doesn't wait, and
//!   the waiting is [`wait_fds`](crate::wait::wait_fds), as everywhere.
//! - Memory for a message is reserved as its bytes arrive, not on the word of its length.
//! - Methods take `&self`, since a callback that runs while one waits may close the connection, or use it.

mod error;
pub(crate) mod lane;
mod long;
pub(crate) mod packet;
mod payload;
mod pipe;
mod port;
mod ring;
pub(crate) mod socket;
mod stream;

pub use error::ConnectionError;
pub use payload::Payload;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, getsockname,
    setsockopt, shutdown, socketpair, sockopt::SndBuf,
};

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{ObjRef, RawHandle};
use lane::{Lane, Lanes};
use port::{Direction, Port};

/// How many descriptors a message may carry (the kernel's SCM_MAX_FD, see unix(7)).
pub const DESCRIPTOR_LIMIT: usize = 253;

/// The send buffer asked for, in bytes, as far as the system allows: room for several packets, so that both sides work at once.
const SEND_BUFFER: usize = 256 << 10;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The kernel keeps packets apart (SOCK_SEQPACKET).
    Packet,
    /// Each message is preceded by its length, in a stream of bytes.
    Stream,
}

/// One end of a connection.
///
/// Python: `multiprocessing.connection.Connection`.
#[derive(Debug)]
pub struct Connection {
    /// Shared with the operations that wait, so that closing in between (by a callback) pulls no descriptor from under them.
    open: RefCell<Option<Rc<Open>>>,
    framing: Framing,
    carries_descriptors: bool,
    /// It came from another program.
    is_strange: Cell<bool>,
    readable: Cell<bool>,
    writable: Cell<bool>,
    sending: Direction,
    receiving: Direction,
}

/// What an end has until it is closed.
#[derive(Debug)]
struct Open {
    socket: OwnedFd,
    lanes: Option<Lanes>,
    watch: socket::Watch,
}

impl Connection {
    /// A pipe within the program: two connected ends; if not `duplex`, the first can only receive and the second only send. Most messages
    /// go through shared memory.
    ///
    /// Python: `multiprocessing.Pipe(duplex)`.
    ///
    /// # Errors
    /// [`CoreError::Os`] where there are too many open descriptors.
    pub fn pipe(duplex: bool, position: Position) -> Result<(Connection, Connection)> {
        let (first, second) = Connection::pair(duplex)?;
        let Some(object) = Lanes::create(duplex, position) else {
            return Ok((first, second));
        };
        Ok((
            first.with_lanes(Lanes::of(object.clone(), true)?),
            second.with_lanes(Lanes::of(object, false)?),
        ))
    }

    /// Two connected ends as [`Connection::pipe`] makes them, for which all messages go through the kernel.
    ///
    /// # Errors
    /// [`CoreError::Os`] where there are too many open descriptors.
    pub fn pair(duplex: bool) -> Result<(Connection, Connection)> {
        let (first, second) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| os("socketpair", errno))?;
        if !duplex {
            // Now not even a program that takes the descriptor itself can use an end the wrong way.
            shutdown(first.as_raw_fd(), Shutdown::Write).map_err(|errno| os("shutdown", errno))?;
        }
        for end in [&first, &second] {
            // Only a matter of speed: the default does as well.
            let _ = setsockopt(end, SndBuf, &SEND_BUFFER);
        }
        Ok((
            Connection::from_packet_fd(first, true, duplex),
            Connection::from_packet_fd(second, duplex, true),
        ))
    }

    /// An end of a pipe that this process was given.
    #[must_use]
    pub fn from_packet_fd(socket: OwnedFd, readable: bool, writable: bool) -> Connection {
        Connection::new(socket, Framing::Packet, true, readable, writable)
    }

    /// An end of a pipe of this program, of which [`Connection::shared`] told.
    ///
    /// # Errors
    /// `Type` if the object is no pipe.
    pub fn from_shared(
        socket: OwnedFd,
        readable: bool,
        writable: bool,
        object: ObjRef,
        first: bool,
    ) -> Result<Connection> {
        let lanes = Lanes::of(object, first)?;
        Ok(Connection::from_packet_fd(socket, readable, writable).with_lanes(lanes))
    }

    fn with_lanes(self, lanes: Lanes) -> Connection {
        let socket = self.open.take().and_then(Rc::into_inner);
        let open = socket.map(|open| {
            Rc::new(Open {
                lanes: Some(lanes),
                ..open
            })
        });
        self.open.replace(open);
        self
    }

    /// What another process of the program needs beside the descriptor to have the same end: the pipe, and whether it is its first end. None
    /// if it needs nothing.
    #[must_use]
    pub fn shared(&self) -> Option<(ObjRef, bool)> {
        let open = self.open.borrow();
        let (object, first) = open.as_ref()?.lanes.as_ref()?.parts();
        Some((object.clone(), first))
    }

    /// From now on this end can be used by another program, by its descriptor alone.
    ///
    /// # Errors
    /// [`CoreError::Value`] if messages lie in it.
    pub fn leave_program(&self) -> Result<()> {
        match self.open()?.lanes.as_ref() {
            Some(lanes) => lanes.leave(),
            None => Ok(()),
        }
    }

    /// A connected socket of type SOCK_STREAM, as `connect` and `accept` make them. Descriptors can travel over it in the local domain
    /// alone.
    #[must_use]
    pub fn from_stream_fd(socket: OwnedFd) -> Connection {
        let local = getsockname::<SockaddrStorage>(socket.as_raw_fd())
            .is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
        Connection::new(socket, Framing::Stream, local, true, true)
    }

    fn new(
        socket: OwnedFd,
        framing: Framing,
        carries_descriptors: bool,
        readable: bool,
        writable: bool,
    ) -> Connection {
        Connection {
            open: RefCell::new(Some(Rc::new(Open {
                socket,
                lanes: None,
                watch: socket::Watch::default(),
            }))),
            framing,
            carries_descriptors,
            is_strange: Cell::new(false),
            readable: Cell::new(readable),
            writable: Cell::new(writable),
            sending: Direction::default(),
            receiving: Direction::default(),
        }
    }

    /// How messages are told apart here: who passes the end on says so.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Says that this end came from another program.
    #[must_use]
    pub fn from_another_program(self) -> Connection {
        self.is_strange.set(true);
        self
    }

    /// Whether the other end may be another program's, for which this one's objects mean nothing.
    #[must_use]
    pub fn may_lead_elsewhere(&self) -> bool {
        let has_left = || {
            let open = self.open.borrow();
            let lanes = open.as_ref().and_then(|open| open.lanes.as_ref());
            lanes.is_some_and(Lanes::have_been_left)
        };
        self.framing == Framing::Stream || self.is_strange.get() || has_left()
    }

    /// Whether descriptors can travel over it: not over a network.
    #[must_use]
    pub fn carries_descriptors(&self) -> bool {
        self.carries_descriptors
    }

    /// Whether this end is for receiving.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.readable.get()
    }

    /// Whether this end is for sending.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable.get()
    }

    /// Whether this process has closed this end.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.open.borrow().is_none()
    }

    /// Closes this end in this process. Once more is fine.
    pub fn close(&self) {
        drop(self.open.take());
    }

    /// The descriptor's number; it stays the connection's.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub fn fileno(&self) -> Result<RawFd> {
        self.open().map(|open| open.socket.as_raw_fd())
    }

    /// Sends one message, and with it copies of the descriptors `fds`. Waits while the receiver is behind by more than the kernel
    /// buffers.
    ///
    /// # Arguments
    /// - `payload`: any bytes, none as well.
    /// - `fds`: at most [`DESCRIPTOR_LIMIT`]; the caller's own may be closed afterwards.
    /// - `position`: where the script does this, for whoever asks what it waits for.
    ///
    /// # Errors
    /// [`ConnectionError`]: `Closed`, `ReadOnly`, `BrokenPipe`, `TooManyDescriptors`, `NoDescriptors`, `Busy`; what the interrupt hook
    /// raises; [`CoreError::Os`]. An error after the start of a message that is longer than a packet closes this direction for good.
    pub fn send(&self, payload: &[u8], fds: &[BorrowedFd<'_>], position: Position) -> Result<()> {
        self.send_with(&payload.into(), &[], fds, position)
    }

    /// [`Connection::send`] for a message of two parts, and with references to `handles` ([`ObjRef::export`]): whoever receives it
    /// [adopts](crate::session::Session::adopt) them. On an error they stay the caller's.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_with(
        &self,
        payload: &Payload<'_>,
        handles: &[RawHandle],
        fds: &[BorrowedFd<'_>],
        position: Position,
    ) -> Result<()> {
        let open = self.open()?;
        if !self.writable.get() {
            return Err(ConnectionError::ReadOnly.into());
        }
        if fds.len() > DESCRIPTOR_LIMIT {
            return Err(ConnectionError::TooManyDescriptors(fds.len()).into());
        }
        if !fds.is_empty() && !self.carries_descriptors {
            return Err(ConnectionError::NoDescriptors.into());
        }
        self.sending.check(ConnectionError::BrokenPipe)?;
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let port = Port {
            connection: self,
            direction: &self.sending,
            open: &open,
            position,
        };
        let lane = open.lane(|lanes| lanes.out);
        let result = match (self.framing, lane) {
            (Framing::Packet, Some(lane)) => pipe::send(&port, lane, payload, handles, &fds),
            (Framing::Packet, None) => packet::send(&port, payload, &fds, None),
            (Framing::Stream, _) => stream::send(&port, payload, &fds),
        };
        if self.sending.broken.get() {
            // The receiver shall not wait for the rest. Whether this works is all the same: it may have gone.
            let _ = shutdown(open.socket.as_raw_fd(), Shutdown::Write);
            // Nor shall others who have this end go on as if nothing had happened.
            lane.map_or(Ok(()), |lane| lane.close())?;
        }
        result
    }

    /// Receives one message, waiting for it if need be, and gives the descriptors that came with it.
    ///
    /// # Arguments
    /// - `into`: is emptied, then holds the message; its memory is used again.
    /// - `maxlength`: the longest message accepted, in bytes.
    /// - `position`: where the script does this, for whoever asks what it waits for.
    ///
    /// # Errors
    /// [`ConnectionError`]: `Closed`, `WriteOnly`, `EndOfFile`, `TornMessage`, `Malformed`, `Busy`, and `BadMessageLength`, after which
    /// this end can't receive any more (is closed, if it can't send either; as in CPython); what the interrupt hook raises;
    /// [`CoreError::Os`]. `into` is empty then.
    pub fn recv(
        &self,
        into: &mut Vec<u8>,
        maxlength: Option<usize>,
        position: Position,
    ) -> Result<Vec<OwnedFd>> {
        into.clear();
        let open = self.readable_end()?;
        self.receiving.check(ConnectionError::TornMessage)?;
        let port = self.receiving_port(&open, position);
        let result = match (self.framing, open.lane(|lanes| lanes.inward)) {
            (Framing::Packet, Some(lane)) => pipe::receive(&port, lane, into, maxlength),
            (Framing::Packet, None) => packet::receive(&port, into, maxlength),
            (Framing::Stream, _) => stream::receive(&port, into, maxlength),
        };
        if let Err(error) = &result {
            into.clear();
            match error {
                CoreError::Connection(ConnectionError::BadMessageLength) if self.writable.get() => {
                    self.readable.set(false)
                }
                CoreError::Connection(ConnectionError::BadMessageLength) => self.close(),
                CoreError::Connection(ConnectionError::Malformed) => {
                    self.receiving.broken.set(true)
                }
                _ => {}
            }
        }
        result
    }

    /// Whether `recv` would return at once: there is a message, or the end. Takes nothing. Waits for that until `deadline`.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`], [`ConnectionError::WriteOnly`]; what the interrupt hook raises.
    pub fn poll(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let open = self.readable_end()?;
        let port = self.receiving_port(&open, position);
        match open.lane(|lanes| lanes.inward) {
            Some(lane) => pipe::poll(&port, lane, deadline),
            None => port.wait(libc::POLLIN, deadline),
        }
    }

    /// Whether `recv` would return at once, for who waits for the descriptors of several: none if the descriptor itself says so; if
    /// it isn't so, the descriptor can be read as soon as another look is worth it.
    ///
    /// # Arguments
    /// - `descriptor_ready`: whether the descriptor can be read now. False if nobody knows: then only what else there is to see is seen,
    ///   which takes no system call most of the time.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub fn look(&self, descriptor_ready: bool) -> Result<Option<bool>> {
        let open = self.open()?;
        let Some(lane) = open
            .lane(|lanes| lanes.inward)
            .filter(|_| self.readable.get())
        else {
            return Ok(None);
        };
        // In this order: whoever puts something into the lane afterwards rings.
        if !descriptor_ready && lane.is_wanted() {
            return Ok(Some(lane.seems_filled()));
        }
        pipe::is_ready(&self.receiving_port(&open, Position::NONE), lane).map(Some)
    }

    /// Whether there is a message that the descriptor needn't tell of, for who sleeps after a [`Connection::look`]: see
    /// [`wait_fds_or`](crate::wait::wait_fds_or).
    #[must_use]
    pub fn has_message(&self) -> bool {
        let open = self.open.borrow();
        let lane = open
            .as_ref()
            .and_then(|open| open.lane(|lanes| lanes.inward));
        self.readable.get() && lane.is_some_and(|lane| lane.seems_filled())
    }

    fn receiving_port<'a>(&'a self, open: &'a Rc<Open>, position: Position) -> Port<'a> {
        Port {
            connection: self,
            direction: &self.receiving,
            open,
            position,
        }
    }

    fn open(&self) -> Result<Rc<Open>> {
        self.open
            .borrow()
            .clone()
            .ok_or_else(|| ConnectionError::Closed.into())
    }

    fn readable_end(&self) -> Result<Rc<Open>> {
        let open = self.open()?;
        if self.readable.get() {
            Ok(open)
        } else {
            Err(ConnectionError::WriteOnly.into())
        }
    }
}

impl Open {
    /// One of the lanes, if there are any. An end that was inherited by a fork that granted nothing may have lost them.
    fn lane(&self, which: fn(&Lanes) -> Option<Lane>) -> Option<Lane> {
        which(self.lanes.as_ref().filter(|lanes| lanes.exist())?)
    }
}

/// How many bytes to receive next of a body of `length` bytes of which `into` holds the first, at most `piece` of them. Sees to the
/// capacity: it doubles, up to the length, as bytes arrive.
fn room_for(into: &mut Vec<u8>, length: usize, piece: usize) -> usize {
    let room = (length - into.len()).min(piece);
    if into.capacity() - into.len() < room {
        let wanted = (2 * into.len()).max(into.len() + room).min(length);
        into.reserve_exact(wanted - into.len());
    }
    room
}

fn os(call: &'static str, errno: Errno) -> CoreError {
    CoreError::Os {
        call,
        errno: errno as i32,
    }
}
