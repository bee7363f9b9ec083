//! Manager objects: the life of a server process, and what it makes.
//!
//! The listening socket is made here, before the server starts, and given to it: so its address is known at once, nobody has to
//! wait for a file to appear, and an address in use is an error of `start()`.

mod methods;
mod serving;
mod travel;

pub(super) use methods::register;

use super::authkeys;
use super::client::Client;
use super::protocol::Op;
use crate::address::address_value;
use crate::api::native_name;
use crate::convert;
use crate::error::{Error, Kind, Result, raise};
use crate::process::{self, Blueprint, Process};
use crate::{context, places};
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::position::Position;
use mphost_core::process::Method;
use mphost_core::transport::{Address, Listener};
use nix::sys::signal::Signal;
use rhai::{Array, Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use serving::{SERVE, Socket};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// The module that managers are in.
const MODULE: &str = "mp::managers";
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
    /// Methods whose results become objects of the server, and of which kind.
    proxied: Map,
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
        // With an address or a key that was chosen for it, strangers can reach it and what its callables do.
        let private = self.0.address.borrow().is_none() && !self.0.own_key;
        let listener = self.bind()?;
        let address = listener.address().clone();
        let socket = Socket::new(listener);
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
            helper: private,
            method: self.0.method,
            ..Blueprint::default()
        });
        let started = process.start(ctx);
        // The server has its own by now: ours would keep the address alive after it.
        socket.close();
        started?;
        if self.0.own_key {
            authkeys::learn_key(&address, &self.0.key);
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
                    Dynamic::from_array(vec![
                        callable.clone().into(),
                        exposed,
                        entry.proxied.clone().into(),
                    ]),
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
        authkeys::learn_key(&address, &self.0.key);
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
