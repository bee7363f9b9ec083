//! What a pool's worker does: takes tasks, runs them, puts reports, until it is told to stop.
//!
//! Invariants: a task is on record before it leaves the queue and until its report is in the other one; a worker that was marked as
//! doomed takes no task any more; nothing that a task throws ends the worker, but for `exit`.

use super::local::STOP;
use super::task::{self, Outcome, Report, Shape, Task};
use crate::convert::Encoder;
use crate::error::{Error, Kind, Result, ScriptError, raise, thrown_value};
use crate::process;
use crate::runtime::runtime;
use crate::traceback::{self, Sources};
use mphost_core::clock::Deadline;
use mphost_core::pool::{Claims, Stage};
use mphost_core::position::Position;
use mphost_core::queue::Queue;
use mphost_core::session::{ObjRef, session};
use mphost_core::{table, wait};
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, GlobalRuntimeState, NativeCallContext};
use smallvec::SmallVec;
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How many functions a worker remembers.
const REMEMBERED: usize = 8;
/// A message buffer beyond this many bytes isn't kept.
const KEPT: usize = 4 << 20;

/// What a worker is given.
pub(super) struct Assignment {
    pub(super) tasks: Queue,
    pub(super) reports: Queue,
    pub(super) claims: Claims,
    /// Which entry of the record is its own.
    pub(super) index: usize,
    pub(super) initializer: Option<FnPtr>,
    pub(super) initargs: Array,
    /// After how many tasks it is replaced.
    pub(super) share: Option<u64>,
}

/// What a task can end with, besides its report.
type Thrown = Box<EvalAltResult>;

struct Worker<'a> {
    given: &'a Assignment,
    ctx: &'a NativeCallContext<'a>,
    encoder: Encoder,
    /// The memory of the last task's message.
    message: Vec<u8>,
    functions: Vec<(Vec<u8>, FnPtr)>,
    /// Which version of the program it knows, and what is in reach of a task since it isn't the one that it began with.
    version: u64,
    reach: Option<GlobalRuntimeState>,
}

/// The life of a worker.
///
/// # Errors
/// What ends the process: an `exit` in a task or the initializer.
pub(super) fn run(given: &Assignment, ctx: &NativeCallContext<'_>) -> Result<()> {
    let mut worker = Worker {
        given,
        ctx,
        encoder: Encoder::new(),
        message: Vec::new(),
        functions: Vec::new(),
        version: runtime().version(),
        reach: None,
    };
    given.claims.set_stage(given.index, Stage::Initialising)?;
    if let Some(initializer) = &given.initializer
        && let Err(error) = initializer.call_raw(ctx, None, given.initargs.clone())
    {
        return Err(worker.initializer_failed(error));
    }
    given.claims.set_stage(given.index, Stage::Ready)?;
    let mut done = 0;
    while worker.one_task()? {
        done += 1;
        if given.share.is_some_and(|share| done >= share) {
            break;
        }
    }
    given.claims.set_stage(given.index, Stage::Leaving)?;
    // A place is free: whoever waits for results has to know.
    table::kick(given.claims.owner()?);
    Ok(())
}

