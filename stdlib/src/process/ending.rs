//! How processes end: what an uncaught error prints, which children are waited for and which are ended.
//!
//! The order is Python's: exit handlers of the script (last registered first), then daemonic children are terminated, then the others
//! are joined. Nothing that a script prints is buffered, so nothing is flushed.

use super::{Process, children};
use crate::error::{Error, Kind, Result, ScriptError};
use crate::logging;
use crate::runtime::{runtime, take_unseen};
use crate::traceback::{self, Sources};
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::signals;
use mphost_core::table::{self, SlotStatus};
use nix::sys::signal::Signal;
use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};
use std::time::Duration;

/// How long a process that was asked to end (SIGTERM) may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// The exit code of a script that was ended by Ctrl-C, as shells expect it: 128 + SIGINT.
pub const INTERRUPTED: i32 = 130;

/// In a forked child: the parent's children, pools and exit handlers aren't this process's.
pub(super) fn forget_parent() {
    crate::forget_parent();
}

/// Notices children that have ended, so that none stays a zombie or keeps its slot.
pub fn reap() {
    for child in children() {
        child.refresh();
    }
}

/// Ends this process: exit handlers, children, the report of an uncaught error. Returns the exit code.
pub fn finish(
    result: std::result::Result<(), Box<EvalAltResult>>,
    ctx: &NativeCallContext<'_>,
) -> i32 {
    let mut stuck = false;
    let mut code = match with_exit(result) {
        Ok(()) => 0,
        Err(error) => {
            stuck = is_deadlock(&error);
            report_uncaught(&error)
        }
    };
    if code == INTERRUPTED {
        // Ctrl-C is for the whole program: nobody is waited for. Another one ends what is left of it at once.
        let _ = signals::default(Signal::SIGINT as i32);
        kill_children();
    }
    if let Err(error) = crate::run_exit_handlers(ctx) {
        code = report_uncaught(&error.into_rhai(ctx.call_source(), Position::NONE));
    }
    logging::host(logging::INFO, || "process shutting down".into());
    // Output that got lost in the last steps must not look like success.
    if let Some(error) = take_unseen() {
        code = report_uncaught(&error.into_rhai(ctx.call_source(), Position::NONE));
    }
    if stuck {
        // What held the others up may be gone with the script; if not, it has been said.
        crate::stuck::be_quiet();
    }
    if let Err(error) = end_children() {
        let said = stuck && matches!(error, Error::Core(CoreError::Deadlock(_)));
        if !said {
            code = report_uncaught(&error.into_rhai(ctx.call_source(), Position::NONE));
        }
        // An interrupt, or children that can never end: nobody waits any more.
        let _ = signals::default(Signal::SIGINT as i32);
        kill_children();
    }
    crate::connection::close_all();
    if super::own(|own| own.parent.is_some()) {
        logging::host(logging::INFO, || {
            format!("process exiting with exitcode {code}")
        });
    }
    code
}

/// Ends what a script has left behind, in a program that goes on: exit handlers, pools, children, servers.
///
/// # Errors
/// The first of what an exit handler throws, what a signal raised, and what interrupts the wait for children, who are killed then.
pub fn wind_up(ctx: &NativeCallContext<'_>) -> Result<()> {
    // An exit has taken place as an error of the script.
    let _ = crate::sys::take_exit();
    let handlers = crate::run_exit_handlers(ctx);
    let unseen = take_unseen().map_or(Ok(()), Err);
    let ended = end_children();
    if ended.is_err() {
        kill_children();
    }
    handlers.and(unseen).and(ended)
}

fn is_deadlock(error: &EvalAltResult) -> bool {
    crate::error::thrown_value(error, None)
        .read_lock::<ScriptError>()
        .is_some_and(|error| error.kind() == Kind::DeadlockError)
}

/// The end that `sys::exit` asked for, where Rhai made a normal end of it, or where a signal's handler asked in the middle of a step.
fn with_exit(
    result: std::result::Result<(), Box<EvalAltResult>>,
) -> std::result::Result<(), Box<EvalAltResult>> {
    let asked = crate::sys::take_exit();
    let lost = match &result {
        Ok(()) => true,
        Err(error) => matches!(error.unwrap_inner(), EvalAltResult::ErrorTerminated(..)),
    };
    match asked {
        Some(value) if lost => Err(Box::new(EvalAltResult::Exit(value, Position::NONE))),
        _ => result,
    }
}

