//! Lock, RLock, BoundedSemaphore and Semaphore.
//!
//! A permit is one word that says who holds it, so that taking it and being on record are one
//! exchange: nobody can die in between. Beside it stands where it was taken. A waiter that finds
//! the holder dead, by a signal or with an exit code other than 0, gets an error instead of
//! waiting for ever; a holder that ended with code 0 just never gave it back, as in Python.
//!
//! A word is 0 (free), a live holder (slot and generation), or a dead one (process id and wait
//! status): burying a process turns its words into the latter before its slot is used again.
//! A plain Semaphore has no holders, only a count.

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::{ObjRef, ObjectKind, Session, objects, pages, session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::memory::Shared;
use crate::table::{self, ExitStatus, SlotId, SlotStatus};
use crate::wait::{WaitInfo, WaitKind, wait_until};

const LIVE: u64 = 1 << 62;
const DEAD: u64 = 2 << 62;
const INLINE: usize = 26;
/// The most permits whose holders are known; a larger BoundedSemaphore counts only.
const MOST_HOLDERS: u64 = 65_536;
/// The largest count, as in CPython (SEM_VALUE_MAX).
const MOST: u64 = i32::MAX as u64;

#[repr(C)]
struct Permit {
    word: AtomicU64,
    position: AtomicU64,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Permit {}

#[repr(C)]
struct Body {
    /// How many permits there are.
    limit: AtomicU64,
    /// Where the permits lie if they don't fit here: a run of pages.
    run: AtomicU64,
    /// How often an RLock's holder has taken it.
    depth: AtomicU32,
    /// 1 once a process has freed a permit of a living one: this lock is a signal between processes.
    is_signal: AtomicU32,
    permits: [Permit; INLINE],
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Body {}

impl Body {
    fn permits(&'static self, session: &Session) -> Result<&'static [Permit]> {
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

fn word_of(id: SlotId) -> u64 {
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
fn died(word: u64) -> Option<(i32, ExitStatus)> {
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

fn owner_died(permit: &Permit) -> Result<()> {
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
fn owner_of(permit: &Permit) -> Option<Owner> {
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

fn new(kind: ObjectKind, limit: u64, position: Position) -> Result<ObjRef> {
    let object = objects::create(kind, position, |entry| {
        entry.body::<Body>().limit.store(limit, Relaxed);
    })?;
    if limit as usize > INLINE {
        let session = session();
        let entry = object.entry()?;
        let body = entry.body::<Body>();
        let count = pages::needed(limit as usize * size_of::<Permit>())?;
        let run = pages::allocate(session, object.index(), count, None)?;
        let permits: &[Permit] = session
            .region()
            .array(session.page_offset(run.first), limit as usize)
            .ok_or(CoreError::OutOfMemory)?;
        for permit in permits {
            permit.word.store(0, Relaxed);
            permit.position.store(0, Relaxed);
        }
        body.run.store(run.to_u64(), Release);
    }
    Ok(object)
}

/// What Lock, RLock and BoundedSemaphore share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Permits {
    object: ObjRef,
    kind: WaitKind,
}

impl Permits {
    /// The free permit's word becomes this process's, or `None`.
    #[inline]
    fn take(permits: &[Permit], me: u64, position: Position) -> Option<()> {
        for permit in permits {
            if permit.word.load(Relaxed) == 0
                && permit.word.compare_exchange(0, me, SeqCst, Relaxed).is_ok()
            {
                permit.position.store(position.to_bits(), Relaxed);
                return Some(());
            }
        }
        None
    }

    #[inline]
    fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let session = session();
        let entry = self.object.entry()?;
        let permits = entry.body::<Body>().permits(session)?;
        let me = word_of(session.me());
        if Self::take(permits, me, position).is_some() {
            return Ok(true);
        }
        let info = WaitInfo::new(self.kind, self.object.handle().to_u64(), position);
        let taken = wait_until(&entry.events[0], info, deadline, || {
            if Self::take(permits, me, position).is_some() {
                return Ok(Some(()));
            }
            permits.iter().try_for_each(owner_died)?;
            Ok(None)
        })?;
        Ok(taken.is_some())
    }

    /// Frees a permit: this process's own, else a dead holder's, else anybody's.
    #[inline]
    fn release(&self) -> Result<()> {
        let session = session();
        let entry = self.object.entry()?;
        let permits = entry.body::<Body>().permits(session)?;
        let me = word_of(session.me());
        let mut freed = Self::free(permits, |word| word == me)
            || Self::free(permits, |word| died(word).is_some());
        if !freed && Self::free(permits, |word| word != 0) {
            entry.body::<Body>().is_signal.store(1, Relaxed);
            freed = true;
        }
        if freed {
            entry.events[0].wake_after_rmw(1);
            return Ok(());
        }
        Err(CoreError::Value(
            "semaphore or lock released too many times".into(),
        ))
    }

    #[inline]
    fn free(permits: &[Permit], which: impl Fn(u64) -> bool) -> bool {
        for permit in permits {
            let mut word = permit.word.load(Relaxed);
            while word != 0 {
                let now = if which(word) {
                    permit.position.store(0, Relaxed);
                    match permit.word.compare_exchange(word, 0, SeqCst, Relaxed) {
                        Ok(_) => return true,
                        Err(now) => now,
                    }
                } else {
                    permit.word.load(SeqCst)
                };
                // As it was, and not one of those. If not, its dead holder may have been buried just now.
                if now == word {
                    break;
                }
                word = now;
            }
        }
        false
    }

    fn recover(&self) -> Result<bool> {
        let entry = self.object.entry()?;
        let permits = entry.body::<Body>().permits(session())?;
        let mut freed = 0;
        while Self::free(permits, |word| died(word).is_some()) {
            freed += 1;
        }
        entry.events[0].wake(freed);
        Ok(freed != 0)
    }

    fn available(&self) -> Result<u64> {
        let permits = self.object.entry()?.body::<Body>().permits(session())?;
        Ok(permits.iter().filter(|p| p.word.load(SeqCst) == 0).count() as u64)
    }

    fn owner(&self) -> Result<Option<Owner>> {
        let permits = self.object.entry()?.body::<Body>().permits(session())?;
        Ok(permits.iter().find_map(owner_of))
    }
}

macro_rules! common {
    ($name:ident, $($kind:ident),+) => {
        impl $name {
            /// This process's use of one that exists.
            ///
            /// # Errors
            /// `Type` if it is something else.
            pub fn from_ref(object: ObjRef) -> Result<Self> {
                object.expect(&[$(ObjectKind::$kind),+])?;
                Ok(Self::over(object))
            }

            /// The shared object.
            #[must_use]
            pub fn obj(&self) -> &ObjRef {
                &self.0.object
            }

            /// Takes a permit: true, or false at the deadline ([`Deadline::NOW`] doesn't wait).
            ///
            /// # Errors
            /// `OwnerDied` if none is free and a holder died badly; what the interrupt hook raises.
            #[inline]
            pub fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
                self.acquire_inner(deadline, position)
            }

            /// Makes permits free that dead holders left; false if there were none.
            ///
            /// # Errors
            /// `ObjectGone`.
            pub fn recover(&self) -> Result<bool> {
                self.0.recover()
            }

            /// Whether no permit is free.
            ///
            /// # Errors
            /// `ObjectGone`.
            pub fn locked(&self) -> Result<bool> {
                Ok(self.get_value()? == 0)
            }

            /// How many permits are free.
            ///
            /// # Errors
            /// `ObjectGone`.
            pub fn get_value(&self) -> Result<u64> {
                self.0.available()
            }

            /// Whether this process holds it.
            ///
            /// # Errors
            /// `ObjectGone`.
            pub fn is_mine(&self) -> Result<bool> {
                Ok(held_by_me(session(), self.0.object.entry()?))
            }

            /// Who holds it (a semaphore: one of the holders).
            ///
            /// # Errors
            /// `ObjectGone`.
            pub fn owner(&self) -> Result<Option<Owner>> {
                self.0.owner()
            }
        }
    };
}

/// A lock. Any process may release it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock(Permits);
common!(Lock, Lock);

impl Lock {
    fn over(object: ObjRef) -> Self {
        Self(Permits {
            object,
            kind: WaitKind::Lock,
        })
    }

    /// A new lock, free.
    ///
    /// # Errors
    /// `ObjectTableFull`.
    pub fn create(position: Position) -> Result<Self> {
        Ok(Self::over(new(ObjectKind::Lock, 1, position)?))
    }

    #[inline]
    fn acquire_inner(&self, deadline: Deadline, position: Position) -> Result<bool> {
        self.0.acquire(deadline, position)
    }

    /// Frees the lock, whoever holds it.
    ///
    /// # Errors
    /// `Value` if it is free.
    #[inline]
    pub fn release(&self) -> Result<()> {
        self.0.release()
    }

    /// Frees the lock for a condition's wait: how often it was held, 1.
    ///
    /// # Errors
    /// As [`Lock::release`].
    pub fn release_all(&self) -> Result<u32> {
        self.release().map(|()| 1)
    }

    /// Takes the lock again after a condition's wait.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn restore(&self, _depth: u32, position: Position) -> Result<()> {
        self.acquire(Deadline::NEVER, position).map(|_| ())
    }
}

/// A lock that its holder can take again, and that only its holder releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RLock(Permits);
common!(RLock, RLock);

impl RLock {
    fn over(object: ObjRef) -> Self {
        Self(Permits {
            object,
            kind: WaitKind::RLock,
        })
    }

    /// A new lock, free.
    ///
    /// # Errors
    /// `ObjectTableFull`.
    pub fn create(position: Position) -> Result<Self> {
        Ok(Self::over(new(ObjectKind::RLock, 1, position)?))
    }

    fn body(&self) -> Result<&'static Body> {
        Ok(self.0.object.entry()?.body())
    }

    #[inline]
    fn mine(body: &Body) -> bool {
        body.permits[0].word.load(Relaxed) == word_of(session().me())
    }

    #[inline]
    fn acquire_inner(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let body = self.body()?;
        if Self::mine(body) {
            let depth = body.depth.load(Relaxed);
            if depth == u32::MAX {
                return Err(CoreError::Overflow("the lock was taken too often".into()));
            }
            body.depth.store(depth + 1, Relaxed);
            return Ok(true);
        }
        let taken = self.0.acquire(deadline, position)?;
        if taken {
            body.depth.store(1, Relaxed);
        }
        Ok(taken)
    }

    /// Gives it back once; free when that was done as often as it was taken.
    ///
    /// # Errors
    /// `Assertion` if this process doesn't hold it, unless its holder is dead: then it becomes free.
    #[inline]
    pub fn release(&self) -> Result<()> {
        let body = self.body()?;
        if !Self::mine(body) {
            if self.0.recover()? {
                return Ok(());
            }
            return Err(CoreError::Assertion(
                "attempt to release recursive lock not owned by thread".into(),
            ));
        }
        let depth = body.depth.load(Relaxed);
        if depth > 1 {
            body.depth.store(depth - 1, Relaxed);
            return Ok(());
        }
        body.depth.store(0, Relaxed);
        self.0.release()
    }

    /// How often this process has taken it; 0 if it doesn't hold it.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn count(&self) -> Result<u32> {
        let body = self.body()?;
        Ok(if Self::mine(body) {
            body.depth.load(Relaxed)
        } else {
            0
        })
    }

    /// Frees it wholly, for a condition's wait: how often it had been taken.
    ///
    /// # Errors
    /// `Assertion` if this process doesn't hold it.
    pub fn release_all(&self) -> Result<u32> {
        let depth = self.count()?;
        if depth > 1 {
            self.body()?.depth.store(1, Relaxed);
        }
        self.release()?;
        Ok(depth)
    }

    /// Takes it as often as [`RLock::release_all`] said.
    ///
    /// # Errors
    /// As [`RLock::acquire`].
    pub fn restore(&self, depth: u32, position: Position) -> Result<()> {
        self.acquire(Deadline::NEVER, position)?;
        self.body()?.depth.store(depth.max(1), Relaxed);
        Ok(())
    }
}

/// So many permits, whose holders are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundedSemaphore(Permits);
common!(BoundedSemaphore, BoundedSemaphore);

impl BoundedSemaphore {
    fn over(object: ObjRef) -> Self {
        Self(Permits {
            object,
            kind: WaitKind::BoundedSemaphore,
        })
    }

    /// A new semaphore with `limit` permits, all free.
    ///
    /// # Errors
    /// `Value` if `limit` is negative or larger than 65,536; `ObjectTableFull`; `OutOfMemory`.
    pub fn create(limit: i64, position: Position) -> Result<Self> {
        let limit = checked_value(limit)?;
        if limit > MOST_HOLDERS {
            return Err(CoreError::Value(format!(
                "a BoundedSemaphore has at most {MOST_HOLDERS} permits"
            )));
        }
        Ok(Self::over(new(
            ObjectKind::BoundedSemaphore,
            limit,
            position,
        )?))
    }

    /// How many permits there are in all.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn limit(&self) -> Result<u64> {
        Ok(self.0.object.entry()?.body::<Body>().limit.load(Relaxed))
    }

    #[inline]
    fn acquire_inner(&self, deadline: Deadline, position: Position) -> Result<bool> {
        self.0.acquire(deadline, position)
    }

    /// Gives a permit back: this process's own, else a dead holder's, else anybody's.
    ///
    /// # Errors
    /// `Value` if all are free.
    #[inline]
    pub fn release(&self) -> Result<()> {
        self.0.release()
    }
}

fn checked_value(value: i64) -> Result<u64> {
    match u64::try_from(value) {
        Ok(v) if v <= MOST => Ok(v),
        Ok(_) => Err(CoreError::Overflow(format!(
            "a semaphore's value is at most {MOST}"
        ))),
        Err(_) => Err(CoreError::Value(
            "semaphore initial value must be >= 0".into(),
        )),
    }
}

/// A count that any process may lower and raise; it may serve as a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semaphore(ObjRef);

impl Semaphore {
    /// A new semaphore with this count.
    ///
    /// # Errors
    /// `Value` if it is negative, `Overflow` beyond 2^31 - 1; `ObjectTableFull`.
    pub fn create(value: i64, position: Position) -> Result<Self> {
        let value = checked_value(value)?;
        let object = objects::create(ObjectKind::Semaphore, position, |entry| {
            entry.body::<Body>().limit.store(value, Relaxed);
        })?;
        Ok(Self(object))
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        object.expect(&[ObjectKind::Semaphore])?;
        Ok(Self(object))
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        &self.0
    }

    fn count(&self) -> Result<(&'static Entry, &'static AtomicU64)> {
        let entry = self.0.entry()?;
        Ok((entry, &entry.body::<Body>().limit))
    }

    /// Lowers the count: true, or false if it was 0 until the deadline.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let (entry, count) = self.count()?;
        let info = WaitInfo::new(WaitKind::Semaphore, self.0.handle().to_u64(), position);
        let taken = wait_until(&entry.events[0], info, deadline, || {
            Ok(count
                .fetch_update(SeqCst, Relaxed, |n| n.checked_sub(1))
                .ok())
        })?;
        Ok(taken.is_some())
    }

    /// Raises the count.
    ///
    /// # Errors
    /// `Overflow` beyond 2^31 - 1.
    pub fn release(&self) -> Result<()> {
        let (entry, count) = self.count()?;
        count
            .fetch_update(SeqCst, Relaxed, |n| (n < MOST).then_some(n + 1))
            .map_err(|_| CoreError::Overflow(format!("a semaphore's value is at most {MOST}")))?;
        entry.events[0].wake_after_rmw(1);
        Ok(())
    }

    /// There are no holders, so nothing to recover: false.
    ///
    /// # Errors
    /// None.
    pub fn recover(&self) -> Result<bool> {
        Ok(false)
    }

    /// Whether the count is 0.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn locked(&self) -> Result<bool> {
        Ok(self.get_value()? == 0)
    }

    /// The count.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn get_value(&self) -> Result<u64> {
        Ok(self.count()?.1.load(SeqCst))
    }
}
