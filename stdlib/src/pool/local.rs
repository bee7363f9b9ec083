//! Tasks run by processes of this machine: two queues in shared memory, the record of claims, and a crew of workers.
//!
//! Workers pull their tasks, so they are busy while this process isn't awake. What a dead worker was running is on record: see
//! [`mphost_core::pool`] for why that record can be believed.
//!
//! Invariants: a worker's place is given to another one only after what its process had claimed is settled; nothing is borrowed while a
//! process is started, since a forked child goes on with everything as it is at that moment.

use super::dispatch::{Dispatch, Event, Message, Parcel, Running, WorkerEnd};
use super::task::{self, Report};
use super::{NATIVE_WORKER, link};
use crate::error::{Error, Kind, Result, ScriptError, raise};
use crate::process::{Blueprint, Process};
use crate::runtime::runtime;
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::pool::{Claims, Stage};
use mphost_core::position::Position;
use mphost_core::process::Method;
use mphost_core::queue::{Item, Queue};
use mphost_core::session::{ObjectKind, RawHandle, session};
use mphost_core::table::ExitStatus;
use mphost_core::wait::WaitKind;
use nix::sys::signal::Signal;
use rhai::{Array, Dynamic, FnPtr, NativeCallContext};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The flags of the item that says that there will be no more tasks.
pub(super) const STOP: u32 = 1;
/// So many workers in a row that end before they take a task break the pool.
const FALSE_STARTS: u32 = 3;
/// How long a worker may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// How many results may come before this process looks, while it waits for more than that.
const BATCH: usize = 1024;

/// What all workers of a pool begin with.
pub(super) struct Recipe {
    pub(super) initializer: Dynamic,
    pub(super) initargs: Array,
    /// After how many tasks a worker is replaced.
    pub(super) share: Option<i64>,
    pub(super) method: Method,
}

/// The context in which workers are started and callbacks called: as it was when the script last used the pool.
#[expect(
    deprecated,
    reason = "Rhai marks its volatile types so; the version is pinned"
)]
pub(super) type Reach = Rc<RefCell<Rc<rhai::NativeCallContextStore>>>;

