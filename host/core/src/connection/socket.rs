//! The two system calls under every connection: sendmsg and recvmsg, neither of which waits here.
//!
//! Receiving is done by hand (the one `unsafe` place of connections), for two reasons: bytes go straight into the unused capacity of the
//! caller's buffer, with no zeroing before and no copy after; and whatever happens, every descriptor that has arrived is owned
//! by somebody, marked close-on-exec from the first moment.

use std::cell::{Cell, OnceCell};
use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::DESCRIPTOR_LIMIT;

/// Room for the largest control message that the kernel delivers: SCM_MAX_FD descriptors.
const CONTROL_SPACE: usize = {
    // SAFETY: a constant function of its argument.
    unsafe { libc::CMSG_SPACE((DESCRIPTOR_LIMIT * size_of::<RawFd>()) as u32) as usize }
};

/// A buffer for control messages, aligned as they have to be.
#[repr(C)]
union Control {
    _align: libc::cmsghdr,
    bytes: [MaybeUninit<u8>; CONTROL_SPACE],
}

/// What one recvmsg has brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// How many bytes, head and body together; 0 at the end of the connection.
    pub(crate) bytes: usize,
    /// A packet was longer than head and room; the rest of it is lost.
    pub(crate) truncated: bool,
    /// Descriptors were lost, since this process may open no more.
    pub(crate) descriptors_lost: bool,
}

/// Sends what the kernel takes of `parts` at once, `fds` along with the first byte. No SIGPIPE.
///
/// # Errors
/// The system call's, EAGAIN if it would have had to wait.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[RawFd],
) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    if let ([part], []) = (parts, fds) {
        return nix::sys::socket::send(socket.as_raw_fd(), part, flags);
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() {
        &[]
    } else {
        rights.as_slice()
    };
    sendmsg::<()>(socket.as_raw_fd(), parts, control, flags, None)
}

/// Receives what is there: into `head` first, then up to `room` bytes after the end of `body`, which grows by what has come.
/// Descriptors are added to `fds`.
///
/// # Errors
/// The system call's, EAGAIN if there is nothing yet. `head`, `body` and `fds` are unchanged then.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    head: &mut [u8],
    body: &mut Vec<u8>,
    room: usize,
    fds: &mut Vec<OwnedFd>,
) -> Result<Received, Errno> {
    body.reserve(room);
    let spare = &mut body.spare_capacity_mut()[..room];
    let mut parts = [
        libc::iovec {
            iov_base: head.as_mut_ptr().cast(),
            iov_len: head.len(),
        },
        libc::iovec {
            iov_base: spare.as_mut_ptr().cast(),
            iov_len: spare.len(),
        },
    ];
    let mut control = Control {
        bytes: [MaybeUninit::uninit(); CONTROL_SPACE],
    };
    // SAFETY: msghdr is plain data, for which all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_SPACE as _;

    // SAFETY: the header names memory that is exclusively borrowed, with its true lengths, until the call returns.
    let result = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &mut header,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let bytes = usize::try_from(result).map_err(|_| Errno::last())?;
    // SAFETY: the kernel has just filled in the header and its control buffer, and nobody has taken the descriptors yet.
    unsafe { take_descriptors(&header, fds) };
    let length = body.len() + bytes.saturating_sub(head.len()).min(room);
    // SAFETY: the kernel has filled head.len() bytes of head, then this many of the body's spare capacity, which holds `room`.
    unsafe { body.set_len(length) };
    Ok(Received {
        bytes,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        descriptors_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// The first byte of the next packet, which stays there; none at the end.
///
/// # Errors
/// The system call's, EAGAIN if there is nothing.
pub(crate) fn peek(socket: BorrowedFd<'_>) -> Result<Option<u8>, Errno> {
    let mut byte = [0];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    let bytes = nix::sys::socket::recv(socket.as_raw_fd(), &mut byte, flags)?;
    Ok((bytes > 0).then_some(byte[0]))
}

/// Takes a packet that says nothing more than its first byte.
pub(crate) fn discard(socket: BorrowedFd<'_>) {
    let _ = nix::sys::socket::recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
}

/// Asks whether the other end is still there, again and again.
///
/// poll(2) takes twice the time of the cheapest system call, which epoll_wait(2) is where nothing has happened. So who asks often gets an
/// epoll instance. A forked child may go on with its copy: it watches the socket, which both have.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    epoll: OnceCell<Option<Epoll>>,
    /// How often somebody has asked.
    asked: Cell<u32>,
}

/// After so many questions an epoll instance pays …
const OFTEN: u32 = 32;
/// … if there are fewer descriptors than this. A process that has many needs the others for itself.
const FEW: RawFd = 256;

impl Watch {
    /// Whether every copy of the other end is closed, so that what is sent would reach nobody (POLLHUP).
    pub(crate) fn is_hung_up(&self, socket: BorrowedFd<'_>) -> bool {
        let asked = self.asked.get();
        if asked >= OFTEN
            && socket.as_raw_fd() < FEW
            && let Some(epoll) = self.epoll.get_or_init(|| watch(socket).ok())
        {
            let mut events = [EpollEvent::empty()];
            if let Ok(happened) = epoll.wait(&mut events, EpollTimeout::ZERO) {
                return happened > 0;
            }
        }
        self.asked.set(asked.saturating_add(1));
        let mut polled = [PollFd::new(socket, PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// An instance that tells of a socket's end, and of nothing else.
fn watch(socket: BorrowedFd<'_>) -> Result<Epoll, Errno> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(socket, EpollEvent::empty())?;
    Ok(epoll)
}

/// Makes every descriptor that a recvmsg has brought somebody's own.
///
/// # Safety
/// `header` is as a successful recvmsg left it, its control buffer still alive, and this is called once.
unsafe fn take_descriptors(header: &libc::msghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the header's control pointer and length are the kernel's, by this function's contract; likewise below for each message.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header within the buffer.
        let (level, kind, length) = unsafe {
            (
                (*message).cmsg_level,
                (*message).cmsg_type,
                (*message).cmsg_len as usize,
            )
        };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: a constant function of its argument.
            let payload = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for index in 0..payload / size_of::<RawFd>() {
                // SAFETY: the message's length covers this element; it is a new descriptor that nobody else knows of.
                fds.push(unsafe {
                    let element = libc::CMSG_DATA(message).cast::<RawFd>().add(index);
                    OwnedFd::from_raw_fd(element.read_unaligned())
                });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}
