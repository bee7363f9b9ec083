//! `mp::connection::Listener` and `Client`: connections by address, local or over a network.
//!
//! Who connects with a key has to show it, and so has the listener (the core's [`Acceptor`]); without one anybody is let in, as in Python.
//! Source: CPython Library Reference, "Listeners and Clients" and "Authentication keys".
//!
//! Invariant: the file of a local socket with a path goes with its listener, and at the latest when the process ends that made it.
//! An address that nobody has chosen is a name without a file.

use super::{Connection, waitable_by_look};
use crate::address::{address_of, address_value};
use crate::api::{Call, Registry};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::{core_error, handle, places, with};
use mphost_core::clock::Deadline;
use mphost_core::connection as core;
use mphost_core::error::CoreError;
use mphost_core::transport::{self, Acceptor, Address};
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use nix::sys::stat::fstat;
use rhai::{Blob, Dynamic};
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// CPython's default.
const BACKLOG: i64 = 1;

/// A listening socket, as scripts have it.
#[derive(Clone)]
struct Listener(Rc<State>);

struct State {
    acceptor: Acceptor,
    address: Address,
    last_accepted: RefCell<Dynamic>,
    /// The process that made the socket, and its file.
    owner: u32,
}

thread_local! {
    /// The listeners of this process whose addresses are files.
    static FILES: RefCell<Vec<Weak<State>>> = const { RefCell::new(Vec::new()) };
}

/// Closes the listeners that would leave a file behind: at the end of the process.
pub(crate) fn close_all() {
    for state in FILES.take().iter().filter_map(Weak::upgrade) {
        state.close();
    }
}

/// In a forked child: the files are the parent's.
pub(crate) fn forget_parent() {
    FILES.with_borrow_mut(Vec::clear);
}

