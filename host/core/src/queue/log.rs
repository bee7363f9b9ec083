//! How a queue lies in shared memory: its chunks, the records in them, and where the log goes on.
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
/// Large items get chunks for four of them, up to this many pages (16 MiB), so that they cycle too.
pub(super) const LARGEST_ROOMY: u32 = 4096;
/// `flags` of a jump.
pub(super) const JUMP: u32 = u32::MAX;
/// In `flags`: behind the handles stands the key of the item's descriptors in the post office.
pub(super) const HAS_FDS: u32 = 1 << 31;
/// What a putter may use of `flags`.
pub(super) const FLAGS: u32 = (1 << 30) - 1;

#[repr(C, align(64))]
pub(super) struct Common {
    pub(super) maxsize: AtomicU64,
    /// The first chunk's first record, for a head that has never moved.
    first: AtomicU64,
    /// An empty chunk for the next putter that needs one.
    spare: AtomicU64,
    pub(super) done: AtomicU64,
}

#[repr(C, align(64))]
pub(super) struct End {
    pub(super) mutex: RobustMutex,
    /// The position of this end, for an even and an odd number of operations.
    pub(super) position: [AtomicU64; 2],
}

#[repr(C, align(64))]
pub(super) struct Puts {
    pub(super) count: AtomicU64,
    /// A chunk on its way into the chain.
    pub(super) pending: AtomicU64,
}

#[repr(C, align(64))]
pub(super) struct Gets {
    pub(super) count: AtomicU64,
    /// `Puts::count` as the getters last saw it, which spares them a line that putters write.
    pub(super) seen: AtomicU64,
}

#[repr(C)]
pub(super) struct Body {
    pub(super) common: Common,
    pub(super) put: End,
    pub(super) puts: Puts,
    pub(super) get: End,
    pub(super) gets: Gets,
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
pub(super) struct Place {
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

/// Bytes of a record with its header.
pub(super) fn record_len(payload: usize, handles: usize, keys: usize) -> Option<usize> {
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
    pub(super) fn repair_put(&self, session: &Session, owner: u32) {
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
    pub(super) fn next(&self, session: &Session, gets: u64) -> Result<(Place, Place)> {
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
    pub(super) fn retire(&self, session: &Session, owner: u32, page: u32) -> Result<()> {
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
pub(super) fn parse(session: &Session, at: Place, seq: u64) -> Result<(Item<'static>, Place)> {
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
