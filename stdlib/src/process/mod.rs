//! `Process`, `spawn`, `current_process`, `parent_process`, `active_children`.
//!
//! A Process object is a reference: copies of it are the same process. It belongs to the process that made it; every
//! other one that comes across it (a forked child, through a constant) gets Python's AssertionErrors.
//!
//! Invariant: a child's slot in the process table stays until this process has read its exit status into the object.

pub(crate) mod anew;
pub mod child;
pub mod ending;
mod in_memory;
mod methods;
pub mod start;

use crate::error::{Kind, Result, raise};
use mphost_core::clock::Deadline;
pub use mphost_core::process::Method;
use mphost_core::table::{self, ExitStatus, SlotId, SlotStatus};
use rhai::{Array, Dynamic, FnPtr, Map};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

pub use methods::register;

/// Where a process is in its life, as its object knows it.
#[derive(Debug)]
enum Phase {
    /// Not started.
    Initial,
    /// Started by this process; perhaps it has ended meanwhile.
    Started { slot: SlotId, pid: i32 },
    /// Ended, and its slot given back.
    Ended { pid: i32, status: ExitStatus },
    /// Closed by the script.
    Closed,
    /// This process itself.
    Current,
    /// The process that started this one.
    Parent { slot: SlotId, pid: i32 },
}

#[derive(Debug)]
struct State {
    name: String,
    target: Option<FnPtr>,
    args: Array,
    kwargs: Option<Map>,
    run: Option<FnPtr>,
    fields: Map,
    daemon: bool,
    /// Whether it serves other processes: then it is ended last.
    server: bool,
    /// Whether it serves nobody but processes of this program.
    helper: bool,
    authkey: Vec<u8>,
    method: Option<Method>,
    identity: Vec<u32>,
    phase: Phase,
    sentinel: Option<OwnedFd>,
    /// The process that made this object.
    owner: u32,
}

/// A process, as scripts see it.
#[derive(Clone, Debug)]
pub struct Process(Rc<RefCell<State>>);

impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        if Rc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        match (self.slot(), other.slot()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

/// What this process is, in its program.
struct Own {
    current: Process,
    parent: Option<Process>,
    children: Vec<Process>,
    started: u32,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
    static METHOD: Cell<Option<Method>> = const { Cell::new(None) };
    /// Whether the script has asked which one is in force: then `allow_none` tells it too.
    static ASKED: Cell<bool> = const { Cell::new(false) };
    static DEFAULT_METHOD: Cell<Method> = const { Cell::new(Method::Fork) };
}

/// What a process is told of itself when it begins.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// The numbers of its ancestors and its own: `[1, 2]` is the second child of the first.
    pub numbers: Vec<u32>,
    /// Whether it is daemonic.
    pub daemon: bool,
    /// The key that it authenticates with.
    pub authkey: Vec<u8>,
    /// Fields of its Process object.
    pub fields: Map,
    /// Its parent's name, pid and slot; none for the main process.
    pub parent: Option<(String, i32, SlotId)>,
}

/// Says what this process is. In a forked child it replaces what the parent was.
pub fn become_process(identity: Identity) -> Process {
    let owner = std::process::id();
    let state = |name: String, phase: Phase| State {
        name,
        target: None,
        args: Array::new(),
        kwargs: None,
        run: None,
        fields: Map::new(),
        daemon: false,
        server: false,
        helper: false,
        authkey: identity.authkey.clone(),
        method: None,
        identity: identity.numbers.clone(),
        phase,
        sentinel: None,
        owner,
    };
    let mut current = state(identity.name.clone(), Phase::Current);
    current.daemon = identity.daemon;
    current.fields = identity.fields;
    let current = Process(Rc::new(RefCell::new(current)));
    let parent = identity.parent.map(|(name, pid, slot)| {
        Process(Rc::new(RefCell::new(state(
            name,
            Phase::Parent { slot, pid },
        ))))
    });
    let own = Own {
        current: current.clone(),
        parent,
        children: Vec::new(),
        started: 0,
    };
    OWN.with_borrow_mut(|slot| {
        if let Some(old) = slot.replace(own) {
            // The parent's objects, in a forked child: dropping them would close descriptors that have other owners by now.
            std::mem::forget(old);
        }
    });
    current
}

