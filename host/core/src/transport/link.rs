//! Links: frames over a connected socket, in both directions, without waiting but where it is asked for.
//!
//! A frame is 8 bytes (the length of its body and the number of its descriptors, both 32 bits, little-endian) and its body.
//! Descriptors come with the frame's first byte, over local sockets alone.
//!
//! Invariants:
//! - Memory for a frame is reserved as its bytes arrive, not on the word of its length: never more than [`AHEAD`] times as much as has arrived. A
//!   length over the link's limit ends the link.
//! - Whatever arrives, every descriptor is owned by somebody.
//! - Frames are sent in the order given, whole, or the link is at its end.

use crate::authentication::MESSAGE_LIMIT;
use crate::clock::Deadline;
use crate::connection::{ConnectionError, DESCRIPTOR_LIMIT, socket};
use crate::error::{CoreError, Result};
use crate::patience::look_longer;
use crate::position::Position;
use crate::wait::{PollFd, WaitInfo, WaitKind, sleep_until_ready};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

const HEADER: usize = 8;
/// How much is asked for at a time, in bytes, where nothing is known of what comes.
const PIECE: usize = 16 << 10;
/// The same inside of a frame that is known to be long.
const LARGE_PIECE: usize = 256 << 10;
/// For how many times as many bytes as have arrived of a long frame room is reserved, which is filled, and costs memory, only as more arrive.
const AHEAD: usize = 16;
/// Above this capacity, in bytes, an empty buffer is given back.
const KEPT: usize = 1 << 20;

/// What [`Link::fill`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Some bytes; there may be more.
    Some,
    /// Nothing, for the time being.
    Nothing,
    /// The end: the other side has closed.
    End,
}

/// A frame that has arrived whole.
#[derive(Debug)]
pub struct Frame {
    body: Range<usize>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// One end of a connection that carries frames.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    limit: usize,
    /// How many descriptors may have arrived that no frame has taken.
    fd_limit: usize,
    input: Vec<u8>,
    /// Where in `input` the next frame begins.
    start: usize,
    fds: VecDeque<OwnedFd>,
    output: Vec<u8>,
    sent: usize,
    /// Descriptors that go with the byte of `output` at this place.
    output_fds: VecDeque<(usize, Vec<OwnedFd>)>,
}

impl Link {
    /// A link over a connected socket; bodies may have at most `limit` bytes.
    #[must_use]
    pub fn new(socket: OwnedFd, limit: usize) -> Link {
        Link {
            socket,
            limit,
            fd_limit: DESCRIPTOR_LIMIT,
            input: Vec::new(),
            start: 0,
            fds: VecDeque::new(),
            output: Vec::new(),
            sent: 0,
            output_fds: VecDeque::new(),
        }
    }

    /// A link to somebody who has yet to show that it has the key: short bodies, and no descriptors.
    #[must_use]
    pub fn to_stranger(socket: OwnedFd) -> Link {
        Link {
            fd_limit: 0,
            ..Link::new(socket, MESSAGE_LIMIT)
        }
    }

