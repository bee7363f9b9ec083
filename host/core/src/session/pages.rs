//! Pages for what doesn't fit an entry: queues' chunks, arrays, long lists.
//!
//! A run of 4 KiB pages belongs to one object. Who owns a page is one word for each page, and
//! that is all the truth there is: counts and cursors are hints. Freed pages keep their memory
//! for a while, so that what is allocated and freed in turns makes no system call, and are given
//! back to the kernel together.
//!
//! Invariants: a page is stamped with its owner before anybody uses it and unstamped after the
//! last use; an object's `pages` count is never less than what it owns. A death in between
//! leaks pages at most until their owner goes.

use super::Session;
use super::layout::Entry;
use crate::error::{CoreError, Result};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sys::memory::PAGE;

/// Never used, or given back: reads as zeroes.
const CLEAN: u32 = 0;
/// Free, but still holds memory.
const DIRTY: u32 = u32::MAX;
/// How many dirty pages are kept (64 MiB).
const KEEP_DIRTY: u32 = 16_384;
/// Runs longer than this (1 MiB) get their memory at once, so that lack of it is an error.
const RESERVE_FROM: u32 = 256;

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Run {
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.first) << 32 | u64::from(self.count)
    }

    /// `None` for 0, which is no run.
    pub(crate) fn from_u64(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self {
            first: (bits >> 32) as u32,
            count: bits as u32,
        })
    }

    pub(crate) fn bytes(self) -> usize {
        self.count as usize * PAGE
    }
}

/// How many pages hold `bytes`.
pub(crate) fn needed(bytes: usize) -> Result<u32> {
    u32::try_from(bytes.div_ceil(PAGE)).map_err(|_| CoreError::OutOfMemory)
}

/// A run of `count` pages for object `owner`. What is in them is undefined. If given, `intent`
/// says which run it is before the run is taken, so that whoever repairs the owner can free it.
pub(crate) fn allocate(
    session: &Session,
    owner: u32,
    count: u32,
    intent: Option<&AtomicU64>,
) -> Result<Run> {
    let entry = session.entry(owner).ok_or(CoreError::ObjectGone)?;
    let run = {
        let _guard = session.lock()?;
        let run = find(session, count)?;
        if let Some(cell) = intent {
            cell.store(run.to_u64(), Relaxed);
        }
        entry.pages.fetch_add(count, Relaxed);
        let mut dirty = 0;
        for page in slice(session, run)? {
            dirty += u32::from(page.load(Relaxed) == DIRTY);
            page.store(owner + 1, Relaxed);
        }
        let header = session.header();
        lower(&header.page_dirty, dirty);
        lower(&header.page_free, count);
        header.page_cursor.store(run.first + count, Relaxed);
        run
    };
    if count > RESERVE_FROM
        && let Err(e) = session
            .region()
            .reserve(session.page_offset(run.first), run.bytes())
    {
        free(session, owner, run)?;
        if let Some(cell) = intent {
            cell.store(0, Relaxed);
        }
        return Err(e);
    }
    Ok(run)
}

/// Frees a run of object `owner`. Pages in it that aren't the owner's stay as they are.
pub(crate) fn free(session: &Session, owner: u32, run: Run) -> Result<()> {
    let entry = session.entry(owner).ok_or(CoreError::ObjectGone)?;
    let _guard = session.lock()?;
    let freed = release(session, owner, run)?;
    lower(&entry.pages, freed);
    purge_if_many(session);
    Ok(())
}

/// Frees whatever object `owner` still owns.
pub(crate) fn free_all(session: &Session, owner: u32, entry: &Entry) -> Result<()> {
    if entry.pages.load(Relaxed) == 0 {
        return Ok(());
    }
    let _guard = session.lock()?;
    let high = high(session);
    for (first, page) in session.owners()[..high].iter().enumerate() {
        if page.load(Relaxed) == owner + 1 {
            release(
                session,
                owner,
                Run {
                    first: first as u32,
                    count: 1,
                },
            )?;
        }
    }
    entry.pages.store(0, Relaxed);
    purge_if_many(session);
    Ok(())
}

/// Pages in use. The tables are locked.
pub(super) fn count(session: &Session) -> usize {
    session.owners()[..high(session)]
        .iter()
        .filter(|p| !matches!(p.load(Relaxed), CLEAN | DIRTY))
        .count()
}

