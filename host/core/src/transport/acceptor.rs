//! Accepting connections, and letting in who has the key.
//!
//! Problem: a peer that connects and says nothing must not keep the others out. So those that are still to show that they have
//! the key wait beside each other, each with a limit of its own, and whoever is first through the handshake is accepted first.
//! One epoll instance watches the listening socket and all of them: its descriptor is what to wait for.
//!
//! Invariants: a stranger costs a socket and a few hundred bytes, for [`PATIENCE`] at most, and there are at most [`STRANGERS`] of them;
//! what is wrong with one ends that one alone. Methods take `&self`, since a callback that runs while one waits may close the acceptor.

use super::handshake::Handshake;
use super::{Listener, wait_one};
use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::wait::poll_interrupts;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

/// How long a peer may take to show that it has the key.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// So many may be at it at a time; one more, and the one that has taken longest is dropped.
pub const STRANGERS: usize = 128;

struct Stranger {
    handshake: Handshake,
    deadline: Deadline,
}

struct Open {
    listener: Listener,
    ready: Epoll,
    strangers: RefCell<VecDeque<Stranger>>,
    /// What the next call of `accept` comes to, where that has been asked for.
    known: RefCell<Option<Result<OwnedFd>>>,
}

/// A listening socket and who stands before it. Python: `multiprocessing.connection.Listener`.
pub struct Acceptor {
    open: RefCell<Option<Rc<Open>>>,
    key: Option<Vec<u8>>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

fn os(call: &'static str) -> impl Fn(nix::errno::Errno) -> CoreError {
    move |errno| CoreError::os(call, errno as i32)
}

impl Acceptor {
    /// Accepts at a listener; with a key, only those who have it, too.
    ///
    /// # Errors
    /// [`CoreError::Os`] where there are too many open descriptors.
    pub fn new(listener: Listener, key: Option<Vec<u8>>) -> Result<Acceptor> {
        super::raise_descriptor_limit();
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os("epoll_create1"))?;
        ready
            .add(&listener.socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .map_err(os("epoll_ctl"))?;
        Ok(Acceptor {
            open: RefCell::new(Some(Rc::new(Open {
                listener,
                ready,
                strangers: RefCell::default(),
                known: RefCell::default(),
            }))),
            key,
        })
    }

    /// The key that peers must have, if there is one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn open(&self) -> Result<Rc<Open>> {
        self.open
            .borrow()
            .clone()
            .ok_or_else(|| CoreError::Closed("listener is closed".into()))
    }

    /// The descriptor to wait for: it can be read when [`accept`](Acceptor::accept) has something to do.
    ///
    /// # Errors
    /// [`CoreError::Closed`].
    pub fn ready_fd(&self) -> Result<RawFd> {
        Ok(self.open()?.ready.0.as_raw_fd())
    }

    /// Calls `use_it` with the listening socket.
    ///
    /// # Errors
    /// [`CoreError::Closed`]; what `use_it` fails with.
    pub fn with_socket<T, E: From<CoreError>>(
        &self,
        use_it: impl FnOnce(BorrowedFd<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        use std::os::fd::AsFd;
        let open = self.open()?;
        use_it(open.listener.socket.as_fd())
    }

    /// Closes the listening socket and drops those who haven't been accepted; whether it was open.
    pub fn close(&self) -> bool {
        self.open.take().is_some()
    }

    /// Waits for the next peer: one that has shown that it has the key, if there is one.
    ///
    /// # Errors
    /// [`CoreError::Authentication`], [`crate::connection::ConnectionError::EndOfFile`]: one that hasn't shown it; it is gone, and the
    /// next call goes on with the others. [`CoreError::Closed`]; [`CoreError::Os`]; what the interrupt hook raises.
    pub fn accept(&self, position: Position) -> Result<OwnedFd> {
        loop {
            // However many strangers knock, this process can be interrupted.
            poll_interrupts()?;
            let open = self.open()?;
            let next = match &self.key {
                None => open.listener.accept()?.map(Ok),
                Some(key) => open.next(key)?,
            };
            if let Some(accepted) = next {
                return accepted;
            }
            match wait_one(
                open.ready.0.as_raw_fd(),
                libc::POLLIN,
                open.deadline(),
                position,
            ) {
                Ok(()) | Err(CoreError::Timeout) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether [`accept`](Acceptor::accept) would return at once. What has arrived at the descriptor of
    /// [`ready_fd`](Acceptor::ready_fd) is looked at; it may be a stranger's who isn't through yet. Without a key the descriptor alone tells:
    /// `None`.
    ///
    /// # Errors
    /// [`CoreError::Closed`]; [`CoreError::Os`].
    pub fn is_ready(&self) -> Result<Option<bool>> {
        let open = self.open()?;
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let next = open.next(key)?;
        let ready = next.is_some();
        open.known.replace(next);
        Ok(Some(ready))
    }
}

impl Open {
    /// A peer that has the key, or what was wrong with one; none for the time being.
    fn next(&self, key: &[u8]) -> Result<Option<Result<OwnedFd>>> {
        if let Some(known) = self.known.take() {
            return Ok(Some(known));
        }
        // In a flood of them interrupts have their turn in between.
        for _ in 0..STRANGERS {
            if let Some(peer) = self.first_ready(key) {
                return Ok(Some(peer));
            }
            match self.listener.accept()? {
                Some(socket) => self.challenge(socket)?,
                None => break,
            }
        }
        if !self.deadline().has_passed() {
            return Ok(None);
        }
        self.strangers.borrow_mut().pop_front();
        Ok(Some(Err(CoreError::Authentication(format!(
            "a peer connected and didn't authenticate itself within {} s",
            PATIENCE.as_secs()
        )))))
    }

    /// Begins the handshake with a new peer.
    fn challenge(&self, socket: OwnedFd) -> Result<()> {
        // One that has gone again already is nobody's concern.
        let Ok(handshake) = Handshake::listening(socket) else {
            return Ok(());
        };
        let mut strangers = self.strangers.borrow_mut();
        if strangers.len() == STRANGERS {
            // Closing takes it out of the epoll instance, too.
            strangers.pop_front();
        }
        self.ready
            .add(&handshake, EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .map_err(os("epoll_ctl"))?;
        strangers.push_back(Stranger {
            handshake,
            deadline: Deadline::after(PATIENCE),
        });
        Ok(())
    }

    /// The first peer whose handshake is over, well or not.
    fn first_ready(&self, key: &[u8]) -> Option<Result<OwnedFd>> {
        let mut strangers = self.strangers.borrow_mut();
        for index in 0..strangers.len() {
            let result = match strangers[index].handshake.advance(key) {
                Ok(false) => continue,
                result => result,
            };
            let stranger = strangers.remove(index)?;
            // It may be open elsewhere, after a fork: closing alone wouldn't take it out.
            let _ = self.ready.delete(&stranger.handshake);
            return Some(result.map(|_| stranger.handshake.into_socket()));
        }
        None
    }

    /// Until when the one that has been there longest may take.
    fn deadline(&self) -> Deadline {
        self.strangers
            .borrow()
            .front()
            .map_or(Deadline::NEVER, |stranger| stranger.deadline)
    }
}
