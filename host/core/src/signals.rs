//! Signals, turned into something that a script can look at between two steps.
//!
//! A handler here only notes the signal and raises *attention*; the interrupt hook of `wait`
//! does the rest later, outside of any critical section. A handler also nudges the eventcount on
//! which this process is about to sleep, so that a signal that arrives between looking and
//! sleeping isn't slept over.
//!
//! Invariant: handlers do nothing but atomics, futex(2) and waitid(2), and keep `errno`.

use crate::clock;
use crate::error::{CoreError, Result};
use crate::session::try_session;
use crate::sys::signal::{self, Blocked, Disposition, SavedErrno};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

static ATTENTION: AtomicBool = AtomicBool::new(false);
static PENDING: AtomicU64 = AtomicU64::new(0);

/// Runs `f` with all signals blocked (but those that mean a fault): for fork and what must be
/// noted before the child's death is.
pub fn blocked<T>(f: impl FnOnce() -> T) -> T {
    let _blocked = Blocked::new();
    f()
}

/// From now on `signo` is noted ([`take_pending`]) and raises attention.
///
/// # Errors
/// `Value` for a number that is no signal, `Os` for one that can't be caught.
pub fn catch(signo: i32) -> Result<()> {
    set(signo, Disposition::Call(note))
}

/// From now on `signo` does nothing. Errors as [`catch`].
///
/// # Errors
/// As [`catch`].
pub fn ignore(signo: i32) -> Result<()> {
    set(signo, Disposition::Ignore)
}

/// From now on `signo` does what it does by itself (signal(7)).
///
/// # Errors
/// As [`catch`].
pub fn default(signo: i32) -> Result<()> {
    set(signo, Disposition::Default)
}

fn set(signo: i32, disposition: Disposition) -> Result<()> {
    if !(1..=64).contains(&signo) {
        return Err(CoreError::Value("signal number out of range".into()));
    }
    signal::set(signo, disposition)
}

/// SIGURG asks for attention: it interrupts the ppoll of a kicked process, and is what an
/// [`alarm`](crate::alarm) sends.
pub(crate) fn install_kick() -> Result<()> {
    set(libc::SIGURG, Disposition::Call(attend))
}

extern "C" fn attend(_: libc::c_int) {
    let _errno = SavedErrno::new();
    request_attention();
}

extern "C" fn note(signo: libc::c_int) {
    let _errno = SavedErrno::new();
    let bit = 1 << (signo - 1);
    let noted = PENDING.fetch_or(bit, SeqCst) & bit != 0;
    if signo == libc::SIGINT && INSISTENT.load(SeqCst) {
        let now = clock::now();
        if !noted {
            INTERRUPTED_AT.store(now, SeqCst);
        } else if now.saturating_sub(INTERRUPTED_AT.load(SeqCst)) > INSISTENCE {
            // Nobody has looked at the first one: this process doesn't come to where it could. It gets this one when the
            // handler returns.
            let _ = signal::set(signo, Disposition::Default);
            crate::sys::process::kill(std::process::id() as i32, signo);
        }
    }
    request_attention();
}

/// Two SIGINTs that are closer together than this (in nanoseconds) are one.
const INSISTENCE: u64 = 100_000_000;
static INSISTENT: AtomicBool = AtomicBool::new(false);
static INTERRUPTED_AT: AtomicU64 = AtomicU64::new(0);

/// Whether a second SIGINT ends this process at once if nobody has looked at the first: so a person can end a program that hangs
/// in a system call. Not in children, which others end.
pub fn insist_on_interrupts(on: bool) {
    INSISTENT.store(on, SeqCst);
}

/// The lowest caught signal that wasn't taken yet.
#[must_use]
pub fn take_pending() -> Option<i32> {
    let pending = PENDING.load(SeqCst);
    if pending == 0 {
        return None;
    }
    let bit = pending.trailing_zeros();
    PENDING.fetch_and(!(1 << bit), SeqCst);
    Some(bit as i32 + 1)
}

/// Makes the interrupt hook run at the next opportunity; async-signal-safe.
pub fn request_attention() {
    ATTENTION.store(true, SeqCst);
    if let Some(session) = try_session() {
        let slot = session.my_slot();
        let offset = slot.waiting_on.load(SeqCst) as usize;
        if offset != 0
            && let Some(event) = session.region().at::<crate::eventcount::EventCount>(offset)
        {
            event.nudge();
        }
    }
}

/// Whether attention was raised by this process's own handlers.
#[inline]
pub(crate) fn attention() -> bool {
    ATTENTION.load(std::sync::atomic::Ordering::Relaxed)
}

/// Lowers attention; what was noted stays noted.
pub(crate) fn clear_attention() {
    ATTENTION.store(false, SeqCst);
}

/// What the parent had pending isn't the child's.
pub(crate) fn after_fork() {
    PENDING.store(0, SeqCst);
    ATTENTION.store(false, SeqCst);
    INSISTENT.store(false, SeqCst);
    crate::deadlock::after_fork();
}

/// Lets all signals through: the first thing that a process does once it has its handlers.
pub fn unblock_all() {
    // It can't fail: the set is valid.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}