/// This process, which has said what it is, begins its task: these are the fields of its object, and its children are counted from 1.
fn begin_task(fields: Map) -> Process {
    own(|own| {
        own.started = 0;
        own.current.0.borrow_mut().fields = fields;
        own.current.clone()
    })
}

/// The main process: a random key, no parent.
///
/// # Errors
/// Where the system gives no random bytes.
pub fn become_main() -> Result<Process> {
    let mut authkey = vec![0; 32];
    mphost_core::random::fill(&mut authkey)?;
    Ok(become_process(Identity {
        name: "MainProcess".into(),
        authkey,
        ..Identity::default()
    }))
}

fn own<T>(look: impl FnOnce(&mut Own) -> T) -> T {
    OWN.with_borrow_mut(|own| {
        look(
            own.as_mut()
                .expect("every process says what it is before a script runs"),
        )
    })
}

/// Whether this process has said what it is.
fn is_known() -> bool {
    OWN.with_borrow(Option::is_some)
}

/// This process's own object.
#[must_use]
pub fn current() -> Process {
    own(|own| own.current.clone())
}

/// The default start method's name was given on the command line; it doesn't count as set.
pub fn set_default_method(method: Method) {
    DEFAULT_METHOD.set(method);
}

/// The start method in force.
#[must_use]
pub fn method() -> Method {
    METHOD.get().unwrap_or_else(|| DEFAULT_METHOD.get())
}

/// Whether the script has chosen a start method, or has asked for the one in force.
#[must_use]
pub fn method_is_settled() -> bool {
    METHOD.get().is_some() || ASKED.get()
}

/// The start method in force, for a script that asks. As in Python, from then on it is no longer open which it is.
pub fn settled_method() -> Method {
    ASKED.set(true);
    method()
}

/// `set_start_method`.
///
/// # Errors
/// `RuntimeError` where it was set before and `force` isn't given.
pub fn set_method(method: Method, force: bool) -> Result<()> {
    if METHOD.get().is_some() && !force {
        return Err(raise(Kind::RuntimeError, "context has already been set"));
    }
    METHOD.set(Some(method));
    Ok(())
}

/// What `Process(…)` is made of.
#[derive(Default)]
pub struct Blueprint {
    /// What to call.
    pub target: Option<FnPtr>,
    /// With these arguments.
    pub args: Array,
    /// And this map behind them.
    pub kwargs: Option<Map>,
    /// Or a function that is called with `this` bound to the process.
    pub run: Option<FnPtr>,
    /// A name of its own.
    pub name: Option<String>,
    /// The prefix of the default name: `Process`, `ForkPoolWorker`.
    pub prefix: &'static str,
    /// Whether it is ended with its parent; inherited if not said.
    pub daemon: Option<bool>,
    /// Whether it serves other processes: it is neither joined nor terminated before them, whoever started it ends it.
    pub server: bool,
    /// Whether it serves nobody but processes of this program: then it doesn't keep alive a program whose other processes are stuck.
    pub helper: bool,
    /// Fields of a subclassed process.
    pub fields: Map,
    /// The start method, where a context fixed it.
    pub method: Option<Method>,
}

impl Process {
    /// A process that hasn't been started.
    #[must_use]
    pub fn new(blueprint: Blueprint) -> Process {
        own(|own| {
            own.started += 1;
            let parent = own.current.0.borrow();
            let mut identity = parent.identity.clone();
            identity.push(own.started);
            let numbers: Vec<String> = identity.iter().map(u32::to_string).collect();
            let prefix = if blueprint.prefix.is_empty() {
                "Process"
            } else {
                blueprint.prefix
            };
            Process(Rc::new(RefCell::new(State {
                name: blueprint
                    .name
                    .unwrap_or_else(|| format!("{prefix}-{}", numbers.join(":"))),
                target: blueprint.target,
                args: blueprint.args,
                kwargs: blueprint.kwargs,
                run: blueprint.run,
                fields: blueprint.fields,
                daemon: blueprint.daemon.unwrap_or(parent.daemon),
                server: blueprint.server,
                helper: blueprint.helper,
                authkey: parent.authkey.clone(),
                method: blueprint.method,
                identity,
                phase: Phase::Initial,
                sentinel: None,
                owner: std::process::id(),
            })))
        })
    }

