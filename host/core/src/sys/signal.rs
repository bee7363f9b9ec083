//! Signal masks and handlers, as little of them as the rest needs (sigaction(2), sigprocmask(2)).

use crate::error::{CoreError, Result};

/// What a signal does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disposition {
    Default,
    Ignore,
    /// Call this. It must be async-signal-safe.
    Call(extern "C" fn(libc::c_int)),
}

/// Sets what `signo` does: without SA_RESTART, so that waits notice, on the alternate stack.
pub(crate) fn set(signo: i32, disposition: Disposition) -> Result<()> {
    // SAFETY: a zeroed sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_ONSTACK | libc::SA_NOCLDSTOP;
    action.sa_sigaction = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Call(f) => f as *const () as usize,
    };
    // SAFETY: the action is valid; handlers are async-signal-safe by the rule of `Disposition`.
    // All signals are blocked while one runs, so that handlers never nest.
    let result = unsafe {
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signo, &raw const action, std::ptr::null_mut())
    };
    if result != 0 {
        Err(CoreError::os_last("sigaction"))
    } else {
        Ok(())
    }
}

/// All blockable signals blocked, until dropped: then the mask is what it was before.
pub(crate) struct Blocked {
    previous: libc::sigset_t,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut previous = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the sets are valid places; sigfillset initialises the one, pthread_sigmask the
        // other. Faults stay unblocked: blocking them would only hide where they happened.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGABRT,
            ] {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), previous.as_mut_ptr());
            Self {
                previous: previous.assume_init(),
            }
        }
    }

    /// The mask as it was before.
    pub(crate) fn previous(&self) -> &libc::sigset_t {
        &self.previous
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that pthread_sigmask gave.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.previous,
                std::ptr::null_mut(),
            )
        };
    }
}

/// Keeps `errno` as it was, for the length of a signal handler.
pub(crate) struct SavedErrno(i32);

impl SavedErrno {
    pub(crate) fn new() -> Self {
        // SAFETY: the location is valid for the thread's life.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for SavedErrno {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// Makes this process's signals what an executed program expects: nothing caught, nothing blocked; what is ignored stays so.
/// For a fresh copy of a process, between fork and exec; async-signal-safe.
pub(crate) fn reset() {
    for signo in 1..=libc::SIGRTMAX() {
        // SAFETY: all zeros is a valid sigaction, the default one; both are valid places for the call. Numbers that can't be changed
        // are refused, which is as well.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signo, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction != libc::SIG_IGN
                && action.sa_sigaction != libc::SIG_DFL
            {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signo, &raw const default, std::ptr::null_mut());
            }
        }
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that pthread_sigmask reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}
