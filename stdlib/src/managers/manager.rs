//! Manager objects: the life of a server process, and what it makes.
//!
//! The listening socket is made here, before the server starts, and given to it: so its address is known at once, nobody has to
//! wait for a file to appear, and an address in use is an error of `start()`.

use super::client::{self, Client};
use super::protocol::{Op, Tag};
use super::proxies::{items, pairs};
use super::proxy::{address_of, address_value};
use super::server::{Factory, Loop, Server};
use crate::api::{Call, Registry, native_name};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::handle::malformed;
use crate::process::{self, Blueprint, Process};
use crate::{context, places, with};
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::position::Position;
use mphost_core::process::Method;
use mphost_core::signals;
use mphost_core::transport::{Address, Listener};
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use nix::sys::signal::Signal;
use rhai::{Array, Blob, Dynamic, EvalAltResult, FnPtr, ImmutableString, Map, NativeCallContext};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How many clients may wait to be accepted, CPython's number.
const BACKLOG: i32 = 128;
/// How long a server may take to end when it is told to, before it is ended: CPython's `shutdown_timeout`.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Which class of Python's a manager is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Base,
    Sync,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Base => "BaseManager",
            Class::Sync => "SyncManager",
        }
    }
}

/// What a script has registered under a name.
#[derive(Clone)]
struct Registered {
    callable: Option<FnPtr>,
    exposed: Option<Array>,
    /// Whether it is a method of the manager.
    method: bool,
}

enum Phase {
    Initial,
    Started {
        process: Process,
        client: Rc<Client>,
    },
    Connected {
        client: Rc<Client>,
    },
    Ended {
        process: Option<Process>,
    },
}

struct State {
    class: Class,
    /// Where it listens or shall listen; none: anywhere.
    address: RefCell<Option<Address>>,
    key: Vec<u8>,
    /// Whether the key is its own rather than the process's.
    own_key: bool,
    method: Option<Method>,
    registered: RefCell<HashMap<ImmutableString, Registered>>,
    phase: RefCell<Phase>,
    /// The process that made this object.
    owner: u32,
}

/// A manager, as scripts see it.
#[derive(Clone)]
pub(super) struct Manager(Rc<State>);

/// A server that runs in the process that asked for it: what `get_server()` gives.
#[derive(Clone)]
struct OwnServer {
    manager: Manager,
    listener: Rc<RefCell<Option<Listener>>>,
    address: Address,
}

/// The listening socket on its way to a server.
#[derive(Clone)]
struct Socket(Rc<RefCell<Option<OwnedFd>>>);

thread_local! {
    /// The managers whose servers this process has started.
    static STARTED: RefCell<Vec<Manager>> = const { RefCell::new(Vec::new()) };
}

/// Ends the servers that this process has started: at its end, after the children that may still use them.
pub(crate) fn shutdown_all() {
    for manager in STARTED.take() {
        // At the end of the process nobody is left to be told.
        let _ = manager.shutdown();
    }
}

/// In a forked child: the servers aren't its children.
pub(super) fn forget_parent() {
    STARTED.with_borrow_mut(|started| std::mem::forget(std::mem::take(started)));
}

impl Manager {
    fn new(class: Class, address: Option<Address>, key: Option<Vec<u8>>) -> Manager {
        Manager(Rc::new(State {
            class,
            address: RefCell::new(address),
            own_key: key.is_some(),
            key: key.unwrap_or_else(|| process::current().authkey()),
            method: context::fixed_method(),
            registered: RefCell::default(),
            phase: RefCell::new(Phase::Initial),
            owner: std::process::id(),
        }))
    }

    /// The client, once there is a server.
    fn client(&self) -> Result<Rc<Client>> {
        match &*self.0.phase.borrow() {
            Phase::Started { client, .. } | Phase::Connected { client } => Ok(client.clone()),
            Phase::Initial | Phase::Ended { .. } => {
                Err(raise(Kind::AssertionError, "server not yet started"))
            }
        }
    }

    fn check_initial(&self) -> Result<()> {
        match &*self.0.phase.borrow() {
            Phase::Initial => Ok(()),
            Phase::Started { .. } | Phase::Connected { .. } => {
                Err(raise(Kind::ProcessError, "Already started server"))
            }
            Phase::Ended { .. } => Err(raise(Kind::ProcessError, "Manager has shut down")),
        }
    }