/// Terminates daemonic children and joins all others.
fn end_children() -> Result<()> {
    let all = children();
    for child in all.iter().filter(|child| child.is_daemon()) {
        logging::host(logging::INFO, || {
            format!("calling terminate() for daemon {}", child.name())
        });
        child.signal(Signal::SIGTERM);
    }
    let deadline = Deadline::after(GRACE);
    for child in all.iter().filter(|child| child.is_daemon()) {
        if !child.wait(deadline)? {
            child.signal(Signal::SIGKILL);
            child.wait(Deadline::NEVER)?;
        }
    }
    // Children may have been started meanwhile, by a callback.
    while let Some(child) = children().into_iter().find(|child| !child.is_server()) {
        logging::host(logging::INFO, || {
            format!("calling join() for process {}", child.name())
        });
        child.wait(Deadline::NEVER)?;
        child.refresh();
    }
    // Nobody is left who could use the servers.
    crate::managers::flush();
    crate::managers::shutdown_all();
    Ok(())
}

/// Kills all children at once: the end of a program that was interrupted.
pub fn kill_children() {
    for child in children() {
        child.signal(Signal::SIGKILL);
    }
    for child in children() {
        // It can't refuse SIGKILL; an interrupt here changes nothing.
        while let Err(Error::Core(CoreError::Interrupted(_))) = child.wait(Deadline::NEVER) {}
        child.refresh();
    }
}

impl Process {
    fn is_server(&self) -> bool {
        self.0.borrow().server
    }

    pub(super) fn is_daemon(&self) -> bool {
        self.0.borrow().daemon
    }

    /// Sends a signal, if the process is alive.
    pub fn signal(&self, signal: Signal) {
        if self.refresh().is_some() {
            return;
        }
        let Some(slot) = self.slot() else { return };
        if let (SlotStatus::Live, Some(pid)) = (table::status(slot), self.pid()) {
            // It may just have ended: then there is nobody to signal any more, as wanted.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }

    /// Waits for the end; false at the deadline.
    ///
    /// # Errors
    /// What interrupted the wait.
    pub fn wait(&self, deadline: Deadline) -> Result<bool> {
        if self.refresh().is_some() {
            return Ok(true);
        }
        let Some(slot) = self.slot() else {
            return Ok(true);
        };
        let ended = table::join(slot, deadline, crate::with::position())?;
        self.refresh();
        Ok(ended)
    }
}

/// Prints what nobody caught, in one write, and gives the exit code.
#[must_use]
pub fn report_uncaught(error: &EvalAltResult) -> i32 {
    let inner = error.unwrap_inner();
    if let EvalAltResult::Exit(value, _) = inner {
        return exit_code(value);
    }
    if matches!(inner, EvalAltResult::Return(..)) {
        return 0;
    }
    let thrown = crate::error::thrown_value(error, None);
    let kind = thrown
        .read_lock::<ScriptError>()
        .map(|error| (error.kind(), error.detail().message.clone()));
    if let Some((Kind::SystemExit, asked)) = &kind {
        return exit_code(&asked_exit(asked));
    }
    let runtime = runtime();
    let program = runtime.program();
    let mut sources = Sources::with_main(&program.path, &program.source);
    let mut text = String::new();
    // What fails before a child knows its own name is a child's error too.
    let named = super::is_known();
    let is_child = !named || super::own(|own| own.parent.is_some());
    if named && is_child {
        text = format!("Process {}:\n", super::current().name());
    }
    text.push_str(&traceback::format(
        error,
        &program.path,
        is_child || super::child::is_called(),
        &mut sources,
    ));
    let _ = crate::output::write_report(&text);
    let interrupted = matches!(kind, Some((Kind::KeyboardInterrupt, _)));
    if interrupted && !is_child {
        INTERRUPTED
    } else {
        1
    }
}

/// What `throw SystemExit(code)` asked for: an error keeps a text of it.
fn asked_exit(message: &str) -> Dynamic {
    match message.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) if message.is_empty() => Dynamic::UNIT,
        Err(_) => message.into(),
    }
}

/// Python's rules: a number's low 8 bits, true is 1, `()` is 0, anything else goes to stderr and is 1.
#[must_use]
pub fn exit_code(value: &Dynamic) -> i32 {
    if value.is_unit() {
        return 0;
    }
    if let Ok(truth) = value.as_bool() {
        return i32::from(truth);
    }
    if let Ok(number) = value.as_int() {
        return i32::try_from(number & 0xff).unwrap_or(0);
    }
    let _ = crate::output::write_stderr(&format!("{value}\n"));
    1
}
