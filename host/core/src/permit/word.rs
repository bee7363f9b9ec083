//! The words of permits: who holds one, whether that process is alive, and what the others are told where it isn't.
//!
//! Invariant: a word changes by one exchange, and says all that there is to know of its holder; what stands beside it is for messages.

use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::{ObjectKind, Session, pages, session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::memory::Shared;
use crate::table::{self, ExitStatus, SlotId, SlotStatus};

const LIVE: u64 = 1 << 62;
const DEAD: u64 = 2 << 62;
pub(super) const INLINE: usize = 26;
/// The most permits whose holders are known; a larger BoundedSemaphore counts only.
pub(super) const MOST_HOLDERS: u64 = 65_536;
/// The largest count, as in CPython (SEM_VALUE_MAX).
pub(super) const MOST: u64 = i32::MAX as u64;

#[repr(C)]
pub(super) struct Permit {
    pub(super) word: AtomicU64,
    pub(super) position: AtomicU64,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Permit {}

#[repr(C)]
pub(super) struct Body {
    /// How many permits there are.
    pub(super) limit: AtomicU64,
    /// Where the permits lie if they don't fit here: a run of pages.
    pub(super) run: AtomicU64,
    /// How often an RLock's holder has taken it.
    pub(super) depth: AtomicU32,
    /// 1 once a process has freed a permit of a living one: this lock is a signal between processes.
    pub(super) is_signal: AtomicU32,
    pub(super) permits: [Permit; INLINE],
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Body {}

impl Body {
    pub(super) fn permits(&'static self, session: &Session) -> Result<&'static [Permit]> {
        let count = self.limit.load(Relaxed) as usize;
        if count <= INLINE {
            return Ok(&self.permits[..count]);
        }
        let lost = || CoreError::Corrupt("a semaphore without its permits".into());
        let run = pages::Run::from_u64(self.run.load(Acquire)).ok_or_else(lost)?;
        session
            .region()
            .array(session.page_offset(run.first), count)
            .ok_or_else(lost)
    }
}

/// Who holds a permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its slot; [`SlotId::NONE`] for a dead one that was buried.
    pub slot: SlotId,
    /// Its process id.
    pub pid: i32,
    /// Its name, if it is still in the table.
    pub name: String,
    /// Whether it is this process.
    pub mine: bool,
    /// How it ended, if it has.
    pub ended: Option<ExitStatus>,
    /// Where it took the permit.
    pub acquired_at: Position,
}

pub(super) fn word_of(id: SlotId) -> u64 {
    LIVE | u64::from(id.index & 0xffff) << 32 | u64::from(id.generation)
}

fn slot_of(word: u64) -> Option<SlotId> {
    (word & LIVE != 0).then_some(SlotId {
        index: (word >> 32) as u32 & 0xffff,
        generation: word as u32,
    })
}

fn dead_word(pid: i32, status: ExitStatus) -> u64 {
    DEAD | u64::from(status.raw() as u32 & 0xffff) << 32 | u64::from(pid as u32)
}

/// Process id and status, if this word is that of a holder that died badly.
pub(super) fn died(word: u64) -> Option<(i32, ExitStatus)> {
    if word & DEAD != 0 {
        return Some((
            word as u32 as i32,
            ExitStatus::from_raw((word >> 32) as i32 & 0xffff),
        ));
    }
    let id = slot_of(word)?;
    match table::status(id) {
        SlotStatus::Dead(status) if status.abnormal() => {
            Some((table::pid(id).unwrap_or(0), status))
        }
        _ => None,
    }
}

pub(super) fn owner_died(permit: &Permit) -> Result<()> {
    loop {
        let word = permit.word.load(SeqCst);
        let dead = died(word);
        let acquired_at = Position::from_bits(permit.position.load(Relaxed));
        // Only what was seen whole. Meanwhile it may have been released and taken by another, or a dead holder may have been
        // buried: then the table knows nothing of that one any more, but the word does.
        if permit.word.load(SeqCst) != word {
            continue;
        }
        return match dead {
            None => Ok(()),
            Some((pid, status)) => Err(CoreError::OwnerDied {
                pid,
                exitcode: status.code(),
                acquired_at,
            }),
        };
    }
}

/// Kinds whose words name holders.
fn has_holders(entry: &Entry) -> bool {
    matches!(
        ObjectKind::from_code(entry.kind.load(Relaxed)),
        Some(ObjectKind::Lock | ObjectKind::RLock | ObjectKind::BoundedSemaphore)
    )
}

/// Whether this process holds a permit of this object.
pub(crate) fn held_by_me(session: &Session, entry: &'static Entry) -> bool {
    let me = word_of(session.me());
    has_holders(entry)
        && entry
            .body::<Body>()
            .permits(session)
            .is_ok_and(|permits| permits.iter().any(|p| p.word.load(Relaxed) == me))
}

/// Writes down how the dead holder of permits of entry `index` ended.
pub(crate) fn convert_dead(
    session: &Session,
    index: u32,
    id: SlotId,
    pid: i32,
    status: ExitStatus,
) {
    let Some(entry) = session.entry(index).filter(|e| has_holders(e)) else {
        return;
    };
    let Ok(permits) = entry.body::<Body>().permits(session) else {
        return;
    };
    for permit in permits {
        let _ = permit
            .word
            .compare_exchange(word_of(id), dead_word(pid, status), SeqCst, Relaxed);
    }
}

/// How many permits there are in all, and who holds which: for pictures of the session.
pub(crate) fn holders(session: &Session, entry: &'static Entry) -> (u64, Vec<Owner>) {
    let limit = entry.body::<Body>().limit.load(Relaxed);
    if !has_holders(entry) {
        return (limit, vec![]);
    }
    let permits = entry.body::<Body>().permits(session).unwrap_or_default();
    (limit, permits.iter().filter_map(owner_of).collect())
}

/// The one process that can free this lock, and the word that says so. `None` for a lock that others have freed before.
pub(crate) fn sole_releaser(entry: &'static Entry) -> Option<(SlotId, u64)> {
    let body: &Body = entry.body();
    let is_lock = matches!(
        ObjectKind::from_code(entry.kind.load(Relaxed)),
        Some(ObjectKind::Lock | ObjectKind::RLock)
    );
    if !is_lock || body.is_signal.load(Relaxed) != 0 {
        return None;
    }
    let word = body.permits[0].word.load(SeqCst);
    Some((slot_of(word)?, word))
}

/// Who holds a permit; seen whole.
pub(super) fn owner_of(permit: &Permit) -> Option<Owner> {
    let word = permit.word.load(SeqCst);
    let acquired_at = Position::from_bits(permit.position.load(Relaxed));
    if word == 0 || permit.word.load(SeqCst) != word {
        return None;
    }
    if let Some(slot) = slot_of(word) {
        let row = table::info(slot);
        let ended = match table::status(slot) {
            SlotStatus::Dead(status) => Some(status),
            _ => None,
        };
        return Some(Owner {
            slot,
            pid: row.as_ref().map_or(0, |r| r.pid),
            name: row.map(|r| r.name).unwrap_or_default(),
            mine: slot == session().me(),
            ended,
            acquired_at,
        });
    }
    died(word).map(|(pid, status)| Owner {
        slot: SlotId::NONE,
        pid,
        name: String::new(),
        mine: false,
        ended: Some(status),
        acquired_at,
    })
}
