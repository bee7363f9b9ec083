//! Condition: wait for a notification, with a lock given up meanwhile.
//!
//! `notify(n)` picks the n who have waited longest among the living. One that is killed, or leaves
//! by an error, after it was picked and before it went on hands its notification to the
//! next who was waiting at that moment: none is swallowed.

use crate::board::{Board, Line, Mark};
use crate::clock::Deadline;
use crate::error::Result;
use crate::permit::{Lock, RLock};
use crate::position::Position;
use crate::session::{ObjRef, ObjectKind};
use crate::table::SlotId;
use crate::wait::{WaitInfo, WaitKind, wait_until};
use std::sync::atomic::Ordering::SeqCst;

/// The lock of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyLock {
    /// A plain lock.
    Lock(Lock),
    /// A recursive lock.
    RLock(RLock),
}

impl AnyLock {
    /// This process's use of a lock of either kind.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        if object.kind()? == ObjectKind::Lock {
            Lock::from_ref(object).map(Self::Lock)
        } else {
            RLock::from_ref(object).map(Self::RLock)
        }
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        match self {
            Self::Lock(l) => l.obj(),
            Self::RLock(l) => l.obj(),
        }
    }

    /// [`Lock::acquire`], [`RLock::acquire`].
    ///
    /// # Errors
    /// Theirs.
    pub fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
        match self {
            Self::Lock(l) => l.acquire(deadline, position),
            Self::RLock(l) => l.acquire(deadline, position),
        }
    }

    /// [`Lock::release`], [`RLock::release`].
    ///
    /// # Errors
    /// Theirs.
    pub fn release(&self) -> Result<()> {
        match self {
            Self::Lock(l) => l.release(),
            Self::RLock(l) => l.release(),
        }
    }

    /// Whether this process holds it.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn is_mine(&self) -> Result<bool> {
        match self {
            Self::Lock(l) => l.is_mine(),
            Self::RLock(l) => l.is_mine(),
        }
    }

    fn release_all(&self) -> Result<u32> {
        match self {
            Self::Lock(l) => l.release_all(),
            Self::RLock(l) => l.release_all(),
        }
    }

    fn restore(&self, depth: u32, position: Position) -> Result<()> {
        match self {
            Self::Lock(l) => l.restore(depth, position),
            Self::RLock(l) => l.restore(depth, position),
        }
    }
}

/// A condition variable. Its lock is kept beside it by whoever uses it, and must be held around
/// every call; that is the caller's to check ([`AnyLock::is_mine`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Board);

impl Condition {
    /// A new condition.
    ///
    /// # Errors
    /// `ObjectTableFull`; `OutOfMemory`.
    pub fn create(position: Position) -> Result<Self> {
        Board::create(ObjectKind::Condition, 0, position).map(Self)
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        Board::from_ref(object, ObjectKind::Condition).map(Self)
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        self.0.obj()
    }

    /// Gives `lock` up wholly, waits for a notification, and takes it again as often as it was
    /// held: true, or false at the deadline.
    ///
    /// # Errors
    /// Those of the lock, and what the interrupt hook raises, then too with the lock taken again.
    pub fn wait(&self, lock: &AnyLock, deadline: Deadline, position: Position) -> Result<bool> {
        let entry = self.0.entry()?;
        let line = {
            let _guard = self.0.lock()?;
            self.pass_on()?;
            self.0
                .enter(self.0.body()?.next_ticket.fetch_add(1, SeqCst))?
        };
        let depth = match lock.release_all() {
            Ok(depth) => depth,
            Err(e) => {
                self.leave(line, false)?;
                return Err(e);
            }
        };
        let mut deaths = Board::deaths();
        let info = WaitInfo::new(WaitKind::Condition, self.obj().handle().to_u64(), position);
        let waited = wait_until(&entry.events[0], info, deadline, || {
            if line.mark() != Mark::Waiting {
                return Ok(Some(()));
            }
            let now = Board::deaths();
            if now != deaths {
                deaths = now;
                let _guard = self.0.lock()?;
                self.pass_on()?;
            }
            Ok((line.mark() != Mark::Waiting).then_some(()))
        });
        // The line stays until the lock is taken again: who dies on the way there hands on what it had.
        let restored = lock.restore(depth, position);
        let notified = self.leave(line, waited.is_ok() && restored.is_ok());
        restored?;
        waited?;
        notified
    }

    /// Takes this process's line away: whether it was notified. One that can't use its notification
    /// hands it on.
    fn leave(&self, line: &Line, uses_it: bool) -> Result<bool> {
        let _guard = self.0.lock()?;
        let notified = line.mark() == Mark::Done;
        if notified && !uses_it {
            self.give(line.bound())?;
        }
        line.set(Mark::Free);
        Ok(notified)
    }

    /// Hands on what was meant for the dead. The board is locked.
    fn pass_on(&self) -> Result<()> {
        for line in self.0.lines()? {
            let mark = line.mark();
            if mark == Mark::Free || line.is_alive() {
                continue;
            }
            if mark == Mark::Done {
                self.give(line.bound())?;
            }
            line.set(Mark::Free);
        }
        Ok(())
    }

    /// A notification for the one who has waited longest, if it began before `bound`.
    fn give(&self, bound: u64) -> Result<()> {
        let waiting = self
            .0
            .lines()?
            .iter()
            .filter(|l| l.mark() == Mark::Waiting && l.is_alive());
        if let Some(line) = waiting
            .min_by_key(|l| l.number())
            .filter(|l| l.number() < bound)
        {
            line.set_bound(bound);
            line.set(Mark::Done);
            self.0.wake(line.who())?;
        }
        Ok(())
    }

    /// Lets `count` of those who wait at this moment go on, the longest waiting first.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn notify(&self, count: usize) -> Result<()> {
        let picked: Vec<SlotId> = {
            let _guard = self.0.lock()?;
            self.pass_on()?;
            let mut waiting: Vec<&Line> = self
                .0
                .lines()?
                .iter()
                .filter(|l| l.mark() == Mark::Waiting)
                .collect();
            waiting.sort_by_key(|l| l.number());
            waiting.truncate(count);
            let bound = self.0.body()?.next_ticket.load(SeqCst);
            for line in &waiting {
                line.set_bound(bound);
                line.set(Mark::Done);
            }
            waiting.iter().map(|l| l.who()).collect()
        };
        if picked.len() > 8 {
            return self.0.wake_all();
        }
        picked.into_iter().try_for_each(|who| self.0.wake(who))
    }

    /// Lets all who wait at this moment go on.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn notify_all(&self) -> Result<()> {
        self.notify(usize::MAX)
    }

    /// How many wait at this moment and haven't been picked.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn waiters(&self) -> Result<usize> {
        let _guard = self.0.lock()?;
        let waiting = |l: &&Line| l.mark() == Mark::Waiting && l.is_alive();
        Ok(self.0.lines()?.iter().filter(waiting).count())
    }
}
