//! What a pool needs from whatever runs its tasks.
//!
//! The pool knows jobs, callbacks, retries and time limits; it doesn't know where tasks run. Behind [`Dispatch`] are, today, the
//! processes of this machine ([`Local`](super::local::Local)); a broker that serves workers of several machines would be another
//! implementation, and nothing else would change.
//!
//! Invariant: of a task that was submitted exactly one event is reported, unless it was withdrawn or aborted.

use super::task::Report;
use crate::error::{Result, ScriptError};
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::session::ObjRef;
use rhai::Dynamic;
use smallvec::SmallVec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What has become of a task, or of all of them.
pub(super) enum Event {
    /// A task has ended by itself.
    Done { task: u64, report: Report },
    /// A task's worker has ended while it ran.
    Lost { task: u64, end: WorkerEnd },
    /// No worker can begin: no task will be run any more.
    Broken(ScriptError),
}

/// How a worker ended.
#[derive(Clone, Debug)]
pub(super) struct WorkerEnd {
    /// The worker's name.
    pub(super) name: String,
    /// Its pid.
    pub(super) pid: i32,
    /// Its exit code, as Python counts: -9 for SIGKILL.
    pub(super) exitcode: i32,
}

/// A task that a worker has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) task: u64,
    /// When it began, in nanoseconds of [`mphost_core::clock::now`].
    pub(super) since: u64,
}

/// A task, kept to be sent again.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// What it refers to.
    pub(super) objects: Vec<ObjRef>,
    /// What travels beside it.
    pub(super) fds: Vec<OwnedFd>,
    /// What it only names.
    #[expect(dead_code, reason = "kept for what dropping it would end")]
    pub(super) pinned: Vec<Dynamic>,
}

impl Message {
    /// The message to send.
    pub(super) fn parcel(&self) -> Parcel<'_> {
        Parcel {
            bytes: &self.bytes,
            objects: self.objects.iter().collect(),
            fds: self.fds.iter().map(AsFd::as_fd).collect(),
        }
    }
}

/// A task on its way: its message (whose first value is its id), the session objects in it, and what travels beside it.
pub(super) struct Parcel<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) objects: SmallVec<[&'a ObjRef; 2]>,
    pub(super) fds: SmallVec<[BorrowedFd<'a>; 2]>,
}

/// What runs tasks.
pub(super) trait Dispatch {
    /// How many tasks can run at a time.
    fn workers(&self) -> usize;

    /// Hands a task over.
    fn submit(&self, parcel: &Parcel<'_>) -> Result<()>;

    /// Takes back those waiting tasks that `unwanted` names.
    fn withdraw(&self, unwanted: &dyn Fn(u64) -> bool) -> Result<()>;

    /// Reports what has been done. Never waits.
    fn drain(&self, sink: &mut dyn FnMut(Event)) -> Result<()>;

    /// Looks after the workers: reports what was lost with those that ended, and starts others in their places.
    fn supervise(&self, sink: &mut dyn FnMut(Event)) -> Result<()>;

    /// Waits until `missing` more results are there, or `stop` says so, or until the deadline.
    fn wait(
        &self,
        missing: usize,
        deadline: Deadline,
        position: Position,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<()>;

    /// Whether this process shall be interrupted for each result, even while it doesn't wait for any.
    fn listen(&self, on: bool) -> Result<()>;

    /// What is running now.
    fn running(&self) -> Vec<Running>;

    /// Ends a running task at once; false if it doesn't run. Its loss is reported.
    fn abort(&self, task: u64) -> Result<bool>;

    /// Says that no task will be submitted any more and none is open, and waits until all workers have ended.
    fn finish(&self, position: Position) -> Result<()>;

    /// Ends all workers, whatever they do; waits for them if `wait`.
    fn terminate(&self, wait: bool) -> Result<()>;
}
