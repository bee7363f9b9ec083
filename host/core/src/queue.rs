//! Queues: a log of records in shared memory.
//!
//! A queue is a chain of chunks (runs of pages). Records lie in them one behind the other; where
//! there is no room the log jumps: back to the front of the chunk, if what stood there has been
//! taken, else to a new chunk. So a queue whose consumers keep up stays in one chunk, in the
//! cache, and allocates nothing.
//!
//! Each end has a robust mutex. A record is written or read aside, and then committed by one
//! store of the number of puts (or gets); the position of that end is kept twice, and the
//! number's parity says which one holds. So a process that is killed at whatever instruction inside
//! leaves the queue as it was before or as it is after, and there is nothing to repair but a
//! chunk taken and not yet linked, which the `pending` word names.
//!
//! Invariants: records between head and tail are never written; a chunk belongs to whoever
//! the positions say it does; every length is checked against its chunk before it is used.

pub(crate) mod log;

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::postoffice;
use crate::session::layout::Entry;
use crate::session::{ObjRef, ObjectKind, RawHandle, objects, session};
use crate::sys::atomic::Ordering::*;
use crate::wait::{WaitInfo, WaitKind, wait_until};
use log::{Body, Record, record_len};
pub(crate) use log::{carried, counts, has_item};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Eventcounts of the entry: getters, putters, joiners.
const GETTERS: usize = 0;
const PUTTERS: usize = 1;
const JOINERS: usize = 2;

/// An item as it lies in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// What was put.
    pub payload: &'a [u8],
    /// The objects it refers to; each with a reference that the queue drops after the item is taken.
    pub handles: &'a [RawHandle],
    /// What the putter passed.
    pub flags: u32,
    /// How many items were taken from this queue before this one.
    pub seq: u64,
    /// Where its descriptors are.
    key: Option<u64>,
}

impl Item<'_> {
    /// Duplicates of the descriptors that the item carries, in their order.
    ///
    /// # Errors
    /// `Os` if this process has no room for them.
    pub fn fds(&self) -> Result<Vec<OwnedFd>> {
        self.key
            .map_or(Ok(vec![]), |key| postoffice::look(session(), key))
    }
}

/// What is put.
struct Message<'a> {
    len: usize,
    handles: &'a [RawHandle],
    fds: &'a [BorrowedFd<'a>],
    flags: u32,
}

/// A queue. Clones are the same queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue(ObjRef);

impl Queue {
    /// A new queue of one of the three kinds; `maxsize` 0 is bounded by memory alone.
    ///
    /// # Errors
    /// `ObjectTableFull`; `Type` for another kind.
    pub fn create(kind: ObjectKind, maxsize: u64, position: Position) -> Result<Self> {
        if !matches!(
            kind,
            ObjectKind::Queue | ObjectKind::JoinableQueue | ObjectKind::SimpleQueue
        ) {
            return Err(CoreError::Type(format!("{kind:?} is no kind of queue")));
        }
        let object = objects::create(kind, position, |entry| {
            let body: &Body = entry.body();
            body.put.mutex.init();
            body.get.mutex.init();
            body.common.maxsize.store(maxsize, Relaxed);
        })?;
        Ok(Self(object))
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        object.expect(&[
            ObjectKind::Queue,
            ObjectKind::JoinableQueue,
            ObjectKind::SimpleQueue,
        ])?;
        Ok(Self(object))
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        &self.0
    }

    #[inline]
    fn body(&self) -> Result<(&'static Entry, &'static Body)> {
        let entry = self.0.entry()?;
        Ok((entry, entry.body()))
    }

    fn info(&self, kind: WaitKind, position: Position) -> WaitInfo {
        WaitInfo::new(kind, self.0.handle().to_u64(), position)
    }

    /// Puts one item: `payload`, `flags` (30 bits), and references to `handles` that become the queue's
    /// ([`ObjRef::export`]); on an error they are dropped.
    ///
    /// # Errors
    /// `Full` at the deadline; `OutOfMemory`; what the interrupt hook raises.
    pub fn put(
        &self,
        payload: &[u8],
        handles: &[RawHandle],
        flags: u32,
        deadline: Deadline,
        position: Position,
    ) -> Result<()> {
        self.put_with(payload.len(), handles, flags, deadline, position, |room| {
            room.copy_from_slice(payload)
        })
    }