impl Worker<'_> {
    /// Runs the next task; false if there is none any more.
    fn one_task(&mut self) -> Result<bool> {
        let Assignment {
            tasks,
            claims,
            index,
            ..
        } = self.given;
        let mut message = std::mem::take(&mut self.message);
        let mut kept: SmallVec<[ObjRef; 2]> = SmallVec::new();
        let mut fds = Ok(Vec::new());
        let id = Cell::new(0);
        let flags = tasks.get_with(
            Deadline::NEVER,
            Position::default(),
            |item| {
                // Others wait for their turn meanwhile: the values are made afterwards, out of a copy.
                message.clear();
                message.extend_from_slice(item.payload);
                kept.clear();
                let objects = item.handles.iter();
                kept.extend(objects.filter_map(|handle| session().claim(*handle).ok()));
                fds = item.fds();
                let id_of = if item.flags == STOP {
                    0
                } else {
                    task::id_of(item.payload)
                };
                id.set(id_of);
                item.flags
            },
            |number| {
                if id.get() != 0 {
                    // The record exists as long as this process, and has an entry for it.
                    let _ = claims.claim(*index, id.get(), number);
                }
            },
        )?;
        if flags == STOP {
            // For the next one.
            tasks.put(&[], &[], STOP, Deadline::NEVER, Position::default())?;
            return Ok(false);
        }
        let report = match self.perform(&message, fds) {
            Ok(report) => report,
            Err(Ended::Exit(error)) => return Err(Error::Rhai(error)),
            Err(Ended::Thrown(value)) => Report::One(Err(value)),
        };
        drop(kept);
        self.report(id.get(), report)?;
        if !claims.finish(*index, id.get())? {
            // This process's end is on its way.
            loop {
                wait::sleep(Duration::from_secs(1), Position::default())?;
            }
        }
        if claims.listening()? {
            table::kick(claims.owner()?);
        }
        if message.capacity() <= KEPT {
            self.message = message;
        }
        Ok(true)
    }

    fn perform(
        &mut self,
        message: &[u8],
        fds: mphost_core::error::Result<Vec<OwnedFd>>,
    ) -> std::result::Result<Report, Ended> {
        self.catch_up().map_err(|e| self.refused(e))?;
        let mut task = fds
            .map_err(Error::from)
            .and_then(|fds| Task::read(message, fds))
            .map_err(|e| self.refused(e))?;
        let captured = std::mem::take(&mut task.captured);
        let function = self
            .function(task.function, captured)
            .map_err(|e| self.refused(e))?;
        if task.shape == Shape::Call {
            let args = task.arguments().map_err(|e| self.refused(e))?;
            return Ok(Report::One(self.call(&function, args)?));
        }
        let items = task.items().map_err(|e| self.refused(e))?;
        if task.shape == Shape::Each {
            let outcomes: std::result::Result<Vec<Outcome>, Ended> = items
                .into_iter()
                .map(|item| self.call(&function, [item]))
                .collect();
            return Ok(Report::Each(outcomes?));
        }
        let mut values = Array::with_capacity(items.len());
        let mut first_error = None;
        for item in items {
            let outcome = if task.shape == Shape::Map {
                self.call(&function, [item])?
            } else {
                match item.try_cast_result::<Array>() {
                    Ok(args) => self.call(&function, args)?,
                    Err(item) => Err(not_arguments(&item)),
                }
            };
            match outcome {
                Ok(value) => values.push(value),
                // The others are run all the same.
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Ok(match first_error {
            None => Report::Values(values),
            Some(error) => Report::One(Err(error)),
        })
    }

    /// Takes over what was typed at a prompt since this worker began.
    fn catch_up(&mut self) -> Result<()> {
        let runtime = runtime();
        runtime.refresh()?;
        if runtime.version() != self.version {
            self.version = runtime.version();
            self.functions.clear();
            let known = self.ctx.global_runtime_state();
            self.reach = Some(crate::interactive::reach(runtime, known)?);
        }
        Ok(())
    }

    fn call(
        &self,
        function: &FnPtr,
        args: impl AsMut<[Dynamic]>,
    ) -> std::result::Result<Outcome, Ended> {
        let result = match &self.reach {
            None => function.call_raw(self.ctx, None, args),
            Some(reach) => {
                let (engine, at) = (self.ctx.engine(), rhai::Position::NONE);
                let ctx = NativeCallContext::new_with_all_fields(engine, "", None, reach, at);
                function.call_raw(&ctx, None, args)
            }
        };
        match result {
            Ok(value) => Ok(Ok(value.flatten())),
            Err(error) if matches!(error.unwrap_inner(), EvalAltResult::Exit(..)) => {
                Err(Ended::Exit(error))
            }
            Err(error) => Ok(Err(self.thrown(&error))),
        }
    }

    /// The function of a message; remembered, if it has captured nothing that another call could see changed.
    fn function(&mut self, message: &[u8], fds: Vec<OwnedFd>) -> Result<FnPtr> {
        if let Some((_, known)) = self.functions.iter().find(|(bytes, _)| bytes == message) {
            return Ok(known.clone());
        }
        let function = task::read_function(message, fds)?;
        if function.iter_curry().all(is_plain) {
            if self.functions.len() == REMEMBERED {
                self.functions.remove(0);
            }
            self.functions.push((message.to_vec(), function.clone()));
        }
        Ok(function)
    }

    /// What a failing task throws in the caller: the value itself, with this process's traceback where it is an error.
    fn thrown(&self, error: &EvalAltResult) -> Dynamic {
        let program = runtime().program();
        let value = thrown_value(error, Some(&program.path));
        let Some(script) = value.read_lock::<ScriptError>().map(|error| error.clone()) else {
            return value;
        };
        let mut sources = Sources::with_main(&program.path, &program.source);
        let text = traceback::format(error, &program.path, true, &mut sources);
        Dynamic::from(script.with_traceback(format!("{}:\n{text}", this_process())))
    }

    /// The end of a task that couldn't even begin.
    fn refused(&self, error: Error) -> Ended {
        let error = error.into_rhai(None, rhai::Position::NONE);
        Ended::Thrown(self.thrown(&error))
    }

    fn report(&mut self, id: u64, report: Report) -> Result<()> {
        self.encoder.clear();
        if let Err(error) = task::write_report(&mut self.encoder, id, &report) {
            let text = match &report {
                Report::One(Err(thrown)) | Report::InitializerFailed(thrown) => {
                    format!(" (the task threw {thrown})")
                }
                _ => String::new(),
            };
            let Error::Script(error) = error else {
                return Err(error);
            };
            let mut detail = error.detail().clone();
            detail.message.push_str(&text);
            detail.traceback = format!("{}\n", this_process());
            let error = Dynamic::from(ScriptError::from_detail(detail));
            self.encoder.clear();
            let report = match report {
                Report::InitializerFailed(_) => Report::InitializerFailed(error),
                _ => Report::One(Err(error)),
            };
            task::write_report(&mut self.encoder, id, &report)?;
        }
        let handles = self.encoder.seal();
        let bytes = self.encoder.bytes();
        let reports = &self.given.reports;
        let fds = self.encoder.borrowed_fds()?;
        reports.put_quietly(
            bytes,
            &handles,
            &fds,
            0,
            Deadline::NEVER,
            Position::default(),
        )?;
        // A caller that waits for many results is woken once they are there.
        let wanted = self.given.claims.wanted()?;
        if wanted == 0 || reports.puts()? >= wanted {
            reports.wake_getter()?;
        }
        Ok(())
    }

    /// Says why the pool can't be used; the error ends this process without a word.
    fn initializer_failed(&mut self, error: Thrown) -> Error {
        if matches!(error.unwrap_inner(), EvalAltResult::Exit(..)) {
            return Error::Rhai(error);
        }
        let value = self.thrown(&error);
        match self.report(0, Report::InitializerFailed(value)) {
            Ok(()) => Error::Rhai(Box::new(EvalAltResult::Exit(
                Dynamic::from_int(1),
                rhai::Position::NONE,
            ))),
            Err(error) => error,
        }
    }
}

/// How a task can end without a report of its function.
enum Ended {
    /// `exit(n)`: the process ends.
    Exit(Thrown),
    /// It couldn't be called.
    Thrown(Dynamic),
}

fn this_process() -> String {
    format!("{} (pid {})", process::current().name(), std::process::id())
}

fn is_plain(value: &Dynamic) -> bool {
    value.is_unit()
        || value.is_int()
        || value.is_float()
        || value.is_bool()
        || value.is_char()
        || value.is_string()
}

fn not_arguments(item: &Dynamic) -> Dynamic {
    let name = crate::api::type_name(item);
    let message = format!("starmap(): each item must be an array of arguments, not {name}");
    match raise(Kind::TypeError, message) {
        Error::Script(error) => {
            Dynamic::from(error.with_traceback(format!("{}\n", this_process())))
        }
        _ => Dynamic::UNIT,
    }
}
