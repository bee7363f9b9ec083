//! Processes and raw descriptors: fork, _exit, what a child inherits (fork(2), _exit(2), close_range(2), fcntl(2)).

use crate::error::{CoreError, Result};
use nix::errno::Errno;
use nix::unistd::ForkResult;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Copies this process.
pub(crate) fn fork() -> std::result::Result<ForkResult, Errno> {
    // SAFETY: a process of this crate's users has one thread, so nothing is left locked in the copy. Programs with more threads are
    // told to use another start method.
    unsafe { nix::unistd::fork() }
}

/// Ends this process at once.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes all descriptors from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) {
    // SAFETY: only called in a fresh copy of a process, whose owners of those descriptors never run again. By number, since older
    // C libraries don't have the function.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result != 0 {
        close_each(first, last);
    }
}

/// For a kernel that refuses close_range (a sandbox may).
fn close_each(first: u32, last: u32) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above; a descriptor that is closed already is an error that changes nothing.
        unsafe { libc::close(fd as RawFd) };
    }
}

/// Whether a descriptor is open and a socket.
pub(crate) fn is_socket(fd: RawFd) -> bool {
    borrow_fd(fd).is_ok_and(|fd| {
        nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
    })
}

/// Takes the descriptor over that this process was executed with.
pub(crate) fn take_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: called once, at the very beginning of an executed process, for a descriptor that its parent passed to it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A descriptor by its number, for calls that want it borrowed.
///
/// # Errors
/// `EBADF` where it isn't open.
pub fn borrow_fd(fd: RawFd) -> Result<BorrowedFd<'static>> {
    // SAFETY: fcntl looks at the number alone.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(CoreError::os("fcntl(F_GETFD)", libc::EBADF));
    }
    // SAFETY: it is open now. Closing it while it is borrowed makes the borrower's call fail with EBADF; memory isn't concerned.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A descriptor that is ready as soon as the process ends (pidfd_open(2)).
pub(crate) fn pidfd(pid: i32) -> std::result::Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers and gives a new descriptor (close-on-exec) or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: it is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}

/// Whether a process has ended, reaped or not.
pub(crate) fn has_ended(pid: i32) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    match pidfd(pid) {
        Ok(fd) => {
            let mut polled = [PollFd::new(
                std::os::fd::AsFd::as_fd(&fd),
                PollFlags::POLLIN,
            )];
            poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        }
        Err(errno) => errno == Errno::ESRCH,
    }
}

/// The wait status of a process that has ended and isn't reaped (its state and its last field in /proc/PID/stat, proc(5)).
pub(crate) fn zombie_status(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    if fields.next()? != "Z" {
        return None;
    }
    fields.next_back()?.parse().ok()
}

/// Sends a signal; async-signal-safe. Whoever is gone already needs none.
pub(crate) fn kill(pid: i32, signo: i32) {
    // SAFETY: kill takes two numbers.
    unsafe { libc::kill(pid, signo) };
}

static MAIN: AtomicI32 = AtomicI32::new(0);

/// The signal that a process of the forkserver gets when a parent dies. (Not one that scripts use.)
pub(crate) fn guard_signal() -> i32 {
    libc::SIGRTMIN() + 2
}

/// Makes the guard signal end this process if its parent isn't the main process, which inherits orphans.
pub(crate) fn install_guard(main: i32) -> Result<()> {
    MAIN.store(main, Ordering::SeqCst);
    super::signal::set(guard_signal(), super::signal::Disposition::Call(on_guard))?;
    // SAFETY: prctl with a signal's number (PR_SET_PDEATHSIG in prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, guard_signal()) };
    Ok(())
}

extern "C" fn on_guard(_: libc::c_int) {
    // SAFETY: getppid and kill are async-signal-safe.
    unsafe {
        if libc::getppid() != MAIN.load(Ordering::SeqCst) {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}

/// Marks all descriptors from `first` on to be closed at an exec; async-signal-safe. An old kernel (before 5.11) can't, and it is only a second
/// line of defence.
pub(crate) fn close_on_exec(first: u32) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: the call takes three numbers and changes nothing but a flag.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
}