    fn slot(&self) -> Option<SlotId> {
        match self.0.borrow().phase {
            Phase::Started { slot, .. } | Phase::Parent { slot, .. } => Some(slot),
            Phase::Current => Some(mphost_core::session::session().me()),
            _ => None,
        }
    }

    /// The process's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.borrow().name.clone()
    }

    /// The key that its connections authenticate with.
    #[must_use]
    pub fn authkey(&self) -> Vec<u8> {
        self.0.borrow().authkey.clone()
    }

    /// Its pid, once it has one.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self.0.borrow().phase {
            Phase::Started { pid, .. } | Phase::Ended { pid, .. } | Phase::Parent { pid, .. } => {
                Some(pid)
            }
            Phase::Current => Some(nix::unistd::getpid().as_raw()),
            Phase::Initial | Phase::Closed => None,
        }
    }

    /// Its slot in the process table, while it has one.
    #[must_use]
    pub fn slot_id(&self) -> Option<SlotId> {
        self.slot()
    }

    /// Whether it was started by this process, with a status for what it isn't.
    fn check_open(&self) -> Result<()> {
        if matches!(self.0.borrow().phase, Phase::Closed) {
            return Err(raise(Kind::ValueError, "process object is closed"));
        }
        Ok(())
    }

    /// Reads the exit status if the process has ended; its slot is free then.
    pub fn refresh(&self) -> Option<ExitStatus> {
        let (slot, pid) = match &self.0.borrow().phase {
            Phase::Ended { status, .. } => return Some(*status),
            Phase::Started { slot, pid } => (*slot, *pid),
            _ => return None,
        };
        let status = match table::status(slot) {
            SlotStatus::Dead(status) => status,
            // Nobody but this object releases the slot, so a slot that is gone means a damaged table: count it as killed.
            SlotStatus::Gone => ExitStatus::from_raw(libc_sigkill()),
            _ => return None,
        };
        self.0.borrow_mut().phase = Phase::Ended { pid, status };
        table::release(slot);
        own(|own| own.children.retain(|child| !Rc::ptr_eq(&child.0, &self.0)));
        Some(status)
    }

    /// Python's exit code, once it has ended.
    #[must_use]
    pub fn exitcode(&self) -> Option<i32> {
        self.refresh().map(ExitStatus::code)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.0.borrow().phase {
            Phase::Current => return true,
            Phase::Parent { slot, .. } => {
                return matches!(table::status(slot), SlotStatus::Live | SlotStatus::Starting);
            }
            _ => {}
        }
        matches!(self.0.borrow().phase, Phase::Started { .. }) && self.refresh().is_none()
    }

    /// The value for scripts.
    pub fn into_dynamic(self) -> Dynamic {
        Dynamic::from(self)
    }
}

fn libc_sigkill() -> i32 {
    nix::sys::signal::Signal::SIGKILL as i32
}

/// Waits until the end of a child whose sentinel is ready is on record; nothing for any other descriptor.
///
/// # Errors
/// What interrupted the wait.
pub fn settle(sentinel: RawFd) -> Result<()> {
    let child = children().into_iter().find(|child| {
        let state = child.0.borrow();
        state.sentinel.as_ref().map(AsRawFd::as_raw_fd) == Some(sentinel)
    });
    match child {
        Some(child) => child.wait(Deadline::after(BURIAL)).map(drop),
        None => Ok(()),
    }
}

/// How long the end of a process may take to be on record: its parent, perhaps the forkserver, has to come to it.
const BURIAL: Duration = Duration::from_secs(10);

/// The children that were started and whose end hasn't been noticed yet.
#[must_use]
pub fn children() -> Vec<Process> {
    own(|own| own.children.clone())
}
