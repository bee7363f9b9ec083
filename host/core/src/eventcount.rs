//! The eventcount: how those who wait and those who change something find each other.
//!
//! A waiter counts itself, reads the sequence, looks whether it can go on, and only then sleeps on
//! the sequence it read; a waker changes the state, and if anybody is counted adds one to the
//! sequence and asks the kernel. So an uncontended operation makes no system call, and no wake-up
//! falls between looking and sleeping. A count left over by a killed waiter costs needless system
//! calls and nothing else.
//!
//! Invariant: an eventcount lies at a fixed place of the session's tables that never holds
//! anything else, so that a late wake-up of something that is gone is merely spurious.

use crate::sys::atomic::{AtomicU32, Ordering, fence};
use crate::sys::futex;
use crate::sys::memory::Shared;

/// A sequence and the number of those who wait for it to change. See the module.
#[repr(C)]
#[derive(Debug, Default)]
pub struct EventCount {
    seq: AtomicU32,
    waiters: AtomicU32,
}

// SAFETY: two atomics, repr(C).
unsafe impl Shared for EventCount {}

impl EventCount {
    /// Wakes one waiter. Call it after the change of state that lets one go on.
    #[inline]
    pub fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes all waiters.
    #[inline]
    pub fn wake_all(&self) {
        self.wake(u32::MAX);
    }

    /// Wakes at most `count` waiters.
    #[inline]
    pub fn wake(&self, count: u32) {
        // Either this load sees the waiter's count, or the waiter's look sees our change.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.bump(count);
        }
    }

    /// How many are counted, for who has changed the state before: whoever isn't, and looks later, sees that change.
    pub(crate) fn counted(&self) -> u32 {
        fence(Ordering::SeqCst);
        self.waiters.load(Ordering::Relaxed)
    }

    /// [`EventCount::wake`] for a caller whose change of state was a SeqCst read-modify-write.
    #[inline]
    pub(crate) fn wake_after_rmw(&self, count: u32) {
        // On x86-64 a locked instruction is a full fence already.
        #[cfg(not(target_arch = "x86_64"))]
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) != 0 {
            self.bump(count);
        }
    }

    #[cold]
    fn bump(&self, count: u32) {
        self.seq.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.seq, count, futex::ANYONE);
    }

    /// Wakes everybody without asking who is counted; async-signal-safe.
    pub(crate) fn wake_unconditionally(&self) {
        self.bump(u32::MAX);
    }

    /// Makes whoever is about to sleep look again; wakes nobody. For a process's own signal
    /// handlers: where it sleeps already, the signal itself wakes it.
    pub(crate) fn nudge(&self) {
        self.seq.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes those who sleep with one of `bits`.
    pub(crate) fn wake_bits(&self, bits: u32) {
        self.seq.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.seq, u32::MAX, bits);
    }

    pub(crate) fn key(&self) -> u32 {
        self.seq.load(Ordering::SeqCst)
    }

    pub(crate) fn sequence(&self) -> &AtomicU32 {
        &self.seq
    }

    /// Counts a waiter; a full fence comes with it.
    pub(crate) fn enter(&self) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Back to nobody waiting, for a place that is used anew.
    pub(crate) fn reset(&self) {
        self.waiters.store(0, Ordering::SeqCst);
    }
}
