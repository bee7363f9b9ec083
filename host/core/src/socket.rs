//! Stream sockets as the system has them: bytes, no messages.
//!
//! What [connections](crate::connection) are made of, for scripts that speak somebody else's protocol. The sockets never block;
//! operations that have to wait do so as everywhere in this crate, up to the socket's own time limit.
//!
//! Invariants: methods take `&self`, since a callback that runs while one waits may close the socket, or use it; the descriptor stays
//! open for as long as an operation uses it.

use crate::clock::Deadline;
use crate::connection::socket as raw;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::sys;
use crate::transport::{Address, FULL_PAUSE, raise_descriptor_limit, resolve, wait_one, with_room};
use crate::wait::sleep;
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Type};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

/// The most bytes that one [`Socket::recv`] gives.
const PIECE: usize = 1 << 20;

/// Which kind of addresses a socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// This machine's own.
    Unix,
}

impl Family {
    fn domain(self) -> Domain {
        match self {
            Family::Inet => Domain::IPV4,
            Family::Inet6 => Domain::IPV6,
            Family::Unix => Domain::UNIX,
        }
    }
}

/// A stream socket. Python: `socket.socket`.
#[derive(Debug)]
pub struct Socket {
    socket: RefCell<Option<Rc<socket2::Socket>>>,
    family: Family,
    /// How long an operation may wait: `None` for ever, zero not at all.
    timeout: Cell<Option<Duration>>,
}

fn os(call: &'static str) -> impl Fn(io::Error) -> CoreError {
    move |error| CoreError::os(call, error.raw_os_error().unwrap_or(libc::EIO))
}

impl Socket {
    /// A new socket (socket(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: too many open descriptors.
    pub fn new(family: Family) -> Result<Socket> {
        let socket = with_room(|| socket2::Socket::new(family.domain(), Type::STREAM, None))
            .map_err(os("socket"))?;
        Socket::over(socket, family)
    }

    /// A socket that this process was given.
    ///
    /// # Errors
    /// [`CoreError::Os`]: it is no socket, or of a family that isn't known here.
    pub fn from_fd(fd: OwnedFd) -> Result<Socket> {
        let socket = socket2::Socket::from(fd);
        let domain = socket.domain().map_err(os("getsockopt"))?;
        let family = [Family::Inet, Family::Inet6, Family::Unix]
            .into_iter()
            .find(|family| family.domain() == domain)
            .ok_or_else(|| CoreError::os("getsockopt", libc::EAFNOSUPPORT))?;
        Socket::over(socket, family)
    }

    fn over(socket: socket2::Socket, family: Family) -> Result<Socket> {
        socket.set_nonblocking(true).map_err(os("fcntl"))?;
        Ok(Socket {
            socket: RefCell::new(Some(Rc::new(socket))),
            family,
            timeout: Cell::new(None),
        })
    }

    fn open(&self) -> Result<Rc<socket2::Socket>> {
        let socket = self.socket.borrow().clone();
        socket.ok_or_else(|| CoreError::os("socket", libc::EBADF))
    }

    /// Which kind of addresses it has.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The descriptor's number; it stays the socket's.
    ///
    /// # Errors
    /// EBADF once it is closed.
    pub fn fileno(&self) -> Result<RawFd> {
        Ok(self.open()?.as_raw_fd())
    }

    /// Closes it in this process. Once more is fine.
    pub fn close(&self) {
        drop(self.socket.take());
    }

