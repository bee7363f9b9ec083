//! Python's `subprocess`: other programs, what they are given, what comes out of them.
//!
//! Waiting is the core's, so signals, callbacks and time limits are minded. A program doesn't outlive the process that runs it.
//!
//! Unlike Python's: captured output is text unless `text: false` asks for blobs; there are no file descriptors as numbers to hand on
//! (`stdin`, `stdout`, `stderr` take files and the constants). Source: CPython Library Reference, `subprocess`.
//!
//! Invariant: `run` and its kin never leave their program behind: on a time limit or an interrupt it is killed first.

mod popen;
mod request;

use crate::api::{Call, Registry};
use crate::error::{Kind, Result, ScriptError};
use crate::spelling;
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::subprocess as core;
use popen::Popen;
use request::{Output, Request};
use rhai::{Dynamic, NativeCallContext};
use std::rc::Rc;

const MODULE: &str = "subprocess";

/// Python's constants.
const PIPE: i64 = -1;
const STDOUT: i64 = -2;
const DEVNULL: i64 = -3;

/// A program that has ended. Python: `CompletedProcess`.
struct Completed {
    args: Dynamic,
    returncode: i64,
    stdout: Dynamic,
    stderr: Dynamic,
}

#[derive(Clone)]
struct CompletedProcess(Rc<Completed>);

impl Completed {
    /// The error of a program that has failed.
    fn check(&self, ctx: &NativeCallContext<'_>) -> Result<()> {
        if self.returncode == 0 {
            return Ok(());
        }
        let how = match self.returncode {
            code if code < 0 => {
                let number = i32::try_from(-code).unwrap_or(0);
                match nix::sys::signal::Signal::try_from(number) {
                    Ok(signal) => format!("died with <Signals.{signal}: {number}>."),
                    Err(_) => format!("died with unknown signal {number}."),
                }
            }
            code => format!("returned non-zero exit status {code}."),
        };
        let command = spelling::repr(ctx, &self.args);
        let error = ScriptError::new(
            Kind::CalledProcessError,
            format!("Command '{command}' {how}"),
        );
        Err(error
            .with_field("returncode", self.returncode)
            .with_field("cmd", self.args.clone())
            .with_field("output", self.stdout.clone())
            .with_field("stdout", self.stdout.clone())
            .with_field("stderr", self.stderr.clone())
            .into())
    }
}

/// The error of a program that took too long.
fn expired(
    ctx: &NativeCallContext<'_>,
    args: &Dynamic,
    seconds: f64,
    outputs: Option<(Dynamic, Dynamic)>,
) -> crate::error::Error {
    let command = spelling::repr(ctx, args);
    let shown = spelling::repr(ctx, &Dynamic::from(seconds));
    let shown = shown.strip_suffix(".0").unwrap_or(&shown);
    let (stdout, stderr) = outputs.unwrap_or_default();
    ScriptError::new(
        Kind::TimeoutExpired,
        format!("Command '{command}' timed out after {shown} seconds"),
    )
    .with_field("cmd", args.clone())
    .with_field("timeout", seconds)
    .with_field("output", stdout.clone())
    .with_field("stdout", stdout)
    .with_field("stderr", stderr)
    .into()
}

/// Runs a program to its end.
fn complete(
    call: &Call<'_>,
    request: Request,
    input: Option<Vec<u8>>,
    timeout: Option<f64>,
) -> Result<Completed> {
    let position = crate::places::of_call(call.ctx);
    let deadline = Deadline::from_timeout(true, timeout);
    let Output { text, piped } = request.output();
    let args = request.args().clone();
    let (program, pipes) = request.start()?;
    let mut exchange =
        core::Exchange::new(pipes, input.unwrap_or_default(), Vec::new(), Vec::new());
    let outputs = |exchange: &core::Exchange| -> Result<(Dynamic, Dynamic)> {
        Ok((
            request::value(piped[0], text, exchange.stdout(), "stdout")?,
            request::value(piped[1], text, exchange.stderr(), "stderr")?,
        ))
    };
    let ended = exchange.run(deadline, position).and_then(|all| {
        if all {
            program.wait(deadline, position)
        } else {
            Ok(None)
        }
    });
    match ended {
        Ok(Some(status)) => {
            let (stdout, stderr) = outputs(&exchange)?;
            Ok(Completed {
                args,
                returncode: status.code().into(),
                stdout,
                stderr,
            })
        }
        other => {
            end(&program, position)?;
            other?;
            // What it had written when it was killed.
            exchange.run(Deadline::NOW, position)?;
            let outputs = outputs(&exchange)?;
            Err(expired(
                call.ctx,
                &args,
                timeout.unwrap_or(0.0),
                Some(outputs),
            ))
        }
    }
}

/// Kills a program, and waits until it is dead.
fn end(program: &core::Program, position: Position) -> Result<()> {
    program.signal(nix::libc::SIGKILL)?;
    program.wait(Deadline::NEVER, position)?;
    Ok(())
}

/// The options that all calls have, as their signatures write them.
macro_rules! signature {
    ($name:literal, $more:literal) => {
        concat!(
            $name,
            "(args: any, *, stdin: any = (), stdout: any = (), stderr: any = (), shell: bool = false, cwd: string = (), \
             env: map = (), text: bool = true",
            $more,
            ")"
        )
    };
}

