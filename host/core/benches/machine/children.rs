//! The measurements' other processes, the memory that they share, and the kernel's sleep and wake on a word of it.
//!
//! Invariant: a child never runs its parent's code. It does its own work and leaves by `_exit`; when its parent is through with it, or dies,
//! it is killed. So a child may go on for ever, and a measurement is over when the parent has seen enough. Memory that is shared is never
//! given back: the process measures one limit and ends.

use super::{Figure, SPAN, failed};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, getppid};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// A copy of this process: `None` in the copy.
pub(super) fn fork() -> Result<Option<Pid>, String> {
    // SAFETY: the processes that measure have one thread, so that no lock is held by a thread that the copy lacks.
    match unsafe { nix::unistd::fork() }.map_err(failed("fork"))? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// The end of this process, at once: nothing that it inherited is flushed or dropped.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and has no other condition.
    unsafe { libc::_exit(code) }
}

/// A process that is killed when it is dropped.
pub(super) struct Child(Pid);

impl Child {
    /// Starts a process that does this and ends.
    pub(super) fn start(work: impl FnOnce() -> Result<(), String>) -> Result<Child, String> {
        let parent = getpid();
        if let Some(child) = fork()? {
            return Ok(Child(child));
        }
        let guarded = || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("prctl"))?;
            // The parent may have died before.
            if getppid() == parent {
                work()?;
            }
            Ok::<(), String>(())
        };
        let done = matches!(catch_unwind(AssertUnwindSafe(guarded)), Ok(Ok(())));
        leave(i32::from(!done))
    }

    pub(super) fn pid(&self) -> Pid {
        self.0
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it didn't do what it should.
    pub(super) fn wait(self) -> Result<(), String> {
        let status = wait(self.0)?;
        std::mem::forget(self);
        match status {
            WaitStatus::Exited(_, 0) => Ok(()),
            status => Err(format!("another process failed: {status:?}")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Where it has already ended, there is nothing to kill.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = wait(self.0);
    }
}

/// Waits for the end of a child.
pub(super) fn wait(child: Pid) -> Result<WaitStatus, String> {
    waitpid(child, None).map_err(failed("waitpid"))
}

/// Microseconds for one operation of several processes that do them at the same time, each for as long as a measurement lasts.
///
/// What `operation` makes for each party, it makes before they begin.
pub(super) fn together<O: FnMut() -> Result<(), String>>(
    parties: u32,
    batch: u32,
    operation: impl Fn(usize) -> O,
) -> Figure {
    let gate = &shared::<Line>(1)?[0].0;
    // When it began, when it ended and how often it was done, for each.
    let results = shared::<AtomicU64>(parties as usize * 3)?;
    let zero = Instant::now();
    let now = || zero.elapsed().as_nanos() as u64;
    let mut children = Vec::new();
    for result in results.chunks(3) {
        let party = children.len();
        children.push(Child::start(|| {
            let mut operation = operation(party);
            gate.fetch_add(1, Ordering::SeqCst);
            until(|| gate.load(Ordering::SeqCst) == parties);
            let (begin, mut count) = (now(), 0);
            while u128::from(now() - begin) < SPAN.as_nanos() {
                for _ in 0..batch {
                    operation()?;
                }
                count += u64::from(batch);
            }
            for (place, number) in result.iter().zip([begin, now(), count]) {
                place.store(number, Ordering::SeqCst);
            }
            Ok(())
        })?);
    }
    for child in children {
        child.wait()?;
    }
    let each = |which: usize| {
        let numbers = results.chunks(3).map(move |result| &result[which]);
        numbers.map(|number| number.load(Ordering::SeqCst))
    };
    let first = each(0).min().unwrap_or(0);
    let last = each(1).max().unwrap_or(0);
    let count: u64 = each(2).sum();
    Ok((last - first) as f64 / 1e3 / count as f64)
}

/// Looks until it is so. Others get the CPU in between, since the one that is waited for may need this very one.
pub(super) fn until(so: impl Fn() -> bool) {
    let mut looks = 0;
    while !so() {
        if looks < 100 {
            looks += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// A word with a cache line to itself, so that two that are used by two processes don't get into each other's way.
#[repr(align(64))]
pub(super) struct Line(pub(super) AtomicU32);

/// What may lie in memory that processes share.
///
/// # Safety
/// Zeroes must be a valid value, and changing it must be sound through a shared reference, from another process too.
pub(super) unsafe trait Shareable {}

// SAFETY: a number that is only used by atomic operations; 0 is one.
unsafe impl Shareable for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shareable for AtomicI32 {}
// SAFETY: as above.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: nothing but such a number.
unsafe impl Shareable for Line {}

/// So many zeroes, at the same address in this process and in those that it will fork. Every page is there already.
pub(super) fn shared<T: Shareable>(count: usize) -> Result<&'static [T], String> {
    let size = NonZeroUsize::new(count * size_of::<T>()).ok_or("no memory was asked for")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
    // SAFETY: the kernel chooses a place where nothing is.
    let start = unsafe { mmap_anonymous(None, size, protection, flags) }.map_err(failed("mmap"))?;
    // SAFETY: the mapping is that long, begins at a page (more than any alignment here), is never unmapped, and holds zeroes, which are
    // valid and may be changed through shared references: both is what `Shareable` says.
    Ok(unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), count) })
}

/// Sleeps while the word is that, or for no reason at all: the caller looks again.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32) {
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives as long as the call, which only reads it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            forever,
        );
    }
}

/// Wakes one who sleeps on the word.
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the call only uses the word's address.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
    }
}
