//! Lanes: one direction of a pipe, in shared memory.
//!
//! Problem: a message through a socket is two system calls, and the kernel allocates buffers for it. A socket is needed for what only the kernel
//! knows: that the last copy of an end was closed, and who sleeps. So the messages of a pipe lie in a lane, a log like a queue's, and its
//! socket says the rest. What isn't for a lane takes the socket, as between programs: descriptors, what is very long, and
//! everything where there is no lane.
//!
//! How the two go together:
//! - **Order.** A message that is to take the socket is counted before it is sent and when it has been received. As long as the numbers differ, all
//!   take the socket. A receiver looks into the lane first. Whoever dies in between leaves them different: the pipe is slower then.
//! - **Sleep.** A receiver sleeps at the socket. Before, it finds nothing in lane and socket and says that it wants a bell, with both ends of the
//!   lane locked. Who has put a message into the lane then rings (a packet of one byte), and takes the wish back if it is still the same
//!   one. A bell is taken out of the socket only with both locks held and the lane empty, and the next one is wanted before. So whoever sleeps while
//!   there is something in the lane has a bell in its socket, or the sender is about to ring, or has died: a death lets
//!   all who sleep so look into their lanes (`table::deaths`). To ring before the commit, with the lane locked, would need no such help; but where
//!   processors are rare, whoever is woken takes the sender's, and finds the lane empty and locked.
//! - **Room.** Who finds the lane full sends a gate: a packet so large that its side of the socket isn't writable until it has been taken, which
//!   happens when the lane is empty. If a kernel sees this otherwise, the message takes the socket.
//!
//! Invariants: a lane holds whole messages alone; the locks are never held across a wait; an end that has left its program is
//! reached by the socket alone.

use super::packet::{self, BELL, GATE};
use super::payload::Payload;
use super::ring::{Claim, Ring};
use super::{os, socket};
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::queue::log::{self, Body, Record, record_len};
use crate::session::layout::Entry;
use crate::session::{ObjRef, ObjectKind, RawHandle, Session, objects, session, try_session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::memory::Shared;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// The longest message of a lane, in bytes: four of them are room enough for both sides to work at once.
const LARGEST: usize = 2 << 20;
/// A lane's room, in pages, unless its messages need more: what a socket has, about …
const PAGES: u32 = 64;
/// … and for messages of more than this many bytes, so that a dozen of them fit.
const MANY: usize = 16 << 10;
const MANY_PAGES: u32 = 256;

#[repr(C, align(64))]
struct Shape {
    log: Body,
    /// The receiver's side wants a bell: which of its wishes this is, or 0.
    wanted: AtomicU32,
    /// The number of the last wish.
    wishes: AtomicU32,
    /// No message is for this lane any more.
    closed: AtomicU32,
    /// Messages that were to take the socket, and those that have arrived there.
    sent: AtomicU64,
    received: AtomicU64,
    /// The pipe's other lane, with a reference that is this object's; 0 for none.
    other: AtomicU64,
    /// For the bytes of messages that take the socket.
    ring: Ring,
}
// SAFETY: repr(C), atomics and robust mutexes.
unsafe impl Shared for Shape {}

/// The lanes of a pipe, as one of its ends has them.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    object: ObjRef,
    first: bool,
    /// What this end sends by.
    pub(crate) out: Option<Lane>,
    /// What it receives by.
    pub(crate) inward: Option<Lane>,
}

/// One direction. Its memory stays for as long as the [`Lanes`] that it is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    index: u32,
    entry: &'static Entry,
}

/// What a lane needs of one side of its socket.
pub(crate) trait Side {
    /// Sends a bell to the other side, without waiting.
    fn ring(&self);
    /// The kind of the next packet, none at the end.
    ///
    /// # Errors
    /// EAGAIN if there is nothing.
    fn peek(&self) -> std::result::Result<Option<u8>, Errno>;
    /// Takes the next packet, a bell or a gate.
    fn discard(&self);
}

impl Side for BorrowedFd<'_> {
    fn ring(&self) {
        // If the socket is full, there is something to see for them already; if nobody is there any more, nobody need see it.
        let _ = packet::ring(*self);
    }

    fn peek(&self) -> std::result::Result<Option<u8>, Errno> {
        socket::peek(*self)
    }

    fn discard(&self) {
        socket::discard(*self);
    }
}

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    /// The lane is full.
    Full,
    /// Others have taken the socket, and haven't been received.
    Behind,
    /// It isn't for the lane.
    Socket,
}

/// What the receiver's side of the socket has.
pub(crate) enum Found<T> {
    /// Something is in the lane.
    InLane,
    /// A packet of a message, or the end.
    Packet(T),
    /// Nothing: the next one who puts something into the lane rings.
    Nothing,
}

