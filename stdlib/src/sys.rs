//! The module `sys`.
//!
//! `sys::exit` is Rhai's own `exit`: an error that no `catch` stops. What the value means as an exit code is decided in the
//! process that ends ([`crate::process`]).
//!
//! Source: CPython Library Reference, `sys`.

use crate::api::{Call, Registry};
use crate::error::{Error, Kind, Result, raise};
use crate::output;
use rhai::{Array, Dynamic, EvalAltResult};
use std::cell::RefCell;

thread_local! {
    static ARGV: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static EXIT: RefCell<Option<Dynamic>> = const { RefCell::new(None) };
}

/// What `sys::argv` shall be: the script and its arguments. To be called before [`register`].
pub fn set_argv(argv: Vec<String>) {
    ARGV.set(argv);
}

/// What `sys::exit` was called with, once. Rhai makes a normal end of an exit at a script's top level, and drops the value.
#[must_use]
pub fn take_exit() -> Option<Dynamic> {
    EXIT.take()
}

fn exit(call: &mut Call<'_>) -> Result {
    let code = call.take(0);
    // A text is made here, where host objects can be shown.
    let plain = code.is_unit() || code.is_bool() || code.is_int();
    let code = if plain {
        code
    } else {
        Dynamic::from(crate::spelling::shown(call.ctx, &code))
    };
    EXIT.set(Some(code.clone()));
    Err(Error::Rhai(Box::new(EvalAltResult::Exit(
        code,
        call.ctx.call_position(),
    ))))
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    let argv = ARGV.with_borrow(|argv| argv.iter().cloned().map(Dynamic::from).collect::<Array>());
    registry.constant(
        "sys",
        "argv",
        Dynamic::from_array(argv),
        "The script and its arguments.",
    );
    let executable = registry
        .needs("executable")
        .then(std::env::current_exe)
        .and_then(std::result::Result::ok)
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default();
    registry.constant("sys", "executable", executable, "The path of this program.");
    registry.constant("sys", "platform", "linux", "The system.");
    registry.constant(
        "sys",
        "byteorder",
        if cfg!(target_endian = "little") {
            "little"
        } else {
            "big"
        },
        "How numbers lie in memory.",
    );
    registry.constant("sys", "maxsize", i64::MAX, "The largest whole number.");
    let version = format!("mphost {} (Rhai 1.27)", env!("CARGO_PKG_VERSION"));
    registry.constant(
        "sys",
        "version",
        version,
        "The version of this program and of its language.",
    );
    registry.function(
        "sys",
        "exit(code: any = ())",
        "Ends this process, as at the end of its script: children are joined, `atexit` functions run. No `catch` stops it.\n\n\
         - `code`: the exit code; `()` and `false` are 0, `true` is 1, of a whole number the lowest eight bits count, and anything else is \
         printed on standard error, with exit code 1.\n\n```rhai\nfn finish() { sys::exit(3) }\n```",
        exit,
    );
    registry.function(
        "",
        "exit(code: any = ())",
        "The same as `sys::exit`.\n\n```rhai\nfn finish() { exit(3) }\n```",
        exit,
    );
    registry.function(
        "sys",
        "write(text: any)",
        "Writes to standard output, without a line end, in one write.\n\n- `text`: what to write.\n\n```rhai\nsys::write(\"\");\n```",
        |call| {
            let text = call.take(0);
            output::write_stdout(&crate::spelling::shown(call.ctx, &text))?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "sys",
        "stderr_write(text: any)",
        "Writes to standard error, without a line end, in one write.\n\n- `text`: what to write.\n\n```rhai\nsys::stderr_write(\"\");\n```",
        |call| {
            let text = call.take(0);
            output::write_stderr(&crate::spelling::shown(call.ctx, &text))?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "sys",
        "flush()",
        "Does nothing more: what was written is with the system already.\n\n```rhai\nsys::flush();\n```",
        |_| Ok(Dynamic::UNIT),
    );
    registry.function(
        "sys",
        "readline()",
        "The next line of standard input with its `\\n`; empty at the end. `sys::stdin` is the same as a file.\n\n\
         ```rhai\nfn next() { sys::readline() }\n```",
        |call| {
            let line = crate::file::stdin().read_line(crate::places::of_call(call.ctx))?;
            Ok(line.unwrap_or_else(|| Dynamic::from("")))
        },
    );
    registry.function(
        "sys",
        "getrecursionlimit()",
        "How deep functions may call each other.\n\n```rhai\nif sys::getrecursionlimit() < 1 { throw \"limit\"; }\n```",
        |call| Ok(Dynamic::from(i64::try_from(call.ctx.engine().max_call_levels()).unwrap_or(i64::MAX))),
    );
    registry.function(
        "sys",
        "setrecursionlimit(limit: int)",
        "Is there so that scripts which call it run: the limit stays as it is, a larger one raises `RecursionError`.\n\n\
         - `limit`: how deep the script expects to call.\n\n```rhai\nsys::setrecursionlimit(10);\n```",
        |call| {
            let wanted = call.int(0).unwrap_or(0);
            let limit = i64::try_from(call.ctx.engine().max_call_levels()).unwrap_or(i64::MAX);
            if wanted > limit {
                return Err(raise(Kind::RecursionError, format!("functions may call each other {limit} deep at most, not {wanted}")));
            }
            Ok(Dynamic::UNIT)
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, engine, run_examples};

    #[test]
    fn sys_in_scripts() {
        set_argv(vec!["script.rhai".into(), "a b".into()]);
        let engine = engine(&[crate::builtins::register, crate::errors::register, register]);
        check(
            &engine,
            &[
                ("sys::argv", "[\"script.rhai\", \"a b\"]"),
                ("sys::argv[1]", "a b"),
                ("sys::platform", "linux"),
                ("sys::maxsize", "9223372036854775807"),
                ("sys::exit()", "exit "),
                ("sys::exit(3)", "exit 3"),
                ("sys::exit(-1)", "exit -1"),
                ("sys::exit(true)", "exit true"),
                ("sys::exit(\"gone\")", "exit gone"),
                ("exit(5)", "exit 5"),
                ("exit()", "exit "),
                ("fn f() { sys::exit(6); } f(); 7", "exit 6"),
                ("sys::exit(ValueError(\"bad\"))", "exit ValueError: bad"),
                ("try { sys::exit(4) } catch (e) { return 5; }", "exit 4"),
                (
                    "sys::exit(1, 2)",
                    "TypeError: exit() takes at most 1 arguments, 2 were given: exit(code: any = ())",
                ),
                (
                    "sys::setrecursionlimit(100000)",
                    &format!(
                        "RecursionError: functions may call each other {} deep at most, not 100000",
                        engine.max_call_levels()
                    ),
                ),
                ("sys::stdout.write(\"\")", "0"),
                ("sys::stdin.closed", "false"),
            ],
        );
    }

    #[test]
    fn the_examples_run() {
        run_examples(&[crate::builtins::register, crate::os::register], register);
    }
}