    /// How long an operation may wait: `None` for ever, zero not at all.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.get()
    }

    /// Sets how long an operation may wait.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        self.timeout.set(timeout);
    }

    fn deadline(&self) -> Deadline {
        self.timeout.get().map_or(Deadline::NEVER, Deadline::after)
    }

    /// Tries until it goes, waiting for `events` in between.
    fn retry<T>(
        &self,
        call: &'static str,
        events: i16,
        deadline: Deadline,
        position: Position,
        mut attempt: impl FnMut(&socket2::Socket) -> io::Result<T>,
    ) -> Result<T> {
        loop {
            let socket = self.open()?;
            match attempt(&socket) {
                Ok(done) => return Ok(done),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !deadline.is_now() => {
                    wait_one(socket.as_raw_fd(), events, deadline, position)?;
                }
                Err(e) => return Err(os(call)(e)),
            }
        }
    }

    /// The addresses of its family that are meant.
    fn addresses(&self, address: &Address) -> Result<Vec<SockAddr>> {
        let unix = |bytes: &[u8]| {
            use std::os::unix::ffi::OsStrExt;
            let path = std::ffi::OsStr::from_bytes(bytes);
            SockAddr::unix(path).map_err(|_| CoreError::os("bind", libc::ENAMETOOLONG))
        };
        match address {
            Address::Path(path) => Ok(vec![unix(path.as_bytes())?]),
            Address::Abstract(name) => Ok(vec![unix(&[b"\0", name.as_bytes()].concat())?]),
            Address::Tcp(host, port) => {
                let inet6 = self.family == Family::Inet6;
                let host = match host.as_str() {
                    "" if inet6 => "::",
                    host => host,
                };
                let all = resolve(host, *port)?
                    .into_iter()
                    .filter(|address| address.is_ipv6() == inet6)
                    .map(SockAddr::from)
                    .collect::<Vec<_>>();
                if all.is_empty() {
                    return Err(CoreError::UnknownHost {
                        host: host.to_owned(),
                        reason: "it has no address of this family".into(),
                    });
                }
                Ok(all)
            }
        }
    }

    fn first_address(&self, address: &Address) -> Result<SockAddr> {
        let mut all = self.addresses(address)?;
        Ok(all.swap_remove(0))
    }

    /// Gives it an address (bind(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: the address is in use or isn't this machine's; [`CoreError::UnknownHost`].
    pub fn bind(&self, address: &Address) -> Result<()> {
        let address = self.first_address(address)?;
        self.open()?.bind(&address).map_err(os("bind"))
    }

    /// Lets others connect; so many may wait to be accepted (listen(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`].
    pub fn listen(&self, backlog: i32) -> Result<()> {
        raise_descriptor_limit();
        self.open()?.listen(backlog).map_err(os("listen"))
    }

    /// Waits for somebody who connects (accept(2)): the new socket and the peer's address.
    ///
    /// # Errors
    /// [`CoreError::Timeout`]; [`CoreError::Os`]; what the interrupt hook raises.
    pub fn accept(&self, position: Position) -> Result<(Socket, Address)> {
        let deadline = self.deadline();
        let (socket, peer) = loop {
            let accepted = self.retry("accept", libc::POLLIN, deadline, position, |socket| {
                socket.accept()
            });
            match accepted {
                // It went away before it was accepted.
                Err(CoreError::Os {
                    errno: libc::ECONNABORTED,
                    ..
                }) => {}
                accepted => break accepted?,
            }
        };
        Ok((Socket::over(socket, self.family)?, to_address(&peer)))
    }

    /// Connects to a listener (connect(2)).
    ///
    /// # Errors
    /// [`CoreError::Timeout`]; [`CoreError::Os`]: nobody listens there; [`CoreError::UnknownHost`]; what the interrupt hook raises.
    pub fn connect(&self, address: &Address, position: Position) -> Result<()> {
        let address = match address {
            Address::Tcp(host, port) if host.is_empty() => {
                self.first_address(&Address::Tcp("localhost".into(), *port))?
            }
            address => self.first_address(address)?,
        };
        let deadline = self.deadline();
        loop {
            let socket = self.open()?;
            let Err(error) = socket.connect(&address) else {
                return Ok(());
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EINPROGRESS | libc::EALREADY) if !deadline.is_now() => {
                    wait_one(socket.as_raw_fd(), libc::POLLOUT, deadline, position)?;
                    return match socket.take_error() {
                        Ok(None) => Ok(()),
                        Ok(Some(error)) | Err(error) => Err(os("connect")(error)),
                    };
                }
                // The listener has no room for one more, and the kernel offers nothing to wait for.
                Some(libc::EAGAIN) if !deadline.is_now() => {
                    if deadline.has_passed() {
                        return Err(CoreError::Timeout);
                    }
                    sleep(FULL_PAUSE, position)?;
                }
                _ => return Err(os("connect")(error)),
            }
        }
    }

    /// Sends some of the bytes, at least one; how many (send(2)).
    ///
    /// # Errors
    /// [`CoreError::Timeout`]; [`CoreError::Os`]: the other side is gone; what the interrupt hook raises.
    pub fn send(&self, bytes: &[u8], position: Position) -> Result<usize> {
        self.send_until(bytes, self.deadline(), position)
    }

    /// Sends all the bytes. After an error nobody knows how many have gone.
    ///
    /// # Errors
    /// As [`Socket::send`]; the time limit is for all of them together.
    pub fn send_all(&self, mut bytes: &[u8], position: Position) -> Result<()> {
        let deadline = self.deadline();
        while !bytes.is_empty() {
            let sent = self.send_until(bytes, deadline, position)?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn send_until(&self, bytes: &[u8], deadline: Deadline, position: Position) -> Result<usize> {
        self.retry("send", libc::POLLOUT, deadline, position, |socket| {
            Ok(raw::send(socket.as_fd(), &[IoSlice::new(bytes)], &[])?)
        })
    }

    /// Receives what there is, at least a byte of it and at most `most`; nothing at the end (recv(2)).
    ///
    /// # Errors
    /// [`CoreError::Timeout`]; [`CoreError::Os`]; what the interrupt hook raises.
    pub fn recv(&self, most: usize, position: Position) -> Result<Vec<u8>> {
        let room = most.min(PIECE);
        let mut bytes = Vec::new();
        if room == 0 {
            self.open()?;
            return Ok(bytes);
        }
        self.retry("recv", libc::POLLIN, self.deadline(), position, |socket| {
            // Descriptors that come along are nobody's: they are closed.
            let mut stray = Vec::new();
            let received = raw::receive(socket.as_fd(), &mut [], &mut bytes, room, &mut stray);
            match received {
                Ok(_) => Ok(()),
                Err(errno) => Err(Errno::into(errno)),
            }
        })?;
        if bytes.capacity() / 4 > bytes.len() {
            bytes.shrink_to_fit();
        }
        Ok(bytes)
    }

    /// Says that nothing more will be sent, or received, or neither (shutdown(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: it isn't connected.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.open()?.shutdown(how).map_err(os("shutdown"))
    }

    /// Its own address (getsockname(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`].
    pub fn local_address(&self) -> Result<Address> {
        let address = self.open()?.local_addr().map_err(os("getsockname"))?;
        Ok(to_address(&address))
    }

    /// The other side's address (getpeername(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: it isn't connected.
    pub fn peer_address(&self) -> Result<Address> {
        let address = self.open()?.peer_addr().map_err(os("getpeername"))?;
        Ok(to_address(&address))
    }

    /// Sets an option whose value is a number (setsockopt(2), socket(7), tcp(7)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: there is no such option.
    pub fn set_option(&self, level: i32, name: i32, value: i32) -> Result<()> {
        sys::socket::set_option(self.open()?.as_fd(), level, name, value)
    }

    /// Reads an option whose value is a number (getsockopt(2)).
    ///
    /// # Errors
    /// [`CoreError::Os`]: there is no such option.
    pub fn option(&self, level: i32, name: i32) -> Result<i32> {
        sys::socket::option(self.open()?.as_fd(), level, name)
    }
}

/// An address as the system says it; a local socket without a name has an empty path.
fn to_address(address: &SockAddr) -> Address {
    if let Some(address) = address.as_socket() {
        return match address {
            SocketAddr::V4(v4) => Address::Tcp(v4.ip().to_string(), v4.port()),
            SocketAddr::V6(v6) => Address::Tcp(v6.ip().to_string(), v6.port()),
        };
    }
    if let Some(name) = address.as_abstract_namespace() {
        return Address::Abstract(String::from_utf8_lossy(name).into_owned());
    }
    let path = address.as_pathname().map(|path| path.to_string_lossy());
    Address::Path(path.unwrap_or_default().into_owned())
}
