//! A pool's own work: events become results. How jobs become tasks is in [`submit`](super::submit), callbacks and time limits are in
//! [`attend`](super::attend).
//!
//! All of it happens in the process that made the pool: while that waits for one of the pool's results, and otherwise from the interrupt
//! hook, that is, in any other wait of the host and between two steps of a script that only computes.
//!
//! Invariants: callbacks are called one after another, in the order in which their jobs became complete; nothing is borrowed while script
//! code runs or a process is started; [`Inner::epoch`] changes with everything that a waiting caller may have to look at anew.

use super::dispatch::{Dispatch, Event};
use super::job::Job;
use super::local::Reach;
use super::task::{Function, Outcome, Report, Shape};
use super::tasks::{Task, Tasks};
use crate::error::{Error, Kind, Result, ScriptError, raise};
use mphost_core::clock::{self, Deadline};
use mphost_core::position::Position;
use mphost_core::wait;
use rhai::{Dynamic, EvalAltResult, ImmutableString};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// What may still be done with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Everything.
    Running,
    /// It takes no more work.
    Closed,
    /// It does no more work.
    Terminated,
}

/// A pool. See the module.
pub(super) struct Inner {
    pub(super) dispatch: Box<dyn Dispatch>,
    pub(super) reach: Reach,
    pub(super) state: Cell<State>,
    pub(super) broken: RefCell<Option<ScriptError>>,
    pub(super) tasks: RefCell<Tasks>,
    /// Iterators whose input isn't drawn to its end.
    pub(super) feeding: RefCell<Vec<Rc<Job>>>,
    /// Complete jobs whose callbacks haven't been called.
    pub(super) calling: RefCell<VecDeque<Rc<Job>>>,
    pub(super) in_callback: Cell<bool>,
    /// How many jobs with a callback are open.
    pub(super) listeners: Cell<usize>,
    pub(super) epoch: Cell<u64>,
    /// How many open tasks have a time limit, and the smallest of their limits in nanoseconds.
    pub(super) timed: Cell<usize>,
    pub(super) shortest: Cell<u64>,
    /// When the next task may run over its limit; 0 for never.
    pub(super) alarm: Cell<u64>,
    /// When a callback that couldn't be called is tried again; 0 for never.
    pub(super) later: Cell<u64>,
    /// The function of the last job, if it has captured nothing.
    pub(super) last: RefCell<Option<(ImmutableString, Rc<Function>)>>,
    /// The pool is the parent's, this process a fork of it.
    foreign: Cell<bool>,
    /// The time limit and the retries of calls that don't say.
    pub(super) limit: Option<f64>,
    pub(super) retries: u32,
}

impl Inner {
    pub(super) fn new(
        dispatch: Box<dyn Dispatch>,
        reach: Reach,
        limit: Option<f64>,
        retries: u32,
    ) -> Rc<Self> {
        Rc::new(Self {
            dispatch,
            reach,
            state: Cell::new(State::Running),
            broken: RefCell::default(),
            tasks: RefCell::default(),
            feeding: RefCell::default(),
            calling: RefCell::default(),
            in_callback: Cell::new(false),
            listeners: Cell::new(0),
            epoch: Cell::new(0),
            timed: Cell::new(0),
            shortest: Cell::new(u64::MAX),
            alarm: Cell::new(0),
            later: Cell::new(0),
            last: RefCell::default(),
            foreign: Cell::new(false),
            limit,
            retries,
        })
    }

    pub(super) fn workers(&self) -> usize {
        self.dispatch.workers()
    }

    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    pub(super) fn forget(&self) {
        self.foreign.set(true);
    }

    /// When there is something to look at next.
    pub(super) fn alarm(&self) -> Option<u64> {
        [self.alarm.get(), self.later.get()]
            .into_iter()
            .filter(|at| *at != 0)
            .min()
    }

