//! A pool's record in shared memory: which worker has which task.
//!
//! Problem: workers pull their tasks out of a queue, so only a worker knows what it took. Should it
//! die, its parent must know which task died with it, and that no other one did. So each worker has
//! an entry here, in which it writes a task's id before the task leaves the queue, and which it clears
//! after the result has been put.
//!
//! A claim is written before the queue's commit. A worker that dies in between leaves a claim on a
//! task that another worker takes afterwards; [`Claim::number`], the task's place in the queue, tells
//! the parent that this can have happened ([`Claims::shared_by_another`]).
//!
//! A task that takes too long, or isn't wanted any more, is ended by ending its worker. It must not be
//! the worker's next task that is hit: [`Claims::doom`] and [`Claims::finish`] are one exchange of
//! the same word, and only one of them succeeds.
//!
//! Invariant: an entry is written by its worker while that lives (but for the mark of doom), and by the
//! pool's owner otherwise. Everything read is checked by its reader: nonsense names no task.

use crate::clock;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{ObjRef, ObjectKind, session};
use crate::shared::Block;
use crate::table::SlotId;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// Bytes of the head, and of each entry: a cache line.
const LINE: usize = 64;
/// Words of the head.
const OWNER: usize = 0;
const LISTENING: usize = 8;
const WANTED: usize = 16;
/// Words of an entry.
const STAGE: usize = 0;
const TASK: usize = 8;
const NUMBER: usize = 16;
const SINCE: usize = 24;

/// The mark in a claim's word that its worker is going to be ended.
const DOOMED: u64 = 1 << 63;
/// The largest task id.
pub const LARGEST_TASK: u64 = DOOMED - 1;

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stage {
    /// Not begun.
    Starting = 0,
    /// Begun, perhaps running its initializer.
    Initialising = 1,
    /// Taking tasks.
    Ready = 2,
    /// Done with its share of tasks: it will take no more.
    Leaving = 3,
}

/// What a worker has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The task's id.
    pub task: u64,
    /// The task's place in the queue: how many were taken before it.
    pub number: u64,
    /// When it was taken ([`clock::now`]).
    pub since: u64,
    /// Whether the pool's owner is ending the worker because of this task.
    pub doomed: bool,
}

/// The record of a pool. Clones are the same record.
#[derive(Debug, Clone)]
pub struct Claims {
    block: Block,
    workers: usize,
}

impl Claims {
    /// A record for `workers` workers of a pool that belongs to this process.
    ///
    /// # Errors
    /// `ObjectTableFull`; `OutOfMemory`.
    pub fn create(workers: usize, position: Position) -> Result<Self> {
        let bytes = workers
            .checked_add(1)
            .and_then(|lines| lines.checked_mul(LINE))
            .ok_or(CoreError::OutOfMemory)?;
        let block = Block::create_as(ObjectKind::Pool, bytes, position)?;
        let claims = Self { block, workers };
        claims.word(OWNER)?.store(session().me().to_u64(), Relaxed);
        Ok(claims)
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        if object.kind()? != ObjectKind::Pool {
            return Err(CoreError::Type("this handle is no pool's record".into()));
        }
        let block = Block::from_ref(object)?;
        let workers = (block.len() / LINE).saturating_sub(1);
        Ok(Self { block, workers })
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        self.block.obj()
    }

