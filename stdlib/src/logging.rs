//! Logging: `mp::log_to_stderr`, `mp::get_logger`, the levels of the module `logging`, and the host's own records.
//!
//! There is one logger, named "multiprocessing". What it is told, by a script or by the host itself, is an event of
//! [`tracing`] with the target [`TARGET`]; `log_to_stderr` installs a subscriber that writes each event as one line in one write, so
//! that lines of different processes never mix. A Rust program that embeds the scripts and has a subscriber of its own gets
//! the events there instead.
//!
//! Invariants: nothing is installed and nothing formatted before somebody wants records, so a program that doesn't log pays one
//! comparison; the level, and whether records go to standard error, are a child's as they are its parent's at the start.
//!
//! Source: CPython Library Reference, `multiprocessing`, "Logging"; `Lib/multiprocessing/util.py`.

use crate::api::{Call, Class, Registry};
use crate::context::Context;
use crate::error::{Kind, Result, raise};
use rhai::{Array, Dynamic, ImmutableString};
use std::cell::Cell;
use std::fmt::{Debug, Write as _};
use tracing::field::{Field, Visit};
use tracing::span;

/// The target of all events.
pub const TARGET: &str = "multiprocessing";

/// Below everything: the level that a logger has until it is given one.
pub const NOTSET: i64 = 0;
/// What the host does, in detail.
pub const DEBUG: i64 = 10;
/// Beginnings and ends of processes.
pub const INFO: i64 = 20;
/// What a logger without a level of its own lets through.
pub const WARNING: i64 = 30;
const ERROR: i64 = 40;
const CRITICAL: i64 = 50;
const SUBDEBUG: i64 = 5;
const SUBWARNING: i64 = 25;

/// What the logger's `debug` gives: Rhai hands the result of whatever is called `debug` to the engine's debug hook, which
/// passes this one over.
pub(crate) const RECORDED: &str = "\0";

const NAMES: [(&str, i64); 8] = [
    ("NOTSET", NOTSET),
    ("SUBDEBUG", SUBDEBUG),
    ("DEBUG", DEBUG),
    ("INFO", INFO),
    ("SUBWARNING", SUBWARNING),
    ("WARNING", WARNING),
    ("ERROR", ERROR),
    ("CRITICAL", CRITICAL),
];

thread_local! {
    static LEVEL: Cell<i64> = const { Cell::new(NOTSET) };
    /// Whether records are written to standard error.
    static SHOWN: Cell<bool> = const { Cell::new(false) };
}

/// What `mp::get_logger()` gives; all of them are the same logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logger;

fn effective() -> i64 {
    match LEVEL.get() {
        NOTSET => WARNING,
        level => level,
    }
}

fn name_of(level: i64) -> String {
    let known = NAMES.iter().find(|(_, number)| *number == level);
    known.map_or_else(|| format!("Level {level}"), |(name, _)| (*name).to_owned())
}

/// The level of that name, in any case; `WARN` and `FATAL` are Python's other names for two of them.
#[must_use]
pub fn level_of(name: &str) -> Option<i64> {
    let name = match name.to_ascii_uppercase().as_str() {
        "WARN" => "WARNING".to_owned(),
        "FATAL" => "CRITICAL".to_owned(),
        name => name.to_owned(),
    };
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, level)| *level)
}

/// The names of all levels, the lowest first.
pub fn level_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// Level, and whether records are shown: what a child is told.
#[must_use]
pub fn state() -> (i64, bool) {
    (LEVEL.get(), SHOWN.get())
}

/// Takes over what a parent told.
pub fn adopt((level, shown): (i64, bool)) {
    LEVEL.set(level);
    if shown {
        show();
    }
}

/// Has records written to standard error from now on.
pub fn show() {
    if !SHOWN.replace(true) {
        // It fails where an embedding program has a subscriber of its own: then that one gets the events.
        let _ = tracing::subscriber::set_global_default(Stderr);
    }
}

/// Sets the level, where one is given, and has records shown: `log_to_stderr`.
pub fn log_to_stderr(level: i64) {
    LEVEL.set(level);
    show();
}