    fn bind(&self) -> Result<Listener> {
        let address = match &*self.0.address.borrow() {
            Some(address) => address.clone(),
            None => Address::random()?,
        };
        Listener::bind(&address, BACKLOG).map_err(|error| match error {
            CoreError::Os { errno, .. } => {
                crate::core_error::os("bind", errno, Some(&address.to_string())).into()
            }
            other => other.into(),
        })
    }

    /// Python: `BaseManager.start`.
    fn start(
        &self,
        initializer: Dynamic,
        initargs: Array,
        ctx: &NativeCallContext<'_>,
    ) -> Result<()> {
        self.check_initial()?;
        if !initializer.is_unit() && !initializer.is::<FnPtr>() {
            return Err(raise(Kind::TypeError, "initializer must be a callable"));
        }
        let listener = self.bind()?;
        let address = listener.address().clone();
        let socket = Socket(Rc::new(RefCell::new(Some(listener.into_fd()))));
        let args = vec![
            Dynamic::from(socket.clone()),
            address_value(&address),
            Dynamic::from_blob(self.0.key.clone()),
            (self.0.class == Class::Sync).into(),
            self.factories(),
            initializer,
            Dynamic::from_array(initargs),
        ];
        let process = Process::new(Blueprint {
            target: convert::native_named(&native_name(MODULE, SERVE)),
            args,
            prefix: self.0.class.name(),
            daemon: Some(false),
            server: true,
            method: self.0.method,
            ..Blueprint::default()
        });
        let started = process.start(ctx);
        // The server has its own by now: ours would keep the address alive after it.
        socket.0.take();
        started?;
        if self.0.own_key {
            client::learn_key(&address, &self.0.key);
        }
        let client = Client::at(&address);
        if let Err(error) = client.try_connect(places::of_call(ctx)) {
            return Err(never_ready(&process, error));
        }
        self.0.address.replace(Some(address));
        self.0.phase.replace(Phase::Started { process, client });
        STARTED.with_borrow_mut(|started| started.push(self.clone()));
        Ok(())
    }

    /// What the server can make, for the server.
    fn factories(&self) -> Dynamic {
        let registered = self.0.registered.borrow();
        let mut map = Map::new();
        for (name, entry) in registered.iter() {
            if let Some(callable) = &entry.callable {
                let exposed = entry
                    .exposed
                    .clone()
                    .map_or(Dynamic::UNIT, Dynamic::from_array);
                map.insert(
                    name.as_str().into(),
                    Dynamic::from_array(vec![callable.clone().into(), exposed]),
                );
            }
        }
        Dynamic::from_map(map)
    }

    /// Python: `BaseManager.connect`.
    fn connect(&self, position: Position) -> Result<()> {
        self.check_initial()?;
        let address = self.0.address.borrow().clone();
        let address = address.ok_or_else(|| {
            raise(
                Kind::ValueError,
                format!(
                    "{}.connect(): there is no address to connect to",
                    self.0.class.name()
                ),
            )
        })?;
        client::learn_key(&address, &self.0.key);
        let client = Client::at(&address);
        client.try_connect(position)?;
        self.0.phase.replace(Phase::Connected { client });
        Ok(())
    }

