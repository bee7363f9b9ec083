//! `Popen`: a program that runs beside the script.

use super::request::{self, Output, Request};
use super::{end, expired};
use crate::api::{Call, Registry};
use crate::error::{Kind, Result, raise};
use crate::file::File;
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::subprocess as core;
use nix::libc;
use rhai::Dynamic;
use std::cell::RefCell;
use std::rc::Rc;

struct State {
    args: Dynamic,
    program: core::Program,
    output: Output,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    /// A `communicate` that has begun.
    exchange: RefCell<Option<core::Exchange>>,
}

/// A program that was started, as scripts have it.
#[derive(Clone)]
pub(super) struct Popen(Rc<State>);

impl Popen {
    /// Starts a program.
    pub(super) fn start(request: Request) -> Result<Popen> {
        let (args, output) = (request.args().clone(), request.output());
        let (program, pipes) = request.start()?;
        let (read, write) = if output.text {
            ("r", "w")
        } else {
            ("rb", "wb")
        };
        let file = |fd, name, mode| Option::map(fd, |fd| File::of_pipe(fd, name, mode));
        Ok(Popen(Rc::new(State {
            args,
            program,
            output,
            stdin: file(pipes.stdin, "<stdin of a program>", write),
            stdout: file(pipes.stdout, "<stdout of a program>", read),
            stderr: file(pipes.stderr, "<stderr of a program>", read),
            exchange: RefCell::default(),
        })))
    }

    fn wait(&self, call: &Call<'_>, index: usize, position: Position) -> Result {
        let timeout = call.seconds(index);
        let deadline = Deadline::from_timeout(true, timeout);
        match self.0.program.wait(deadline, position)? {
            Some(status) => Ok(i64::from(status.code()).into()),
            None => Err(expired(
                call.ctx,
                &self.0.args,
                timeout.unwrap_or(0.0),
                None,
            )),
        }
    }

    fn communicate(&self, call: &Call<'_>) -> Result {
        let state = &self.0;
        let position = crate::places::of_call(call.ctx);
        let timeout = call.seconds(1);
        let deadline = Deadline::from_timeout(true, timeout);
        let input = call.has(0).then(|| call.bytes(0)).flatten();
        let mut exchange = match (state.exchange.take(), input) {
            (Some(_), Some(_)) => {
                return Err(raise(
                    Kind::ValueError,
                    "Cannot send input after starting communication",
                ));
            }
            (Some(begun), None) => begun,
            (None, input) => self.begin(input)?,
        };
        let outputs = |exchange: &core::Exchange| -> Result<(Dynamic, Dynamic)> {
            let [out, err] = state.output.piped;
            let text = state.output.text;
            Ok((
                request::value(out, text, exchange.stdout(), "stdout")?,
                request::value(err, text, exchange.stderr(), "stderr")?,
            ))
        };
        let done = exchange
            .run(deadline, position)
            .and_then(|all| Ok(all && state.program.wait(deadline, position)?.is_some()));
        if let Ok(true) = done {
            let (stdout, stderr) = outputs(&exchange)?;
            // Once more gives the same.
            state.exchange.replace(Some(exchange));
            return Ok(Dynamic::from_array(vec![stdout, stderr]));
        }
        let so_far = outputs(&exchange).ok();
        state.exchange.replace(Some(exchange));
        done?;
        Err(expired(
            call.ctx,
            &state.args,
            timeout.unwrap_or(0.0),
            so_far,
        ))
    }

    /// Takes the pipes over from the files.
    fn begin(&self, input: Option<Vec<u8>>) -> Result<core::Exchange> {
        let state = &self.0;
        if input.is_some() && state.stdin.is_none() {
            return Err(raise(
                Kind::ValueError,
                "communicate(): there is no pipe for the input: Popen takes stdin: subprocess::PIPE",
            ));
        }
        let parts = |file: &Option<File>| match file.as_ref().and_then(File::take_parts) {
            Some((fd, ahead)) => (Some(fd), ahead),
            None => (None, Vec::new()),
        };
        let ((stdin, _), (stdout, out), (stderr, err)) = (
            parts(&state.stdin),
            parts(&state.stdout),
            parts(&state.stderr),
        );
        let pipes = core::Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok(core::Exchange::new(
            pipes,
            input.unwrap_or_default(),
            out,
            err,
        ))
    }
}

