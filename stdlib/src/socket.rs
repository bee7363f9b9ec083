//! Python's `socket`: stream sockets, local and over a network.
//!
//! The core's sockets wait as everything here waits, so signals, callbacks and time limits are minded. A socket travels like a
//! connection, as a descriptor beside the message, to any process of this machine.
//!
//! Unlike Python's: `send` takes a string, too; one `recv` gives at most 1 MiB. Source: CPython Library Reference, `socket`.

use crate::address::{address_of, address_value};
use crate::api::{Call, Registry, type_name};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::{connection, core_error, handle, places, with};
use mphost_core::error::CoreError;
use mphost_core::position::Position;
use mphost_core::process::borrow_fd;
use mphost_core::socket::{self as core, Family};
use mphost_core::transport::Address;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use nix::libc;
use nix::sys::stat::fstat;
use rhai::{Blob, Dynamic, ImmutableString};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

const MODULE: &str = "socket";

/// A socket, as scripts have it.
#[derive(Clone)]
pub struct Socket(Rc<core::Socket>);

/// The numbers that scripts use by name, Linux's.
const CONSTANTS: &[(&str, i32, &str)] = &[
    (
        "AF_UNIX",
        libc::AF_UNIX,
        "Local sockets: an address is a path.",
    ),
    (
        "AF_INET",
        libc::AF_INET,
        "IPv4: an address is `[\"host\", port]`.",
    ),
    (
        "AF_INET6",
        libc::AF_INET6,
        "IPv6: an address is `[\"host\", port]`.",
    ),
    ("SOCK_STREAM", libc::SOCK_STREAM, "A stream of bytes."),
    ("SOL_SOCKET", libc::SOL_SOCKET, "Options of every socket."),
    ("IPPROTO_TCP", libc::IPPROTO_TCP, "TCP, and its options."),
    (
        "SO_REUSEADDR",
        libc::SO_REUSEADDR,
        "An address can be bound again at once.",
    ),
    (
        "SO_REUSEPORT",
        libc::SO_REUSEPORT,
        "Several sockets may listen at one port.",
    ),
    (
        "SO_KEEPALIVE",
        libc::SO_KEEPALIVE,
        "A silent peer is asked whether it is still there.",
    ),
    (
        "SO_SNDBUF",
        libc::SO_SNDBUF,
        "How much may be sent that isn't received, in bytes.",
    ),
    (
        "SO_RCVBUF",
        libc::SO_RCVBUF,
        "How much may arrive before it is received, in bytes.",
    ),
    (
        "SO_ERROR",
        libc::SO_ERROR,
        "The error that is to be reported next.",
    ),
    ("SO_TYPE", libc::SO_TYPE, "The type of the socket."),
    (
        "TCP_NODELAY",
        libc::TCP_NODELAY,
        "Small pieces are sent at once.",
    ),
    ("SHUT_RD", libc::SHUT_RD, "Nothing more is received."),
    (
        "SHUT_WR",
        libc::SHUT_WR,
        "Nothing more is sent: the other side reaches the end.",
    ),
    ("SHUT_RDWR", libc::SHUT_RDWR, "Neither."),
    (
        "SOMAXCONN",
        libc::SOMAXCONN,
        "As many waiting clients as the system allows.",
    ),
];

fn family_number(family: Family) -> i32 {
    match family {
        Family::Inet => libc::AF_INET,
        Family::Inet6 => libc::AF_INET6,
        Family::Unix => libc::AF_UNIX,
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Inet => "AF_INET",
        Family::Inet6 => "AF_INET6",
        Family::Unix => "AF_UNIX",
    }
}

impl Socket {
    fn value(socket: core::Socket) -> Dynamic {
        Dynamic::from(Socket(Rc::new(socket)))
    }

    /// The address in an argument: of this socket's family.
    fn address(&self, call: &mut Call<'_>, name: &str) -> Result<Address> {
        let value = call.take(0);
        let local = self.0.family() == Family::Unix;
        let address = match value.read_lock::<ImmutableString>() {
            Some(_) if local => address_of(&value)?,
            None if !local && value.is_array() => address_of(&value)?,
            _ => {
                let family = family_name(self.0.family());
                let form = if local { "a path" } else { "[\"host\", port]" };
                return Err(raise(
                    Kind::TypeError,
                    format!(
                        "{name}(): an {family} address is {form}, not {}",
                        type_name(&value)
                    ),
                ));
            }
        };
        Ok(address)
    }

    fn same(&self, other: &Socket) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
            || self
                .identity()
                .is_some_and(|identity| other.identity() == Some(identity))
    }

    /// Of one socket there may be many descriptors, in one process and in several.
    fn identity(&self) -> Option<(u64, u64)> {
        let status = fstat(borrow_fd(self.0.fileno().ok()?).ok()?).ok()?;
        Some((status.st_dev, status.st_ino))
    }
}

fn about(address: &Address, error: CoreError) -> Error {
    match error {
        CoreError::Os { call, errno } => {
            core_error::os(call, errno, Some(&address.to_string())).into()
        }
        other => other.into(),
    }
}