impl Lanes {
    /// Those of a new pipe; none where the session has no room for them.
    pub(crate) fn create(duplex: bool, position: Position) -> Option<ObjRef> {
        let session = try_session()?;
        let lane = |other: Option<RawHandle>| {
            objects::create(ObjectKind::Pipe, position, |entry| {
                let shape: &Shape = entry.body();
                shape.log.put.mutex.init();
                shape.log.get.mutex.init();
                shape
                    .other
                    .store(other.map_or(0, RawHandle::to_u64), Relaxed);
            })
            .ok()
        };
        if !duplex {
            // From the second end to the first.
            return lane(None);
        }
        let other = lane(None)?.export();
        let object = lane(Some(other));
        if object.is_none() {
            session.release(other);
        }
        object
    }

    /// Those of an end; `first` is the end that the first lane leads to.
    ///
    /// # Errors
    /// `Type` if it is no pipe.
    pub(crate) fn of(object: ObjRef, first: bool) -> Result<Self> {
        let entry = object.expect(&[ObjectKind::Pipe])?;
        let shape: &Shape = entry.body();
        let to_first = Lane {
            index: object.index(),
            entry,
        };
        let other = RawHandle::from_u64(shape.other.load(Relaxed));
        let to_second = match other.generation {
            0 => None,
            _ => Some(Lane {
                index: other.index,
                entry: session()
                    .entry(other.index)
                    .ok_or_else(|| CoreError::Corrupt("a pipe without its other lane".into()))?,
            }),
        };
        let (inward, out) = match first {
            true => (Some(to_first), to_second),
            false => (to_second, Some(to_first)),
        };
        Ok(Self {
            object,
            first,
            out,
            inward,
        })
    }

    /// What another process makes the same lanes of, with [`Lanes::of`].
    pub(super) fn parts(&self) -> (&ObjRef, bool) {
        (&self.object, self.first)
    }

    /// Whether an end has left its program.
    pub(super) fn have_been_left(&self) -> bool {
        let is_closed = |lane: Option<Lane>| lane.is_some_and(|lane| lane.is_closed());
        self.exist() && (is_closed(self.out) || is_closed(self.inward))
    }

    /// Whether they are there: an end that was inherited by a fork that granted nothing may have lost them.
    pub(super) fn exist(&self) -> bool {
        self.object.entry().is_ok()
    }

    /// From now on all messages take the socket: this end leaves its program.
    ///
    /// # Errors
    /// `Value` if messages for this end lie in its lane.
    pub(super) fn leave(&self) -> Result<()> {
        if !self.exist() {
            return Ok(());
        }
        if let Some(lane) = self.inward
            && !lane.close_if_empty()?
        {
            return Err(CoreError::Value(
                "there are messages in this end of a pipe that nobody has received: only without them it can go to another program".into(),
            ));
        }
        self.out.as_ref().map_or(Ok(()), Lane::close)
    }
}