    /// [`Queue::put`] with descriptors, of which the item gets duplicates: whoever takes it finds them
    /// by [`Item::fds`].
    ///
    /// # Errors
    /// As [`Queue::put`]; `Value` for more than [`postoffice::MOST`] descriptors, `Runtime` if too many wait in
    /// the session's queues.
    pub fn put_fds(
        &self,
        payload: &[u8],
        handles: &[RawHandle],
        fds: &[BorrowedFd<'_>],
        flags: u32,
        deadline: Deadline,
        position: Position,
    ) -> Result<()> {
        let message = Message {
            len: payload.len(),
            handles,
            fds,
            flags,
        };
        self.put_message(&message, deadline, position, |room| {
            room.copy_from_slice(payload)
        })?;
        self.wake_getter()
    }

    /// [`Queue::put`] for a payload of `len` bytes that `fill` writes in place. It is called once,
    /// in a critical section: it must not wait, nor use the queue. The room holds arbitrary bytes.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put_with(
        &self,
        len: usize,
        handles: &[RawHandle],
        flags: u32,
        deadline: Deadline,
        position: Position,
        fill: impl FnMut(&mut [u8]),
    ) -> Result<()> {
        let message = Message {
            len,
            handles,
            fds: &[],
            flags,
        };
        self.put_message(&message, deadline, position, fill)?;
        self.wake_getter()
    }

    /// [`Queue::put_fds`] that wakes nobody: the caller decides whether somebody shall look now
    /// ([`Queue::wake_getter`]).
    ///
    /// # Errors
    /// As [`Queue::put_fds`].
    pub fn put_quietly(
        &self,
        payload: &[u8],
        handles: &[RawHandle],
        fds: &[BorrowedFd<'_>],
        flags: u32,
        deadline: Deadline,
        position: Position,
    ) -> Result<()> {
        let message = Message {
            len: payload.len(),
            handles,
            fds,
            flags,
        };
        self.put_message(&message, deadline, position, |room| {
            room.copy_from_slice(payload)
        })
    }

    fn put_message(
        &self,
        message: &Message<'_>,
        deadline: Deadline,
        position: Position,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<()> {
        let result = self.body().and_then(|(entry, body)| {
            let info = self.info(WaitKind::QueuePut, position);
            let put = wait_until(&entry.events[PUTTERS], info, deadline, || {
                self.try_put(body, message, &mut fill)
            })?;
            if put.is_none() {
                return Err(CoreError::Full);
            }
            Ok(())
        });
        if result.is_err() {
            message.handles.iter().for_each(|h| session().release(*h));
        }
        result
    }

    /// How many sleep until there is an item, or are about to: whoever isn't counted, and looks for an item afterwards, finds what was put before
    /// this. Never less; those whom a wake-up is on its way to are counted still.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn getters_asleep(&self) -> Result<usize> {
        Ok(self.body()?.0.events[GETTERS].counted() as usize)
    }

    /// Lets one of those who wait for an item look.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn wake_getter(&self) -> Result<()> {
        self.body()?.0.events[GETTERS].wake(1);
        Ok(())
    }

