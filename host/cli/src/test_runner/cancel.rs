//! Ending the whole run early: Ctrl-C, SIGTERM or a closed terminal.
//!
//! The tests run in sessions of their own, so the terminal's Ctrl-C doesn't reach them: the runner has to
//! end them. Every job waits in poll(2) for its program and for this object's descriptor alike.
//!
//! Invariant: once cancelled, always cancelled; the descriptor stays readable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::EventfdFlags;

/// Tells all jobs to stop.
#[derive(Debug)]
pub(crate) struct Cancel {
    signal: AtomicI32,
    event: OwnedFd,
}

impl Cancel {
    /// Nothing is cancelled yet.
    ///
    /// # Errors
    ///
    /// No more descriptors (eventfd(2)).
    pub(crate) fn new() -> io::Result<Cancel> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel {
            signal: AtomicI32::new(0),
            event,
        })
    }

    /// Makes SIGINT, SIGTERM and SIGHUP cancel this run instead of ending the process.
    ///
    /// To be called before any other thread is made: the signals are blocked in the calling thread and those that
    /// it makes. Programs that are started get an unblocked mask (std::process resets it).
    ///
    /// # Errors
    ///
    /// No thread can be made.
    pub(crate) fn on_signals(self: &Arc<Self>) -> io::Result<()> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        signals.thread_block()?;
        let cancel = Arc::clone(self);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while let Ok(signal) = signals.wait() {
                    cancel.cancel(signal as i32);
                }
            })?;
        Ok(())
    }

    /// Ends the run because of a signal.
    pub(crate) fn cancel(&self, signal: i32) {
        self.signal.store(signal, Ordering::Release);
        // A full counter is readable too.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// The signal that ended the run.
    pub(crate) fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }

    /// Readable once the run is cancelled.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