/// A record of the host's own.
pub(crate) fn host(level: i64, message: impl FnOnce() -> String) {
    if level >= effective() && tracing::dispatcher::has_been_set() {
        record(level, &message());
    }
}

fn record(level: i64, message: &str) {
    let process = crate::process::current().name();
    let level_name = name_of(level);
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: TARGET, tracing::Level::$level, level = level_name, process, "{message}")
        };
    }
    match level {
        ERROR.. => event!(ERROR),
        WARNING.. => event!(WARN),
        INFO.. => event!(INFO),
        DEBUG.. => event!(DEBUG),
        _ => event!(TRACE),
    }
}

/// A record of the script's.
fn log(level: i64, call: &mut Call<'_>, first: usize) -> Result {
    if level < effective() {
        return Ok(Dynamic::UNIT);
    }
    let args: Array = (first + 1..call.count())
        .map(|index| call.take(index))
        .collect();
    let message = crate::spelling::shown(call.ctx, &call.take(first));
    let message = if args.is_empty() {
        message
    } else {
        crate::formatting::sprintf(call.ctx, &message, args.into())?
    };
    if tracing::dispatcher::has_been_set() {
        record(level, &message);
    } else if level >= WARNING {
        // As in Python: warnings are seen though nobody asked for records.
        crate::output::write_stderr(&format!("{message}\n"))?;
    }
    Ok(Dynamic::UNIT)
}

/// Writes each event as a line: `[INFO/Process-1] message`.
struct Stderr;

#[derive(Default)]
struct Line {
    level: String,
    process: String,
    message: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "level" => value.clone_into(&mut self.level),
            "process" => value.clone_into(&mut self.process),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        }
    }
}

impl tracing::Subscriber for Stderr {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // A record that can't be written must not end the program.
        let _ = crate::output::write_stderr(&format!(
            "[{}/{}] {}\n",
            line.level, line.process, line.message
        ));
    }

    // There are no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A level as a script gives it: a number or a name.
fn level_from(value: &Dynamic) -> Result<i64> {
    if let Ok(level) = value.as_int() {
        return Ok(level);
    }
    match value.read_lock::<ImmutableString>() {
        Some(name) => level_of(&name).ok_or_else(|| {
            let names: Vec<&str> = level_names().collect();
            let near = crate::api::suggest(&name, names.iter().copied());
            raise(
                Kind::ValueError,
                format!(
                    "Unknown level: '{}'{near}; there are {}",
                    *name,
                    names.join(", ")
                ),
            )
        }),
        None => Err(raise(
            Kind::TypeError,
            format!(
                "a level is a number or a name, not {}",
                crate::api::type_name(value)
            ),
        )),
    }
}

fn start_showing(call: &mut Call<'_>) -> Result {
    if call.has(0) {
        LEVEL.set(level_from(&call.take(0))?);
    }
    show();
    Ok(Dynamic::from(Logger))
}

