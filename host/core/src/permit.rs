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

mod word;

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::{ObjRef, ObjectKind, objects, pages, session};
use crate::sys::atomic::{AtomicU64, Ordering::*};
use crate::wait::{WaitInfo, WaitKind, wait_until};
pub use word::Owner;
use word::{Body, INLINE, MOST, MOST_HOLDERS, Permit, died, owner_died, owner_of, word_of};
pub(crate) use word::{convert_dead, held_by_me, holders, sole_releaser};

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
