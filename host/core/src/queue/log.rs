//! How a queue lies in shared memory: its chunks, the records in them, and where the log goes on. So does a pipe's lane
//! (`connection::lane`).
//!
//! Problem: records are written and read by processes that may be killed at any instruction, and what lies here may be nonsense.
//!
//! Invariants: what the queue's numbers don't count yet, or count no more, is nobody's but the holder's of that end's mutex; every length and
//! place is checked against its chunk before it is used.

use super::Item;
use crate::error::{CoreError, Result};
use crate::session::layout::Entry;
use crate::session::pages::{self, Run};
use crate::session::{RawHandle, Session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use crate::sys::memory::{PAGE, Shared};
use crate::sys::mutex::RobustMutex;

/// Everything in a chunk begins at a multiple of this.
pub(super) const UNIT: usize = 16;
/// A chunk's own header.
pub(super) const CHUNK_HEAD: usize = UNIT;
/// A record's header, and a whole jump.
pub(super) const RECORD_HEAD: usize = UNIT;
/// Chunks grow from one page by this factor …
pub(super) const GROWTH: u32 = 16;
/// … to a mebibyte, unless items are larger.
pub(super) const LARGEST_COMMON: u32 = 256;
/// Large items get chunks for so many of them …
const ROOMY: u32 = 4;
/// … or as many as fit into this many pages (16 MiB), so that they cycle too.
pub(super) const LARGEST_ROOMY: u32 = 4096;
/// `flags` of a jump.
pub(super) const JUMP: u32 = u32::MAX;
/// In `flags`: behind the handles stands the key of the item's descriptors in the post office.
pub(super) const HAS_FDS: u32 = 1 << 31;
/// What a putter may use of `flags`.
pub(super) const FLAGS: u32 = (1 << 30) - 1;

#[repr(C, align(64))]
pub(crate) struct Common {
    pub(super) maxsize: AtomicU64,
    /// The first chunk's first record, for a head that has never moved.
    first: AtomicU64,
    /// An empty chunk for the next putter that needs one.
    spare: AtomicU64,
    pub(super) done: AtomicU64,
}

#[repr(C, align(64))]
pub(crate) struct End {
    pub(crate) mutex: RobustMutex,
    /// The position of this end, for an even and an odd number of operations.
    pub(super) position: [AtomicU64; 2],
}

#[repr(C, align(64))]
pub(crate) struct Puts {
    pub(crate) count: AtomicU64,
    /// A chunk on its way into the chain.
    pub(super) pending: AtomicU64,
}

#[repr(C, align(64))]
pub(crate) struct Gets {
    pub(crate) count: AtomicU64,
    /// `Puts::count` as the getters last saw it, which spares them a line that putters write.
    pub(super) seen: AtomicU64,
}

#[repr(C)]
pub(crate) struct Body {
    pub(crate) common: Common,
    pub(crate) put: End,
    pub(crate) puts: Puts,
    pub(crate) get: End,
    pub(crate) gets: Gets,
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
pub(super) struct RecordHead {
    /// Bytes of payload; a jump's target.
    pub(super) len: AtomicU64,
    pub(super) handles: AtomicU32,
    pub(super) flags: AtomicU32,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for RecordHead {}

/// A place in the log: the chunk's first page and the offset in it, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) page: u32,
    unit: u32,
}

impl Place {
    pub(super) fn to_u64(self) -> u64 {
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

    pub(super) fn offset(self) -> usize {
        self.unit as usize * UNIT
    }

    pub(super) fn advanced(self, bytes: usize) -> Self {
        Self {
            page: self.page,
            unit: self.unit + (bytes / UNIT) as u32,
        }
    }
}

pub(super) fn damaged() -> CoreError {
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
pub(super) fn record(session: &Session, at: Place) -> Result<(&'static RecordHead, usize)> {
    let left = chunk_len(session, at.page)?
        .checked_sub(at.offset() + RECORD_HEAD)
        .ok_or_else(damaged)?;
    let head = session
        .region()
        .at(session.page_offset(at.page) + at.offset())
        .ok_or_else(damaged)?;
    Ok((head, left))
}

/// What becomes a record.
pub(crate) struct Record<'a> {
    /// Bytes of its payload.
    pub(crate) len: usize,
    pub(crate) handles: &'a [RawHandle],
    /// Where its descriptors are.
    pub(crate) key: Option<u64>,
    pub(crate) flags: u32,
}

/// Bytes of a record with its header.
pub(crate) fn record_len(payload: usize, handles: usize, keys: usize) -> Option<usize> {
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
    pub(crate) fn repair_put(&self, session: &Session, owner: u32) {
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
    pub(super) fn place(
        &self,
        session: &Session,
        owner: u32,
        puts: u64,
        need: usize,
    ) -> Result<Place> {
        let tail = self.tail(puts);
        if let Some(at) = self.room(session, tail, need)? {
            return Ok(at);
        }
        let previous = tail.map_or(Ok(0), |t| chunk_len(session, t.page))? / PAGE;
        let common = match previous as u32 {
            0 => 1,
            previous => previous.saturating_mul(GROWTH).min(LARGEST_COMMON),
        };
        self.place_anew(session, owner, tail, need, common)
    }

    /// The same for a log that shall have one chunk, of `pages` pages or more if items are large: `None` if there is no room in it before
    /// something is taken. A smaller chunk is left as soon as it is empty.
    pub(crate) fn place_within(
        &self,
        session: &Session,
        owner: u32,
        puts: u64,
        need: usize,
        pages: u32,
    ) -> Result<Option<Place>> {
        let tail = self.tail(puts);
        let is_empty = || self.gets.count.load(Acquire) >= puts;
        // Any chunk has room for some short records.
        let is_small = match tail {
            Some(tail) if need > PAGE && is_empty() => {
                chunk_len(session, tail.page)? < pages as usize * PAGE
            }
            _ => false,
        };
        if !is_small {
            let at = self.room(session, tail, need)?;
            if at.is_some() || !is_empty() {
                return Ok(at);
            }
        }
        self.place_anew(session, owner, tail, need, pages).map(Some)
    }

    /// Where a record of `need` bytes fits into the chunk at hand, if it does.
    fn room(&self, session: &Session, tail: Option<Place>, need: usize) -> Result<Option<Place>> {
        let Some(tail) = tail else { return Ok(None) };
        let end = chunk_len(session, tail.page)?;
        let head = self.head_seen().filter(|h| h.page == tail.page);
        // Behind every record there is room for a jump.
        let wanted = need + RECORD_HEAD;
        // Where the log has come round, free is only what lies between.
        let round = head.is_some_and(|h| h.unit > tail.unit);
        let limit = head.filter(|_| round).map_or(end, Place::offset);
        if tail.offset() + wanted <= limit {
            return Ok(Some(tail));
        }
        if head.is_some_and(|h| !round && CHUNK_HEAD + wanted <= h.offset()) {
            let front = Place::front(tail.page);
            jump(session, tail, front)?;
            return Ok(Some(front));
        }
        Ok(None)
    }

    /// The front of a new chunk for a record of `need` bytes, to which the log goes on from `tail`.
    fn place_anew(
        &self,
        session: &Session,
        owner: u32,
        tail: Option<Place>,
        need: usize,
        common: u32,
    ) -> Result<Place> {
        let run = self.new_chunk(session, owner, need + CHUNK_HEAD + RECORD_HEAD, common)?;
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

    /// A chunk for a record of so many bytes, of `common` pages if that is enough for some of them.
    fn new_chunk(&self, session: &Session, owner: u32, bytes: usize, common: u32) -> Result<Run> {
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
        let roomy = least.saturating_mul((LARGEST_ROOMY / least.max(1)).clamp(1, ROOMY));
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

    /// Writes a record of `need` bytes where `place` said, and commits it. `fill` writes its payload in place.
    ///
    /// The caller holds the put lock.
    #[inline]
    pub(crate) fn put_record(
        &self,
        session: &Session,
        at: Place,
        need: usize,
        new: &Record<'_>,
        fill: &mut impl FnMut(&mut [u8]),
    ) -> Result<()> {
        let puts = self.puts.count.load(Relaxed);
        let count = u32::try_from(new.handles.len()).map_err(|_| CoreError::OutOfMemory)?;
        let keys = usize::from(new.key.is_some());
        let (head, _) = record(session, at)?;
        head.len.store(new.len as u64, Relaxed);
        head.handles.store(count, Relaxed);
        head.flags.store(
            new.flags & FLAGS | if keys == 0 { 0 } else { HAS_FDS },
            Relaxed,
        );
        let start = session.page_offset(at.page) + at.offset() + RECORD_HEAD;
        let bytes = session
            .region()
            .bytes(start, need - RECORD_HEAD)
            .ok_or_else(damaged)?;
        // SAFETY: the range lies in the region (checked), is aligned for handles, and `place`
        // found it free: nobody reads or writes it until the commit, and the caller holds the put lock.
        unsafe {
            std::ptr::copy_nonoverlapping(
                new.handles.as_ptr(),
                bytes.cast::<RawHandle>(),
                new.handles.len(),
            );
            if let Some(key) = new.key {
                bytes
                    .cast::<RawHandle>()
                    .add(new.handles.len())
                    .write(RawHandle::from_u64(key));
            }
            fill(std::slice::from_raw_parts_mut(
                bytes.add((new.handles.len() + keys) * 8),
                new.len,
            ));
        }
        self.put.position[(puts & 1 ^ 1) as usize].store(at.advanced(need).to_u64(), Relaxed);
        // The commit.
        self.puts.count.store(puts + 1, Release);
        if self.puts.pending.load(Relaxed) != 0 {
            self.puts.pending.store(0, Relaxed);
        }
        Ok(())
    }

    /// Whether there is an item, as far as is known without a lock.
    #[inline]
    pub(crate) fn seems_filled(&self) -> bool {
        let gets = self.gets.count.load(SeqCst);
        gets < self.gets.seen.load(Relaxed) || gets < self.puts.count.load(SeqCst)
    }

    /// Takes the oldest record, if there is one: what `read` makes of the item where it lies. It is gone then, whatever that is.
    ///
    /// The caller holds the get lock.
    pub(crate) fn take_record<R>(
        &self,
        session: &Session,
        owner: u32,
        read: impl FnOnce(Item<'static>) -> R,
    ) -> Result<Option<R>> {
        let gets = self.gets.count.load(Relaxed);
        if gets >= self.gets.seen.load(Relaxed) {
            let puts = self.puts.count.load(Acquire);
            self.gets.seen.store(puts, Relaxed);
            if gets >= puts {
                return Ok(None);
            }
        }
        let (start, at) = self.next(session, gets)?;
        let (item, behind) = parse(session, &at, gets)?;
        let result = read(item);
        // Release: a putter that sees this must not see an older count afterwards.
        self.get.position[(gets & 1 ^ 1) as usize].store(behind.to_u64(), Release);
        // The commit.
        self.gets.count.store(gets + 1, Release);
        if behind.page != start.page {
            self.retire(session, owner, start.page)?;
        }
        Ok(Some(result))
    }

    /// Where the log goes on for a taker, and the record that is next, jumps followed.
    fn next(&self, session: &Session, gets: u64) -> Result<(Place, Found)> {
        let start = Place::from_u64(self.get.position[(gets & 1) as usize].load(Relaxed))
            .or_else(|| Place::from_u64(self.common.first.load(Relaxed)))
            .ok_or_else(damaged)?;
        Ok((start, follow(session, start)?))
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

/// A record that is there.
struct Found {
    at: Place,
    head: &'static RecordHead,
    /// Bytes of its chunk behind the head.
    left: usize,
}

/// The record at a place where the log goes on, jumps followed.
fn follow(session: &Session, mut at: Place) -> Result<Found> {
    // At most to the front of this chunk, or to the next one.
    for _ in 0..4 {
        let (head, left) = record(session, at)?;
        if head.flags.load(Relaxed) != JUMP {
            return Ok(Found { at, head, left });
        }
        at = Place::from_u64(head.len.load(Relaxed)).ok_or_else(damaged)?;
    }
    Err(damaged())
}

/// The parts of a record: item and the place behind it.
fn parse(session: &Session, found: &Found, seq: u64) -> Result<(Item<'static>, Place)> {
    let Found { at, head, left } = *found;
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

/// The handles that the unread items of a log carry, when it goes.
pub(crate) fn carried(session: &Session, body: &Body, into: &mut Vec<RawHandle>) {
    let puts = body.puts.count.load(Acquire);
    let mut gets = body.gets.count.load(Acquire);
    if gets >= puts {
        return;
    }
    // Damage ends the walk: what it hides leaks.
    let mut next = body.next(session, gets).map(|(_, found)| found);
    while let Ok(found) = next
        && let Ok((item, behind)) = parse(session, &found, gets)
    {
        into.extend_from_slice(item.handles);
        gets += 1;
        if gets == puts {
            return;
        }
        next = follow(session, behind);
    }
}