    /// From now on bodies may have at most `limit` bytes: the other side has said who it is.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.fd_limit = DESCRIPTOR_LIMIT;
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The descriptor's number, for polling.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Takes in what has arrived, once.
    ///
    /// # Errors
    /// [`CoreError::Os`]; a reset connection is an end.
    pub fn fill(&mut self) -> Result<Fill> {
        let room = self.room();
        let mut fds = Vec::new();
        let received = socket::receive(
            self.socket.as_fd(),
            &mut [],
            &mut self.input,
            room,
            &mut fds,
        );
        match received {
            Ok(received) => {
                self.fds.extend(fds);
                if self.fds.len() > self.fd_limit || received.descriptors_lost {
                    return Err(ConnectionError::Malformed.into());
                }
                Ok(if received.bytes == 0 {
                    Fill::End
                } else {
                    Fill::Some
                })
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Fill::Nothing),
            Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ETIMEDOUT) => Ok(Fill::End),
            Err(errno) => Err(CoreError::os("recvmsg", errno as i32)),
        }
    }

    /// Takes in what arrives next, once, waiting for it, and sends what is unsent meanwhile. Whatever is wrong with the link is its end.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn fill_awaited(&mut self, position: Position) -> Result<Fill> {
        loop {
            let mut events = libc::POLLIN;
            match self.flush() {
                Ok(true) => {}
                Ok(false) => events |= libc::POLLOUT,
                Err(_) => return Ok(Fill::End),
            }
            let mut look = || {
                let fill = self.fill().unwrap_or(Fill::End);
                Ok(Some(fill).filter(|fill| *fill != Fill::Nothing))
            };
            // An answer takes its time: the first look comes after a pause, if there is to be one.
            if let Some(fill) = look_longer(WaitKind::Descriptors, Deadline::NEVER, &mut look)? {
                return Ok(fill);
            }
            if let Some(fill) = look()? {
                return Ok(fill);
            }
            let info = WaitInfo::new(WaitKind::Descriptors, 0, position);
            let mut fds = [PollFd {
                fd: self.as_raw_fd(),
                events,
                revents: 0,
            }];
            sleep_until_ready(&mut fds, info, Deadline::NEVER)?;
        }
    }

    /// Makes room at the end of `input`: how much.
    fn room(&mut self) -> usize {
        if self.start == self.input.len() {
            if self.input.capacity() > KEPT {
                self.input = Vec::new();
            }
            self.input.clear();
            self.start = 0;
        } else if self.start > 0 && self.input.capacity() - self.input.len() < PIECE {
            self.input.drain(..self.start);
            self.start = 0;
        }
        match self.header() {
            Some((length, _)) if length > PIECE => {
                let arrived = self.input.len() - self.start;
                let missing = (HEADER + length).saturating_sub(arrived);
                if self.input.capacity() - self.input.len() < missing.min(LARGE_PIECE) {
                    // Where there isn't as much, `fill` asks for less.
                    let _ = self.input.try_reserve_exact(missing.min(AHEAD * arrived));
                }
                missing.clamp(1, LARGE_PIECE)
            }
            _ => PIECE,
        }
    }

    /// Length and descriptors of the frame that comes next, as far as it has arrived.
    fn header(&self) -> Option<(usize, usize)> {
        let (header, _) = self.input[self.start..].split_first_chunk::<HEADER>()?;
        let [a, b, c, d, e, f, g, h] = *header;
        let number = |bytes| u32::from_le_bytes(bytes) as usize;
        Some((number([a, b, c, d]), number([e, f, g, h])))
    }

    /// The next frame that has arrived whole. Its body stays where it is until the next [`Link::fill`].
    ///
    /// # Errors
    /// [`ConnectionError::BadMessageLength`], [`ConnectionError::Malformed`]: the link is of no use then.
    pub fn frame(&mut self) -> Result<Option<Frame>> {
        let Some((length, fds)) = self.header() else {
            return Ok(None);
        };
        if length > self.limit {
            return Err(ConnectionError::BadMessageLength.into());
        }
        if fds > DESCRIPTOR_LIMIT {
            return Err(ConnectionError::Malformed.into());
        }
        let body = self.start + HEADER..self.start + HEADER + length;
        if body.end > self.input.len() {
            return Ok(None);
        }
        // They came with the first byte, before all the others: what isn't here isn't coming.
        if fds > self.fds.len() {
            return Err(ConnectionError::Malformed.into());
        }
        self.start = body.end;
        Ok(Some(Frame {
            body,
            fds: self.fds.drain(..fds).collect(),
        }))
    }

    /// The bytes of a frame.
    ///
    /// # Panics
    /// If the link was filled since.
    #[must_use]
    pub fn body(&self, frame: &Frame) -> &[u8] {
        &self.input[frame.body.clone()]
    }

    /// Sends a frame, as much as goes at once; the rest waits for [`Link::flush`].
    ///
    /// # Errors
    /// [`ConnectionError::BrokenPipe`]; [`CoreError::Value`] for more than 4 GiB; [`CoreError::Os`].
    pub fn send(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let header = header_of(body.len(), fds.len())?;
        let mut sent = 0;
        if self.unsent() == 0 {
            let parts = [IoSlice::new(&header), IoSlice::new(body)];
            let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            sent = self.send_now(&parts, &raw)?;
            if sent == HEADER + body.len() {
                return Ok(());
            }
        }
        if sent == 0 && !fds.is_empty() {
            let copies: io::Result<Vec<OwnedFd>> =
                fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
            let copies = copies.map_err(|e| {
                CoreError::os(
                    "fcntl(F_DUPFD_CLOEXEC)",
                    e.raw_os_error().unwrap_or(libc::EIO),
                )
            })?;
            self.output_fds.push_back((self.output.len(), copies));
        }
        self.output.extend(&header[sent.min(HEADER)..]);
        self.output.extend(&body[sent.saturating_sub(HEADER)..]);
        Ok(())
    }

    /// [`Link::send`] for a long frame, of which nothing is copied if it is the only one.
    ///
    /// # Errors
    /// As there.
    pub fn send_long(&mut self, body: Vec<u8>) -> Result<()> {
        if self.unsent() > 0 {
            return self.send(&body, &[]);
        }
        let header = header_of(body.len(), 0)?;
        let sent = self.send_now(&[IoSlice::new(&header), IoSlice::new(&body)], &[])?;
        match sent.checked_sub(HEADER) {
            Some(sent) if sent == body.len() => {}
            Some(sent) => {
                self.output = body;
                self.sent = sent;
            }
            None => {
                self.output.extend(&header[sent..]);
                self.output.extend(&body);
            }
        }
        Ok(())
    }

    /// Puts a frame behind what is unsent already, without sending: it goes with the next one.
    pub fn enqueue(&mut self, body: &[u8]) {
        debug_assert!(body.len() < 1 << 16, "what is put off is small");
        self.output.extend((body.len() as u32).to_le_bytes());
        self.output.extend(0_u32.to_le_bytes());
        self.output.extend(body);
    }

    /// Sends what is unsent, as much as goes at once; whether nothing is left.
    ///
    /// # Errors
    /// [`ConnectionError::BrokenPipe`]; [`CoreError::Os`].
    pub fn flush(&mut self) -> Result<bool> {
        while self.sent < self.output.len() {
            let mut fds = Vec::new();
            let mut end = self.output.len();
            if let Some((at, first)) = self.output_fds.front() {
                if *at == self.sent {
                    fds = first.iter().map(AsRawFd::as_raw_fd).collect();
                    end = self.output_fds.get(1).map_or(end, |(at, _)| *at);
                } else {
                    end = *at;
                }
            }
            let sent = self.send_now(&[IoSlice::new(&self.output[self.sent..end])], &fds)?;
            if sent == 0 {
                return Ok(false);
            }
            if !fds.is_empty() {
                self.output_fds.pop_front();
            }
            self.sent += sent;
        }
        if self.output.capacity() > KEPT {
            self.output = Vec::new();
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }

    /// How many bytes went; 0 if none can for the time being.
    fn send_now(&self, parts: &[IoSlice<'_>], fds: &[RawFd]) -> Result<usize> {
        loop {
            return match socket::send(self.socket.as_fd(), parts, fds) {
                Ok(sent) => Ok(sent),
                Err(Errno::EAGAIN) => Ok(0),
                Err(Errno::EINTR) => continue,
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(ConnectionError::BrokenPipe.into()),
                Err(errno) => Err(CoreError::os("sendmsg", errno as i32)),
            };
        }
    }
}

/// What stands before a body.
fn header_of(length: usize, fds: usize) -> Result<[u8; HEADER]> {
    let length = u32::try_from(length)
        .map_err(|_| CoreError::Value("a message may have at most 4 GiB".into()))?;
    if fds > DESCRIPTOR_LIMIT {
        return Err(ConnectionError::TooManyDescriptors(fds).into());
    }
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&(fds as u32).to_le_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair(limit: usize) -> (Link, Link) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        (Link::new(a, limit), Link::new(b, limit))
    }

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let (mut a, mut b) = pair(1 << 24);
        let bodies = [
            vec![],
            vec![1; 5],
            vec![2; 3 << 20],
            vec![3],
            vec![4; 70_000],
        ];
        for (n, body) in bodies.iter().enumerate() {
            match n % 2 {
                0 => a.send(body, &[]).unwrap(),
                _ => a.send_long(body.clone()).unwrap(),
            }
        }
        a.enqueue(b"late");
        let mut seen = Vec::new();
        while seen.len() < bodies.len() + 1 {
            a.flush().unwrap();
            b.fill().unwrap();
            while let Some(frame) = b.frame().unwrap() {
                seen.push(b.body(&frame).to_vec());
            }
        }
        assert_eq!(&seen[..bodies.len()], &bodies[..]);
        assert_eq!(seen[bodies.len()], b"late");
        assert_eq!(b.fill().unwrap(), Fill::Nothing);
        drop(a);
        assert_eq!(b.fill().unwrap(), Fill::End);
    }

    #[test]
    fn descriptors_come_with_their_own_frame() {
        let (mut a, mut b) = pair(1 << 24);
        let file = std::fs::File::open("/dev/null").unwrap();
        // The second and the last have to wait behind a long one.
        a.send(&vec![0; 1 << 20], &[]).unwrap();
        a.send(b"one", &[file.as_fd()]).unwrap();
        a.send(b"none", &[]).unwrap();
        a.send(b"two", &[file.as_fd(), file.as_fd()]).unwrap();
        a.send_long(vec![0; 1 << 20]).unwrap();
        a.send(b"three", &[file.as_fd()]).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 6 {
            a.flush().unwrap();
            b.fill().unwrap();
            while let Some(frame) = b.frame().unwrap() {
                seen.push((b.body(&frame).len(), frame.fds.len()));
            }
        }
        let long = (1 << 20, 0);
        assert_eq!(seen, [long, (3, 1), (4, 0), (3, 2), long, (5, 1)]);
    }

    #[test]
    fn a_long_frame_goes_from_where_it_is() {
        let (mut a, mut b) = pair(1 << 24);
        let file = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..2 {
            let body = vec![7; 1 << 20];
            let place = body.as_ptr();
            a.send_long(body).unwrap();
            assert_eq!(a.output.as_ptr(), place);
            // What comes behind it is sent behind it.
            a.send(b"one", &[file.as_fd()]).unwrap();
            let mut seen = Vec::new();
            while seen.len() < 2 {
                a.flush().unwrap();
                b.fill().unwrap();
                while let Some(frame) = b.frame().unwrap() {
                    seen.push((b.body(&frame).to_vec(), frame.fds.len()));
                }
            }
            assert_eq!(seen, [(vec![7; 1 << 20], 0), (b"one".to_vec(), 1)]);
        }
    }

    #[test]
    fn a_stranger_brings_no_descriptors() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let (mut a, mut b) = (Link::new(a, 100), Link::to_stranger(b));
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(b"first", &[]).unwrap();
        b.fill().unwrap();
        assert!(b.frame().unwrap().is_some());
        a.send(b"take this", &[file.as_fd()]).unwrap();
        assert!(b.fill().is_err());
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body_comes() {
        let (mut a, mut b) = pair(100);
        a.set_limit(1 << 20);
        a.send(&[0; 101], &[]).unwrap();
        b.fill().unwrap();
        assert_eq!(
            b.frame().unwrap_err(),
            CoreError::Connection(ConnectionError::BadMessageLength)
        );
        let (mut a, mut b) = pair(100);
        a.output.extend([1, 0, 0, 0, 9, 0, 0, 0, 7]);
        a.flush().unwrap();
        b.fill().unwrap();
        assert!(b.frame().is_err(), "descriptors that never came");
    }
}
