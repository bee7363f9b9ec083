//! `start()`: what a child is told, and how a forked one goes on with it.
//!
//! The same bootstrap message is made under every start method, so that what can't travel is refused alike, before anything
//! is started. It says who the child is, what it calls and with what, and the values of the program's top-level constants. Of a forked child's
//! arguments large ones aren't in it, if they are plain data: it has them in memory.

use super::in_memory::InMemory;
use super::{Identity, Phase, Process, child};
use crate::convert::Encoder;
use crate::error::{Error, Kind, Result, raise};
use crate::runtime::runtime;
use mphost_core::process::{self, Job, Method};
use mphost_core::session::session;
use mphost_core::table::{self, SlotId};
use rhai::{Dynamic, Map, NativeCallContext};
use std::os::fd::BorrowedFd;

impl Process {
    /// Starts the process.
    ///
    /// # Errors
    /// AssertionError for wrong use, PicklingError for what can't travel, OSError where the system refuses.
    pub fn start(&self, ctx: &NativeCallContext<'_>) -> Result<()> {
        self.check_open()?;
        super::anew::refuse()?;
        let me = super::current();
        {
            let state = self.0.borrow();
            if !matches!(state.phase, Phase::Initial) {
                return Err(raise(Kind::AssertionError, "cannot start a process twice"));
            }
            if state.owner != std::process::id() {
                return Err(raise(
                    Kind::AssertionError,
                    "can only start a process object created by current process",
                ));
            }
            if me.0.borrow().daemon {
                return Err(raise(
                    Kind::AssertionError,
                    "daemonic processes are not allowed to have children",
                ));
            }
        }
        super::ending::reap();
        let method = self.0.borrow().method.unwrap_or_else(super::method);
        crate::embed::enter(ctx, method)?;
        let mut in_memory = match method {
            Method::Fork => InMemory::take(&mut self.0.borrow_mut().args),
            Method::Spawn | Method::Forkserver => InMemory::default(),
        };
        let launched = launch(self, method, &mut in_memory, ctx);
        let (slot, pid) =
            launched.inspect_err(|_| in_memory.put_back(&mut self.0.borrow_mut().args))?;
        let mut state = self.0.borrow_mut();
        state.phase = Phase::Started { slot, pid };
        // What it was to run is the child's now.
        state.target = None;
        state.args.clear();
        state.kwargs = None;
        drop(state);
        super::own(|own| own.children.push(self.clone()));
        Ok(())
    }

    /// Writes who the child is and what it runs.
    fn encode(&self, method: Method) -> Result<Encoder> {
        let mut encoder = Encoder::new();
        let state = self.0.borrow();
        let identity = child::Head {
            name: state.name.clone(),
            numbers: state.identity.clone(),
            daemon: state.daemon,
            authkey: state.authkey.clone(),
            parent_name: super::current().name(),
            parent_pid: nix::unistd::getpid().as_raw(),
            parent_slot: session().me().to_u64(),
            method: method as u8,
            default_method: super::method() as u8,
            method_set: super::METHOD.get().is_some(),
            cwd: (method != Method::Fork)
                .then(std::env::current_dir)
                .and_then(std::result::Result::ok),
            manager_keys: crate::managers::known_keys(),
            logging: crate::logging::state(),
        };
        child::write_head(&mut encoder, &identity)?;
        let target = state.target.clone().map_or(Dynamic::UNIT, Dynamic::from);
        encoder.value_at("target", &target)?;
        encoder.array_at("args", &state.args)?;
        match &state.kwargs {
            Some(kwargs) => encoder.map_at("kwargs", kwargs)?,
            None => encoder.writer().unit(),
        }
        let run = state.run.clone().map_or(Dynamic::UNIT, Dynamic::from);
        encoder.value_at("run", &run)?;
        encoder.map_at("self", &state.fields)?;
        Ok(encoder)
    }
}

fn launch(
    process: &Process,
    method: Method,
    in_memory: &mut InMemory,
    ctx: &NativeCallContext<'_>,
) -> Result<(SlotId, i32)> {
    let task = process.encode(method)?;
    let mut constants = Encoder::new();
    if method == Method::Fork {
        // It has them in memory, and reads none of this.
        constants.repeat();
    }
    child::write_constants(&mut constants, method, ctx)?;
    let (name, daemon) = {
        let state = process.0.borrow();
        (state.name.clone(), state.daemon)
    };
    let program = match method {
        // A forked child has it, and the server: one that is the only one, if this isn't a guest.
        Method::Fork => Vec::new(),
        Method::Forkserver if !runtime().settings().guest => Vec::new(),
        Method::Spawn | Method::Forkserver => program_message(),
    };
    let prefix = child::prefix(&program, &task);
    let parts = child::parts(&prefix, &program, &task, &constants);
    let handles = [task.handles(), constants.handles()].concat();
    let fds: Vec<BorrowedFd<'_>> = task
        .borrowed_fds()?
        .into_iter()
        .chain(constants.borrowed_fds()?)
        .collect();
    let slot = table::allocate(&name, session().me(), daemon, method as u8)?;
    if process.0.borrow().helper {
        table::set_helper(slot);
    }
    let job = Job {
        slot,
        // A forked child reads the task from memory.
        bootstrap: match method {
            Method::Fork => &[],
            Method::Spawn | Method::Forkserver => &parts,
        },
        fds: &fds,
        kept: constants.fds().len(),
    };
    let started = table::grant(slot, &handles).and_then(|()| {
        process::start(method, job, &mut |own| {
            child::run_copy(task.bytes(), in_memory, own, ctx)
        })
    });
    match started {
        Ok(pid) => Ok((slot, pid)),
        Err(error) => {
            table::release(slot);
            Err(Error::Core(error))
        }
    }
}

/// The program of this session, for processes that don't have it yet.
#[must_use]
pub fn program_message() -> Vec<u8> {
    let runtime = runtime();
    let program = runtime.program();
    child::encode_program(&program, runtime.settings())
}

/// The fields of a started process's object live on in the object; a copy goes along.
#[must_use]
pub fn identity_of(head: &child::Head, fields: Map) -> Identity {
    Identity {
        name: head.name.clone(),
        numbers: head.numbers.clone(),
        daemon: head.daemon,
        authkey: head.authkey.clone(),
        fields,
        parent: Some((
            head.parent_name.clone(),
            head.parent_pid,
            SlotId::from_u64(head.parent_slot),
        )),
    }
}
