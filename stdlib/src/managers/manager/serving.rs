//! The server's side: what a server process runs, and servers in a process of a script's own.

use super::{Class, MODULE, Manager};
use crate::address::{address_of, address_value};
use crate::api::{Call, Registry};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::handle::malformed;
use crate::managers::server::{Factory, Loop, Server};
use mphost_core::error::CoreError;
use mphost_core::signals;
use mphost_core::transport::{Address, Listener};
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use nix::sys::signal::Signal;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, ImmutableString, Map};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// A server that runs in the process that asked for it: what `get_server()` gives.
#[derive(Clone)]
pub(super) struct OwnServer {
    manager: Manager,
    listener: Rc<RefCell<Option<Listener>>>,
    address: Address,
}

/// The listening socket on its way to a server.
#[derive(Clone)]
pub(super) struct Socket(Rc<RefCell<Option<OwnedFd>>>);

impl Socket {
    /// The socket of a listener.
    pub(super) fn new(listener: Listener) -> Socket {
        Socket(Rc::new(RefCell::new(Some(listener.into_fd()))))
    }

    /// Closes this process's own descriptor.
    pub(super) fn close(&self) {
        self.0.take();
    }
}

impl OwnServer {
    /// Listens for a manager that isn't started; nobody is served yet.
    pub(super) fn new(manager: Manager) -> Result<OwnServer> {
        manager.check_initial()?;
        let listener = manager.bind()?;
        let address = listener.address().clone();
        manager.0.address.replace(Some(address.clone()));
        Ok(OwnServer {
            manager,
            listener: Rc::new(RefCell::new(Some(listener))),
            address,
        })
    }
}

/// The name of the function that a server process runs.
pub(super) const SERVE: &str = "__serve";

/// What the server process runs: it serves until it is told to end.
fn serve(call: &mut Call<'_>) -> Result {
    signals::ignore(Signal::SIGINT as i32)?;
    let socket = call
        .take(0)
        .try_cast::<Socket>()
        .and_then(|socket| socket.0.take());
    let socket = socket.ok_or_else(|| {
        raise(
            Kind::RuntimeError,
            "this call is made by the host itself when a server begins",
        )
    })?;
    let address = address_of(&call.take(1))?;
    let key = call.bytes(2).unwrap_or_default();
    let builtins = call.bool(3, true);
    let factories = read_factories(call.map(4));
    let initializer = call.take(5);
    let initargs = call.array(6);
    let server = Server::new(address.clone(), builtins, factories)?;
    if let Some(initializer) = initializer.try_cast::<FnPtr>() {
        let _: Dynamic = initializer.call_raw(call.ctx, None, initargs)?;
    }
    let listener = Listener::from_fd(socket, address);
    Loop::new(server, listener, key, call.ctx)?.run(|error| {
        // Ctrl-C and its like are for the process that owns the server.
        let interrupt = matches!(error, CoreError::Interrupted(_));
        if interrupt {
            drop(crate::runtime::take_raised());
        }
        interrupt
    })?;
    Ok(Dynamic::UNIT)
}

fn read_factories(map: Map) -> HashMap<ImmutableString, Factory> {
    let read = |entry: Dynamic| {
        let mut parts = entry.try_cast::<Array>()?.into_iter();
        let callable = shared_captures(parts.next()?.try_cast::<FnPtr>()?);
        let exposed = parts.next()?.try_cast::<Array>();
        let proxied = parts.next()?.try_cast::<Map>().unwrap_or_default();
        Some(Factory {
            callable,
            exposed: exposed.map(names),
            proxied: Rc::new(proxied),
        })
    };
    map.into_iter()
        .filter_map(|(name, entry)| Some((name.as_str().into(), read(entry)?)))
        .collect()
}

/// The same function with what it has captured in one place, for all its calls: as it was before it travelled.
fn shared_captures(mut callable: FnPtr) -> FnPtr {
    for captured in callable.iter_curry_mut() {
        *captured = captured.take().into_shared();
    }
    callable
}

fn names(names: Array) -> Rc<[ImmutableString]> {
    names
        .into_iter()
        .filter_map(|name| name.into_immutable_string().ok())
        .collect()
}

/// Serves in this process, until a client says that it is enough, or Ctrl-C. Python ends the process then, and so does this.
fn serve_forever(call: &mut Call<'_>) -> Result {
    let own = call.this::<OwnServer>();
    let listener = own
        .listener
        .take()
        .ok_or_else(|| raise(Kind::ProcessError, "the server has served already"))?;
    let state = &own.manager.0;
    let factories = match own.manager.factories().try_cast::<Map>() {
        Some(map) => read_factories(map),
        None => HashMap::new(),
    };
    let server = Server::new(own.address.clone(), state.class == Class::Sync, factories)?;
    let served = Loop::new(server, listener, state.key.clone(), call.ctx)
        .and_then(|mut serving| serving.run(|_| false));
    match served {
        Ok(()) => {}
        Err(Error::Core(CoreError::Interrupted(_))) => drop(crate::runtime::take_raised()),
        Err(error) => return Err(error),
    }
    if let Address::Path(path) = &own.address {
        let _ = std::fs::remove_file(path);
    }
    Err(Error::Rhai(Box::new(EvalAltResult::Exit(
        0_i64.into(),
        call.ctx.call_position(),
    ))))
}

fn encode_socket(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let socket = value
        .read_lock::<Socket>()
        .expect("encoders are found by the type of the value");
    let socket = socket.0.borrow();
    let socket = socket
        .as_ref()
        .ok_or_else(|| malformed(HandleKind::ManagerSocket))?;
    encoder.begin_handle(HandleKind::ManagerSocket, None, Some(socket.as_fd()), 0)?;
    encoder.writer().end();
    Ok(())
}

fn decode_socket(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let socket = decoder.fd(&head)?;
    decoder.reader().end();
    Ok(Dynamic::from(Socket(Rc::new(RefCell::new(Some(socket))))))
}

/// Registers what servers run, and servers in a script's own process.
pub(super) fn register(registry: &mut Registry) {
    convert::portable::<Socket>(encode_socket);
    convert::decoder(HandleKind::ManagerSocket, decode_socket);
    registry.function(
        MODULE,
        "__serve(socket: any, address: any, key: blob, builtins: bool, factories: map, initializer: any, initargs: array)",
        "The host's own.",
        serve,
    );
    registry.function(MODULE, "__done(value: any = ())", "The host's own.", |_| {
        Ok(Dynamic::UNIT)
    });
    registry
        .class::<OwnServer>("Server")
        .getter("address", "Where it listens.", |call| {
            Ok(address_value(&call.this::<OwnServer>().address))
        })
        .method(
            "serve_forever()",
            "Serves in this process until it is shut down; ends the process then.",
            serve_forever,
        );
}
