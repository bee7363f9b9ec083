//! The lock for short sections on shared memory: the C library's robust mutex.
//!
//! The kernel tells the next owner if the last one died inside, at whatever instruction
//! (pthread_mutexattr_setrobust(3)); the structure is then repaired before anybody else sees it.
//! Invariants: never held across a wait, a fork, or code that can be interrupted by a callback;
//! sections commit by one store, so that `repair` only has to clean up.

use super::memory::Shared;
use crate::error::{CoreError, Result};
use std::cell::UnsafeCell;

/// A robust, process-shared mutex that lies in shared memory.
#[repr(C)]
pub(crate) struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the C library's process-shared mutex is made for concurrent use through one address in
// each process; bytes that are no mutex make its functions return errors, which are handled.
unsafe impl Shared for RobustMutex {}
// SAFETY: as above.
unsafe impl Sync for RobustMutex {}

impl RobustMutex {
    /// Makes this memory an unlocked mutex. Nobody else may use it yet.
    pub(crate) fn init(&self) {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: the attributes are initialised by the first call and destroyed by the last;
        // the mutex is memory of the right size that nobody uses yet.
        unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            );
            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(self.0.get(), attributes.as_ptr());
            libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
        }
    }

    /// Locks; if the last owner died inside, runs `repair` first.
    #[inline]
    pub(crate) fn lock(&self, repair: impl FnOnce()) -> Result<Guard<'_>> {
        #[cfg(test)]
        if let Some(owner_dead) = crate::models::machine::lock(self.0.get() as usize) {
            let guard = Guard(self);
            if owner_dead {
                repair();
            }
            return Ok(guard);
        }
        // SAFETY: the mutex was initialised when its structure was made; a damaged one gives an
        // error code.
        let answer = unsafe { libc::pthread_mutex_lock(self.0.get()) };
        self.locked(answer, repair)
    }

    /// The same without waiting: `None` if it is locked by a living process, this one included.
    pub(crate) fn try_lock(&self, repair: impl FnOnce()) -> Result<Option<Guard<'_>>> {
        // SAFETY: as above.
        match unsafe { libc::pthread_mutex_trylock(self.0.get()) } {
            libc::EBUSY => Ok(None),
            answer => self.locked(answer, repair).map(Some),
        }
    }

    #[inline]
    fn locked(&self, answer: libc::c_int, repair: impl FnOnce()) -> Result<Guard<'_>> {
        match answer {
            0 => Ok(Guard(self)),
            libc::EOWNERDEAD => {
                let guard = Guard(self);
                repair();
                // SAFETY: this thread holds the mutex, whose last owner died.
                unsafe { libc::pthread_mutex_consistent(self.0.get()) };
                Ok(guard)
            }
            errno => Err(CoreError::Corrupt(format!(
                "a mutex answers with error {errno}"
            ))),
        }
    }
}

/// The locked state; dropping it unlocks.
pub(crate) struct Guard<'a>(&'a RobustMutex);

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(test)]
        if crate::models::machine::unlock(self.0.0.get() as usize) {
            return;
        }
        // SAFETY: a guard exists only while this thread holds the mutex.
        unsafe { libc::pthread_mutex_unlock(self.0.0.get()) };
    }
}
