//! The post office: where descriptors in queue items are until somebody takes the item.
//!
//! A descriptor can't lie in shared memory; it can lie in a socket. One pair of sockets, inherited
//! by every process of the session, holds a packet for each item with descriptors, so that no process has to keep
//! them. A packet names its queue and the item's number there. Whoever reads the item looks at the packet without
//! taking it (which duplicates the descriptors: MSG_PEEK and SO_PEEK_OFF, unix(7), socket(7)), so a reader that is killed loses nothing.
//!
//! Invariant: whether a packet is still wanted follows from its queue alone: not, once the item
//! was taken, the queue is gone, or the item isn't there and nobody is putting it. So nothing about packets has to be repaired, and unwanted ones are swept
//! away by whoever comes next: descriptors don't linger, and ends of pipes are seen to close.

use crate::error::{CoreError, Result};
use crate::queue;
use crate::session::{RawHandle, Session, session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use crate::sys::memory::Shared;
use crate::sys::mutex::RobustMutex;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors in one item (SCM_MAX_FD).
pub const MOST: usize = 253;
/// The most items with descriptors that may wait in all queues; the system's limit on socket
/// buffers (net.core.wmem_max) may be lower.
pub const MOST_WAITING: u32 = 1024;
/// Bytes of a packet: key, queue, number of the item.
const PACKET: usize = 24;

/// The part of the session's header that is the post office's.
#[repr(C)]
pub(crate) struct Desk {
    mutex: RobustMutex,
    next_key: AtomicU64,
    /// Packets that may be there; 0 spares everybody else the look.
    packets: AtomicU32,
    _reserved: AtomicU32,
}
// SAFETY: repr(C), atomics and a robust mutex.
unsafe impl Shared for Desk {}

impl Desk {
    pub(crate) fn init(&self) {
        self.mutex.init();
    }
}

/// The two sockets: packets go in at the first and lie before the second.
#[derive(Debug)]
pub(crate) struct Sockets([OwnedFd; 2]);

#[derive(Debug, Clone, Copy)]
struct Packet {
    key: u64,
    queue: RawHandle,
    seq: u64,
}

impl Packet {
    fn to_bytes(self) -> [u8; PACKET] {
        let mut bytes = [0; PACKET];
        bytes[..8].copy_from_slice(&self.key.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.queue.to_u64().to_ne_bytes());
        bytes[16..].copy_from_slice(&self.seq.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PACKET]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        Self {
            key: word(0),
            queue: RawHandle::from_u64(word(8)),
            seq: word(16),
        }
    }

    fn is_wanted(self, session: &'static Session) -> bool {
        queue::has_item(session, self.queue, self.seq)
    }
}

impl Sockets {
    pub(crate) fn create() -> Result<Self> {
        let (first, second) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|e| CoreError::os("socketpair", e as i32))?;
        // As many packets as the system allows; what it grants is enough for hundreds.
        let _ = nix::sys::socket::setsockopt(&first, nix::sys::socket::sockopt::SndBuf, &(4 << 20));
        Ok(Self([first, second]))
    }

    fn send(&self, packet: Packet, fds: &[RawFd]) -> std::result::Result<(), Errno> {
        let bytes = packet.to_bytes();
        let control = [ControlMessage::ScmRights(fds)];
        sendmsg::<()>(
            self.0[0].as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &control,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(|_| ())
    }

    /// The packet at `index`, left where it is; with duplicates of its descriptors if wanted.
    fn peek(&self, index: usize, with_fds: bool) -> Result<Option<(Packet, Vec<OwnedFd>)>> {
        let offset = libc::c_int::try_from(index * PACKET).map_err(|_| CoreError::Timeout)?;
        // SAFETY: the option's value is an int that lives for the call.
        let result = unsafe {
            libc::setsockopt(
                self.0[1].as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEEK_OFF,
                (&raw const offset).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(CoreError::os_last("setsockopt(SO_PEEK_OFF)"));
        }
        self.receive(MsgFlags::MSG_PEEK, with_fds)
    }

    /// Takes the first packet away and closes what it holds.
    fn pop(&self) -> Result<()> {
        self.receive(MsgFlags::empty(), false).map(|_| ())
    }

    fn receive(&self, flags: MsgFlags, with_fds: bool) -> Result<Option<(Packet, Vec<OwnedFd>)>> {
        let mut bytes = [0; PACKET];
        let mut space = nix::cmsg_space!([RawFd; MOST]);
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let flags = flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let control = with_fds.then_some(space.as_mut_slice());
        let message = match recvmsg::<()>(self.0[1].as_raw_fd(), &mut iov, control, flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(e) => return Err(CoreError::os("recvmsg", e as i32)),
        };
        let mut fds = vec![];
        if with_fds {
            let parts = message
                .cmsgs()
                .map_err(|e| CoreError::os("recvmsg", e as i32))?;
            for part in parts {
                if let ControlMessageOwned::ScmRights(raw) = part {
                    // SAFETY: the kernel has just made these descriptors for this process.
                    fds.extend(
                        raw.into_iter()
                            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                    );
                }
            }
        }
        let whole = message.bytes == PACKET;
        if !whole {
            return Err(CoreError::Corrupt(
                "a packet of the wrong size in the post office".into(),
            ));
        }
        Ok(Some((Packet::from_bytes(&bytes), fds)))
    }

    /// All packets, without descriptors.
    fn list(&self) -> Result<Vec<Packet>> {
        let mut all = vec![];
        while let Some((packet, _)) = self.peek(all.len(), false)? {
            all.push(packet);
        }
        Ok(all)
    }

    /// Takes unwanted packets away, if `key` isn't among the first of them, wherever they stand.
    /// The desk is locked.
    fn sweep_after(&self, session: &'static Session, key: Option<u64>) -> Result<()> {
        while let Some((packet, _)) = self.peek(0, false)?.filter(|(p, _)| !p.is_wanted(session)) {
            self.pop()?;
            let packets = &session.desk().packets;
            packets.store(packets.load(SeqCst).saturating_sub(1), SeqCst);
            if key == Some(packet.key) {
                return Ok(());
            }
        }
        self.sweep(session)
    }

    /// Takes unwanted packets away. The desk is locked.
    fn sweep(&self, session: &'static Session) -> Result<()> {
        let desk = session.desk();
        let wanted: Vec<bool> = self
            .list()?
            .into_iter()
            .map(|p| p.is_wanted(session))
            .collect();
        let end = wanted.iter().rposition(|w| !w).map_or(0, |last| last + 1);
        for wanted in &wanted[..end] {
            if *wanted {
                // It stands before an unwanted one: to the end with it. Should this process be
                // killed in between, there are two of it, which does no harm.
                let Some((packet, fds)) = self.peek(0, true)? else {
                    break;
                };
                let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                if self.send(packet, &raw).is_err() {
                    return Ok(());
                }
            }
            self.pop()?;
        }
        desk.packets
            .store(wanted.iter().filter(|w| **w).count() as u32, SeqCst);
        Ok(())
    }
}

fn sockets(session: &Session) -> Result<&Sockets> {
    session.sockets().ok_or_else(|| {
        CoreError::Runtime("this process is not attached to the session's post office".into())
    })
}

/// The two descriptors that an exec'ed child must be given, for [`attach`].
///
/// # Errors
/// `Runtime` if this process has none itself.
pub fn fds() -> Result<[BorrowedFd<'static>; 2]> {
    let Sockets([first, second]) = sockets(session())?;
    Ok([first.as_fd(), second.as_fd()])
}

/// Takes over the descriptors that [`fds`] gave in the parent. After [`Session::attach`].
pub fn attach(fds: [OwnedFd; 2]) {
    session().set_sockets(Sockets(fds));
}

/// Keeps duplicates of `fds` for item number `seq` of `queue`, which is about to be put: the key
/// to find them by.
pub(crate) fn send(
    session: &'static Session,
    queue: RawHandle,
    seq: u64,
    fds: &[BorrowedFd<'_>],
) -> Result<u64> {
    let sockets = sockets(session)?;
    if fds.len() > MOST {
        return Err(CoreError::Value(format!(
            "one item holds at most {MOST} connections"
        )));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let desk = session.desk();
    let _guard = desk.mutex.lock(|| {})?;
    let key = desk.next_key.fetch_add(1, SeqCst) + 1;
    let packet = Packet { key, queue, seq };
    let attempt = || {
        if desk.packets.load(SeqCst) >= MOST_WAITING {
            return Err(Errno::EAGAIN);
        }
        desk.packets.fetch_add(1, SeqCst);
        sockets.send(packet, &raw)
    };
    let full = |e| matches!(e, Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS);
    let sent = match attempt() {
        Err(e) if full(e) => {
            sockets.sweep(session)?;
            attempt()
        }
        sent => sent,
    };
    sent.map(|()| key).map_err(|e| {
        if full(e) {
            CoreError::Runtime("too many connections wait in queues to be taken".into())
        } else {
            CoreError::os("sendmsg", e as i32)
        }
    })
}

/// Duplicates of the descriptors under `key`; they stay where they are.
pub(crate) fn look(session: &Session, key: u64) -> Result<Vec<OwnedFd>> {
    let sockets = sockets(session)?;
    let _guard = session.desk().mutex.lock(|| {})?;
    // In most cases items are taken in the order in which they were put.
    let first = sockets
        .peek(0, false)?
        .is_some_and(|(packet, _)| packet.key == key);
    let index = if first {
        Some(0)
    } else {
        sockets.list()?.iter().position(|p| p.key == key)
    };
    let found = match index {
        Some(index) => sockets.peek(index, true)?,
        None => None,
    };
    found
        .map(|(_, fds)| fds)
        .ok_or_else(|| CoreError::Corrupt("the connections of an item are lost".into()))
}

/// Closes what no item needs any more; `key` is what has just been taken, if that was the reason.
pub(crate) fn sweep(session: &'static Session, key: Option<u64>) -> Result<()> {
    let desk = session.desk();
    if desk.packets.load(SeqCst) == 0 {
        return Ok(());
    }
    let Ok(sockets) = sockets(session) else {
        return Ok(());
    };
    let _guard = desk.mutex.lock(|| {})?;
    sockets.sweep_after(session, key)
}
