//! Transport for servers and their clients: addresses, listening, connecting, and [`Link`]s that never wait.
//!
//! A manager's server talks to many clients with one thread, so nothing here blocks but [`connect`], which waits as everything in
//! this crate waits. What is sent over a link is opaque bytes in frames; who is at the other end is for
//! [authentication](crate::authentication) to find out.
//!
//! Invariant: a local server leaves nothing behind. Its address is a name in the abstract namespace (man page unix(7)), which ends
//! with its last descriptor, unless the caller asks for a path.

mod acceptor;
mod address;
mod handshake;
mod limit;
mod link;

pub use acceptor::{Acceptor, PATIENCE, STRANGERS};
pub use address::Address;
pub use handshake::Handshake;
pub use limit::raise_descriptor_limit;
pub(crate) use limit::{restore_descriptor_limit, with_room};
pub use link::{Fill, Frame, Link};

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::wait::{WaitInfo, WaitKind, sleep, wait_fds};
use interprocess::ConnectWaitMode;
use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, GenericNamespaced, ListenerNonblockingMode, ListenerOptions,
    Name, ToFsName, ToNsName,
};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A socket that others can connect to.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Address,
}

impl Listener {
    /// Listens at `address`; a port of 0 becomes a free one. Up to `backlog` clients may wait to be accepted (as far as the system
    /// allows; a local listener takes the system's own limit).
    ///
    /// # Errors
    /// [`CoreError::Os`]: the address is in use or isn't this machine's, its path can't be made.
    pub fn bind(address: &Address, backlog: i32) -> Result<Listener> {
        let socket = match address {
            Address::Tcp(host, port) => return Self::bind_tcp(host, *port, backlog),
            Address::Abstract(_) | Address::Path(_) => {
                let listener = ListenerOptions::new()
                    .name(local_name(address)?)
                    .nonblocking(ListenerNonblockingMode::Accept)
                    .reclaim_name(false)
                    .create_sync()
                    .map_err(|e| os("bind", &e))?;
                match listener {
                    interprocess::local_socket::Listener::UdSocket(listener) => listener.into(),
                }
            }
        };
        Ok(Listener {
            socket,
            address: address.clone(),
        })
    }

    fn bind_tcp(host: &str, port: u16, backlog: i32) -> Result<Listener> {
        let bound = resolve(host, port)?
            .into_iter()
            .map(|address| listen_tcp(address, backlog).map_err(|e| os("bind", &e)))
            .reduce(|first, next| first.or(next));
        let (socket, port) = bound.unwrap_or_else(|| Err(CoreError::os("bind", libc::EINVAL)))?;
        Ok(Listener {
            socket,
            address: Address::Tcp(host.to_owned(), port),
        })
    }

    /// A listener that this process was given.
    #[must_use]
    pub fn from_fd(socket: OwnedFd, address: Address) -> Listener {
        Listener { socket, address }
    }

    /// The socket itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The descriptor: it can be read when a client waits.
    #[must_use]
    pub fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// The next client that waits, if there is one.
    ///
    /// # Errors
    /// [`CoreError::Os`]: there are too many open descriptors.
    pub fn accept(&self) -> Result<Option<OwnedFd>> {
        use nix::sys::socket::{SockFlag, accept4};
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.socket.as_raw_fd(), flags) {
            Ok(fd) => {
                let socket = crate::sys::process::take_fd(fd);
                tune(&socket);
                Ok(Some(socket))
            }
            // Clients that went away before they were accepted are nobody's concern.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(CoreError::os("accept", errno as i32)),
        }
    }
}

/// The longest path or name of a local socket, in bytes (sun_path in unix(7), with its NUL).
const PATH_LIMIT: usize = 107;

fn local_name(address: &Address) -> Result<Name<'_>> {
    if let Address::Path(text) | Address::Abstract(text) = address
        && text.len() > PATH_LIMIT
    {
        return Err(CoreError::os("bind", libc::ENAMETOOLONG));
    }
    match address {
        Address::Abstract(name) => name.as_str().to_ns_name::<GenericNamespaced>(),
        Address::Path(path) => path.as_str().to_fs_name::<GenericFilePath>(),
        Address::Tcp(..) => Err(io::ErrorKind::Unsupported.into()),
    }
    .map_err(|e| CoreError::Value(format!("'{address}' can't be the address of a socket: {e}")))
}

pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let all = (host, port)
        .to_socket_addrs()
        .map_err(|e| CoreError::UnknownHost {
            host: host.to_owned(),
            reason: reason(&e),
        })?;
    Ok(all.collect())
}

/// Why a name has no address, without the library's words around it.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once("failed to lookup address information: ") {
        Some((_, reason)) => reason.to_owned(),
        None => text,
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = with_room(|| Socket::new(Domain::for_address(address), Type::STREAM, None))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen_tcp(address: SocketAddr, backlog: i32) -> io::Result<(OwnedFd, u16)> {
    let socket = tcp_socket(address)?;
    // A server that starts anew at its old port needn't wait until old connections are forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    let port = socket
        .local_addr()?
        .as_socket()
        .map_or(address.port(), |bound| bound.port());
    Ok((socket.into(), port))
}

/// How long a network connection may be silent before the kernel asks whether the other machine is still there, and how often it asks
/// before it gives up.
const SILENCE: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_secs(5);
const ASK_TIMES: u32 = 3;