/// Registers this room.
pub fn register(registry: &mut Registry) {
    const TO_STDERR: &str = "log_to_stderr(level: plain = ())";
    const TO_STDERR_DOC: &str = "Has the logger's records written to standard error, in lines like `[INFO/Process-1] message`.\n\n\
         - `level`: the lowest level that is written, as a number or a name; without it the level stays.\n\n\
         At INFO the host tells of processes that begin and end. Children inherit both. Gives the logger.\n\n\
         ```rhai\nlet logger = mp::log_to_stderr(\"INFO\");\nlogger.info(\"%d tasks\", 3);\n```";
    const GET: &str = "get_logger()";
    const GET_DOC: &str = "The logger, named \"multiprocessing\".\n\n\
         ```rhai\nlet logger = mp::get_logger();\nprint(logger.getEffectiveLevel());\n```";
    registry.function("mp", TO_STDERR, TO_STDERR_DOC, start_showing);
    registry.function("mp", GET, GET_DOC, |_| Ok(Dynamic::from(Logger)));
    // The reference needs one entry each: a context has them as it has the constructors.
    registry
        .class::<Context>("Context")
        .method(TO_STDERR, "As `mp::log_to_stderr`.", start_showing)
        .method(GET, "As `mp::get_logger`.", |_| Ok(Dynamic::from(Logger)));
    for (name, level) in NAMES {
        let (module, doc) = if name.starts_with("SUB") {
            ("mp", "A level between Python's usual ones.")
        } else {
            ("logging", "A level.")
        };
        registry.constant(module, name, level, doc);
    }
    let mut class = registry.class::<Logger>("Logger");
    class
        .display(|_| format!("<Logger {TARGET} ({})>", name_of(effective())))
        .equality(|a, b| a == b);
    class
        .getter("name", "The logger's name.", |_| Ok(TARGET.into()))
        .getter("level", "The level that was set, 0 if none was.", |_| {
            Ok(LEVEL.get().into())
        })
        .method(
            "setLevel(level: any)",
            "Sets the lowest level that is recorded.\n\n- `level`: a number or a name.\n\nAn unknown name is a `ValueError`.",
            |call| {
                LEVEL.set(level_from(&call.take(0))?);
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "getEffectiveLevel()",
            "The lowest level that is recorded: WARNING unless another was set.",
            |_| Ok(effective().into()),
        )
        .method(
            "isEnabledFor(level: int)",
            "Whether records of a level are recorded.\n\n- `level`: the level.",
            |call| Ok((call.int(0).unwrap_or(NOTSET) >= effective()).into()),
        )
        .method(
            "log(level: int, message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            "Records a message at a level.\n\n- `level`: a number.\n- `message`: what to say, with `%s` and the like for what follows.",
            |call| {
                let level = call.int(0).unwrap_or(NOTSET);
                log(level, call, 1)
            },
        );
    for (signature, level) in [
        (
            "debug(message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            DEBUG,
        ),
        (
            "info(message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            INFO,
        ),
        (
            "warning(message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            WARNING,
        ),
        (
            "error(message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            ERROR,
        ),
        (
            "critical(message: any, a: any = (), b: any = (), c: any = (), d: any = ())",
            CRITICAL,
        ),
    ] {
        record_method(&mut class, signature, level);
    }
}

fn record_method(class: &mut Class<'_, Logger>, signature: &'static str, level: i64) {
    class.method(
        signature,
        "Records a message at the level of its name.\n\n- `message`: what to say, with `%s` and the like for what follows.\n\n\
         ```rhai\nmp::get_logger().debug(\"%s of %d\", \"one\", 3);\n```",
        move |call| {
            let nothing = log(level, call, 0)?;
            Ok(if level == DEBUG {
                RECORDED.into()
            } else {
                nothing
            })
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, engine, run_examples};

    #[test]
    fn levels_have_names_and_numbers() {
        let _ = crate::process::become_main();
        run_examples(&[crate::builtins::register], super::register);
        let engine = engine(&[crate::builtins::register, super::register]);
        LEVEL.set(NOTSET);
        check(
            &engine,
            &[
                ("mp::get_logger()", "<Logger multiprocessing (WARNING)>"),
                (
                    "let l = mp::get_logger(); [l.level, l.getEffectiveLevel(), l.name]",
                    "[0, 30, \"multiprocessing\"]",
                ),
                (
                    "let l = mp::get_logger(); l.setLevel(37); [l.level, l.getEffectiveLevel(), l.isEnabledFor(30), `${l}`]",
                    "[37, 37, false, \"<Logger multiprocessing (Level 37)>\"]",
                ),
                (
                    "mp::get_logger().setLevel(\"info\"); mp::get_logger().level",
                    "20",
                ),
                (
                    "mp::get_logger().setLevel(\"inf\")",
                    "ValueError: Unknown level: 'inf'; did you mean 'INFO'?; there are NOTSET, SUBDEBUG, DEBUG, INFO, SUBWARNING, WARNING, ERROR, CRITICAL",
                ),
                (
                    "mp::get_logger().setLevel(())",
                    "TypeError: a level is a number or a name, not ()",
                ),
                (
                    "[mp::SUBDEBUG, mp::SUBWARNING, logging::DEBUG, logging::CRITICAL]",
                    "[5, 25, 10, 50]",
                ),
                (
                    "mp::get_logger().error()",
                    "TypeError: error(): 'message' is missing",
                ),
            ],
        );
    }
}
