//! Ends a wait of this process from within: a signal's handler or a pool's callback has changed what is waited for.
//!
//! Waits on shared objects are ended by whoever changes them. An in-process queue has nobody else: only what this process runs
//! between two sleeps can change it. A waiter sleeps on the reading end of a pipe, and what changes the state writes to it; so the
//! wait is one of the core's, with its signals, callbacks and time limit.

use crate::core_error;
use crate::error::Result;
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::wait::{self, PollFd, WaitInfo, WaitKind};
use std::cell::RefCell;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

/// Where the waits of one object are ended.
#[derive(Default)]
pub struct Nudge {
    pipe: RefCell<Option<(PipeReader, PipeWriter)>>,
}

impl Nudge {
    /// Ends the wait, if somebody waits.
    pub fn nudge(&self) {
        // A waiter makes the pipe, and takes it away: so it holds at most a few bytes, and this write can't block.
        if let Some((_, writer)) = &*self.pipe.borrow() {
            let _ = (&*writer).write(&[0]);
        }
    }

    /// Waits until `done` says so or the deadline has passed: whether `done` did. It is asked again after each nudge.
    ///
    /// # Errors
    /// What a signal's handler or a callback throws.
    pub fn wait(
        &self,
        kind: WaitKind,
        deadline: Deadline,
        at: Position,
        mut done: impl FnMut() -> bool,
    ) -> Result<bool> {
        loop {
            wait::poll_interrupts()?;
            if done() {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
            let outer = self.open()?;
            let waited = self.sleep(kind, deadline, at);
            self.pipe.replace(outer);
            waited?;
        }
    }

    /// A pipe for one sleep; what was there before belongs to a wait further out, which is nudged by its own end.
    fn open(&self) -> Result<Option<(PipeReader, PipeWriter)>> {
        let pipe = std::io::pipe().map_err(|error| core_error::from_io(&error, "pipe", None))?;
        Ok(self.pipe.replace(Some(pipe)))
    }

    fn sleep(&self, kind: WaitKind, deadline: Deadline, at: Position) -> Result<()> {
        let fd = match &*self.pipe.borrow() {
            Some((reader, _)) => reader.as_raw_fd(),
            None => return Ok(()),
        };
        let mut fds = [PollFd {
            fd,
            events: nix::libc::POLLIN,
            revents: 0,
        }];
        wait::wait_fds(&mut fds, WaitInfo::new(kind, 0, at), deadline)?;
        if fds[0].revents != 0
            && let Some((reader, _)) = &*self.pipe.borrow()
        {
            let _ = (&*reader).read(&mut [0; 1]);
        }
        Ok(())
    }
}