/// Small requests and their answers shall not wait for each other's acknowledgement, and nobody shall wait for ever for a machine that was
/// switched off (tcp(7): TCP_NODELAY, TCP_KEEPIDLE and its kin). Not TCP_USER_TIMEOUT: it ends connections whose other side is there and
/// busy, too.
fn tune(socket: &OwnedFd) {
    if is_local(socket) {
        return;
    }
    let socket = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(ASK_AGAIN)
        .with_retries(ASK_TIMES);
    // All of it is for the better only: a system that refuses goes on without.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// The address of the other end of a network connection; `None` in the local domain, where clients have none.
#[must_use]
pub fn peer_address(socket: &OwnedFd) -> Option<Address> {
    let peer = socket2::SockRef::from(socket).peer_addr().ok()?;
    let peer = peer.as_socket()?;
    Some(Address::Tcp(peer.ip().to_string(), peer.port()))
}

/// Whether a connected socket is of the local domain: then descriptors can travel over it.
#[must_use]
pub fn is_local(socket: &OwnedFd) -> bool {
    getsockname::<SockaddrStorage>(socket.as_raw_fd())
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix))
}

/// Connects to a listener. Waits at most until `deadline`.
///
/// # Errors
/// [`CoreError::Os`]: nobody listens there (ECONNREFUSED, ENOENT); [`CoreError::Timeout`]; what the interrupt hook raises.
pub fn connect(address: &Address, deadline: Deadline, position: Position) -> Result<OwnedFd> {
    match address {
        Address::Tcp(host, port) => connect_tcp(host, *port, deadline, position),
        Address::Abstract(_) | Address::Path(_) => connect_local(address, deadline, position),
    }
}

/// Connects to a listener that asks for a key, and has it show that it has it, too. Waits as long as the listener takes: it may be
/// busy with others.
///
/// # Errors
/// As [`connect`]; [`CoreError::Authentication`]: one of the two has another key;
/// [`crate::connection::ConnectionError::EndOfFile`]: the listener hung up.
pub fn connect_with_key(address: &Address, key: &[u8], position: Position) -> Result<OwnedFd> {
    let mut handshake = Handshake::connecting(connect(address, Deadline::NEVER, position)?);
    while !handshake.advance(key)? {
        wait_one(
            handshake.as_raw_fd(),
            libc::POLLIN,
            Deadline::NEVER,
            position,
        )?;
    }
    Ok(handshake.into_socket())
}

/// How long a client waits before it asks again where the listener has no room for one more.
pub(crate) const FULL_PAUSE: Duration = Duration::from_millis(2);

fn connect_local(address: &Address, deadline: Deadline, position: Position) -> Result<OwnedFd> {
    loop {
        let name = local_name(address)?;
        let connected = with_room(|| {
            ConnectOptions::new()
                .name(name.borrow())
                .wait_mode(ConnectWaitMode::Deferred)
                .nonblocking_stream(true)
                .connect_sync()
        });
        match connected {
            Ok(interprocess::local_socket::Stream::UdSocket(stream)) => return Ok(stream.into()),
            // The kernel offers nothing to wait for here.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if deadline.has_passed() {
                    return Err(CoreError::Timeout);
                }
                sleep(FULL_PAUSE, position)?;
            }
            Err(e) => return Err(os("connect", &e)),
        }
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Deadline, position: Position) -> Result<OwnedFd> {
    let host = if host.is_empty() { "localhost" } else { host };
    let mut last = CoreError::os("connect", libc::ECONNREFUSED);
    for address in resolve(host, port)? {
        let socket = tcp_socket(address).map_err(|e| os("socket", &e))?;
        let result = match socket.connect(&address.into()) {
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {
                wait_one(socket.as_raw_fd(), libc::POLLOUT, deadline, position)?;
                match socket.take_error() {
                    Ok(None) => Ok(()),
                    Ok(Some(e)) | Err(e) => Err(e),
                }
            }
            other => other,
        };
        match result {
            Ok(()) => {
                let socket = socket.into();
                tune(&socket);
                return Ok(socket);
            }
            Err(e) => last = os("connect", &e),
        }
    }
    Err(last)
}

/// Waits until a descriptor has one of `events` (poll(2)), an error or its end.
///
/// # Errors
/// [`CoreError::Timeout`]; what the interrupt hook raises.
pub fn wait_one(fd: i32, events: i16, deadline: Deadline, position: Position) -> Result<()> {
    let mut fds = [libc::pollfd {
        fd,
        events,
        revents: 0,
    }];
    let info = WaitInfo::new(WaitKind::Descriptors, 0, position);
    match wait_fds(&mut fds, info, deadline)? {
        0 => Err(CoreError::Timeout),
        _ => Ok(()),
    }
}

/// The effective user at the other end of a local connection, as the kernel knows it (SO_PEERCRED, man page unix(7)).
#[must_use]
pub fn peer_user(socket: BorrowedFd<'_>) -> Option<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(&socket, PeerCredentials)
        .ok()
        .map(|peer| peer.uid())
}

fn os(call: &'static str, error: &io::Error) -> CoreError {
    CoreError::os(call, error.raw_os_error().unwrap_or(libc::EIO))
}