    /// Whether the pool has anything to do.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.borrow().len() == 0
            && self.feeding.borrow().is_empty()
            && self.calling.borrow().is_empty()
    }

    /// Refuses the use of a pool in a process that didn't make it.
    ///
    /// # Errors
    /// `AssertionError`.
    pub(super) fn check_own(&self) -> Result<()> {
        if self.foreign.get() {
            return Err(raise(
                Kind::AssertionError,
                "can only use a pool in the process that made it",
            ));
        }
        Ok(())
    }

    /// Refuses work for a pool that takes none.
    ///
    /// # Errors
    /// `ValueError` after `close` or `terminate`, `BrokenProcessPool`, `AssertionError` in another process.
    pub(super) fn check_running(&self) -> Result<()> {
        self.check_own()?;
        if let Some(error) = &*self.broken.borrow() {
            return Err(error.clone().into());
        }
        if self.state.get() != State::Running {
            return Err(raise(Kind::ValueError, "Pool not running"));
        }
        Ok(())
    }

    // Events

    /// Looks at what has come: results, callbacks, time limits. `explicit` says that the script asked this pool for something, rather
    /// than that the pool was looked after by the way: callbacks are called then even from within one.
    ///
    /// # Errors
    /// `exit` and KeyboardInterrupt out of a callback; a damaged session.
    pub(super) fn look(&self, explicit: bool) -> Result<()> {
        self.dispatch.drain(&mut |event| self.handle(event))?;
        self.enforce_limits()?;
        self.call_back(explicit)
    }

    /// Looks after the workers as well: for the interrupt hook, which runs after any death.
    ///
    /// # Errors
    /// As [`Inner::look`].
    pub(super) fn serve(&self) -> Result<()> {
        if self.foreign.get() {
            return Ok(());
        }
        if self.state.get() != State::Terminated {
            self.dispatch.supervise(&mut |event| self.handle(event))?;
        }
        self.look(false)
    }

    fn handle(&self, event: Event) {
        self.epoch.set(self.epoch.get() + 1);
        match event {
            Event::Done { task, report } => {
                if let Some(task) = self.remove(task) {
                    self.settle(&task, report);
                }
            }
            Event::Lost { task: id, end } => {
                if self.run_again(id) {
                    return;
                }
                let Some(task) = self.remove(id) else { return };
                let error = match task.job.terms.limit {
                    Some(limit) if task.overran => end.overran(limit),
                    _ => end.error(&format!("while it ran {}", described(&task))),
                };
                self.settle(&task, Report::One(Err(Dynamic::from(error))));
            }
            Event::Broken(error) => self.break_down(error),
        }
    }

    fn settle(&self, task: &Task, report: Report) {
        if task.job.accept(task.index, report) {
            self.complete(&task.job);
        }
    }

    pub(super) fn complete(&self, job: &Rc<Job>) {
        if job.has_callback() {
            self.calling.borrow_mut().push_back(job.clone());
        } else {
            job.set_done();
        }
    }

    /// Puts a lost task again, if it may be.
    fn run_again(&self, id: u64) -> bool {
        let message = {
            let mut tasks = self.tasks.borrow_mut();
            match tasks.get(id) {
                Some(task) if task.retries > 0 && !task.overran => {
                    task.retries -= 1;
                    task.message.take()
                }
                _ => None,
            }
        };
        let Some(message) = message else { return false };
        let sent = self.dispatch.submit(&message.parcel());
        if let Some(task) = self.tasks.borrow_mut().get(id) {
            task.message = Some(message);
        }
        sent.is_ok()
    }

    /// No task will be run any more: all open ones fail, and all that would be submitted.
    fn break_down(&self, error: ScriptError) {
        if self.broken.borrow().is_some() {
            return;
        }
        *self.broken.borrow_mut() = Some(error.clone());
        self.fail_open(&error);
        // They are ended at the next occasion if they can't be signalled now.
        let _ = self.dispatch.terminate(false);
    }

    fn fail_open(&self, error: &ScriptError) {
        let error = Dynamic::from(error.clone());
        let tasks = self.tasks.borrow_mut().clear();
        self.timed.set(0);
        self.alarm.set(0);
        let streams = self.feeding.take();
        for job in tasks.iter().map(|task| &task.job).chain(&streams) {
            if !job.is_complete() {
                job.fail(&error);
                self.complete(job);
            }
        }
        self.epoch.set(self.epoch.get() + 1);
    }

    // Waiting

    /// Waits until `done` says so: true, or false at the deadline. `missing` is how many more results that takes at least.
    ///
    /// # Errors
    /// What interrupts the wait; `AssertionError` in another process.
    pub(super) fn wait(
        &self,
        done: &dyn Fn() -> bool,
        missing: &dyn Fn() -> usize,
        deadline: Deadline,
        position: Position,
    ) -> Result<bool> {
        self.check_own()?;
        loop {
            self.look(true)?;
            if done() {
                return Ok(true);
            }
            if deadline.has_passed() {
                return Ok(false);
            }
            let epoch = self.epoch.get();
            let until = match self.alarm() {
                Some(at) => {
                    let left = Duration::from_nanos(at.saturating_sub(clock::now()));
                    deadline.min(Deadline::after(left))
                }
                None => deadline,
            };
            if !until.is_now() {
                self.dispatch.wait(missing(), until, position, &mut || {
                    self.epoch.get() != epoch || done()
                })?;
            }
            wait::poll_interrupts()?;
        }
    }

    /// Waits for a job's result.
    ///
    /// # Errors
    /// As [`Inner::wait`].
    pub(super) fn wait_for(
        &self,
        job: &Job,
        deadline: Deadline,
        position: Position,
    ) -> Result<bool> {
        self.wait(&|| job.is_done(), &|| job.missing(), deadline, position)
    }

    // The end

    /// Takes no more work.
    ///
    /// # Errors
    /// `AssertionError` in another process.
    pub(super) fn close(&self) -> Result<()> {
        self.check_own()?;
        if self.state.get() == State::Running {
            self.state.set(State::Closed);
        }
        Ok(())
    }

    /// Waits until all work is done and all workers have ended.
    ///
    /// # Errors
    /// `ValueError` while the pool is running; what interrupts the wait.
    pub(super) fn join(&self, position: Position) -> Result<()> {
        self.check_own()?;
        if self.state.get() == State::Running {
            return Err(raise(Kind::ValueError, "Pool is still running"));
        }
        if self.state.get() == State::Closed {
            // Nobody may take an iterator's results before this returns: its whole input is submitted.
            loop {
                let Some(job) = self.feeding.borrow().first().cloned() else {
                    break;
                };
                self.feed(&job, usize::MAX)?;
                if !job.with_stream(|stream| stream.is_fed()).unwrap_or(true) {
                    break;
                }
            }
            self.wait(
                &|| self.is_idle(),
                &|| self.tasks.borrow().len(),
                Deadline::NEVER,
                position,
            )?;
            if self.broken.borrow().is_none() {
                self.dispatch.finish(position)?;
            }
        }
        self.dispatch.terminate(true)?;
        self.call_back(true)
    }

    /// Ends all workers, whatever they do; results that are still open are errors then.
    ///
    /// # Errors
    /// What interrupts the wait for the workers' ends.
    pub(super) fn terminate(&self, wait: bool) -> Result<()> {
        self.check_own()?;
        // What has been done in time counts.
        let drained = self.dispatch.drain(&mut |event| self.handle(event));
        self.state.set(State::Terminated);
        let error = ScriptError::new(
            Kind::BrokenProcessPool,
            "the pool was terminated before this result was there",
        );
        let unfinished: Vec<Rc<Job>> = {
            let tasks = self.tasks.borrow();
            tasks.iter().map(|(_, task)| task.job.clone()).collect()
        };
        self.fail_open(&error);
        for job in unfinished {
            // A pool that its script has ended calls nobody back.
            self.calling
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, &job));
            if !job.is_done() {
                self.dismiss(&job);
                job.set_done();
            }
        }
        self.dispatch.terminate(wait)?;
        drained
    }
}

/// A task in a message: `'square'`, `'square' (task 3)`.
fn described(task: &Task) -> String {
    let name = task.job.terms.function.name();
    if task.job.terms.shape == Shape::Call {
        return name.to_owned();
    }
    // Chunks of a map's items, from 1 as people count.
    format!("{name} (task {})", task.index + 1)
}

/// Raises what a task threw.
pub(super) fn unwrap(outcome: Option<Outcome>) -> Result<Dynamic> {
    match outcome {
        Some(Ok(value)) => Ok(value),
        Some(Err(thrown)) => Err(Error::Rhai(Box::new(EvalAltResult::ErrorRuntime(
            thrown,
            rhai::Position::NONE,
        )))),
        None => Err(raise(
            Kind::RuntimeError,
            "the result was given away before",
        )),
    }
}