fn file(file: &Option<File>) -> Dynamic {
    file.clone().map_or(Dynamic::UNIT, Dynamic::from)
}

fn signal(call: &Call<'_>, signo: i32) -> Result {
    call.this::<Popen>().0.program.signal(signo)?;
    Ok(Dynamic::UNIT)
}

fn status(popen: &Popen) -> Dynamic {
    let status = popen.0.program.status();
    status.map_or(Dynamic::UNIT, |status| i64::from(status.code()).into())
}

/// Registers what can be done with a program that was started.
pub(super) fn register(registry: &mut Registry) {
    crate::with::context::<Popen>(None, "__exit__");
    registry
        .class::<Popen>("Popen")
        .display(|popen| {
            let status = status(popen);
            let status = if status.is_unit() { "None".into() } else { status.to_string() };
            format!("<Popen: pid={} returncode={status}>", popen.0.program.pid())
        })
        .method("poll()", "Its exit code if it has ended, else `()`.", |call| {
            Ok(status(&call.this::<Popen>()))
        })
        .method(
            "wait(timeout: seconds = ())",
            "Waits for its end and gives the exit code; a `TimeoutExpired` after `timeout` seconds, and the program goes on.",
            |call| {
                let position = crate::places::of_call(call.ctx);
                call.this::<Popen>().wait(call, 0, position)
            },
        )
        .method(
            "communicate(input: bytes = (), timeout: seconds = ())",
            "Sends `input`, reads to the end, waits for the program's end: `[stdout, stderr]`, each `()` where there is no pipe. After a \
             `TimeoutExpired` it can be called again and nothing is lost.",
            |call| call.this::<Popen>().communicate(call),
        )
        .method("send_signal(signal: int)", "Sends it a signal, unless it has ended.", |call| {
            let signo = i32::try_from(call.int(0).unwrap_or(0)).unwrap_or(-1);
            signal(call, signo)
        })
        .method("terminate()", "Asks it to end (SIGTERM).", |call| signal(call, libc::SIGTERM))
        .method("kill()", "Ends it (SIGKILL).", |call| signal(call, libc::SIGKILL))
        .method(
            "__exit__()",
            "What `with` does in the end: closes the pipes and waits.",
            |call| {
                let popen = call.this::<Popen>();
                for file in [&popen.0.stdin, &popen.0.stdout, &popen.0.stderr] {
                    drop(file.as_ref().and_then(File::take_parts));
                }
                let position = crate::places::of_call(call.ctx);
                if let Err(error) = popen.0.program.wait(Deadline::NEVER, position) {
                    end(&popen.0.program, position)?;
                    return Err(error.into());
                }
                Ok(Dynamic::UNIT)
            },
        )
        .getter("args", "What is run.", |call| Ok(call.this::<Popen>().0.args.clone()))
        .getter("pid", "Its process id.", |call| {
            Ok(i64::from(call.this::<Popen>().0.program.pid()).into())
        })
        .getter("returncode", "Its exit code, once it has ended; negative: the signal.", |call| {
            Ok(status(&call.this::<Popen>()))
        })
        .getter("stdin", "A file that it reads, with `stdin: PIPE`.", |call| {
            Ok(file(&call.this::<Popen>().0.stdin))
        })
        .getter("stdout", "A file of what it prints, with `stdout: PIPE`.", |call| {
            Ok(file(&call.this::<Popen>().0.stdout))
        })
        .getter("stderr", "A file of what it prints as errors, with `stderr: PIPE`.", |call| {
            Ok(file(&call.this::<Popen>().0.stderr))
        });
}