/// Runs `work` in the context that a pool was last used in.
pub(super) fn in_reach<R>(reach: &Reach, work: impl FnOnce(&NativeCallContext<'_>) -> R) -> R {
    let store = reach.borrow().clone();
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    let ctx = store.create_context(runtime().engine());
    work(&ctx)
}

pub(super) struct Local {
    tasks: Queue,
    reports: Queue,
    claims: Claims,
    recipe: Recipe,
    reach: Reach,
    /// A worker's place is its entry in the record. Empty: it couldn't be started.
    crew: RefCell<Vec<Option<Process>>>,
    /// Those that have done their share and are about to end.
    leaving: RefCell<Vec<Process>>,
    false_starts: Cell<u32>,
    supervising: Cell<bool>,
    again: Cell<bool>,
    /// No worker is replaced any more.
    closing: Cell<bool>,
}

impl Local {
    /// Makes the queues and starts the workers.
    ///
    /// # Errors
    /// What starting a process says; those already started are ended then.
    pub(super) fn start(
        workers: usize,
        recipe: Recipe,
        reach: Reach,
        position: Position,
    ) -> Result<Self> {
        let local = Self {
            tasks: Queue::create(ObjectKind::SimpleQueue, 0, position)?,
            reports: Queue::create(ObjectKind::SimpleQueue, 0, position)?,
            claims: Claims::create(workers, position)?,
            recipe,
            reach,
            crew: RefCell::new(vec![None; workers]),
            leaving: RefCell::default(),
            false_starts: Cell::new(0),
            supervising: Cell::new(false),
            again: Cell::new(false),
            closing: Cell::new(false),
        };
        for index in 0..workers {
            if let Err(error) = local.hire(index) {
                local.terminate(true)?;
                return Err(error);
            }
        }
        Ok(local)
    }

    /// Starts a worker in an empty place.
    fn hire(&self, index: usize) -> Result<()> {
        self.claims.reset(index)?;
        let recipe = &self.recipe;
        let number = |n: usize| Dynamic::from_int(i64::try_from(n).unwrap_or(i64::MAX));
        let args = vec![
            link::value(self.tasks.obj()),
            link::value(self.reports.obj()),
            link::value(self.claims.obj()),
            number(index),
            recipe.initializer.clone(),
            Dynamic::from_array(recipe.initargs.clone()),
            recipe.share.map_or(Dynamic::UNIT, Dynamic::from_int),
        ];
        let process = Process::new(Blueprint {
            target: Some(worker_function()?),
            args,
            prefix: match recipe.method {
                Method::Fork => "ForkPoolWorker",
                Method::Spawn => "SpawnPoolWorker",
                Method::Forkserver => "ForkServerPoolWorker",
            },
            daemon: Some(true),
            method: Some(recipe.method),
            ..Blueprint::default()
        });
        in_reach(&self.reach, |ctx| process.start(ctx))?;
        if self.closing.get() {
            // The pool was ended while the process was being started.
            process.signal(Signal::SIGKILL);
        }
        self.crew.borrow_mut()[index] = Some(process);
        Ok(())
    }

    fn put(&self, parcel: &Parcel<'_>, flags: u32) -> Result<()> {
        let handles: SmallVec<[RawHandle; 2]> = parcel
            .objects
            .iter()
            .map(|object| object.export())
            .collect();
        let (at, never) = (Position::default(), Deadline::NEVER);
        self.tasks
            .put_quietly(parcel.bytes, &handles, &parcel.fds, flags, never, at)?;
        if self.wants_a_worker()? {
            self.tasks.wake_getter()?;
        }
        Ok(())
    }

    /// Whether somebody has to be woken for the task that was just put. Not where a worker for each waiting task is awake and has no task: it
    /// looks for one before it sleeps. (One that dies instead wakes the others by that.)
    fn wants_a_worker(&self) -> Result<bool> {
        let asleep = self.tasks.getters_asleep()?;
        if asleep == 0 || asleep >= self.claims.workers() || self.recipe.share.is_some() {
            return Ok(true);
        }
        // In this order: who takes a task notes that before the task is gone from the queue.
        let waiting = usize::try_from(self.tasks.qsize()?).unwrap_or(usize::MAX);
        Ok(waiting > self.claims.workers() - asleep
            || waiting > self.claims.idle()?.saturating_sub(asleep))
    }

    fn worker(&self, index: usize) -> Option<Process> {
        self.crew.borrow()[index].clone()
    }

    /// All of this pool's processes that haven't ended.
    fn everybody(&self) -> Vec<Process> {
        let mut all: Vec<Process> = self.crew.borrow().iter().flatten().cloned().collect();
        all.append(&mut self.leaving.borrow().clone());
        all.retain(|process| process.refresh().is_none());
        self.leaving
            .borrow_mut()
            .retain(|process| process.refresh().is_none());
        all
    }

    fn inspect(&self, sink: &mut dyn FnMut(Event)) -> Result<()> {
        let workers = self.claims.workers();
        for index in 0..workers {
            let Some(worker) = self.worker(index) else {
                continue;
            };
            if let Some(status) = worker.refresh() {
                self.settle(index, &worker, status, sink)?;
            } else if self.claims.stage(index)? == Stage::Leaving {
                self.leaving.borrow_mut().push(worker);
            } else {
                continue;
            }
            self.crew.borrow_mut()[index] = None;
        }
        if self.closing.get() {
            return Ok(());
        }
        for index in 0..workers {
            if self.worker(index).is_some() || self.closing.get() {
                continue;
            }
            if let Err(error) = self.hire(index)
                && self.everybody().is_empty()
            {
                self.closing.set(true);
                let cause = error.into_rhai(None, rhai::Position::NONE);
                let cause = crate::error::thrown_value(&cause, None);
                sink(Event::Broken(
                    ScriptError::new(Kind::BrokenProcessPool, "no worker can be started")
                        .with_cause(cause),
                ));
            }
        }
        Ok(())
    }

    /// A worker has ended: what had it claimed?
    fn settle(
        &self,
        index: usize,
        worker: &Process,
        status: ExitStatus,
        sink: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let end = WorkerEnd {
            name: worker.name(),
            pid: worker.pid().unwrap_or(0),
            exitcode: status.code(),
        };
        let ready = matches!(self.claims.stage(index)?, Stage::Ready | Stage::Leaving);
        // The order matters: whoever else took the same item has a claim on it from before it was counted
        // until its report was put.
        let taken = self.tasks.gets()?;
        let lost = match self.claims.get(index)? {
            Some(claim) if claim.doomed => Some(claim.task),
            Some(claim)
                if claim.number < taken
                    && !self.claims.shared_by_another(index, claim.number)? =>
            {
                Some(claim.task)
            }
            _ => None,
        };
        self.claims.reset(index)?;
        self.drain(sink)?;
        if let Some(task) = lost {
            sink(Event::Lost {
                task,
                end: end.clone(),
            });
        }
        if ready {
            self.false_starts.set(0);
        } else if !self.closing.get() {
            self.false_starts.set(self.false_starts.get() + 1);
            if self.false_starts.get() >= FALSE_STARTS {
                self.closing.set(true);
                sink(Event::Broken(
                    ScriptError::new(
                        Kind::BrokenProcessPool,
                        format!("{FALSE_STARTS} workers in a row ended before they could begin"),
                    )
                    .with_cause(Dynamic::from(end.error("while it began"))),
                ));
            }
        }
        if self.closing.get() && status.abnormal() {
            // It may have had the item that tells the others to stop.
            self.tasks
                .put(&[], &[], STOP, Deadline::NEVER, Position::default())?;
        }
        Ok(())
    }
}

fn worker_function() -> Result<FnPtr> {
    crate::convert::native_named(NATIVE_WORKER)
        .ok_or_else(|| raise(Kind::RuntimeError, "this engine has no pools"))
}

/// What an item of the reports' queue holds.
enum Taken {
    Read(u64, Result<Report>),
    /// Its values refer to shared objects: they are made outside of the queue's critical section.
    Copied(Copied),
}

/// An item out of its queue, with references of its own.
struct Copied {
    message: Message,
    flags: u32,
}

impl Copied {
    fn new(item: &Item<'_>) -> Result<Self> {
        let objects = item.handles.iter().map(|handle| session().claim(*handle));
        let message = Message {
            bytes: item.payload.to_vec(),
            objects: objects.collect::<std::result::Result<_, CoreError>>()?,
            fds: item.fds()?,
            pinned: Vec::new(),
        };
        Ok(Self {
            message,
            flags: item.flags,
        })
    }
}

fn take(item: Item<'_>) -> Result<Taken> {
    let fds = item.fds()?;
    if item.handles.is_empty() && fds.is_empty() {
        let report = Report::read(item.payload, fds);
        return Ok(Taken::Read(task::id_of(item.payload), report));
    }
    Ok(Taken::Copied(Copied::new(&item)?))
}

impl Dispatch for Local {
    fn workers(&self) -> usize {
        self.claims.workers()
    }

    fn submit(&self, parcel: &Parcel<'_>) -> Result<()> {
        self.put(parcel, 0)
    }

    fn withdraw(&self, unwanted: &dyn Fn(u64) -> bool) -> Result<()> {
        let mut kept: Vec<Copied> = Vec::new();
        loop {
            let taken = self.tasks.get(Deadline::NOW, Position::default(), |item| {
                let wanted = item.flags == STOP || !unwanted(task::id_of(item.payload));
                wanted.then(|| Copied::new(&item))
            });
            match taken {
                Ok(item) => kept.extend(item.transpose()?),
                Err(CoreError::Empty) => break,
                Err(error) => return Err(error.into()),
            }
        }
        for item in kept {
            self.put(&item.message.parcel(), item.flags)?;
        }
        Ok(())
    }

    fn drain(&self, sink: &mut dyn FnMut(Event)) -> Result<()> {
        loop {
            let (task, report) = match self.reports.get(Deadline::NOW, Position::default(), take) {
                Ok(Ok(Taken::Read(task, report))) => (task, report),
                Ok(Ok(Taken::Copied(Copied { message, .. }))) => {
                    let Message {
                        bytes,
                        fds,
                        objects: _objects,
                        pinned: _,
                    } = message;
                    (task::id_of(&bytes), Report::read(&bytes, fds))
                }
                Ok(Err(error)) => return Err(error),
                Err(CoreError::Empty) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let report = report.unwrap_or_else(|error| {
                let error = error.into_rhai(None, rhai::Position::NONE);
                Report::One(Err(crate::error::thrown_value(&error, None)))
            });
            match report {
                Report::InitializerFailed(cause) => {
                    self.closing.set(true);
                    // As a value of Rhai an error's text would be the name of its type.
                    let why = match cause.read_lock::<ScriptError>() {
                        Some(error) => error.to_string(),
                        None => cause.to_string(),
                    };
                    sink(Event::Broken(
                        ScriptError::new(
                            Kind::BrokenProcessPool,
                            format!("the pool's initializer failed: {why}"),
                        )
                        .with_cause(cause),
                    ));
                }
                report => sink(Event::Done { task, report }),
            }
        }
    }

    fn supervise(&self, sink: &mut dyn FnMut(Event)) -> Result<()> {
        if self.supervising.replace(true) {
            // Starting a worker waits, and a wait may come here: it is looked after outside.
            self.again.set(true);
            return Ok(());
        }
        let result = loop {
            self.again.set(false);
            let result = self.inspect(sink);
            if result.is_err() || !self.again.get() {
                break result;
            }
        };
        self.supervising.set(false);
        result
    }

    fn wait(
        &self,
        missing: usize,
        deadline: Deadline,
        position: Position,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let wanted = self.reports.gets()? + missing.clamp(1, BATCH) as u64;
        self.claims.set_wanted(wanted)?;
        let waited =
            self.reports
                .wait_for_puts(wanted, WaitKind::PoolResult, deadline, position, stop);
        self.claims.set_wanted(0)?;
        waited?;
        Ok(())
    }

    fn listen(&self, on: bool) -> Result<()> {
        Ok(self.claims.set_listening(on)?)
    }

    fn running(&self) -> Vec<Running> {
        (0..self.claims.workers())
            .filter_map(|index| self.claims.get(index).ok().flatten())
            .filter(|claim| !claim.doomed)
            .map(|claim| Running {
                task: claim.task,
                since: claim.since,
            })
            .collect()
    }

    fn abort(&self, task: u64) -> Result<bool> {
        for index in 0..self.claims.workers() {
            if self.claims.doom(index, task)? {
                if let Some(worker) = self.worker(index) {
                    worker.signal(Signal::SIGKILL);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn finish(&self, position: Position) -> Result<()> {
        self.closing.set(true);
        self.tasks.put(&[], &[], STOP, Deadline::NEVER, position)?;
        while let Some(process) = self.everybody().into_iter().next() {
            process.wait(Deadline::NEVER)?;
            self.supervise(&mut |_| {})?;
        }
        Ok(())
    }

    fn terminate(&self, wait: bool) -> Result<()> {
        self.closing.set(true);
        let everybody = self.everybody();
        for process in &everybody {
            process.signal(Signal::SIGTERM);
        }
        if !wait {
            return Ok(());
        }
        let deadline = Deadline::after(GRACE);
        for process in &everybody {
            if !process.wait(deadline)? {
                process.signal(Signal::SIGKILL);
                process.wait(Deadline::NEVER)?;
            }
        }
        // One may have been on its way when the others were told.
        for process in self.everybody() {
            process.signal(Signal::SIGKILL);
            process.wait(Deadline::NEVER)?;
        }
        self.crew.borrow_mut().fill(None);
        Ok(())
    }
}

impl WorkerEnd {
    /// The error for what a lost worker was doing; `when` says what that was.
    pub(super) fn error(&self, when: &str) -> ScriptError {
        let Self {
            name,
            pid,
            exitcode,
        } = self;
        let signal = exitcode.checked_neg().filter(|signal| *signal > 0);
        let how = match signal.map(Signal::try_from) {
            Some(Ok(signal)) => format!("was ended by {signal}"),
            Some(Err(_)) => format!("was ended by signal {}", -exitcode),
            None => format!("ended with exit code {exitcode}"),
        };
        ScriptError::new(
            Kind::WorkerLostError,
            format!("worker {name} (pid {pid}) {how} {when}"),
        )
        .with_field("pid", i64::from(*pid))
        .with_field("exitcode", i64::from(*exitcode))
        .with_field(
            "signal",
            signal.map_or(Dynamic::UNIT, |n| i64::from(n).into()),
        )
    }

    /// The error for a task that took too long.
    pub(super) fn overran(&self, seconds: f64) -> ScriptError {
        ScriptError::new(
            Kind::TimeoutError,
            format!(
                "the task took longer than {seconds} s; its worker (pid {}) was ended",
                self.pid
            ),
        )
        .with_field("pid", i64::from(self.pid))
    }
}

/// Errors of the pool's own making as values.
pub(super) fn value_of(error: Error) -> Dynamic {
    let error = error.into_rhai(None, rhai::Position::NONE);
    crate::error::thrown_value(&error, None)
}