    /// Ends the server, if this process has started it. Again is fine.
    fn shutdown(&self) -> Result<()> {
        if self.0.owner != std::process::id() {
            return Ok(());
        }
        let (process, client) = match &*self.0.phase.borrow() {
            Phase::Started { process, client } => (process.clone(), client.clone()),
            _ => return Ok(()),
        };
        self.0.phase.replace(Phase::Ended {
            process: Some(process.clone()),
        });
        STARTED
            .with_borrow_mut(|started| started.retain(|manager| !Rc::ptr_eq(&manager.0, &self.0)));
        if process.is_alive() {
            // It may have ended in this moment: what matters is seen below.
            let _ = ask(&client, Op::Shutdown, "", &[], Position::NONE);
        }
        client.disconnect();
        end(&process)?;
        if let Address::Path(path) = client.address() {
            // The server's socket file; it is all the same if somebody has removed it.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Has the server make an object.
    fn create(&self, typeid: &str, args: &[Dynamic], position: Position) -> Result {
        ask(&self.client()?, Op::Create, typeid, args, position)
    }

    fn has(&self, typeid: &str) -> bool {
        self.0.class == Class::Sync || self.0.registered.borrow().contains_key(typeid)
    }
}

/// A request to the server itself.
fn ask(client: &Rc<Client>, op: Op, typeid: &str, args: &[Dynamic], position: Position) -> Result {
    client.request(
        position,
        |encoder| {
            let nested = "one level is never too deep";
            encoder.writer().int(op as i64);
            encoder.writer().int(0);
            encoder.writer().begin_array(1 + args.len()).expect(nested);
            encoder.writer().str(typeid);
            for (index, arg) in args.iter().enumerate() {
                encoder.value_at(&format!("args[{index}]"), arg)?;
            }
            encoder.writer().end();
            Ok(())
        },
        |decoder, _| decoder.value(),
    )
}

/// The error of a server that couldn't be reached after its start: it has printed why, and ends.
fn never_ready(process: &Process, error: Error) -> Error {
    let _ = end(process);
    match process.exitcode() {
        Some(code) if code > 0 => raise(
            Kind::EOFError,
            format!("the manager's server ended before it was ready, with exit code {code}"),
        ),
        _ => error,
    }
}

/// Waits for the end of a server that was told to end, and sees to it.
fn end(process: &Process) -> Result<()> {
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
        if let Some(signal) = signal {
            process.signal(signal);
        }
        if process.wait(Deadline::after(SHUTDOWN))? {
            break;
        }
    }
    Ok(())
}

// The server's side.

const MODULE: &str = "mp::managers";
const SERVE: &str = "__serve";

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
    Loop::new(server, listener, key, call.ctx).run(|error| {
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
        Some(Factory {
            callable,
            exposed: exposed.map(names),
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
    match Loop::new(server, listener, state.key.clone(), call.ctx).run(|_| false) {
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
        .ok_or_else(|| malformed(HandleKind::Manager))?;
    encoder.begin_handle(HandleKind::Manager, None, Some(socket.as_fd()), 0)?;
    encoder.writer().end();
    Ok(())
}

fn decode_socket(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let socket = decoder.fd(&head)?;
    decoder.reader().end();
    Ok(Dynamic::from(Socket(Rc::new(RefCell::new(Some(socket))))))
}

// What scripts see.

fn constructed(call: &mut Call<'_>, class: Class) -> Result {
    let address = call.take(0);
    let address = if address.is_unit() {
        None
    } else {
        Some(address_of(&address)?)
    };
    let key = call.take(1);
    let key = if key.is_unit() {
        None
    } else if let Some(text) = key.read_lock::<ImmutableString>() {
        Some(text.as_bytes().to_vec())
    } else if let Some(blob) = key.read_lock::<Blob>() {
        Some(blob.clone())
    } else {
        let name = crate::api::type_name(&key);
        return Err(raise(
            Kind::TypeError,
            format!("'authkey' must be a string or a blob, not {name}"),
        ));
    };
    Ok(Dynamic::from(Manager::new(class, address, key)))
}

/// A method that makes an object of a built-in kind; `prepare` makes the server's arguments of the script's.
fn maker(
    tag: Tag,
    prepare: impl Fn(&mut Call<'_>) -> Result<Vec<Dynamic>> + 'static,
) -> impl Fn(&mut Call<'_>) -> Result + 'static {
    move |call| {
        let manager = call.this::<Manager>();
        if !manager.has(tag.typeid()) {
            let class = manager.0.class.name();
            return Err(raise(
                Kind::AttributeError,
                format!(
                    "'{class}' object has no attribute '{}': register() it, or use a SyncManager",
                    tag.typeid()
                ),
            ));
        }
        let own = manager.0.registered.borrow().contains_key(tag.typeid());
        let args = if own {
            vec![call.take(0), call.take(1)]
        } else {
            prepare(call)?
        };
        manager.create(tag.typeid(), &args, places::of_call(call.ctx))
    }
}

fn as_given(arguments: usize) -> impl Fn(&mut Call<'_>) -> Result<Vec<Dynamic>> + 'static {
    move |call| {
        let mut args: Vec<Dynamic> = (0..arguments).map(|index| call.take(index)).collect();
        while args.last().is_some_and(Dynamic::is_unit) {
            args.pop();
        }
        Ok(args)
    }
}

/// Items of whatever was given, if anything was.
fn given_items(call: &mut Call<'_>) -> Result<Vec<Dynamic>> {
    let given = call.take(0);
    if given.is_unit() {
        Ok(Vec::new())
    } else {
        Ok(vec![Dynamic::from_array(items(call.ctx, given)?)])
    }
}

fn given_pairs(call: &mut Call<'_>) -> Result<Vec<Dynamic>> {
    let given = call.take(0);
    if given.is_unit() {
        Ok(Vec::new())
    } else {
        Ok(vec![pairs(call.ctx, given)?])
    }
}

/// Registers managers.
pub(super) fn register(registry: &mut Registry) {
    convert::portable::<Socket>(encode_socket);
    convert::decoder(HandleKind::Manager, decode_socket);
    with::context::<Manager>(Some("__enter__"), "shutdown");
    registry.function(
        MODULE,
        "__serve(socket: any, address: any, key: blob, builtins: bool, factories: map, initializer: any, initargs: array)",
        "The host's own.",
        serve,
    );
    registry.function(MODULE, "__done(value: any = ())", "The host's own.", |_| {
        Ok(Dynamic::UNIT)
    });
    constructors(registry);
    life(registry);
    makers(registry);
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

fn constructors(registry: &mut Registry) {
    registry.constructor(
        "Manager()",
        "Starts a server process for objects that many processes use, and gives its manager.\n\n\
         ```rhai\nfn f(d) { d[\"seen\"] = true; }\n\
         with Manager() as m {\n    let d = m.dict(#{});\n    let p = spawn(f, [d]);\n    p.join();\n    print(d);\n}\n```",
        |call| {
            let manager = Manager::new(Class::Sync, None, None);
            manager.start(Dynamic::UNIT, Array::new(), call.ctx)?;
            Ok(Dynamic::from(manager))
        },
    );
    for (name, class) in [
        (
            "SyncManager(address: any = (), authkey: any = ())",
            Class::Sync,
        ),
        (
            "BaseManager(address: any = (), authkey: any = ())",
            Class::Base,
        ),
    ] {
        let doc = match class {
            Class::Sync => {
                "What `Manager()` gives, not yet started: `with`, `start()` or `connect()` does that."
            }
            Class::Base => {
                "A manager of a script's own objects: `register` says what it makes, `start()`, `connect()` or `get_server()` what it is.\n\n\
                 - `address`: `[\"host\", port]` or the path of a local socket; left out: a local one.\n\
                 - `authkey`: a string or a blob that clients must have; left out: this process's own."
            }
        };
        registry.function(MODULE, name, doc, move |call| constructed(call, class));
        if class == Class::Base {
            registry.constructor(name, doc, move |call| constructed(call, class));
        }
    }
}

fn life(registry: &mut Registry) {
    registry
        .class::<Manager>("Manager")
        .method(
            "start(initializer: any = (), initargs: array = [])",
            "Starts the server process; there it calls `initializer(initargs…)` first. Again: `ProcessError`.",
            |call| {
                let (initializer, initargs) = (call.take(0), call.array(1));
                call.this::<Manager>().start(initializer, initargs, call.ctx)?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "connect()",
            "Uses the server that listens at the manager's address already, in whatever program. A wrong key: `AuthenticationError`.",
            |call| {
                call.this::<Manager>().connect(places::of_call(call.ctx))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("__enter__()", "What `with` does first: starts the server, if it isn't.", |call| {
            let manager = call.this::<Manager>();
            if matches!(*manager.0.phase.borrow(), Phase::Initial) {
                manager.start(Dynamic::UNIT, Array::new(), call.ctx)?;
            }
            Ok(Dynamic::UNIT)
        })
        .method("shutdown()", "Ends the server that this manager has started. Again is fine.", |call| {
            call.this::<Manager>().shutdown()?;
            Ok(Dynamic::UNIT)
        })
        .method("join(timeout: seconds = ())", "Waits until the server has ended, at most `timeout` seconds.", |call| {
            let manager = call.this::<Manager>();
            let process = match &*manager.0.phase.borrow() {
                Phase::Started { process, .. } | Phase::Ended { process: Some(process) } => process.clone(),
                _ => return Ok(Dynamic::UNIT),
            };
            process.wait(Deadline::from_timeout(true, call.seconds(0)))?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "register(typeid: string, callable: callable = (), *, exposed: array = (), create_method: bool = true)",
            "Says what the manager makes under a name: what `callable` returns there, in the server. A client gives the name alone. \
             `m.typeid(args…)` then gives a proxy.\n\n\
             - `exposed`: the names of the methods that may be called; left out: those that don't begin with `_`.",
            |call| {
                let manager = call.this::<Manager>();
                let name = call.string(0).unwrap_or_default();
                let entry = Registered {
                    callable: call.callable(1),
                    exposed: call.has(2).then(|| call.array(2)),
                    method: call.bool(3, true),
                };
                manager.0.registered.borrow_mut().insert(name, entry);
                Ok(Dynamic::UNIT)
            },
        )
        .method("get_server()", "A server in this process, for `serve_forever()`.", |call| {
            let manager = call.this::<Manager>();
            manager.check_initial()?;
            let listener = manager.bind()?;
            let address = listener.address().clone();
            manager.0.address.replace(Some(address.clone()));
            Ok(Dynamic::from(OwnServer { manager, listener: Rc::new(RefCell::new(Some(listener))), address }))
        })
        .method("_number_of_objects()", "How many objects the server keeps.", |call| {
            let client = call.this::<Manager>().client()?;
            ask(&client, Op::Count, "", &[], places::of_call(call.ctx))
        })
        .getter("address", "Where the server listens; `()` before that is known.", |call| {
            let manager = call.this::<Manager>();
            let address = manager.0.address.borrow();
            Ok(address.as_ref().map_or(Dynamic::UNIT, address_value))
        })
        .display(|manager| {
            let address = manager.0.address.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
            format!("<{} at '{address}'>", manager.0.class.name())
        })
        .equality(|a, b| Rc::ptr_eq(&a.0, &b.0))
        .dynamic_methods(Rc::new(|ctx, name, args| {
            let Some((this, rest)) = args.split_first_mut() else { return Ok(None) };
            let Some(manager) = this.read_lock::<Manager>().map(|manager| manager.clone()) else { return Ok(None) };
            if !manager.0.registered.borrow().get(name).is_some_and(|entry| entry.method) {
                return Ok(None);
            }
            let args: Vec<Dynamic> = rest.iter().map(|arg| (**arg).clone()).collect();
            manager.create(name, &args, places::of_call(ctx)).map(Some)
        }));
}

fn makers(registry: &mut Registry) {
    registry
        .class::<Manager>("Manager")
        .method(
            "dict(init: any = ())",
            "A dict in the server, with the pairs of an object map, a DictProxy or an array of `[key, value]`.",
            maker(Tag::Dict, given_pairs),
        )
        .method("list(init: items = ())", "A list in the server, with the items of whatever iterates.", maker(Tag::List, given_items))
        .method("set(init: items = ())", "A set in the server, with the items of whatever iterates.", maker(Tag::Set, given_items))
        .method("Namespace(init: map = ())", "A namespace in the server: `ns.x` for all processes.", |call| {
            let prepare = |call: &mut Call<'_>| Ok(vec![Dynamic::from_map(call.map(0))]);
            maker(Tag::Namespace, prepare)(call)
        })
        .method("Lock()", "A lock in the server, by the rules of Python's threading.Lock.", maker(Tag::Lock, as_given(0)))
        .method("RLock()", "A lock in the server that its holder may take again.", maker(Tag::RLock, as_given(0)))
        .method("Semaphore(value: int = 1)", "A semaphore in the server.", maker(Tag::Semaphore, as_given(1)))
        .method(
            "BoundedSemaphore(value: int = 1)",
            "A semaphore in the server that can't be released too often.",
            maker(Tag::BoundedSemaphore, as_given(1)),
        )
        .method(
            "Condition(lock: any = ())",
            "A condition in the server, with a lock of the same manager or one of its own.",
            maker(Tag::Condition, as_given(1)),
        )
        .method("Event()", "A flag in the server to wait for.", maker(Tag::Event, as_given(0)))
        .method(
            "Barrier(parties: int, action: callable = (), timeout: seconds = ())",
            "A barrier in the server; the action runs there.",
            maker(Tag::Barrier, as_given(3)),
        )
        .method(
            "Pool(processes: any = (), initializer: any = (), initargs: array = [], maxtasksperchild: any = ())",
            "A pool whose workers are the server's children.",
            maker(Tag::Pool, as_given(4)),
        )
        .method("Queue(maxsize: int = 0)", "A queue in the server.", maker(Tag::Queue, as_given(1)))
        .method("JoinableQueue(maxsize: int = 0)", "A queue in the server; in a manager the same as Queue.", maker(Tag::JoinableQueue, as_given(1)))
        .method("Value(typecode: string, value: any)", "A value of any type in the server.", maker(Tag::Value, as_given(2)))
        .method(
            "Array(typecode: string, sequence: items)",
            "An array of numbers in the server, each kept in the range of its type.",
            |call| {
                let prepare = |call: &mut Call<'_>| {
                    let (code, given) = (call.take(0), call.take(1));
                    Ok(vec![code, Dynamic::from_array(items(call.ctx, given)?)])
                };
                maker(Tag::Array, prepare)(call)
            },
        );
}
