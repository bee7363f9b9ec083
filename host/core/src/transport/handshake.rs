//! The mutual challenge over a socket, in CPython's framing, without ever waiting.
//!
//! [`authentication`] makes and checks the messages; here they are sent and received: each with its length in
//! front (4 bytes, most significant first), as `multiprocessing.connection` frames everything. The listening side asks
//! first.
//!
//! Invariants:
//! - No byte is read beyond the handshake, so that what follows is whole for the [connection](crate::connection) that is made of the socket.
//! - Nothing is decoded: a message has at most [`MESSAGE_LIMIT`] bytes and is compared with what it must be. Descriptors that a
//!   stranger sends along never arrive.

use crate::authentication::{self, Challenge, FAILURE, MESSAGE_LIMIT, WELCOME};
use crate::connection::{ConnectionError, socket};
use crate::error::{CoreError, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Bytes of a message's length.
const HEADER: usize = 4;

/// What a side is waiting for.
#[derive(Debug)]
enum Stage {
    /// The answer to this side's challenge.
    Answer(Challenge),
    /// The peer's challenge.
    Challenge,
    /// What the peer says of the answer.
    Verdict,
    /// Nothing: both have shown that they have the key.
    Done,
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    socket: OwnedFd,
    listening: bool,
    stage: Stage,
    /// The message that is arriving, its length included.
    input: Vec<u8>,
}

impl Handshake {
    /// The listening side's: sends its challenge.
    ///
    /// # Errors
    /// Where the peer has gone already; where the system gives no random bytes.
    pub fn listening(socket: OwnedFd) -> Result<Handshake> {
        let challenge = Challenge::new()?;
        let handshake = Handshake::new(socket, true, Stage::Challenge);
        handshake.send(challenge.message())?;
        Ok(Handshake {
            stage: Stage::Answer(challenge),
            ..handshake
        })
    }

    /// The side that has connected: it is asked first.
    #[must_use]
    pub fn connecting(socket: OwnedFd) -> Handshake {
        Handshake::new(socket, false, Stage::Challenge)
    }

    fn new(socket: OwnedFd, listening: bool, stage: Stage) -> Handshake {
        Handshake {
            socket,
            listening,
            stage,
            input: Vec::new(),
        }
    }

    /// The descriptor: it can be read when there is something to [`advance`](Handshake::advance) with.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The socket, once the handshake is over.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Does what can be done with what has arrived; whether it is over, and well.
    ///
    /// # Errors
    /// [`CoreError::Authentication`]: the peer has another key, or says what nobody says who knows this handshake;
    /// [`ConnectionError::EndOfFile`]: it hung up. The peer has been told; the socket is to be closed.
    pub fn advance(&mut self, key: &[u8]) -> Result<bool> {
        loop {
            if matches!(self.stage, Stage::Done) {
                return Ok(true);
            }
            if !self.receive()? {
                return Ok(false);
            }
            let message = std::mem::take(&mut self.input);
            self.step(key, &message[HEADER..])?;
        }
    }

    fn step(&mut self, key: &[u8], message: &[u8]) -> Result<()> {
        self.stage = match &self.stage {
            Stage::Answer(challenge) => {
                let checked = challenge.check(key, message);
                let verdict = if checked.is_ok() { WELCOME } else { FAILURE };
                // The peer may have gone: then its wrong answer is still what was wrong.
                let sent = self.send(verdict);
                checked?;
                sent?;
                if self.listening {
                    Stage::Challenge
                } else {
                    Stage::Done
                }
            }
            Stage::Challenge => {
                self.send(&authentication::answer(key, message)?)?;
                Stage::Verdict
            }
            Stage::Verdict => {
                authentication::check_welcome(message)?;
                if self.listening {
                    Stage::Done
                } else {
                    let challenge = Challenge::new()?;
                    self.send(challenge.message())?;
                    Stage::Answer(challenge)
                }
            }
            Stage::Done => Stage::Done,
        };
        Ok(())
    }

    /// How long the message that is arriving is, with its length in front; only the latter, while it hasn't arrived.
    fn wanted(&self) -> Result<usize> {
        let Some((header, _)) = self.input.split_first_chunk::<HEADER>() else {
            return Ok(HEADER);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if length > MESSAGE_LIMIT {
            return Err(CoreError::Authentication(
                "the peer doesn't speak this protocol: a message of the handshake has at most 256 bytes".into(),
            ));
        }
        Ok(HEADER + length)
    }

    /// Takes in what has arrived of the next message, and of nothing behind it; whether it is whole.
    fn receive(&mut self) -> Result<bool> {
        loop {
            let start = self.input.len();
            let wanted = self.wanted()?;
            if start == wanted {
                // A length of 0 makes a whole message, too, which is then refused: what it must be is never empty.
                return Ok(true);
            }
            self.input.resize(wanted, 0);
            let received = recv(
                self.socket.as_raw_fd(),
                &mut self.input[start..],
                MsgFlags::MSG_DONTWAIT,
            );
            self.input
                .truncate(start + received.as_ref().copied().unwrap_or(0));
            match received {
                Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ETIMEDOUT) => {
                    return Err(ConnectionError::EndOfFile.into());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(CoreError::os("recv", errno as i32)),
            }
        }
    }

    /// Sends a message. There are never more than two under way, and they are short: a peer with no room for them doesn't read.
    fn send(&self, message: &[u8]) -> Result<()> {
        debug_assert!(
            message.len() <= MESSAGE_LIMIT,
            "as long as the peer accepts"
        );
        let header = (message.len() as u32).to_be_bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(message)];
        loop {
            return match socket::send(self.socket.as_fd(), &parts, &[]) {
                Ok(sent) if sent == HEADER + message.len() => Ok(()),
                Ok(_) | Err(Errno::EAGAIN) => Err(CoreError::Authentication(
                    "the peer doesn't read what it is sent".into(),
                )),
                Err(Errno::EINTR) => continue,
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(ConnectionError::EndOfFile.into()),
                Err(errno) => Err(CoreError::os("sendmsg", errno as i32)),
            };
        }
    }
}

impl AsFd for Handshake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap()
    }

    /// Both sides in turns: what they come to.
    fn meet(ours: &[u8], theirs: &[u8]) -> (Result<bool>, Result<bool>) {
        let (a, b) = pair();
        let mut listening = Handshake::listening(a).unwrap();
        let mut connecting = Handshake::connecting(b);
        let (mut first, mut second) = (Ok(false), Ok(false));
        for _ in 0..10 {
            if first == Ok(false) {
                first = listening.advance(ours);
            }
            if second == Ok(false) {
                second = connecting.advance(theirs);
            }
        }
        (first, second)
    }

    #[test]
    fn who_has_the_key_is_let_in() {
        assert_eq!(meet(b"key", b"key"), (Ok(true), Ok(true)));
        assert_eq!(meet(b"", b""), (Ok(true), Ok(true)));
    }

    #[test]
    fn a_wrong_key_is_refused_at_both_ends() {
        let refused = |text: &str| Err(CoreError::Authentication(text.into()));
        assert_eq!(
            meet(b"key", b"kex"),
            (
                refused("digest received was wrong"),
                refused("digest sent was rejected")
            )
        );
    }

    #[test]
    fn what_follows_stays_in_the_socket() {
        let (a, b) = pair();
        let mut listening = Handshake::listening(a).unwrap();
        let mut connecting = Handshake::connecting(b);
        while !connecting.advance(b"k").unwrap() {
            let _ = listening.advance(b"k").unwrap();
        }
        let mut peer = UnixStream::from(connecting.into_socket());
        peer.write_all(b"data").unwrap();
        assert!(listening.advance(b"k").unwrap());
        drop(peer);
        let mut rest = String::new();
        UnixStream::from(listening.into_socket())
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(rest, "data");
    }

    #[test]
    fn strangers_are_told_from_peers() {
        for garbage in [
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            &[0xff; 4],
            &[0; 4],
            &[0, 0, 0, 3, 1, 2, 3],
            &[0, 0, 1, 1],
        ] {
            let (a, b) = pair();
            let mut listening = Handshake::listening(a).unwrap();
            UnixStream::from(b.try_clone().unwrap())
                .write_all(garbage)
                .unwrap();
            assert!(
                matches!(listening.advance(b"k"), Err(CoreError::Authentication(_))),
                "{garbage:?}"
            );
        }
        let (a, b) = pair();
        let mut listening = Handshake::listening(a).unwrap();
        assert_eq!(listening.advance(b"k"), Ok(false), "it says nothing");
        drop(b);
        assert_eq!(
            listening.advance(b"k"),
            Err(ConnectionError::EndOfFile.into())
        );
    }
}