/// Where the options that are `run`'s own begin.
const OWN: usize = request::OPTIONS;

fn run(call: &mut Call<'_>) -> Result {
    let mut request = Request::new(call, "run")?;
    let (input, timeout) = (
        call.has(OWN).then(|| call.bytes(OWN)).flatten(),
        call.seconds(OWN + 1),
    );
    if input.is_some() {
        request.pipe_input("run")?;
    }
    if call.bool(OWN + 2, false) {
        request.capture("run")?;
    }
    let check = call.bool(OWN + 3, false);
    let completed = complete(call, request, input, timeout)?;
    if check {
        completed.check(call.ctx)?;
    }
    Ok(Dynamic::from(CompletedProcess(Rc::new(completed))))
}

fn check_output(call: &mut Call<'_>) -> Result {
    let mut request = Request::new(call, "check_output")?;
    let (input, timeout) = (
        call.has(OWN).then(|| call.bytes(OWN)).flatten(),
        call.seconds(OWN + 1),
    );
    if input.is_some() {
        request.pipe_input("check_output")?;
    }
    request.pipe_output("check_output")?;
    let completed = complete(call, request, input, timeout)?;
    completed.check(call.ctx)?;
    Ok(completed.stdout)
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    for (name, value, doc) in [
        ("PIPE", PIPE, "A pipe to or from the program."),
        (
            "STDOUT",
            STDOUT,
            "For `stderr`: wherever the standard output goes.",
        ),
        ("DEVNULL", DEVNULL, "The null device."),
    ] {
        registry.constant(MODULE, name, value, doc);
    }
    registry.function(
        MODULE,
        signature!(
            "run",
            ", input: bytes = (), timeout: seconds = (), capture_output: bool = false, check: bool = false"
        ),
        "Runs a program and waits for its end: an object with `args`, `returncode` (negative: the signal that ended it), `stdout` and \
         `stderr`.\n\n\
         - `args`: the program (looked for in `PATH`) and its arguments, as an array. With `shell` a text for `/bin/sh`.\n\
         - `input`: what it gets as its standard input.\n\
         - `capture_output`: collect what it prints; otherwise it prints where this process does. `text: false`: as blobs.\n\
         - `stdin`, `stdout`, `stderr`: a file, `PIPE`, `DEVNULL`; for `stderr` `STDOUT` too.\n\
         - `timeout`: the program is killed after so many seconds, and a `TimeoutExpired` has what it had printed.\n\
         - `check`: an exit code that isn't 0 is a `CalledProcessError`.\n\
         - `cwd`, `env`: where it runs, and its whole environment.\n\n\
         ```rhai\nlet done = subprocess::run([\"sh\", \"-c\", \"cat; exit 3\"], #{input: \"hello\", capture_output: true});\n\
         print(done.returncode, done.stdout);\n```",
        run,
    );
    registry.function(
        MODULE,
        signature!("check_output", ", input: bytes = (), timeout: seconds = ()"),
        "Runs a program and gives what it prints. An exit code that isn't 0 is a `CalledProcessError`. The options are those of `run`.\n\n\
         ```rhai\nprint(subprocess::check_output([\"echo\", \"hello\"]));\n```",
        check_output,
    );
    registry.function(
        MODULE,
        signature!("check_call", ", timeout: seconds = ()"),
        "Runs a program; an exit code that isn't 0 is a `CalledProcessError`. The options are those of `run`.",
        |call| {
            let request = Request::new(call, "check_call")?;
            let completed = complete(call, request, None, call.seconds(OWN))?;
            completed.check(call.ctx)?;
            Ok(completed.returncode.into())
        },
    );
    registry.function(
        MODULE,
        signature!("Popen", ""),
        "Starts a program and doesn't wait for it. With `stdin: subprocess::PIPE` and so on the object has files `stdin`, `stdout` and \
         `stderr`. The program ends with this process at the latest.\n\n\
         ```rhai\nlet p = subprocess::Popen([\"cat\"], #{stdin: subprocess::PIPE, stdout: subprocess::PIPE});\n\
         print(p.communicate(\"hello\")[0]);\nprint(p.wait());\n```",
        |call| Ok(Dynamic::from(Popen::start(Request::new(call, "Popen")?)?)),
    );
    popen::register(registry);
    registry
        .class::<CompletedProcess>("CompletedProcess")
        .display(|done| format!("<CompletedProcess returncode={}>", done.0.returncode))
        .getter("args", "What was run.", |call| {
            Ok(call.this::<CompletedProcess>().0.args.clone())
        })
        .getter(
            "returncode",
            "The exit code; negative: the signal that ended it.",
            |call| Ok(call.this::<CompletedProcess>().0.returncode.into()),
        )
        .getter("stdout", "What it printed, if that was captured.", |call| {
            Ok(call.this::<CompletedProcess>().0.stdout.clone())
        })
        .getter(
            "stderr",
            "What it printed as errors, if that was captured.",
            |call| Ok(call.this::<CompletedProcess>().0.stderr.clone()),
        )
        .method(
            "check_returncode()",
            "A `CalledProcessError` if the exit code isn't 0.",
            |call| {
                call.this::<CompletedProcess>().0.check(call.ctx)?;
                Ok(Dynamic::UNIT)
            },
        );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] =
            &[crate::builtins::register, crate::errors::register];
        crate::testing::run_examples(others, super::register);
    }
}
