//! What lies where in the session's memory.
//!
//! ```text
//! header | names of files | process slots | object entries | used map | held maps (one for each slot) | page owners | pages
//! ```
//!
//! All of it is sparse: what was never touched costs nothing. The sizes follow from the length
//! of the region alone, so that every process computes the same ones.
//! Invariant: slots and entries, and the eventcounts in them, never change their use.

use crate::eventcount::EventCount;
use crate::sys::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64};
use crate::sys::memory::{PAGE, Region, Shared};
use crate::sys::mutex::RobustMutex;

/// "mphost", and the version of this layout.
pub(crate) const MAGIC: u64 = 0x6d70_686f_7374_0002;
/// How many files of scripts have numbers.
pub(crate) const FILES: usize = 128;
/// Bytes of a file's name that are kept.
pub(crate) const FILE_NAME_LEN: usize = 508;
/// Bytes of a process name that are kept.
pub(crate) const NAME_LEN: usize = 64;
/// 64-bit words of an entry's body.
pub(crate) const BODY_WORDS: usize = 56;

/// The region's first page.
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    /// The slot of the main process, packed.
    pub(crate) main: AtomicU64,
    /// Guards allocation of slots, entries and pages.
    pub(crate) mutex: RobustMutex,
    /// Slots at and beyond this index were never used.
    pub(crate) slot_high: AtomicU32,
    /// Deaths so far; lets waiters see cheaply that there was one.
    pub(crate) deaths: AtomicU32,
    /// Where the search for a free entry goes on (a word of the used map).
    pub(crate) object_cursor: AtomicU32,
    /// Pages at and beyond this index were never used.
    pub(crate) page_high: AtomicU32,
    /// Where the search for free pages goes on.
    pub(crate) page_cursor: AtomicU32,
    /// Free pages below `page_high`; a hint, recomputed by repair.
    pub(crate) page_free: AtomicU32,
    /// Free pages that still hold memory; a hint.
    pub(crate) page_dirty: AtomicU32,
    /// No run of so many free pages was found below `page_high`; a hint.
    pub(crate) page_no_run: AtomicU32,
    /// The first table of names, or 0. See `names`.
    pub(crate) names: AtomicU64,
    /// 1 if nobody looks for deadlocks. See `deadlock`.
    pub(crate) no_deadlocks: AtomicU32,
    _reserved: AtomicU32,
    /// Descriptors on their way.
    pub(crate) desk: crate::postoffice::Desk,
}
// SAFETY: repr(C), atomics and a robust mutex.
unsafe impl Shared for Header {}

/// A process. See `table`.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Generation and state in one word, so that a change is one store.
    pub(crate) state: AtomicU64,
    pub(crate) status: AtomicI32,
    pub(crate) pid: AtomicI32,
    pub(crate) start_time: AtomicU64,
    pub(crate) parent: AtomicU64,
    pub(crate) flags: AtomicU32,
    /// Words of the held map at and beyond this index are zero.
    pub(crate) held_high: AtomicU32,
    /// Woken when this process ends.
    pub(crate) ended: EventCount,
    /// What this process waits on that concerns itself alone: sleeps, foreign children.
    pub(crate) local: EventCount,

    /// What this process waits for: an eventcount's offset, or 0.
    pub(crate) waiting_on: AtomicU64,
    /// Changes with every wait that begins or ends.
    pub(crate) wait_seq: AtomicU64,
    pub(crate) wait_object: AtomicU64,
    pub(crate) wait_position: AtomicU64,
    pub(crate) wait_flags: AtomicU32,
    /// 1 while this process is counted as a waiter for certain.
    pub(crate) counted: AtomicU32,
    /// Set by others who want this process's interrupt hook to run.
    pub(crate) kick: AtomicU32,
    /// 1 from right before the kernel's sleep until right after it.
    pub(crate) asleep: AtomicU32,
    pub(crate) name: [AtomicU8; NAME_LEN],
    /// When the wait at hand began.
    pub(crate) wait_since: AtomicU64,
    /// Who took this slot, and is to start the process.
    pub(crate) starter: AtomicU64,
    _room: [AtomicU64; 9],
}
// SAFETY: repr(C), atomics and eventcounts.
unsafe impl Shared for Slot {}

/// The name of a file with script code. See `files`.
#[repr(C)]
pub(crate) struct FileName {
    /// How long the name is; 0 where there is none yet.
    pub(crate) len: AtomicU32,
    pub(crate) bytes: [AtomicU8; FILE_NAME_LEN],
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for FileName {}

/// A shared object. See `objects`.
#[repr(C, align(64))]
pub(crate) struct Entry {
    pub(crate) generation: AtomicU32,
    /// `ObjectKind`, 0 if free.
    pub(crate) kind: AtomicU32,
    pub(crate) refs: AtomicU32,
    /// Pages owned, or more than are.
    pub(crate) pages: AtomicU32,
    pub(crate) position: AtomicU64,
    pub(crate) events: [EventCount; 3],
    _reserved: [AtomicU64; 2],
    pub(crate) body: [AtomicU64; BODY_WORDS],
}
// SAFETY: repr(C), atomics and eventcounts.
unsafe impl Shared for Entry {}

const _: () = assert!(size_of::<Header>() <= PAGE);
const _: () = assert!(size_of::<FileName>() == 512);
const _: () = assert!(size_of::<Slot>() == 256);
const _: () = assert!(size_of::<Entry>() == 512);

impl Entry {
    /// The body as the state of one kind of object. Any bytes are a valid `T`; whether they are
    /// meaningful is the kind's business.
    #[inline]
    pub(crate) fn body<T: Shared>(&'static self) -> &'static T {
        const {
            assert!(size_of::<T>() <= BODY_WORDS * 8 && align_of::<T>() <= 64);
        }
        // SAFETY: `T: Shared` accepts any bytes; it fits (checked above); the body begins at a
        // multiple of 64, for the entry is so aligned and what precedes the body has 64 bytes.
        unsafe { &*self.body.as_ptr().cast::<T>() }
    }
}
const _: () = assert!(std::mem::offset_of!(Entry, body) == 64);

/// The places of the tables in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) slots: usize,
    pub(crate) objects: usize,
    pub(crate) pages: usize,
    pub(crate) files_at: usize,
    pub(crate) slots_at: usize,
    pub(crate) entries_at: usize,
    pub(crate) used_at: usize,
    pub(crate) held_at: usize,
    pub(crate) owners_at: usize,
    pub(crate) pages_at: usize,
}

impl Layout {
    pub(crate) fn of(region: &Region) -> Self {
        let len = region.len();
        let (slots, objects) = if len >= 4 << 30 {
            (4096, 262_144)
        } else {
            (1024, 16_384)
        };
        let files_at = PAGE;
        let slots_at = files_at + FILES * size_of::<FileName>();
        let entries_at = slots_at + slots * size_of::<Slot>();
        let used_at = entries_at + objects * size_of::<Entry>();
        let held_at = used_at + objects / 8;
        let owners_at = held_at + slots * (objects / 8);
        let rest = len - owners_at;
        let pages = rest / (PAGE + 4) - 1;
        let pages_at = (owners_at + pages * 4).next_multiple_of(PAGE);
        Self {
            slots,
            objects,
            pages,
            files_at,
            slots_at,
            entries_at,
            used_at,
            held_at,
            owners_at,
            pages_at,
        }
    }
}