impl Lane {
    fn shape(&self) -> &'static Shape {
        self.entry.body()
    }

    fn log(&self) -> &'static Body {
        &self.shape().log
    }

    fn repair(&self) {
        self.log().repair_put(session(), self.index);
    }

    /// Where it lies that the receiver's side wants a bell.
    #[cfg(test)]
    pub(crate) fn wanted(&self) -> usize {
        std::ptr::from_ref(&self.shape().wanted) as usize
    }

    /// How many messages have been put.
    #[cfg(test)]
    pub(crate) fn puts(&self) -> u64 {
        self.log().puts.count.load(SeqCst)
    }

    /// From now on no message is for this lane.
    pub(super) fn close(&self) -> Result<()> {
        let _guard = self.log().put.mutex.lock(|| self.repair())?;
        self.shape().closed.store(1, SeqCst);
        Ok(())
    }

    /// The same, unless messages lie in it or in its ring; whether it was done.
    fn close_if_empty(&self) -> Result<bool> {
        let _guard = self.log().put.mutex.lock(|| self.repair())?;
        let is_empty = !self.seems_filled() && self.shape().ring.is_idle();
        if is_empty {
            self.shape().closed.store(1, SeqCst);
        }
        Ok(is_empty)
    }

    fn is_closed(&self) -> bool {
        self.shape().closed.load(SeqCst) != 0
    }

    /// Puts a message into the lane, if it is for that and there is room. The references to `handles` are the message's then: its receiver
    /// adopts them, or they go with the lane.
    #[inline]
    pub(crate) fn put(
        &self,
        side: &impl Side,
        payload: &Payload<'_>,
        handles: &[RawHandle],
    ) -> Result<Put> {
        let session = session();
        let shape = self.shape();
        let log = &shape.log;
        let Some(need) =
            record_len(payload.len(), handles.len(), 0).filter(|_| payload.len() <= LARGEST)
        else {
            return Ok(Put::Socket);
        };
        let guard = log.put.mutex.lock(|| self.repair())?;
        if shape.closed.load(Relaxed) != 0 {
            return Ok(Put::Socket);
        }
        if shape.sent.load(Relaxed) != shape.received.load(Acquire) {
            return Ok(Put::Behind);
        }
        let puts = log.puts.count.load(Relaxed);
        let pages = if need > MANY { MANY_PAGES } else { PAGES };
        let at = match log.place_within(session, self.index, puts, need, pages) {
            Ok(Some(at)) => at,
            Ok(None) => return Ok(Put::Full),
            Err(error) => {
                self.repair();
                return match error {
                    CoreError::OutOfMemory => Ok(Put::Socket),
                    error => Err(error),
                };
            }
        };
        let new = Record {
            len: payload.len(),
            handles,
            key: None,
            flags: 0,
        };
        log.put_record(session, at, need, &new, &mut |room| payload.copy_to(room))?;
        drop(guard);
        let wish = shape.wanted.load(SeqCst);
        if wish != 0 {
            side.ring();
            // If it isn't the same any more, somebody has looked meanwhile, and wants another bell.
            let _ = shape.wanted.compare_exchange(wish, 0, SeqCst, Relaxed);
        }
        Ok(Put::Done)
    }

    /// A message is going to take the socket; if it doesn't after all, [`Lane::take_back`].
    pub(super) fn announce(&self) -> Result<()> {
        let _guard = self.log().put.mutex.lock(|| self.repair())?;
        self.shape().sent.fetch_add(1, Release);
        Ok(())
    }

    /// Nothing was sent.
    pub(super) fn take_back(&self) -> Result<()> {
        let _guard = self.log().put.mutex.lock(|| self.repair())?;
        self.shape().sent.fetch_sub(1, Release);
        Ok(())
    }

    /// A message that was announced has arrived.
    pub(super) fn arrived(&self) {
        self.shape().received.fetch_add(1, Release);
    }

    /// The lane's ring, for the pieces of a message that takes the socket; none where another process has it, or the socket alone will do.
    pub(super) fn ring(&self) -> Result<Option<Claim>> {
        let shape = self.shape();
        let _guard = shape.log.put.mutex.lock(|| self.repair())?;
        if shape.closed.load(Relaxed) != 0 {
            return Ok(None);
        }
        shape.ring.claim(session(), self.index)
    }

    /// Takes a piece out of the ring; false if that can't be.
    pub(super) fn take_piece(&self, number: u64, length: usize, into: &mut Vec<u8>) -> bool {
        self.shape().ring.take(session(), number, length, into)
    }

    /// Whether the next message will be in the lane, as far as is known: none is on its way through the socket.
    pub(super) fn is_level(&self) -> bool {
        let shape = self.shape();
        shape.sent.load(Relaxed) == shape.received.load(Relaxed)
    }

    /// Whether the next one who puts something into the lane rings.
    pub(super) fn is_wanted(&self) -> bool {
        self.shape().wanted.load(SeqCst) != 0
    }

    /// Whether there is a message, as far as is known without a lock.
    pub(crate) fn seems_filled(&self) -> bool {
        self.log().seems_filled()
    }

    /// Takes the oldest message: what `read` makes of it, where it lies.
    #[inline]
    pub(crate) fn take<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let log = self.log();
        if !log.seems_filled() {
            return Ok(None);
        }
        let _guard = log.get.mutex.lock(|| {})?;
        log.take_record(session(), self.index, |item| read(item.payload))
    }

    /// Looks what there is, before somebody sleeps: `receive` takes the next packet out of the socket (or only looks at it), without
    /// waiting. Bells and gates are taken here.
    pub(crate) fn look<T>(
        &self,
        side: &impl Side,
        mut receive: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        let shape = self.shape();
        let log = &shape.log;
        let _get = log.get.mutex.lock(|| {})?;
        let _put = log.put.mutex.lock(|| self.repair())?;
        if log.seems_filled() {
            return Ok(Found::InLane);
        }
        let wish = || {
            let wish = shape.wishes.load(Relaxed).wrapping_add(1).max(1);
            shape.wishes.store(wish, Relaxed);
            shape.wanted.swap(wish, SeqCst);
        };
        wish();
        loop {
            match side.peek() {
                Ok(Some(BELL)) => {
                    // It may be for the last wish. Others who sleep need the next one before it is gone.
                    wish();
                    side.discard();
                }
                Ok(Some(GATE)) => {
                    side.discard();
                    self.arrived();
                }
                Ok(_) => {
                    if let Some(packet) = receive()? {
                        return Ok(Found::Packet(packet));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(Found::Nothing),
                // The kernel says once that the other end was closed with packets unread in it.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(os("recv", errno)),
            }
        }
    }
}

/// The objects that a lane keeps, when it goes: those of messages that nobody has received, and the pipe's other lane.
pub(crate) fn carried(session: &Session, entry: &'static Entry, into: &mut Vec<RawHandle>) {
    let shape: &Shape = entry.body();
    log::carried(session, &shape.log, into);
    let other = RawHandle::from_u64(shape.other.load(Relaxed));
    if other.generation != 0 {
        into.push(other);
    }
}
