//! What it costs to keep processes apart, and together: a mutex made of a futex, and the C library's barrier.
//!
//! Invariant: the mutex is the least that is right. It tells whether somebody may be asleep, so that the kernel is called only then, and
//! knows neither its owner nor the death of one.

use super::children::{Child, Line, Shareable, futex_wait, futex_wake, shared, together};
use super::{Figure, mean};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be asleep.
const WANTED: u32 = 2;

fn acquire(word: &AtomicU32) {
    let free = word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
    if free.is_err() {
        while word.swap(WANTED, Ordering::Acquire) != FREE {
            futex_wait(word, WANTED);
        }
    }
}

fn release(word: &AtomicU32) {
    if word.swap(FREE, Ordering::Release) == WANTED {
        futex_wake(word);
    }
}

pub(super) fn alone() -> Figure {
    let word = &shared::<Line>(1)?[0].0;
    mean(1000, || {
        acquire(word);
        release(word);
        Ok(())
    })
}

pub(super) fn by_four() -> Figure {
    contended(|_| ())
}

pub(super) fn increment_by_four() -> Figure {
    // A read and a write, not an atomic addition: it is the mutex that makes one of the two.
    contended(|value| {
        value.store(
            value.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
    })
}

fn contended(inside: impl Fn(&AtomicU32)) -> Figure {
    let lines = shared::<Line>(2)?;
    let (word, value) = (&lines[0].0, &lines[1].0);
    together(4, 50, |_| {
        || {
            acquire(word);
            inside(value);
            release(word);
            Ok(())
        }
    })
}

/// A round: from the arrival of this process to the departure of all. The other three come back at once.
pub(super) fn barrier_of_four() -> Figure {
    let barrier = Barrier::of(4)?;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Child::start(|| {
            loop {
                barrier.wait()?;
            }
        })?);
    }
    mean(100, || barrier.wait())
}

/// The C library's barrier, for several processes.
#[repr(align(64))]
struct Barrier(UnsafeCell<MaybeUninit<libc::pthread_barrier_t>>);

// SAFETY: of memory that may be uninitialised any bytes are valid, zeroes too. It is changed by the C library alone, whose functions are
// made for several threads and, as `Barrier::of` asks for, for several processes.
unsafe impl Shareable for Barrier {}

impl Barrier {
    /// The only way to one, for so many processes, which are forked after that.
    fn of(parties: u32) -> Result<&'static Barrier, String> {
        let barrier = &shared::<Barrier>(1)?[0];
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: there is room for the attributes, which are initialised before they are used, and for the barrier, which nobody uses yet.
        let error = unsafe {
            match libc::pthread_barrierattr_init(attributes.as_mut_ptr()) {
                0 => {
                    let shared = libc::PTHREAD_PROCESS_SHARED;
                    libc::pthread_barrierattr_setpshared(attributes.as_mut_ptr(), shared);
                    let room = barrier.0.get().cast();
                    libc::pthread_barrier_init(room, attributes.as_ptr(), parties)
                }
                error => error,
            }
        };
        match error {
            0 => Ok(barrier),
            error => Err(format!("pthread_barrier_init: error {error}")),
        }
    }

    fn wait(&self) -> Result<(), String> {
        // SAFETY: it has been initialised (`Barrier::of`), and the memory is never given back.
        match unsafe { libc::pthread_barrier_wait(self.0.get().cast()) } {
            0 | libc::PTHREAD_BARRIER_SERIAL_THREAD => Ok(()),
            error => Err(format!("pthread_barrier_wait: error {error}")),
        }
    }
}