fn new(call: &mut Call<'_>) -> Result {
    let number = call.int(0).unwrap_or(i64::from(libc::AF_INET));
    let family = [Family::Inet, Family::Inet6, Family::Unix]
        .into_iter()
        .find(|family| i64::from(family_number(*family)) == number)
        .ok_or_else(|| core_error::os("socket", libc::EAFNOSUPPORT, None))?;
    if call
        .int(1)
        .is_some_and(|kind| kind != i64::from(libc::SOCK_STREAM))
    {
        return Err(raise(
            Kind::ValueError,
            "socket(): the only type there is here is socket::SOCK_STREAM",
        ));
    }
    Ok(Socket::value(core::Socket::new(family)?))
}

fn position(call: &Call<'_>) -> Position {
    places::of_call(call.ctx)
}

fn this(call: &Call<'_>) -> Rc<core::Socket> {
    call.this::<Socket>().0
}

fn int(number: usize) -> Dynamic {
    Dynamic::from(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Calls `send` with the bytes of the first argument, which isn't copied.
fn with_bytes<T>(call: &mut Call<'_>, send: impl FnOnce(&[u8]) -> T) -> T {
    let data = call.take(0);
    if let Some(text) = data.read_lock::<ImmutableString>() {
        return send(text.as_bytes());
    }
    send(
        &data
            .read_lock::<Blob>()
            .expect("the signature lets only strings and blobs through"),
    )
}

fn pair(call: &Call<'_>) -> Result<(i32, i32)> {
    let number = |index| {
        i32::try_from(call.int(index).unwrap_or(0))
            .map_err(|_| raise(Kind::OverflowError, "an option's number has 32 bits"))
    };
    Ok((number(0)?, number(1)?))
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let socket = value
        .read_lock::<Socket>()
        .expect("encoders are found by the type of the value");
    let fd = borrow_fd(socket.0.fileno()?)?;
    encoder.begin_handle(HandleKind::Socket, None, Some(fd), 1)?;
    let timeout = socket.0.timeout().map(|timeout| timeout.as_secs_f64());
    encoder.value(&timeout.map_or(Dynamic::UNIT, Dynamic::from))?;
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let malformed = || handle::malformed(HandleKind::Socket);
    let fd = decoder.fd(&head)?;
    if head.attributes != 1 {
        return Err(malformed());
    }
    let timeout = decoder.value()?;
    decoder.reader().end();
    let socket = core::Socket::from_fd(fd)?;
    if !timeout.is_unit() {
        let seconds = timeout.as_float().map_err(|_| malformed())?;
        socket.set_timeout(Some(duration(seconds).map_err(|_| malformed())?));
    }
    Ok(Socket::value(socket))
}

fn duration(seconds: f64) -> Result<Duration> {
    if seconds < 0.0 {
        return Err(raise(Kind::ValueError, "Timeout value out of range"));
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| raise(Kind::OverflowError, "timeout doesn't fit into a duration"))
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    for (name, value, doc) in CONSTANTS {
        registry.constant(MODULE, name, i64::from(*value), doc);
    }
    registry.function(
        MODULE,
        "socket(family: int = 2, type: int = 1)",
        "A new stream socket: `AF_INET` (the default), `AF_INET6` or `AF_UNIX`.\n\n\
         ```rhai\nlet server = socket::socket(socket::AF_INET, socket::SOCK_STREAM);\nserver.bind([\"127.0.0.1\", 0]);\n\
         server.listen(5);\nlet client = socket::socket();\nclient.connect(server.getsockname());\nlet conn = server.accept()[0];\n\
         client.sendall(\"hello\");\nprint(conn.recv(1024).as_string());\nconn.close();\n```",
        new,
    );
    convert::portable::<Socket>(encode);
    convert::decoder(HandleKind::Socket, decode);
    with::context::<Socket>(None, "close");
    connection::waitable::<Socket>(|value| {
        let socket = value
            .read_lock::<Socket>()
            .expect("found by the type of the value");
        Ok(socket.0.fileno()?)
    });
    connecting(registry);
    bytes(registry);
    state(registry);
}

fn connecting(registry: &mut Registry) {
    registry
        .class::<Socket>("socket")
        .method(
            "bind(address: any)",
            "Gives it an address: `[\"host\", port]` (an empty host: all of this machine's; port 0: any that is free), or a path.",
            |call| {
                let socket = call.this::<Socket>();
                let address = socket.address(call, "bind")?;
                socket.0.bind(&address).map_err(|error| about(&address, error))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "listen(backlog: int = 128)",
            "Lets others connect; `backlog` of them may wait to be accepted.",
            |call| {
                let backlog = call.int(0).unwrap_or(128).clamp(0, i64::from(i32::MAX));
                this(call).listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "accept()",
            "Waits for somebody who connects: an array of the new socket and the other's address.",
            |call| {
                let (socket, peer) = this(call).accept(position(call))?;
                Ok(Dynamic::from_array(vec![Socket::value(socket), address_value(&peer)]))
            },
        )
        .method(
            "connect(address: any)",
            "Connects to a listening socket. `ConnectionRefusedError` if there is none.",
            |call| {
                let socket = call.this::<Socket>();
                let address = socket.address(call, "connect")?;
                let connected = socket.0.connect(&address, position(call));
                connected.map_err(|error| about(&address, error))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "shutdown(how: int)",
            "Says that nothing more will be sent (`SHUT_WR`), received (`SHUT_RD`), or neither (`SHUT_RDWR`).",
            |call| {
                let how = match call.int(0).and_then(|how| i32::try_from(how).ok()) {
                    Some(libc::SHUT_RD) => Shutdown::Read,
                    Some(libc::SHUT_WR) => Shutdown::Write,
                    Some(libc::SHUT_RDWR) => Shutdown::Both,
                    _ => return Err(core_error::os("shutdown", libc::EINVAL, None).into()),
                };
                this(call).shutdown(how)?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("close()", "Closes it in this process. Again is fine.", |call| {
            this(call).close();
            Ok(Dynamic::UNIT)
        });
}

fn bytes(registry: &mut Registry) {
    registry
        .class::<Socket>("socket")
        .method(
            "send(data: bytes)",
            "Sends the bytes of a blob or a string, or some of them: how many it was.",
            |call| {
                let (socket, position) = (this(call), position(call));
                let sent = with_bytes(call, |bytes| socket.send(bytes, position))?;
                Ok(int(sent))
            },
        )
        .method("sendall(data: bytes)", "Sends all the bytes of a blob or a string.", |call| {
            let (socket, position) = (this(call), position(call));
            with_bytes(call, |bytes| socket.send_all(bytes, position))?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "recv(bufsize: int)",
            "Receives what there is, at most `bufsize` bytes, as a blob; waits for something. An empty one is the end.",
            |call| {
                let most = usize::try_from(call.int(0).unwrap_or(0))
                    .map_err(|_| raise(Kind::ValueError, "negative buffersize in recv"))?;
                Ok(Dynamic::from_blob(this(call).recv(most, position(call))?))
            },
        );
}

fn state(registry: &mut Registry) {
    registry
        .class::<Socket>("socket")
        .display(|socket| match socket.0.fileno() {
            Ok(fd) => {
                let family = family_name(socket.0.family());
                format!("<socket.socket fd={fd}, family={family}, type=SOCK_STREAM>")
            }
            Err(_) => "<socket.socket [closed]>".into(),
        })
        .equality(Socket::same)
        .method(
            "settimeout(value: seconds)",
            "How long each further operation may wait, in seconds, before it is a `TimeoutError`; `()`: for ever; 0: not at all \
             (`BlockingIOError`).",
            |call| {
                let timeout = call.number(0).map(duration).transpose()?;
                this(call).set_timeout(timeout);
                Ok(Dynamic::UNIT)
            },
        )
        .method("gettimeout()", "What `settimeout` has set.", |call| {
            let timeout = this(call).timeout();
            Ok(timeout.map_or(Dynamic::UNIT, |timeout| timeout.as_secs_f64().into()))
        })
        .method(
            "setblocking(flag: bool)",
            "`true` is `settimeout(())`, `false` is `settimeout(0)`.",
            |call| {
                let timeout = (!call.bool(0, true)).then_some(Duration::ZERO);
                this(call).set_timeout(timeout);
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "setsockopt(level: int, optname: int, value: plain)",
            "Sets an option, such as `(SOL_SOCKET, SO_REUSEADDR, 1)`.",
            |call| {
                let (level, name) = pair(call)?;
                let value = call.take(2);
                let value = match (value.as_int(), value.as_bool()) {
                    (Ok(value), _) => i32::try_from(value)
                        .map_err(|_| raise(Kind::OverflowError, "an option's value has 32 bits"))?,
                    (_, Ok(flag)) => i32::from(flag),
                    _ => {
                        let got = type_name(&value);
                        let text = format!("setsockopt(): 'value' must be a whole number or a bool, not {got}");
                        return Err(raise(Kind::TypeError, text));
                    }
                };
                this(call).set_option(level, name, value)?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("getsockopt(level: int, optname: int)", "What an option is set to.", |call| {
            let (level, name) = pair(call)?;
            Ok(i64::from(this(call).option(level, name)?).into())
        })
        .method("getsockname()", "Its own address, with the port that was chosen.", |call| {
            Ok(address_value(&this(call).local_address()?))
        })
        .method("getpeername()", "The other side's address.", |call| {
            Ok(address_value(&this(call).peer_address()?))
        })
        .method("fileno()", "The descriptor's number; -1 once it is closed.", |call| {
            Ok(this(call).fileno().map_or(-1, i64::from).into())
        })
        .getter("family", "`AF_INET`, `AF_INET6` or `AF_UNIX`.", |call| {
            Ok(i64::from(family_number(this(call).family())).into())
        })
        .getter("type", "`SOCK_STREAM`.", |_| Ok(i64::from(libc::SOCK_STREAM).into()));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] =
            &[crate::builtins::register, crate::errors::register];
        crate::testing::run_examples(others, super::register);
    }
}
