//! One connection at the server: who is there, what it has said so far, what it waits for.
//!
//! Before a peer has shown that it has the key, its frames may have 256 bytes at most, and are compared with what they must be; nothing
//! is decoded.

use super::super::objects::{Object, Ticket};
use super::super::protocol::{MESSAGE_LIMIT, Op};
use super::{Args, ClientId, Request};
use crate::convert::{Decoder, References};
use crate::error::{Kind, Result, raise};
use mphost_core::authentication::{self, Challenge};
use mphost_core::clock::Deadline;
use mphost_core::transport::{self, Frame, Link};
use nix::sys::epoll::EpollFlags;
use nix::unistd::geteuid;
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long a peer may take to authenticate itself.
const HANDSHAKE: Duration = transport::PATIENCE;
/// Above this many unsent bytes a peer isn't read from: it asks faster than it listens.
const UNSENT_LIMIT: usize = 4 << 20;

/// How far a peer has come.
pub(super) enum Stage {
    /// It was sent our challenge.
    Challenged(Challenge),
    /// Its answer was right; its own challenge is awaited.
    Answered,
    /// It was sent the answer to its challenge; its verdict is awaited.
    Confirming,
    /// It is to say who it is.
    Welcome,
    /// It is a client.
    Ready(ClientId),
}

/// An operation that waits in its object.
pub(super) struct Parked {
    pub(super) object: Rc<RefCell<dyn Object>>,
    pub(super) deadline: Deadline,
}

/// One connection.
pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) stage: Stage,
    /// Which of its requests is under way: together with its place this makes a ticket.
    pub(super) request: u64,
    pub(super) parked: Option<Parked>,
    /// Whether it belongs to this program.
    pub(super) same_session: bool,
    pub(super) local: bool,
    of_this_user: bool,
    /// What the crowd watches it for; none before it is one of them.
    pub(super) watched: Option<EpollFlags>,
    deadline: Deadline,
}

impl Peer {
    /// A connection that was just accepted: it is challenged.
    pub(super) fn new(socket: OwnedFd) -> Result<Peer> {
        let local = transport::is_local(&socket);
        let user = local
            .then(|| transport::peer_user(socket.as_fd()))
            .flatten();
        let mut link = Link::to_stranger(socket);
        let challenge = Challenge::new()?;
        link.send(challenge.message(), &[])?;
        Ok(Peer {
            link,
            stage: Stage::Challenged(challenge),
            request: 0,
            parked: None,
            same_session: false,
            local,
            of_this_user: user == Some(geteuid().as_raw()),
            watched: None,
            deadline: Deadline::after(HANDSHAKE),
        })
    }

    /// Its number as a client, once it is one.
    pub(super) fn client(&self) -> Option<ClientId> {
        match self.stage {
            Stage::Ready(client) => Some(client),
            _ => None,
        }
    }

    /// Whether it has yet to show that it has the key, and may be anybody. A process of this user can do worse than to keep a
    /// descriptor busy for some seconds, and a program of a thousand processes may connect them all at once.
    pub(super) fn is_stranger(&self) -> bool {
        !self.of_this_user
            && matches!(
                self.stage,
                Stage::Challenged(_) | Stage::Answered | Stage::Confirming
            )
    }

    /// The ticket of its request under way.
    pub(super) fn ticket(&self, place: usize) -> Ticket {
        Ticket {
            peer: place,
            request: self.request,
        }
    }

    /// When something has to happen, if nothing else does before.
    pub(super) fn deadline(&self) -> Deadline {
        match (&self.parked, &self.stage) {
            (Some(parked), _) => parked.deadline,
            (None, Stage::Ready(_)) => Deadline::NEVER,
            (None, _) => self.deadline,
        }
    }

    /// What to wait for: whether it should be read from, and whether there is something to send.
    pub(super) fn interest(&self) -> EpollFlags {
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, self.link.unsent() < UNSENT_LIMIT);
        interest.set(EpollFlags::EPOLLOUT, self.link.unsent() > 0);
        interest
    }

    /// One step of the handshake.
    ///
    /// # Errors
    /// AuthenticationError: the connection is to be closed, after what is unsent.
    pub(super) fn authenticate(&mut self, key: &[u8], frame: &Frame) -> Result<()> {
        let body = self.link.body(frame);
        match &self.stage {
            Stage::Challenged(challenge) => {
                let checked = challenge.check(key, body);
                let verdict = if checked.is_ok() {
                    authentication::WELCOME
                } else {
                    authentication::FAILURE
                };
                self.link.send(verdict, &[])?;
                checked?;
                self.stage = Stage::Answered;
            }
            Stage::Answered => {
                let answer = authentication::answer(key, body)?;
                self.link.send(&answer, &[])?;
                self.stage = Stage::Confirming;
            }
            Stage::Confirming => {
                authentication::check_welcome(body)?;
                self.link.set_limit(MESSAGE_LIMIT);
                self.stage = Stage::Welcome;
            }
            Stage::Welcome | Stage::Ready(_) => {}
        }
        Ok(())
    }

    /// What a frame asks for. The outer error ends the connection, the inner one is the answer.
    pub(super) fn read(&self, mut frame: Frame) -> Result<Result<Request>> {
        let malformed = || raise(Kind::RuntimeError, "a malformed request");
        let fds = std::mem::take(&mut frame.fds);
        let references = if self.same_session {
            References::Adopt
        } else {
            References::Foreign
        };
        let mut decoder = Decoder::new(self.link.body(&frame), fds, references)?;
        let op = decoder
            .value()?
            .as_int()
            .ok()
            .and_then(Op::from_number)
            .ok_or_else(malformed)?;
        let object = decoder
            .value()?
            .as_int()
            .map_err(|_| malformed())?
            .cast_unsigned();
        let token = decoder.reader().next_token().map_err(|_| malformed())?;
        let mphost_core::wire::Token::Array(length) = token else {
            return Err(malformed());
        };
        let mut args = Args::new();
        for _ in 0..length {
            match decoder.value() {
                Ok(arg) => args.push(arg),
                // A function that this process doesn't know, a handle of what is gone.
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(Request { op, object, args }))
    }
}