    /// Waits until `puts` items have been put since the queue began, or `stop` says so, which is asked
    /// after every wake-up: true, or false at the deadline. Takes nothing.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn wait_for_puts(
        &self,
        puts: u64,
        kind: WaitKind,
        deadline: Deadline,
        position: Position,
        mut stop: impl FnMut() -> bool,
    ) -> Result<bool> {
        let (entry, body) = self.body()?;
        let done = wait_until(
            &entry.events[GETTERS],
            self.info(kind, position),
            deadline,
            || Ok((body.puts.count.load(SeqCst) >= puts || stop()).then_some(())),
        )?;
        Ok(done.is_some())
    }

    fn try_put(
        &self,
        body: &'static Body,
        message: &Message<'_>,
        fill: &mut impl FnMut(&mut [u8]),
    ) -> Result<Option<()>> {
        let session = session();
        let maxsize = body.common.maxsize.load(Relaxed);
        let is_full = || {
            maxsize != 0 && {
                let gets = body.gets.count.load(SeqCst);
                body.puts.count.load(SeqCst).saturating_sub(gets) >= maxsize
            }
        };
        if is_full() {
            return Ok(None);
        }
        let &Message {
            len,
            handles,
            fds,
            flags,
        } = message;
        let keys = usize::from(!fds.is_empty());
        let Some(need) = record_len(len, handles.len(), keys) else {
            return Err(CoreError::OutOfMemory);
        };
        let owner = self.0.index();
        let _guard = body.put.mutex.lock(|| body.repair_put(session, owner))?;
        if is_full() {
            return Ok(None);
        }
        let puts = body.puts.count.load(Relaxed);
        let at = match body.place(session, owner, puts, need) {
            Ok(at) => at,
            Err(e) => {
                body.repair_put(session, owner);
                return Err(e);
            }
        };
        let key = if fds.is_empty() {
            None
        } else {
            let sent = postoffice::send(session, self.0.handle(), puts, fds);
            Some(sent.inspect_err(|_| body.repair_put(session, owner))?)
        };
        let new = Record {
            len,
            handles,
            key,
            flags,
        };
        body.put_record(session, at, need, &new, fill)?;
        Ok(Some(()))
    }

    /// Takes the oldest item. `read` sees it where it lies, in a critical section: it must not
    /// wait, nor use the queue, and [claims](crate::session::Session::claim) the objects it keeps. The item is gone when `read` has returned,
    /// whatever that says.
    ///
    /// # Errors
    /// `Empty` at the deadline; what the interrupt hook raises.
    pub fn get<R>(
        &self,
        deadline: Deadline,
        position: Position,
        read: impl FnMut(Item<'_>) -> R,
    ) -> Result<R> {
        self.get_with(deadline, position, read, |_| {})
    }

    /// [`Queue::get`]; `before_commit` is called with the item's number after it was read and
    /// right before it is gone, to note who has it.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn get_with<R>(
        &self,
        deadline: Deadline,
        position: Position,
        mut read: impl FnMut(Item<'_>) -> R,
        mut before_commit: impl FnMut(u64),
    ) -> Result<R> {
        let (entry, body) = self.body()?;
        let info = self.info(WaitKind::QueueGet, position);
        let got = wait_until(&entry.events[GETTERS], info, deadline, || {
            self.try_get(body, &mut read, &mut before_commit)
        })?;
        let Some(got) = got else {
            return Err(CoreError::Empty);
        };
        if body.common.maxsize.load(Relaxed) != 0 {
            entry.events[PUTTERS].wake(1);
        }
        Ok(got)
    }

    fn try_get<R>(
        &self,
        body: &'static Body,
        read: &mut impl FnMut(Item<'_>) -> R,
        before_commit: &mut impl FnMut(u64),
    ) -> Result<Option<R>> {
        let session = session();
        if !body.seems_filled() {
            return Ok(None);
        }
        let mut handles = Vec::new();
        let mut key = None;
        let taken = {
            // Nothing to repair: what wasn't committed was only read.
            let _guard = body.get.mutex.lock(|| {})?;
            body.take_record(session, self.0.index(), |item| {
                key = item.key;
                let result = read(item);
                before_commit(item.seq);
                handles.extend_from_slice(item.handles);
                result
            })?
        };
        handles.iter().for_each(|h| session.release(*h));
        if key.is_some() {
            postoffice::sweep(session, key)?;
        }
        Ok(taken)
    }

    /// Items put so far.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn puts(&self) -> Result<u64> {
        Ok(self.body()?.1.puts.count.load(SeqCst))
    }

    /// Items taken so far.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn gets(&self) -> Result<u64> {
        Ok(self.body()?.1.gets.count.load(SeqCst))
    }

    /// Items in it.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn qsize(&self) -> Result<u64> {
        // The takers first: their number never exceeds a later look at the putters'.
        let gets = self.gets()?;
        Ok(self.puts()?.saturating_sub(gets))
    }

    /// The bound, 0 for none.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn maxsize(&self) -> Result<u64> {
        Ok(self.body()?.1.common.maxsize.load(Relaxed))
    }

    /// Whether there is no item.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn empty(&self) -> Result<bool> {
        Ok(self.qsize()? == 0)
    }

    /// Whether there is no room.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn full(&self) -> Result<bool> {
        let maxsize = self.maxsize()?;
        Ok(maxsize != 0 && self.qsize()? >= maxsize)
    }

    /// One item more is done with.
    ///
    /// # Errors
    /// `Value` if all items put so far are.
    pub fn task_done(&self) -> Result<()> {
        let (entry, body) = self.body()?;
        let puts = body.puts.count.load(SeqCst);
        let before = body
            .common
            .done
            .fetch_update(SeqCst, Relaxed, |done| (done < puts).then_some(done + 1))
            .map_err(|_| CoreError::Value("task_done() called too many times".into()))?;
        if before + 1 == body.puts.count.load(SeqCst) {
            entry.events[JOINERS].wake(u32::MAX);
        }
        Ok(())
    }

    /// Waits until all items put are done with: true, or false at the deadline.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn join(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let (entry, body) = self.body()?;
        let info = self.info(WaitKind::QueueJoin, position);
        let done = wait_until(&entry.events[JOINERS], info, deadline, || {
            Ok((body.common.done.load(SeqCst) >= body.puts.count.load(SeqCst)).then_some(()))
        })?;
        Ok(done.is_some())
    }
}