    /// For how many workers it has room.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    fn word(&self, offset: usize) -> Result<&AtomicU64> {
        self.block.atomic(offset)
    }

    fn entry(&self, worker: usize, word: usize) -> Result<&AtomicU64> {
        if worker >= self.workers {
            return Err(CoreError::Value(format!(
                "a pool of {} has no worker {worker}",
                self.workers
            )));
        }
        self.word((worker + 1) * LINE + word)
    }

    /// The process that made the pool.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn owner(&self) -> Result<SlotId> {
        Ok(SlotId::from_u64(self.word(OWNER)?.load(Relaxed)))
    }

    /// Says whether the owner wants to be told of each result even while it doesn't wait for any.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn set_listening(&self, listening: bool) -> Result<()> {
        self.word(LISTENING)?.store(u64::from(listening), SeqCst);
        Ok(())
    }

    /// Whether the owner wants to be told of each result.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn listening(&self) -> Result<bool> {
        Ok(self.word(LISTENING)?.load(SeqCst) != 0)
    }

    /// Says which number of results, counted since the pool began, ends the owner's wait; 0 is any.
    /// The owner looks at the results after this; whoever puts one looks at this afterwards.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn set_wanted(&self, results: u64) -> Result<()> {
        self.word(WANTED)?.store(results, SeqCst);
        Ok(())
    }

    /// See [`Claims::set_wanted`].
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn wanted(&self) -> Result<u64> {
        Ok(self.word(WANTED)?.load(SeqCst))
    }

    /// Makes the entry of a worker that has ended ready for the next one.
    ///
    /// # Errors
    /// `Value` for a worker that doesn't exist; `ObjectGone`.
    pub fn reset(&self, worker: usize) -> Result<()> {
        self.entry(worker, TASK)?.store(0, SeqCst);
        self.entry(worker, STAGE)?
            .store(Stage::Starting as u64, SeqCst);
        Ok(())
    }

    /// Says where this worker is in its life. Errors as [`Claims::reset`].
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn set_stage(&self, worker: usize, stage: Stage) -> Result<()> {
        self.entry(worker, STAGE)?.store(stage as u64, SeqCst);
        Ok(())
    }

    /// Where a worker is in its life.
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn stage(&self, worker: usize) -> Result<Stage> {
        let code = self.entry(worker, STAGE)?.load(SeqCst);
        let known = [Stage::Initialising, Stage::Ready, Stage::Leaving];
        Ok(known
            .into_iter()
            .find(|stage| *stage as u64 == code)
            .unwrap_or(Stage::Starting))
    }

    /// Notes that a worker is about to take a task: for the `before_commit` of
    /// [`Queue::get_with`](crate::queue::Queue::get_with).
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn claim(&self, worker: usize, task: u64, number: u64) -> Result<()> {
        self.entry(worker, NUMBER)?.store(number, Relaxed);
        self.entry(worker, SINCE)?.store(clock::now(), Relaxed);
        self.entry(worker, TASK)?
            .store(task & LARGEST_TASK, Release);
        Ok(())
    }

    /// Notes that the task's result has been put. False: this worker is being ended, and must take no
    /// other task.
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn finish(&self, worker: usize, task: u64) -> Result<bool> {
        let word = self.entry(worker, TASK)?;
        Ok(word
            .compare_exchange(task & LARGEST_TASK, 0, SeqCst, Relaxed)
            .is_ok())
    }

    /// What a worker has taken, if anything.
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn get(&self, worker: usize) -> Result<Option<Claim>> {
        let word = self.entry(worker, TASK)?.load(Acquire);
        if word & LARGEST_TASK == 0 {
            return Ok(None);
        }
        Ok(Some(Claim {
            task: word & LARGEST_TASK,
            number: self.entry(worker, NUMBER)?.load(Relaxed),
            since: self.entry(worker, SINCE)?.load(Relaxed),
            doomed: word & DOOMED != 0,
        }))
    }

    /// How many workers have no task and will look for one, if they don't sleep: those that have begun and aren't leaving.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn idle(&self) -> Result<usize> {
        let mut idle = 0;
        for worker in 0..self.workers {
            let has_none = self.entry(worker, TASK)?.load(Acquire) == 0;
            idle += usize::from(has_none && self.stage(worker)? == Stage::Ready);
        }
        Ok(idle)
    }

    /// Marks a worker that has `task` as one that is going to be ended: it takes no other task from then
    /// on. False if it hasn't that task any more.
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn doom(&self, worker: usize, task: u64) -> Result<bool> {
        let task = task & LARGEST_TASK;
        let word = self.entry(worker, TASK)?;
        Ok(word
            .compare_exchange(task, task | DOOMED, SeqCst, Relaxed)
            .is_ok())
    }

    /// Whether a worker other than `worker` has a claim on the queue's item `number`.
    ///
    /// # Errors
    /// As [`Claims::reset`].
    pub fn shared_by_another(&self, worker: usize, number: u64) -> Result<bool> {
        for other in (0..self.workers).filter(|other| *other != worker) {
            if self.get(other)?.is_some_and(|claim| claim.number == number) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
