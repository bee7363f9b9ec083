//! The peers of a server as one descriptor: epoll(7).
//!
//! Problem: with poll(2) every call of one client costs a look at all of them, three times as much with a thousand clients as with one.
//!
//! Invariant: a peer is in here under its place, from when it is first watched until it is forgotten. That comes before its socket is
//! closed: a forked child may have it open too, and closing alone wouldn't take it out.

use super::peer::Peer;
use crate::error::Result;
use mphost_core::error::CoreError;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsRawFd, RawFd};

/// Those who are connected.
pub(super) struct Crowd {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

fn os(call: &'static str) -> impl Fn(Errno) -> CoreError {
    move |errno| CoreError::os(call, errno as i32)
}

impl Crowd {
    /// Nobody.
    ///
    /// # Errors
    /// `OSError` where there are no descriptors left.
    pub(super) fn new() -> Result<Crowd> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os("epoll_create1"))?;
        Ok(Crowd {
            epoll,
            events: Vec::new(),
        })
    }

    /// Can be read when somebody is ready.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// Watches a peer for what it is to be watched for now; costs nothing where that hasn't changed.
    ///
    /// # Errors
    /// `OSError` where the system watches too much already.
    pub(super) fn watch(&self, peer: &mut Peer, place: usize) -> Result<()> {
        let interest = peer.interest();
        let mut event = EpollEvent::new(interest, place as u64);
        match peer.watched {
            Some(watched) if watched == interest => return Ok(()),
            Some(_) => self.epoll.modify(peer.link.socket(), &mut event),
            None => self.epoll.add(peer.link.socket(), event),
        }
        .map_err(os("epoll_ctl"))?;
        peer.watched = Some(interest);
        Ok(())
    }

    /// Watches a peer no more.
    pub(super) fn forget(&self, peer: &Peer) {
        if peer.watched.is_some() {
            // It is in there, and nothing else can be wrong.
            let _ = self.epoll.delete(peer.link.socket());
        }
    }

    /// The places of those who are ready, `most` of them at most, and for what. Doesn't wait.
    pub(super) fn ready(&mut self, most: usize) -> Vec<(usize, EpollFlags)> {
        if self.events.len() < most {
            self.events.resize(most, EpollEvent::empty());
        }
        // Where a signal came in between, the next round finds them.
        let count = self
            .epoll
            .wait(&mut self.events, EpollTimeout::ZERO)
            .unwrap_or(0);
        self.events[..count]
            .iter()
            .map(|event| (event.data() as usize, event.events()))
            .collect()
    }
}
