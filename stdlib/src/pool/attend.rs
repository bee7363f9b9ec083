//! What happens to jobs without the script asking: callbacks are called, and tasks that take too long are ended.

use super::inner::Inner;
use super::job::Job;
use super::local::in_reach;
use crate::error::{Error, Kind, Result, ScriptError, thrown_value};
use crate::runtime::runtime;
use crate::traceback::{self, Sources};
use mphost_core::clock;
use rhai::{Dynamic, EvalAltResult, FnPtr};

const NANOS: f64 = 1e9;

/// After how many nanoseconds a callback is tried again that couldn't be called.
const SOON: u64 = 1_000_000;

/// Whether a callback has captured a variable of which a method is just being called: Rhai would call its use a data race.
fn uses_what_is_locked(job: &Job) -> bool {
    let callbacks = [&job.terms.callback, &job.terms.error_callback];
    let mut captured = callbacks.into_iter().flatten().flat_map(FnPtr::iter_curry);
    captured.any(Dynamic::is_locked)
}

impl Inner {
    /// Calls the callbacks of complete jobs. `explicit`: the script waits for just that, so they are called even from within one.
    ///
    /// # Errors
    /// `exit` and KeyboardInterrupt.
    pub(super) fn call_back(&self, explicit: bool) -> Result<()> {
        loop {
            if self.calling.borrow().is_empty() || (self.in_callback.get() && !explicit) {
                return Ok(());
            }
            let Some(job) = self.calling.borrow_mut().pop_front() else {
                return Ok(());
            };
            if !explicit && uses_what_is_locked(&job) {
                self.calling.borrow_mut().push_front(job);
                self.call_later();
                return Ok(());
            }
            self.later.set(0);
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

    /// A callback can't be called just now.
    fn call_later(&self) {
        self.later.set(clock::now().saturating_add(SOON));
        super::set_alarm();
    }

    /// One more task with a time limit.
    pub(super) fn time(&self, seconds: f64) {
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

    pub(super) fn enforce_limits(&self) -> Result<()> {
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
