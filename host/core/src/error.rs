//! The one error type of this crate.
//!
//! It exists so that whoever sits on top (the script library, a Rust program) can map each
//! failure to its own kind of error without looking at texts: a variant is a class of
//! CPython's `multiprocessing` where there is one. Messages say what was wrong; where CPython
//! has a wording, it is CPython's.

use crate::connection::ConnectionError;
use crate::position::Position;

/// What can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A value that an operation can't accept (Python: ValueError).
    #[error("{0}")]
    Value(String),
    /// A rule of use was broken (Python: AssertionError).
    #[error("{0}")]
    Assertion(String),
    /// A handle or value of the wrong kind (Python: TypeError).
    #[error("{0}")]
    Type(String),
    /// The operation doesn't fit the present state (Python: RuntimeError).
    #[error("{0}")]
    Runtime(String),
    /// A number outside the range of its type (Python: OverflowError).
    #[error("{0}")]
    Overflow(String),
    /// The object was closed by this process.
    #[error("{0}")]
    Closed(String),
    /// Nothing to take before the deadline (Python: queue.Empty).
    #[error("the queue is empty")]
    Empty,
    /// No room before the deadline (Python: queue.Full).
    #[error("the queue is full")]
    Full,
    /// A deadline passed (Python: TimeoutError).
    #[error("timed out")]
    Timeout,
    /// The barrier was aborted, reset while somebody waited, or somebody timed out.
    #[error("the barrier is broken")]
    BrokenBarrier,
    /// The object that a handle names doesn't exist any more.
    #[error("the object is gone: no process holds a reference to it any more")]
    ObjectGone,
    /// All slots of the process table are taken.
    #[error("too many processes: the session's table of processes is full")]
    ProcessTableFull,
    /// All entries of the object table are taken.
    #[error("too many shared objects: the session's table of objects is full")]
    ObjectTableFull,
    /// The session's memory is used up.
    #[error("the session is out of shared memory")]
    OutOfMemory,
    /// There is no session in this process.
    #[error("no session: call Session::create() or Session::attach() first")]
    NoSession,
    /// Shared memory holds what no process of the session can have written.
    #[error("shared memory is damaged: {0}")]
    Corrupt(String),
    /// The holder of a permit died while it held it.
    #[error(
        "the process that held this died while holding it (pid {pid}, exit code {exitcode}); release() or recover() makes it free"
    )]
    OwnerDied {
        /// The dead holder's process id.
        pid: i32,
        /// Its exit code, Python's way: -9 for SIGKILL.
        exitcode: i32,
        /// Where it acquired the permit.
        acquired_at: Position,
    },
    /// The program, or some of its processes, can never go on: the picture of who waits for whom.
    #[error("{0}")]
    Deadlock(String),
    /// The other side of a connection doesn't have the same key (Python: AuthenticationError).
    #[error("{0}")]
    Authentication(String),
    /// A host that has no address (Python: `socket.gaierror`, an OSError).
    #[error("the host '{host}' can't be found: {reason}")]
    UnknownHost {
        /// Its name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// The interrupt hook asked to leave the wait; the number is the hook's own.
    #[error("interrupted")]
    Interrupted(u64),
    /// A connection's own kinds of failure.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A system call failed.
    #[error("{call} failed: {}", std::io::Error::from_raw_os_error(*.errno))]
    Os {
        /// Name of the call.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

/// Result of most operations of this crate.
pub type Result<T> = std::result::Result<T, CoreError>;

impl CoreError {
    /// The error of system call `call` with error number `errno`.
    #[must_use]
    pub fn os(call: &'static str, errno: i32) -> Self {
        Self::Os { call, errno }
    }

    /// The error of the system call `call` that has just failed in this thread.
    #[must_use]
    pub fn os_last(call: &'static str) -> Self {
        Self::Os {
            call,
            errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        }
    }
}
