//! Starting processes: the three start methods behind one trait.
//!
//! Problem: the same job (a slot in the process table, a bootstrap message, some descriptors) has to begin in a process of its
//! own that is a copy of this one (`fork`), a fresh one (`spawn`), or a copy of a clean server (`forkserver`). The methods differ in
//! one module each; nothing else asks which it is.
//!
//! What every child does before anything else, whatever the method (`child`):
//! - it asks for SIGKILL at its parent's death, and checks that the parent is still the one it knew;
//! - it leaves the parent's process group, so that Ctrl-C at a terminal reaches the main process alone;
//! - its standard input is the null device, and it keeps no descriptor but those that it was given.
//!
//! Invariant: between the fork and the moment at which the child's pid is in the process table, SIGCHLD is blocked in
//! the process that reaps it, so that no death goes unnoticed.

mod child;
mod exec;
mod fork;
mod forkserver;

pub use crate::sys::process::borrow_fd;
pub use child::{exit_now, guard_parent};
pub use exec::{CHILD_COMMAND, Entry, FORKSERVER_COMMAND, entry};
pub use forkserver::{prepare, serve, server_pid, tidy};

use crate::error::{CoreError, Result};
use crate::table::SlotId;
use std::os::fd::{BorrowedFd, OwnedFd};

/// How a process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// A copy of the parent.
    Fork = 1,
    /// This program, executed anew.
    Spawn = 2,
    /// A copy of a server that has compiled the script and done nothing else.
    Forkserver = 3,
}

impl Method {
    /// All of them, the default first.
    pub const ALL: [Method; 3] = [Method::Fork, Method::Spawn, Method::Forkserver];

    /// Its name, Python's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::Fork => "fork",
            Method::Spawn => "spawn",
            Method::Forkserver => "forkserver",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }

    /// The method with that number, as it stands in the process table.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Method> {
        Method::ALL
            .into_iter()
            .find(|method| *method as u8 == number)
    }
}

/// What a child is to do.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The slot that was allocated for it, with all references granted that its bootstrap names.
    pub slot: SlotId,
    /// The message that tells it what to run, in a form that only the caller's own child understands; in parts.
    pub bootstrap: &'a [&'a [u8]],
    /// Descriptors that travel beside the message, in the message's order.
    pub fds: &'a [BorrowedFd<'a>],
    /// How many of them (the last ones) a forked child keeps under their own numbers, because it has the values that hold
    /// them already (constants); of the others it gets duplicates.
    pub kept: usize,
}

/// What a child that begins as a copy of this process runs: it is given the job's bootstrap and descriptors, and returns the exit code.
pub type Enter<'a> = &'a mut dyn FnMut(Vec<OwnedFd>) -> i32;

/// One way to start a process.
pub trait StartMethod {
    /// Starts the job and returns the child's pid, which is in the process table by then.
    ///
    /// Only a method whose children begin as copies of this process calls `enter`, in the child.
    ///
    /// # Errors
    /// What the operating system says; the slot is the caller's to release.
    fn start(&self, job: Job<'_>, enter: Enter<'_>) -> Result<i32>;
}

/// Starts a job by `method`; see [`StartMethod::start`].
///
/// # Errors
/// As there.
pub fn start(method: Method, job: Job<'_>, enter: Enter<'_>) -> Result<i32> {
    match method {
        Method::Fork => fork::Fork.start(job, enter),
        Method::Spawn => exec::Spawn.start(job, enter),
        Method::Forkserver => forkserver::Forkserver.start(job, enter),
    }
}

/// The descriptors that every process of a session has: the session's memory, the forkserver's request socket, and the post office's two.
pub(crate) fn inherited() -> Vec<BorrowedFd<'static>> {
    let mut fds = vec![crate::session::session().fd()];
    fds.extend(forkserver::control());
    fds.extend(crate::postoffice::fds().into_iter().flatten());
    fds
}

/// How many those are.
pub(crate) const INHERITED: usize = 5;

/// A descriptor that is ready as soon as the process has ended; at once where `pid` is `None` (it has ended already).
///
/// # Errors
/// Where no descriptors are left.
pub fn sentinel(pid: Option<i32>) -> Result<OwnedFd> {
    use nix::errno::Errno;
    if let Some(pid) = pid {
        match crate::sys::process::pidfd(pid) {
            // Reaped a moment ago: as good as ended.
            Err(Errno::ESRCH) => {}
            other => return other.map_err(|e| CoreError::os("pidfd_open", e as i32)),
        }
    }
    let ready = nix::sys::eventfd::EventFd::from_value_and_flags(
        1,
        nix::sys::eventfd::EfdFlags::EFD_CLOEXEC,
    )
    .map_err(|e| CoreError::os("eventfd", e as i32))?;
    Ok(ready.into())
}

/// Two connected sockets whose messages stay whole (SOCK_SEQPACKET).
fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|e| CoreError::os("socketpair", e as i32))
}