/// After a death inside: frees the pages of objects that are gone, and counts anew.
pub(super) fn repair(session: &Session) {
    let (mut free, mut dirty) = (0, 0);
    for page in &session.owners()[..high(session)] {
        match page.load(Relaxed) {
            CLEAN => free += 1,
            DIRTY => {
                free += 1;
                dirty += 1;
            }
            owner => {
                let gone = session
                    .entry(owner - 1)
                    .is_none_or(|e| e.kind.load(Relaxed) == 0);
                if gone {
                    page.store(DIRTY, Relaxed);
                    free += 1;
                    dirty += 1;
                }
            }
        }
    }
    let header = session.header();
    header.page_free.store(free, Relaxed);
    header.page_dirty.store(dirty, Relaxed);
    header.page_no_run.store(u32::MAX, Relaxed);
}

fn high(session: &Session) -> usize {
    (session.header().page_high.load(Relaxed) as usize).min(session.layout().pages)
}

fn slice(session: &Session, run: Run) -> Result<&'static [AtomicU32]> {
    let first = run.first as usize;
    session
        .owners()
        .get(first..first + run.count as usize)
        .ok_or_else(|| CoreError::Corrupt("a run of pages lies outside the session".into()))
}

fn lower(count: &AtomicU32, by: u32) {
    count.store(count.load(Relaxed).saturating_sub(by), Relaxed);
}

/// Unstamps; the tables are locked.
fn release(session: &Session, owner: u32, run: Run) -> Result<u32> {
    let header = session.header();
    let mut freed = 0;
    for page in slice(session, run)? {
        if page.load(Relaxed) == owner + 1 {
            page.store(DIRTY, Relaxed);
            freed += 1;
        }
    }
    header.page_free.fetch_add(freed, Relaxed);
    header.page_dirty.fetch_add(freed, Relaxed);
    header.page_no_run.store(u32::MAX, Relaxed);
    Ok(freed)
}

/// Finds a free run, next-fit below the high mark, else beyond it. The tables are locked.
fn find(session: &Session, count: u32) -> Result<Run> {
    let header = session.header();
    let high = high(session);
    if header.page_free.load(Relaxed) >= count && count < header.page_no_run.load(Relaxed) {
        let cursor = (header.page_cursor.load(Relaxed) as usize).min(high);
        if let Some(first) =
            scan(session, cursor, high, count).or_else(|| scan(session, 0, high, count))
        {
            return Ok(Run { first, count });
        }
        header.page_no_run.store(count, Relaxed);
    }
    // Beyond the mark, joined with what is free right below it.
    let owners = session.owners();
    let mut first = high;
    while first > 0
        && high - first < count as usize
        && matches!(owners[first - 1].load(Relaxed), CLEAN | DIRTY)
    {
        first -= 1;
    }
    let end = first + count as usize;
    if end > session.layout().pages {
        return Err(CoreError::OutOfMemory);
    }
    if end > high {
        header.page_free.fetch_add((end - high) as u32, Relaxed);
        header.page_high.store(end as u32, Relaxed);
    }
    Ok(Run {
        first: first as u32,
        count,
    })
}

fn scan(session: &Session, from: usize, to: usize, count: u32) -> Option<u32> {
    let mut length = 0;
    for (i, page) in session.owners()[from..to].iter().enumerate() {
        if matches!(page.load(Relaxed), CLEAN | DIRTY) {
            length += 1;
            if length == count {
                return Some((from + i + 1) as u32 - count);
            }
        } else {
            length = 0;
        }
    }
    None
}

/// Gives the memory of free pages back, if they are many. The tables are locked.
fn purge_if_many(session: &Session) {
    let header = session.header();
    if header.page_dirty.load(Relaxed) <= KEEP_DIRTY {
        return;
    }
    let owners = session.owners();
    let mut high = high(session);
    let mut i = 0;
    while i < high {
        let first = i;
        while i < high && owners[i].load(Relaxed) == DIRTY {
            i += 1;
        }
        if i > first {
            session
                .region()
                .discard(session.page_offset(first as u32), (i - first) * PAGE);
            for page in &owners[first..i] {
                page.store(CLEAN, Relaxed);
            }
        }
        i += 1;
    }
    let mut free = header.page_free.load(Relaxed);
    while high > 0 && owners[high - 1].load(Relaxed) == CLEAN {
        high -= 1;
        free = free.saturating_sub(1);
    }
    header.page_high.store(high as u32, Relaxed);
    header.page_free.store(free, Relaxed);
    header.page_dirty.store(0, Relaxed);
}
