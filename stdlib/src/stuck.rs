//! What a script sees of a program that is stuck: the picture on standard error, once, and a DeadlockError that carries it.
//!
//! That somebody is stuck is found by [`mphost_core::deadlock`]; here it gets its words.

use crate::picture::Picture;
use crate::runtime::runtime;
use crate::traceback::Sources;
use mphost_core::deadlock::{self, Report};
use mphost_core::error::CoreError;
use mphost_core::snapshot::Snapshot;
use mphost_core::table::SlotId;
use std::cell::{Cell, RefCell};

thread_local! {
    /// The last report that this process has printed: its traceback needn't show the picture once more.
    static PRINTED: RefCell<String> = const { RefCell::new(String::new()) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Makes reports errors of this process's script.
pub(crate) fn install() {
    deadlock::set_report_hook(report);
}

fn sources() -> Sources {
    let program = runtime().program();
    Sources::with_main(&program.path, &program.source)
}

fn report(report: &Report) -> CoreError {
    let message = message(report);
    if !QUIET.get() {
        // Where nobody reads standard error any more, the error says the same.
        let _ = crate::output::write_stderr(&format!("mphost: {message}\n"));
    }
    PRINTED.set(message.clone());
    CoreError::Deadlock(message)
}

fn message(report: &Report) -> String {
    let snapshot = &report.snapshot;
    let (headline, who) = if report.cycle.is_empty() {
        // Those who serve the others come last: they are not what the reader looks for.
        let (helpers, others): (Vec<_>, Vec<_>) =
            snapshot.processes.iter().partition(|p| p.info.helper);
        let count = others.len();
        let everybody: Vec<SlotId> = others
            .into_iter()
            .chain(helpers)
            .map(|p| p.info.slot)
            .collect();
        let headline = match count {
            1 => "this program is stuck: its only process waits for something that only another one could do".to_owned(),
            n => format!("this program is stuck: each of its {n} processes waits for another one"),
        };
        (headline, everybody)
    } else {
        let headline = format!(
            "{} processes wait for each other, and none of them can go on",
            report.cycle.len()
        );
        (headline, report.cycle.clone())
    };
    let picture = Picture::new(snapshot, sources()).processes(&who);
    format!("{headline}\n{}", picture.trim_end())
}

/// No picture is printed any more: the program ends because it was stuck.
pub(crate) fn be_quiet() {
    QUIET.set(true);
}

/// An error's message for a traceback: what this process has just shown as a picture is cut to its first line.
pub(crate) fn shortened(message: &str) -> &str {
    if PRINTED.with_borrow(|printed| printed == message) {
        message.lines().next().unwrap_or_default()
    } else {
        message
    }
}

/// Prints the program as it is now on standard error: what SIGQUIT (Ctrl-\) is answered with.
pub(crate) fn show_program() {
    let snapshot = Snapshot::take();
    let picture = Picture::new(&snapshot, sources()).program();
    let count = match snapshot.processes.len() {
        1 => "1 process".to_owned(),
        n => format!("{n} processes"),
    };
    let _ = crate::output::write_stderr(&format!("mphost: {count}\n{picture}"));
}