impl State {
    fn close(&self) {
        let was_open = self.acceptor.close();
        if let Address::Path(path) = &self.address
            && was_open
            && self.owner == std::process::id()
        {
            // It is all the same if somebody has removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether the family that a script names, of which the address must be, is that of networks.
fn family(call: &Call<'_>, index: usize, address: Option<&Address>) -> Result<Option<bool>> {
    let Some(family) = call.string(index) else {
        return Ok(None);
    };
    let network = match family.as_str() {
        "AF_INET" => true,
        "AF_UNIX" => false,
        _ => {
            return Err(raise(
                Kind::ValueError,
                format!("Family {family} is not recognized: 'AF_INET' and 'AF_UNIX' are"),
            ));
        }
    };
    match address {
        Some(address) if matches!(address, Address::Tcp(..)) != network => Err(raise(
            Kind::ValueError,
            format!("the address {address} isn't of the family {family}"),
        )),
        _ => Ok(Some(network)),
    }
}

/// A failure with the address that it was about.
fn about(address: &Address, error: CoreError) -> Error {
    match error {
        CoreError::Os { call, errno } => {
            core_error::os(call, errno, Some(&address.to_string())).into()
        }
        other => other.into(),
    }
}

fn listen(call: &mut Call<'_>) -> Result {
    let address = call.peek(0).map(address_of).transpose()?;
    let network = family(call, 1, address.as_ref())?;
    let backlog = call.int(2).unwrap_or(BACKLOG);
    let backlog = i32::try_from(backlog.clamp(0, i64::from(i32::MAX))).unwrap_or(i32::MAX);
    let key = call.has(3).then(|| call.bytes(3)).flatten();
    let address = match (address, network) {
        (Some(address), _) => address,
        (None, Some(true)) => Address::Tcp("localhost".into(), 0),
        (None, _) => Address::random()?,
    };
    let listener =
        transport::Listener::bind(&address, backlog).map_err(|error| about(&address, error))?;
    let address = listener.address().clone();
    let state = Rc::new(State {
        acceptor: Acceptor::new(listener, key)?,
        address,
        last_accepted: RefCell::default(),
        owner: std::process::id(),
    });
    if matches!(state.address, Address::Path(_)) {
        FILES.with_borrow_mut(|files| {
            files.retain(|listener| listener.strong_count() > 0);
            files.push(Rc::downgrade(&state));
        });
    }
    Ok(Dynamic::from(Listener(state)))
}

fn connect(call: &mut Call<'_>) -> Result {
    let address = address_of(&call.take(0))?;
    family(call, 1, Some(&address))?;
    let position = places::of_call(call.ctx);
    let key = call.has(2).then(|| call.bytes(2)).flatten();
    let connected = match key {
        None => transport::connect(&address, Deadline::NEVER, position),
        Some(key) => transport::connect_with_key(&address, &key, position),
    };
    let socket = connected.map_err(|error| about(&address, error))?;
    Ok(Connection::new(core::Connection::from_stream_fd(socket)).value())
}

fn accept(call: &mut Call<'_>) -> Result {
    let state = call.this::<Listener>().0;
    let socket = state
        .acceptor
        .accept(places::of_call(call.ctx))
        .map_err(|error| about(&state.address, error))?;
    let peer = transport::peer_address(&socket);
    // Clients in the local domain have no address: Python says so with an empty one.
    let peer = peer.as_ref().map_or_else(|| "".into(), address_value);
    *state.last_accepted.borrow_mut() = peer;
    Ok(Connection::new(core::Connection::from_stream_fd(socket)).value())
}

/// Whether both are the same socket, by whatever road they came.
fn same(a: &Listener, b: &Listener) -> bool {
    let identity = |listener: &Listener| {
        let identify = |socket: std::os::fd::BorrowedFd<'_>| {
            let status = fstat(socket).map_err(|errno| CoreError::os("fstat", errno as i32))?;
            Ok::<_, CoreError>((status.st_dev, status.st_ino))
        };
        listener.0.acceptor.with_socket(identify).ok()
    };
    Rc::ptr_eq(&a.0, &b.0) || identity(a).is_some_and(|one| identity(b) == Some(one))
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let listener = value
        .read_lock::<Listener>()
        .expect("encoders are found by the type of the value");
    let state = &listener.0;
    state
        .acceptor
        .with_socket(|socket| encoder.begin_handle(HandleKind::Listener, None, Some(socket), 2))?;
    encoder.value(&address_value(&state.address))?;
    let key = state.acceptor.key();
    encoder.value(&key.map_or(Dynamic::UNIT, |key| Dynamic::from_blob(key.to_vec())))?;
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let socket = decoder.fd(&head)?;
    let (address, key) = (decoder.value()?, decoder.value()?);
    if head.attributes != 2 {
        return Err(handle::malformed(HandleKind::Listener));
    }
    decoder.reader().end();
    let address = address_of(&address)?;
    let listener = transport::Listener::from_fd(socket, address.clone());
    Ok(Dynamic::from(Listener(Rc::new(State {
        acceptor: Acceptor::new(listener, key.try_cast::<Blob>())?,
        address,
        last_accepted: RefCell::default(),
        // Whoever made it removes its file.
        owner: 0,
    }))))
}

/// The state behind a value, of which `wait` knows already that it is a listener.
fn of(value: &Dynamic) -> Rc<State> {
    let listener = value.read_lock::<Listener>();
    listener.expect("found by the type of the value").0.clone()
}

/// Registers listeners and clients.
pub(super) fn register(registry: &mut Registry) {
    registry.function(
        "mp::connection",
        "Listener(address: plain = (), family: string = (), backlog: int = 1, authkey: bytes = ())",
        "Listens for clients, of this program or any other.\n\n\
         - `address`: `[\"host\", port]` (an empty host: all of this machine's addresses; port 0: any that is free) or the path of a \
         local socket, with `@` in front a name that is no file; left out: such a name that nobody can guess.\n\
         - `family`: `\"AF_INET\"` or `\"AF_UNIX\"`, which an address tells by itself.\n\
         - `backlog`: how many clients may wait to be accepted.\n\
         - `authkey`: only who has the same key is let in; the key itself never travels.\n\n\
         ```rhai\nlet listener = mp::connection::Listener(#{authkey: \"secret\"});\nprint(listener.address);\nlistener.close();\n```",
        listen,
    );
    registry.function(
        "mp::connection",
        "Client(address: plain, family: string = (), authkey: bytes = ())",
        "Connects to a listener; gives a connection. With `authkey` both sides show that they have the same key, else both raise an \
         `AuthenticationError`.\n\n```rhai\nlet listener = mp::connection::Listener();\nlet client = mp::connection::Client(listener.address);\n\
         let served = listener.accept();\nclient.send([1729, \"text\"]);\nprint(served.recv());\n```",
        connect,
    );
    convert::portable::<Listener>(encode);
    convert::decoder(HandleKind::Listener, decode);
    with::context::<Listener>(None, "close");
    // A stranger that says nothing isn't worth a call of accept, which would wait for somebody else.
    waitable_by_look::<Listener>(
        |value| Ok(of(value).acceptor.ready_fd()?),
        |value, _| Ok(of(value).acceptor.is_ready()?),
    );
    registry
        .class::<Listener>("Listener")
        .display(|listener| {
            let address = &listener.0.address;
            format!("<multiprocessing.connection.Listener at '{address}'>")
        })
        .equality(same)
        .method(
            "accept()",
            "Waits for a client and gives the connection to it. One with a wrong key is an `AuthenticationError`, as is one that \
             says nothing for 10 seconds, during which others are let in; the listener goes on.",
            accept,
        )
        .method(
            "close()",
            "Closes it in this process; the file of a local socket goes with the listener that made it. Again is fine.",
            |call| {
                call.this::<Listener>().0.close();
                Ok(Dynamic::UNIT)
            },
        )
        .getter("address", "Where it listens, with the port that was chosen.", |call| {
            Ok(address_value(&call.this::<Listener>().0.address))
        })
        .getter(
            "last_accepted",
            "The address of the client that was accepted last: `[\"host\", port]`, `\"\"` for a local one, `()` before the first.",
            |call| Ok(call.this::<Listener>().0.last_accepted.borrow().clone()),
        );
}
