//! The kernel's sleep and wake on a word of shared memory (futex(2)).
//!
//! Invariant: nothing here touches `errno` in a way a signal handler could not save, and nothing
//! allocates, so that a handler may call [`wake`].

use super::atomic::AtomicU32;
use crate::clock::Deadline;

/// Every sleeper, whatever its bits.
pub(crate) const ANYONE: u32 = u32::MAX;

/// Sleeps while `*word == expected`, until woken through one of `bits`, a signal, or the deadline.
/// May return for no reason: the caller looks again.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline, bits: u32) {
    #[cfg(test)]
    if crate::models::machine::futex_wait(word, expected, bits) {
        return;
    }
    let time = deadline.to_timespec();
    let time_ptr = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is live for the call; the time is null or a valid timespec; the call doesn't
    // write to memory.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            time_ptr,
            std::ptr::null::<u32>(),
            bits,
        );
    }
}

/// Wakes at most `count` sleepers that share one of `bits`; says how many.
pub(crate) fn wake(word: &AtomicU32, count: u32, bits: u32) -> usize {
    #[cfg(test)]
    if let Some(woken) = crate::models::machine::futex_wake(word, count, bits) {
        return woken;
    }
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: `word` is live for the call, which only uses its address.
    let woken = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE_BITSET,
            count,
            std::ptr::null::<libc::timespec>(),
            std::ptr::null::<u32>(),
            bits,
        )
    };
    usize::try_from(woken).unwrap_or(0)
}
