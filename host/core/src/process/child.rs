//! What a child does first, whichever way it came to be.

use super::{Enter, Job};
use crate::error::{CoreError, Result};
use crate::session::session;
use crate::sys;
use crate::table::{self, SlotId, SlotStatus};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Asks for SIGKILL when the parent dies, and ends at once where it is dead already.
///
/// `parent` is the pid that this process was started by, as the kernel sees it (man page prctl(2), PR_SET_PDEATHSIG; the signal is lost if
/// the parent died before, hence the check).
pub fn guard_parent(parent: i32) {
    // Err can't happen: the signal's number is valid.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    if getppid() != Pid::from_raw(parent) {
        exit_now(1);
    }
}

/// The rest of a child's first steps: a process group of its own and the null device as standard input.
///
/// # Errors
/// What the operating system says.
pub(super) fn settle() -> Result<()> {
    // It may be a session leader already when a debugger started it: then there is nothing to do.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let null = std::fs::File::open("/dev/null").map_err(|e| io("open /dev/null", &e))?;
    nix::unistd::dup2_stdin(null.as_fd()).map_err(|e| CoreError::os("dup2", e as i32))
}

/// What the copy of another process does with its job: gets rid of what isn't its own, runs, ends.
pub(super) fn run_copy(job: &Job<'_>, enter: Enter<'_>) -> ! {
    let (given, kept) = job
        .fds
        .split_at(job.fds.len() - job.kept.min(job.fds.len()));
    let close_all_but = |these: &mut dyn Iterator<Item = RawFd>| {
        let mut keep: Vec<RawFd> = these.collect();
        keep.extend(kept.iter().map(AsRawFd::as_raw_fd));
        keep.extend(super::inherited().iter().map(AsRawFd::as_raw_fd));
        close_others(&mut keep);
    };
    // The originals of what it was given are in values of the parent, which a copy can't reach: duplicates are its own.
    let duplicate = || -> Result<Vec<OwnedFd>> {
        given
            .iter()
            .map(|fd| {
                fd.try_clone_to_owned()
                    .map_err(|e| io("fcntl(F_DUPFD_CLOEXEC)", &e))
            })
            .collect()
    };
    let own = duplicate().or_else(|_| {
        // The parent has used up its descriptors. This process needs few of them.
        close_all_but(&mut given.iter().map(AsRawFd::as_raw_fd));
        duplicate()
    });
    let settled = own.and_then(|own| {
        close_all_but(&mut own.iter().map(AsRawFd::as_raw_fd));
        settle().map(|()| own)
    });
    let code = match settled {
        Ok(own) => enter(own),
        Err(error) => {
            let text = format!("mphost: a process couldn't begin: {error}\n");
            // Nobody is left to be told where that fails.
            let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
            START_FAILED
        }
    };
    exit_now(code)
}

/// The exit code of a child that couldn't even begin.
pub(super) const START_FAILED: i32 = 1;

/// Closes every descriptor above 2 that isn't in `keep`.
fn close_others(keep: &mut Vec<RawFd>) {
    keep.sort_unstable();
    keep.dedup();
    let mut next: u32 = 3;
    for fd in keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= 3)
    {
        if fd > next {
            sys::process::close_range(next, fd - 1);
        }
        next = fd + 1;
    }
    sys::process::close_range(next, u32::MAX);
}

/// Ends the process now: no destructors, no handlers, nothing flushed (man page _exit(2)).
pub fn exit_now(code: i32) -> ! {
    sys::process::exit_now(code)
}

/// For a process whose parent is, or was started by, the forkserver: it outlives that server, but not the main process, and not the
/// process that asked for it.
///
/// The kernel sends the guard signal at the death of each parent; the handler looks who the parent is now. The main process is a
/// subreaper, so as long as it lives it is the one that inherits.
pub(super) fn guard_main(requester: SlotId) {
    let main = table::pid(session().main_slot()).unwrap_or(0);
    if sys::process::install_guard(main).is_err() {
        exit_now(START_FAILED);
    }
    // It may have died before this process was known to be its child, and its slot be another's by now: whoever has asked
    // waits for the answer, and so doesn't end in any other way.
    // The main process may have died before the signal was asked for: then there is nobody who would say so in the table.
    if !is_alive(requester) || main == 0 || sys::process::has_ended(main) {
        exit_now(START_FAILED);
    }
}

/// Whether a process is there that has asked for another.
pub(super) fn is_alive(requester: SlotId) -> bool {
    matches!(
        table::status(requester),
        SlotStatus::Live | SlotStatus::Starting
    )
}

pub(super) fn io(call: &'static str, error: &std::io::Error) -> CoreError {
    CoreError::os(call, error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

/// Clears or sets the close-on-exec flag of a descriptor.
pub(super) fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let flags = if on {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags)).map_err(|e| CoreError::os("fcntl", e as i32))?;
    Ok(())
}
