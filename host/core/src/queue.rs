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

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::postoffice;
use crate::session::layout::Entry;
use crate::session::pages::{self, Run};
use crate::session::{ObjRef, ObjectKind, RawHandle, Session, objects, session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use crate::sys::memory::{PAGE, Shared};
use crate::sys::mutex::RobustMutex;
use crate::wait::{WaitInfo, WaitKind, wait_until};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Eventcounts of the entry: getters, putters, joiners.
const GETTERS: usize = 0;
const PUTTERS: usize = 1;
const JOINERS: usize = 2;

/// Everything in a chunk begins at a multiple of this.
const UNIT: usize = 16;
/// A chunk's own header.
const CHUNK_HEAD: usize = UNIT;
/// A record's header, and a whole jump.
const RECORD_HEAD: usize = UNIT;
/// Chunks grow from one page by this factor …
const GROWTH: u32 = 16;
/// … to a mebibyte, unless items are larger.
const LARGEST_COMMON: u32 = 256;
/// Large items get chunks for four of them, up to this many pages (16 MiB), so that they cycle too.
const LARGEST_ROOMY: u32 = 4096;
/// `flags` of a jump.
const JUMP: u32 = u32::MAX;
/// In `flags`: behind the handles stands the key of the item's descriptors in the post office.
const HAS_FDS: u32 = 1 << 31;
/// What a putter may use of `flags`.
const FLAGS: u32 = (1 << 30) - 1;

#[repr(C, align(64))]
struct Common {
    maxsize: AtomicU64,
    /// The first chunk's first record, for a head that has never moved.
    first: AtomicU64,
    /// An empty chunk for the next putter that needs one.
    spare: AtomicU64,
    done: AtomicU64,
}

#[repr(C, align(64))]
struct End {
    mutex: RobustMutex,
    /// The position of this end, for an even and an odd number of operations.
    position: [AtomicU64; 2],
}

#[repr(C, align(64))]
struct Puts {
    count: AtomicU64,
    /// A chunk on its way into the chain.
    pending: AtomicU64,
}

#[repr(C, align(64))]
struct Gets {
    count: AtomicU64,
    /// `Puts::count` as the getters last saw it, which spares them a line that putters write.
    seen: AtomicU64,
}

#[repr(C)]
struct Body {
    common: Common,
    put: End,
    puts: Puts,
    get: End,
    gets: Gets,
}
// SAFETY: repr(C), atomics and robust mutexes.
unsafe impl Shared for Body {}

#[repr(C)]
struct ChunkHead {
    pages: AtomicU32,
    _reserved: [AtomicU32; 3],
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for ChunkHead {}

#[repr(C)]
struct RecordHead {
    /// Bytes of payload; a jump's target.
    len: AtomicU64,
    handles: AtomicU32,
    flags: AtomicU32,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for RecordHead {}

/// A place in the log: the chunk's first page and the offset in it, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    page: u32,
    unit: u32,
}

impl Place {
    fn to_u64(self) -> u64 {
        u64::from(self.page) << 32 | u64::from(self.unit)
    }

    /// 0, which no place is (a chunk's header comes first), is `None`.
    fn from_u64(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self {
            page: (bits >> 32) as u32,
            unit: bits as u32,
        })
    }

    fn front(page: u32) -> Self {
        Self {
            page,
            unit: (CHUNK_HEAD / UNIT) as u32,
        }
    }

    fn offset(self) -> usize {
        self.unit as usize * UNIT
    }

    fn advanced(self, bytes: usize) -> Self {
        Self {
            page: self.page,
            unit: self.unit + (bytes / UNIT) as u32,
        }
    }
}

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

fn damaged() -> CoreError {
    CoreError::Corrupt("a queue's record doesn't fit its chunk".into())
}

/// Bytes of a chunk.
fn chunk_len(session: &Session, page: u32) -> Result<usize> {
    let head: &ChunkHead = session
        .region()
        .at(session.page_offset(page))
        .ok_or_else(damaged)?;
    let pages = head.pages.load(Relaxed);
    if pages == 0
        || page
            .checked_add(pages)
            .is_none_or(|end| end as usize > session.layout().pages)
    {
        return Err(damaged());
    }
    Ok(pages as usize * PAGE)
}

/// The header at a place, and the bytes of the chunk behind it.
fn record(session: &Session, at: Place) -> Result<(&'static RecordHead, usize)> {
    let left = chunk_len(session, at.page)?
        .checked_sub(at.offset() + RECORD_HEAD)
        .ok_or_else(damaged)?;
    let head = session
        .region()
        .at(session.page_offset(at.page) + at.offset())
        .ok_or_else(damaged)?;
    Ok((head, left))
}

/// Bytes of a record with its header.
fn record_len(payload: usize, handles: usize, keys: usize) -> Option<usize> {
    handles
        .checked_add(keys)?
        .checked_mul(8)?
        .checked_add(payload)?
        .checked_add(RECORD_HEAD)?
        .checked_next_multiple_of(UNIT)
}

impl Body {
    /// The tail after `puts` puts.
    fn tail(&self, puts: u64) -> Option<Place> {
        Place::from_u64(self.put.position[(puts & 1) as usize].load(Relaxed))
    }

    /// The head, for a putter: it may have moved on meanwhile, which only frees more room.
    fn head_seen(&self) -> Option<Place> {
        loop {
            let gets = self.gets.count.load(Acquire);
            let head = self.get.position[(gets & 1) as usize].load(Acquire);
            fence(Acquire);
            if self.gets.count.load(Relaxed) == gets {
                return Place::from_u64(head)
                    .or_else(|| Place::from_u64(self.common.first.load(Relaxed)));
            }
        }
    }

    /// After a putter died: frees its chunk if it wasn't linked.
    fn repair_put(&self, session: &Session, owner: u32) {
        let Some(run) = Run::from_u64(self.puts.pending.load(Relaxed)) else {
            return;
        };
        let tail = self.tail(self.puts.count.load(Relaxed));
        if tail.is_none_or(|t| t.page != run.first) {
            // A damaged table leaks the chunk.
            let _ = pages::free(session, owner, run);
        }
        self.puts.pending.store(0, Relaxed);
    }

    /// Where a record of `need` bytes goes. What was taken for it is in `pending`.
    fn place(&self, session: &Session, owner: u32, puts: u64, need: usize) -> Result<Place> {
        let tail = self.tail(puts);
        if let Some(tail) = tail {
            let end = chunk_len(session, tail.page)?;
            let head = self.head_seen().filter(|h| h.page == tail.page);
            // Behind every record there is room for a jump.
            let wanted = need + RECORD_HEAD;
            // Where the log has come round, free is only what lies between.
            let round = head.is_some_and(|h| h.unit > tail.unit);
            let limit = head.filter(|_| round).map_or(end, Place::offset);
            if tail.offset() + wanted <= limit {
                return Ok(tail);
            }
            if head.is_some_and(|h| !round && CHUNK_HEAD + wanted <= h.offset()) {
                let front = Place::front(tail.page);
                jump(session, tail, front)?;
                return Ok(front);
            }
        }
        let previous = tail.map_or(Ok(0), |t| chunk_len(session, t.page))? / PAGE;
        let run = self.new_chunk(
            session,
            owner,
            need + CHUNK_HEAD + RECORD_HEAD,
            previous as u32,
        )?;
        let head: &ChunkHead = session
            .region()
            .at(session.page_offset(run.first))
            .ok_or_else(damaged)?;
        head.pages.store(run.count, Relaxed);
        let front = Place::front(run.first);
        match tail {
            Some(tail) => jump(session, tail, front)?,
            None => self.common.first.store(front.to_u64(), Relaxed),
        }
        Ok(front)
    }

    fn new_chunk(&self, session: &Session, owner: u32, bytes: usize, previous: u32) -> Result<Run> {
        let least = pages::needed(bytes)?;
        let spare = self.common.spare.load(Relaxed);
        if let Some(run) = Run::from_u64(spare) {
            // A getter may put another one there, but only a putter takes it, under this lock.
            self.common.spare.store(0, SeqCst);
            if run.count >= least {
                self.puts.pending.store(spare, Relaxed);
                return Ok(run);
            }
            pages::free(session, owner, run)?;
        }
        let common = if previous == 0 {
            1
        } else {
            (previous.saturating_mul(GROWTH)).min(LARGEST_COMMON)
        };
        let roomy = least.saturating_mul(4).min(LARGEST_ROOMY);
        let wanted = if least > common / 4 {
            roomy.max(common)
        } else {
            common
        };
        let wanted = wanted.max(least);
        let run = match pages::allocate(session, owner, wanted, Some(&self.puts.pending)) {
            Err(CoreError::OutOfMemory) if wanted > least => {
                pages::allocate(session, owner, least, Some(&self.puts.pending))?
            }
            other => other?,
        };
        Ok(run)
    }

    /// The record that is next to be taken, jumps followed.
    fn next(&self, session: &Session, gets: u64) -> Result<(Place, Place)> {
        let start = Place::from_u64(self.get.position[(gets & 1) as usize].load(Relaxed))
            .or_else(|| Place::from_u64(self.common.first.load(Relaxed)))
            .ok_or_else(damaged)?;
        let mut at = start;
        // At most to the front of this chunk, or to the next one.
        for _ in 0..4 {
            let (head, _) = record(session, at)?;
            if head.flags.load(Relaxed) != JUMP {
                return Ok((start, at));
            }
            at = Place::from_u64(head.len.load(Relaxed)).ok_or_else(damaged)?;
        }
        Err(damaged())
    }

    /// Gives a chunk that the head has left to the putters, or back.
    fn retire(&self, session: &Session, owner: u32, page: u32) -> Result<()> {
        let run = Run {
            first: page,
            count: (chunk_len(session, page)? / PAGE) as u32,
        };
        if run.count <= LARGEST_ROOMY
            && self
                .common
                .spare
                .compare_exchange(0, run.to_u64(), SeqCst, Relaxed)
                .is_ok()
        {
            return Ok(());
        }
        pages::free(session, owner, run)
    }
}

fn jump(session: &Session, from: Place, to: Place) -> Result<()> {
    let (head, _) = record(session, from)?;
    head.len.store(to.to_u64(), Relaxed);
    head.flags.store(JUMP, Relaxed);
    Ok(())
}

/// The parts of the record at `at`: item and the place behind it.
fn parse(session: &Session, at: Place, seq: u64) -> Result<(Item<'static>, Place)> {
    let (head, left) = record(session, at)?;
    let len = usize::try_from(head.len.load(Relaxed)).map_err(|_| damaged())?;
    let count = head.handles.load(Relaxed) as usize;
    let flags = head.flags.load(Relaxed);
    let keys = usize::from(flags & HAS_FDS != 0);
    let words = count + keys;
    let whole = record_len(len, count, keys).ok_or_else(damaged)?;
    if whole - RECORD_HEAD > left {
        return Err(damaged());
    }
    let start = session.page_offset(at.page) + at.offset() + RECORD_HEAD;
    let bytes = session
        .region()
        .bytes(start, words * 8 + len)
        .ok_or_else(damaged)?;
    // SAFETY: the range lies in the region (checked above), is aligned for handles (a multiple of
    // 16), both types take any bytes, and the record is committed: nobody writes it until it
    // is taken, which the caller's lock prevents.
    let (words, payload) = unsafe {
        (
            std::slice::from_raw_parts(bytes.cast::<RawHandle>().cast_const(), words),
            std::slice::from_raw_parts(bytes.add(words * 8).cast_const(), len),
        )
    };
    let (handles, key) = words.split_at(count);
    Ok((
        Item {
            payload,
            handles,
            flags: flags & FLAGS,
            seq,
            key: key.first().map(|k| k.to_u64()),
        },
        at.advanced(whole),
    ))
}

/// Whether item number `seq` of a queue may still be taken: it is there, or somebody is just putting it.
pub(crate) fn has_item(session: &'static Session, queue: RawHandle, seq: u64) -> bool {
    let Some(entry) = session.entry(queue.index) else {
        return false;
    };
    if entry.generation.load(SeqCst) != queue.generation {
        return false;
    }
    let body: &'static Body = entry.body();
    let is_put = || body.puts.count.load(SeqCst) > seq;
    if body.gets.count.load(SeqCst) > seq {
        return false;
    }
    // Who was to put it, and isn't at it any more, has died at it.
    is_put()
        || match body
            .put
            .mutex
            .try_lock(|| body.repair_put(session, queue.index))
        {
            Ok(Some(_guard)) => is_put(),
            Ok(None) => true,
            Err(_) => false,
        }
}

/// What a queue's numbers say, for pictures of the session.
pub(crate) struct Counts {
    pub(crate) items: u64,
    pub(crate) maxsize: u64,
    /// Items put that nobody has called done.
    pub(crate) unfinished: u64,
}

/// The numbers of the queue in an entry.
pub(crate) fn counts(entry: &'static Entry) -> Counts {
    let body: &Body = entry.body();
    // The takers first: their number never exceeds a later look at the putters'.
    let gets = body.gets.count.load(SeqCst);
    let puts = body.puts.count.load(SeqCst);
    Counts {
        items: puts.saturating_sub(gets),
        maxsize: body.common.maxsize.load(Relaxed),
        unfinished: puts.saturating_sub(body.common.done.load(SeqCst)),
    }
}

/// The handles that a queue's unread items carry, when the queue goes.
pub(crate) fn carried(session: &Session, entry: &'static Entry, into: &mut Vec<RawHandle>) {
    let body: &Body = entry.body();
    let puts = body.puts.count.load(Acquire);
    let mut gets = body.gets.count.load(Acquire);
    let Ok((_, mut at)) = (if gets < puts {
        body.next(session, gets)
    } else {
        return;
    }) else {
        return;
    };
    while gets < puts {
        // Damage ends the walk: what it hides leaks.
        let Ok((item, behind)) = parse(session, at, gets) else {
            return;
        };
        into.extend_from_slice(item.handles);
        gets += 1;
        if gets == puts {
            return;
        }
        at = behind;
        for _ in 0..4 {
            let Ok((head, _)) = record(session, at) else {
                return;
            };
            if head.flags.load(Relaxed) != JUMP {
                break;
            }
            let Some(next) = Place::from_u64(head.len.load(Relaxed)) else {
                return;
            };
            at = next;
        }
    }
}

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
        deadline: Deadline,
        position: Position,
    ) -> Result<()> {
        let message = Message {
            len: payload.len(),
            handles,
            fds,
            flags: 0,
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
        let count = u32::try_from(handles.len()).map_err(|_| CoreError::OutOfMemory)?;
        let keys = usize::from(!fds.is_empty());
        let need = record_len(len, handles.len(), keys).ok_or(CoreError::OutOfMemory)?;
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
        let (head, _) = record(session, at)?;
        head.len.store(len as u64, Relaxed);
        head.handles.store(count, Relaxed);
        head.flags.store(
            flags & FLAGS | if key.is_some() { HAS_FDS } else { 0 },
            Relaxed,
        );
        let start = session.page_offset(at.page) + at.offset() + RECORD_HEAD;
        let bytes = session
            .region()
            .bytes(start, need - RECORD_HEAD)
            .ok_or_else(damaged)?;
        // SAFETY: the range lies in the region (checked), is aligned for handles, and `place`
        // found it free: nobody reads or writes it until the commit, and this holds the put lock.
        unsafe {
            std::ptr::copy_nonoverlapping(
                handles.as_ptr(),
                bytes.cast::<RawHandle>(),
                handles.len(),
            );
            if let Some(key) = key {
                bytes
                    .cast::<RawHandle>()
                    .add(handles.len())
                    .write(RawHandle::from_u64(key));
            }
            fill(std::slice::from_raw_parts_mut(
                bytes.add((handles.len() + keys) * 8),
                len,
            ));
        }
        body.put.position[(puts & 1 ^ 1) as usize].store(at.advanced(need).to_u64(), Relaxed);
        // The commit.
        body.puts.count.store(puts + 1, Release);
        if body.puts.pending.load(Relaxed) != 0 {
            body.puts.pending.store(0, Relaxed);
        }
        Ok(Some(()))
    }

    /// Takes the oldest item. `read` sees it where it lies, in a critical section: it must not
    /// wait, nor use the queue, and [`Session::claim`]s the objects it keeps. The item is gone when `read` has returned,
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
        })?
        .ok_or(CoreError::Empty)?;
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
        if body.gets.count.load(SeqCst) >= body.gets.seen.load(Relaxed)
            && body.gets.count.load(SeqCst) >= body.puts.count.load(SeqCst)
        {
            return Ok(None);
        }
        let mut handles = Vec::new();
        let key;
        let result = {
            // Nothing to repair: what wasn't committed was only read.
            let _guard = body.get.mutex.lock(|| {})?;
            let gets = body.gets.count.load(Relaxed);
            if gets >= body.gets.seen.load(Relaxed) {
                let puts = body.puts.count.load(Acquire);
                body.gets.seen.store(puts, Relaxed);
                if gets >= puts {
                    return Ok(None);
                }
            }
            let (start, at) = body.next(session, gets)?;
            let (item, behind) = parse(session, at, gets)?;
            key = item.key;
            let result = read(item);
            before_commit(gets);
            handles.extend_from_slice(item.handles);
            // Release: a putter that sees this must not see an older count afterwards.
            body.get.position[(gets & 1 ^ 1) as usize].store(behind.to_u64(), Release);
            // The commit.
            body.gets.count.store(gets + 1, Release);
            if behind.page != start.page {
                body.retire(session, self.0.index(), start.page)?;
            }
            result
        };
        handles.iter().for_each(|h| session.release(*h));
        if key.is_some() {
            postoffice::sweep(session, key)?;
        }
        Ok(Some(result))
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
