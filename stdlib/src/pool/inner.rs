//! A pool's own work: jobs become tasks, events become results, callbacks are called.
//!
//! All of it happens in the process that made the pool: while that waits for one of the pool's results, and otherwise from the interrupt
//! hook, that is, in any other wait of the host and between two steps of a script that only computes.
//!
//! Invariants: callbacks are called one after another, in the order in which their jobs became complete; nothing is borrowed while script
//! code runs or a process is started; [`Inner::epoch`] changes with everything that a waiting caller may have to look at anew.

use super::dispatch::{Dispatch, Event, Message};
use super::job::{Draw, Job};
use super::local::{Reach, in_reach, value_of};
use super::task::{self, Function, Outcome, Report, Shape};
use super::tasks::{Task, Tasks};
use crate::error::{Error, Kind, Result, ScriptError, raise, thrown_value};
use crate::message::with_encoder;
use crate::runtime::runtime;
use crate::traceback::{self, Sources};
use mphost_core::clock::{self, Deadline};
use mphost_core::position::Position;
use mphost_core::wait;
use rhai::{Dynamic, EvalAltResult, FnPtr, ImmutableString};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

const NANOS: f64 = 1e9;

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
    dispatch: Box<dyn Dispatch>,
    reach: Reach,
    state: Cell<State>,
    broken: RefCell<Option<ScriptError>>,
    tasks: RefCell<Tasks>,
    /// Iterators whose input isn't drawn to its end.
    feeding: RefCell<Vec<Rc<Job>>>,
    /// Complete jobs whose callbacks haven't been called.
    calling: RefCell<VecDeque<Rc<Job>>>,
    in_callback: Cell<bool>,
    /// How many jobs with a callback are open.
    listeners: Cell<usize>,
    epoch: Cell<u64>,
    /// How many open tasks have a time limit, and the smallest of their limits in nanoseconds.
    timed: Cell<usize>,
    shortest: Cell<u64>,
    /// When the next task may run over its limit; 0 for never.
    alarm: Cell<u64>,
    /// The function of the last job, if it has captured nothing.
    last: RefCell<Option<(ImmutableString, Rc<Function>)>>,
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

    /// When the next task may run over its limit.
    pub(super) fn alarm(&self) -> Option<u64> {
        Some(self.alarm.get()).filter(|at| *at != 0)
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

    /// A function, written down.
    ///
    /// # Errors
    /// `PicklingError`.
    pub(super) fn function(&self, pointer: &FnPtr) -> Result<Rc<Function>> {
        let plain = pointer.curry().is_empty();
        if plain
            && let Some((name, known)) = &*self.last.borrow()
            && name == pointer.fn_name()
        {
            return Ok(known.clone());
        }
        let function = Rc::new(Function::new(pointer)?);
        if plain {
            *self.last.borrow_mut() = Some((pointer.fn_name().into(), function.clone()));
        }
        Ok(function)
    }

    // Submission

    /// Submits the one task of a job of one call.
    ///
    /// # Errors
    /// `PicklingError` for arguments that can't travel.
    pub(super) fn submit_call(&self, job: &Rc<Job>, args: &Dynamic, kwds: &Dynamic) -> Result<()> {
        self.admit(job)?;
        let sent = self.submit(job, 0, |encoder, id| {
            task::write_call(encoder, id, &job.terms.function, args, kwds)
        });
        self.or_drop(job, sent)
    }

    /// Submits the tasks of a map.
    ///
    /// # Errors
    /// As [`Inner::submit_call`].
    pub(super) fn submit_map(&self, job: &Rc<Job>, items: &[Dynamic], chunk: usize) -> Result<()> {
        self.admit(job)?;
        for (index, chunk_items) in items.chunks(chunk.max(1)).enumerate() {
            let sent = self.submit(job, index, |encoder, id| {
                let Terms { shape, function } = terms(job);
                task::write_chunk(encoder, id, shape, function, index * chunk, chunk_items)
            });
            self.or_drop(job, sent)?;
        }
        if job.is_complete() {
            self.complete(job);
            self.call_back(true)?;
        }
        Ok(())
    }

    /// Begins an iterator's job.
    ///
    /// # Errors
    /// What drawing an item throws that isn't the input's own error.
    pub(super) fn submit_stream(&self, job: &Rc<Job>) -> Result<()> {
        self.admit(job)?;
        self.feeding.borrow_mut().push(job.clone());
        self.feed(job, self.window())
    }

    /// How many of an iterator's tasks may be ahead of what was taken from it.
    pub(super) fn window(&self) -> usize {
        (self.workers() * 4).max(32)
    }

    fn admit(&self, job: &Rc<Job>) -> Result<()> {
        if job.has_callback() {
            if self.listeners.get() == 0 {
                self.dispatch.listen(true)?;
            }
            self.listeners.set(self.listeners.get() + 1);
        }
        Ok(())
    }

    fn dismiss(&self, job: &Job) {
        if job.has_callback() {
            self.listeners.set(self.listeners.get().saturating_sub(1));
            if self.listeners.get() == 0 {
                // The record is this process's own: it is there.
                let _ = self.dispatch.listen(false);
            }
        }
    }

    fn submit(
        &self,
        job: &Rc<Job>,
        index: usize,
        write: impl FnOnce(&mut crate::convert::Encoder, u64) -> Result<()>,
    ) -> Result<()> {
        let retries = job.terms.retries;
        let task = Task {
            job: job.clone(),
            index,
            retries,
            message: None,
            overran: false,
        };
        let id = self.tasks.borrow_mut().add(task);
        if let Some(limit) = job.terms.limit {
            self.time(limit);
        }
        let sent = with_encoder(|encoder| {
            write(encoder, id)?;
            let captured = job.terms.function.objects();
            if retries > 0 {
                let message = Message {
                    bytes: encoder.bytes().to_vec(),
                    objects: encoder.objects().iter().chain(captured).cloned().collect(),
                };
                if let Some(task) = self.tasks.borrow_mut().get(id) {
                    task.message = Some(message);
                }
            }
            let captured = job.terms.function.objects();
            self.dispatch.submit(
                encoder.bytes(),
                &mut encoder.objects().iter().chain(captured),
            )
        });
        if sent.is_err() {
            self.remove(id);
        }
        sent
    }

    /// After a task of a job couldn't be sent, the job is no more.
    fn or_drop(&self, job: &Rc<Job>, sent: Result<()>) -> Result<()> {
        if sent.is_err() {
            self.recall(job, false)?;
            self.dismiss(job);
        }
        sent
    }

    fn remove(&self, id: u64) -> Option<Task> {
        let task = self.tasks.borrow_mut().remove(id)?;
        if task.job.terms.limit.is_some() {
            self.timed.set(self.timed.get().saturating_sub(1));
            if self.timed.get() == 0 {
                self.shortest.set(u64::MAX);
                self.alarm.set(0);
            }
        }
        Some(task)
    }

    /// Takes a job's tasks back; ends those that run, if `abort`.
    fn recall(&self, job: &Rc<Job>, abort: bool) -> Result<()> {
        let mut ids = self.tasks.borrow().of(job);
        if ids.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        for id in &ids {
            self.remove(*id);
        }
        self.dispatch
            .withdraw(&|id| ids.binary_search(&id).is_ok())?;
        if abort {
            for id in ids {
                self.dispatch.abort(id)?;
            }
        }
        Ok(())
    }

    /// Cancels a job: what waits is never run, what runs is ended. False if it is complete already.
    ///
    /// # Errors
    /// `AssertionError` in another process.
    pub(super) fn cancel(&self, job: &Rc<Job>) -> Result<bool> {
        self.check_own()?;
        self.look(true)?;
        if job.is_complete() {
            return Ok(false);
        }
        self.recall(job, true)?;
        job.fail(&Dynamic::from(ScriptError::new(
            Kind::CancelledError,
            "the task was cancelled",
        )));
        self.dismiss(job);
        job.set_done();
        self.epoch.set(self.epoch.get() + 1);
        Ok(true)
    }

    // Iterators

    /// Draws an iterator's input and submits it, as long as fewer than `window` tasks are ahead.
    ///
    /// # Errors
    /// What interrupts.
    pub(super) fn feed(&self, job: &Rc<Job>, window: usize) -> Result<()> {
        while let Some(Draw {
            mut source,
            chunk,
            first,
        }) = job.with_stream(|stream| stream.draw(window)).flatten()
        {
            let mut items = Vec::with_capacity(chunk.min(1024));
            let mut failed = None;
            while items.len() < chunk {
                match source.next() {
                    Some(Ok(item)) => items.push(item),
                    Some(Err(error)) => {
                        failed = Some(error);
                        break;
                    }
                    None => break,
                }
            }
            let ended = failed.is_some() || items.len() < chunk;
            let count = items.len();
            let index = |job: &Job| job.with_stream(|stream| stream.submit()).unwrap_or(0);
            if let Some(error) = failed {
                // Python drops what it had drawn of an unfinished chunk, too.
                let error = thrown_value(&error, None);
                job.accept(index(job), Report::One(Err(error)));
            } else if count > 0 {
                let number = index(job);
                let sent = self.submit(job, number, |encoder, id| {
                    let Terms { shape, function } = terms(job);
                    task::write_chunk(encoder, id, shape, function, first, &items)
                });
                if let Err(error) = sent {
                    job.accept(number, Report::One(Err(value_of(error))));
                }
            }
            job.with_stream(|stream| stream.drawn((!ended).then_some(source), count));
        }
        if job.with_stream(|stream| stream.is_fed()).unwrap_or(true) {
            self.feeding
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, job));
            if job.is_complete() {
                job.set_done();
            }
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
                    _ => end.error("while it ran this task"),
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

    fn complete(&self, job: &Rc<Job>) {
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
        let sent = self
            .dispatch
            .submit(&message.bytes, &mut message.objects.iter());
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

    // Callbacks

    fn call_back(&self, explicit: bool) -> Result<()> {
        loop {
            if self.calling.borrow().is_empty() || (self.in_callback.get() && !explicit) {
                return Ok(());
            }
            let Some(job) = self.calling.borrow_mut().pop_front() else {
                return Ok(());
            };
            let (callback, value) = match job.outcome() {
                Some(Ok(value)) => (&job.terms.callback, value),
                Some(Err(error)) => (&job.terms.error_callback, error),
                None => (&None, Dynamic::UNIT),
            };
            let result = match callback {
                Some(callback) => {
                    let outer = self.in_callback.replace(true);
                    let result = in_reach(&self.reach, |ctx| callback.call_raw(ctx, None, [value]));
                    self.in_callback.set(outer);
                    result
                }
                None => Ok(Dynamic::UNIT),
            };
            self.dismiss(&job);
            job.set_done();
            self.epoch.set(self.epoch.get() + 1);
            if let Err(error) = result {
                report_callback(error)?;
            }
        }
    }

    // Time limits

    /// One more task with a time limit.
    fn time(&self, seconds: f64) {
        self.timed.set(self.timed.get() + 1);
        let limit = nanos(seconds);
        self.shortest.set(self.shortest.get().min(limit));
        self.alarm_at(clock::now().saturating_add(limit));
    }

    fn alarm_at(&self, at: u64) {
        let at = at.max(1);
        if self.alarm.get() == 0 || at < self.alarm.get() {
            self.alarm.set(at);
            super::set_alarm();
        }
    }

    fn enforce_limits(&self) -> Result<()> {
        if self.timed.get() == 0 || self.alarm.get() == 0 {
            return Ok(());
        }
        let now = clock::now();
        if now < self.alarm.get() {
            return Ok(());
        }
        // A task that hasn't begun may begin now.
        let mut next = now.saturating_add(self.shortest.get());
        for running in self.dispatch.running() {
            let limit = {
                let mut tasks = self.tasks.borrow_mut();
                tasks
                    .get(running.task)
                    .and_then(|task| task.job.terms.limit)
            };
            let Some(limit) = limit else { continue };
            let end = running.since.saturating_add(nanos(limit));
            if end > now {
                next = next.min(end);
            } else if self.dispatch.abort(running.task)?
                && let Some(task) = self.tasks.borrow_mut().get(running.task)
            {
                task.overran = true;
            }
        }
        self.alarm.set(0);
        self.alarm_at(next);
        Ok(())
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

struct Terms<'a> {
    shape: Shape,
    function: &'a Function,
}

fn terms(job: &Job) -> Terms<'_> {
    Terms {
        shape: job.terms.shape,
        function: &job.terms.function,
    }
}

fn nanos(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "floats that are too large become the largest number, negative ones 0"
    )]
    let nanos = (seconds * NANOS) as u64;
    nanos
}

/// A callback has thrown: the pool goes on, but for what ends the script.
fn report_callback(error: Box<EvalAltResult>) -> Result<()> {
    let ends = matches!(error.unwrap_inner(), EvalAltResult::Exit(..))
        || thrown_value(&error, None)
            .read_lock::<ScriptError>()
            .is_some_and(|error| error.kind() == Kind::KeyboardInterrupt);
    if ends {
        return Err(Error::Rhai(error));
    }
    let program = runtime().program();
    let mut sources = Sources::with_main(&program.path, &program.source);
    let text = traceback::format(&error, &program.path, true, &mut sources);
    crate::output::write_stderr(&format!("Exception in a pool's callback:\n{text}"))
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
