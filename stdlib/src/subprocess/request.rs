//! What a script asks for when it runs a program: its arguments, checked, as the core wants them.

use super::{DEVNULL, PIPE, STDOUT};
use crate::api::{Call, type_name};
use crate::core_error;
use crate::error::{Kind, Result, ScriptError, raise};
use crate::file::File;
use mphost_core::error::CoreError;
use mphost_core::subprocess as core;
use rhai::{Array, Dynamic, ImmutableString};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How many parameters all calls of the module have in common: `args` and the options up to `text`.
pub(super) const OPTIONS: usize = 8;

/// What is to be run.
pub(super) struct Request {
    args: Dynamic,
    spec: core::Spec,
    text: bool,
}

/// What becomes of a program's output.
#[derive(Clone, Copy)]
pub(super) struct Output {
    /// Whether it is text.
    pub(super) text: bool,
    /// Whether the standard output and the standard error come to this process.
    pub(super) piped: [bool; 2],
}

impl Request {
    /// Reads the arguments that all calls have.
    pub(super) fn new(call: &mut Call<'_>, name: &str) -> Result<Request> {
        let args = call.take(0);
        let shell = call.bool(4, false);
        let mut argv = words(&args, name)?;
        if shell {
            argv.splice(0..0, ["/bin/sh".into(), "-c".into()]);
        }
        let cwd = call.string(5).map(|cwd| PathBuf::from(cwd.as_str()));
        let env = if call.has(6) {
            let text = |(key, value): (String, Dynamic)| match value.into_immutable_string() {
                Ok(value) => Ok((OsString::from(key), OsString::from(value.as_str()))),
                Err(got) => Err(raise(
                    Kind::TypeError,
                    format!("{name}(): 'env' must map names to strings, not {got}"),
                )),
            };
            let pairs = call.map(6).into_iter();
            pairs
                .map(|(key, value)| text((key.to_string(), value)))
                .collect::<Result<Vec<_>>>()?
        } else {
            let own = crate::os::environment().into_iter();
            own.map(|(key, value)| (key.into(), value.into())).collect()
        };
        let mut stream = |index, what| stream(&call.take(index), name, what);
        let spec = core::Spec {
            argv: argv.iter().map(|word| word.as_str().into()).collect(),
            cwd,
            env,
            stdin: stream(1, "stdin")?,
            stdout: stream(2, "stdout")?,
            stderr: stream(3, "stderr")?,
        };
        Ok(Request {
            args,
            spec,
            text: call.bool(7, true),
        })
    }

    /// What is run, as the script said it.
    pub(super) fn args(&self) -> &Dynamic {
        &self.args
    }

    /// What becomes of its output.
    pub(super) fn output(&self) -> Output {
        let piped = |stream: &core::Stream| matches!(stream, core::Stream::Pipe);
        Output {
            text: self.text,
            piped: [piped(&self.spec.stdout), piped(&self.spec.stderr)],
        }
    }

    /// There is an input for it.
    pub(super) fn pipe_input(&mut self, name: &str) -> Result<()> {
        unused(&self.spec.stdin, name, "stdin", "input")?;
        self.spec.stdin = core::Stream::Pipe;
        Ok(())
    }

    /// Its output is wanted.
    pub(super) fn pipe_output(&mut self, name: &str) -> Result<()> {
        unused(&self.spec.stdout, name, "stdout", "the output of this call")?;
        self.spec.stdout = core::Stream::Pipe;
        Ok(())
    }

    /// Its output and its errors are wanted.
    pub(super) fn capture(&mut self, name: &str) -> Result<()> {
        unused(&self.spec.stdout, name, "stdout", "capture_output")?;
        unused(&self.spec.stderr, name, "stderr", "capture_output")?;
        self.spec.stdout = core::Stream::Pipe;
        self.spec.stderr = core::Stream::Pipe;
        Ok(())
    }

    /// Starts it.
    pub(super) fn start(self) -> Result<(core::Program, core::Pipes)> {
        let program = self.spec.argv.first().cloned().unwrap_or_default();
        let cwd = self.spec.cwd.clone();
        core::start(self.spec).map_err(|error| match error {
            CoreError::Os { call, errno } => {
                // The system doesn't say which of the two it didn't find.
                let cwd = cwd.filter(|cwd| !Path::new(cwd).is_dir());
                let subject = cwd.map_or(program, PathBuf::into_os_string);
                core_error::os(call, errno, Some(&subject.to_string_lossy())).into()
            }
            other => other.into(),
        })
    }
}

fn unused(stream: &core::Stream, name: &str, taken: &str, by: &str) -> Result<()> {
    if matches!(stream, core::Stream::Inherit) {
        return Ok(());
    }
    Err(raise(
        Kind::ValueError,
        format!("{name}(): '{taken}' may not be given together with {by}, which uses it"),
    ))
}

/// The program and its arguments: an array of texts, or the program alone.
fn words(args: &Dynamic, name: &str) -> Result<Vec<ImmutableString>> {
    if let Some(program) = args.read_lock::<ImmutableString>() {
        return Ok(vec![program.clone()]);
    }
    let Some(array) = args.read_lock::<Array>() else {
        let got = type_name(args);
        let text = format!("{name}(): 'args' must be an array of strings, not {got}");
        return Err(raise(Kind::TypeError, text));
    };
    let word = |(index, word): (usize, &Dynamic)| {
        word.clone().into_immutable_string().map_err(|_| {
            let got = type_name(word);
            let text = format!("{name}(): args[{index}] must be a string, not {got}");
            raise(Kind::TypeError, text)
        })
    };
    array.iter().enumerate().map(word).collect()
}

fn stream(value: &Dynamic, name: &str, what: &str) -> Result<core::Stream> {
    if value.is_unit() {
        return Ok(core::Stream::Inherit);
    }
    if let Some(file) = value.read_lock::<File>() {
        return Ok(core::Stream::Fd(file.duplicate()?));
    }
    match value.as_int() {
        Ok(PIPE) => Ok(core::Stream::Pipe),
        Ok(DEVNULL) => Ok(core::Stream::Null),
        Ok(STDOUT) if what == "stderr" => Ok(core::Stream::ToOutput),
        _ => {
            let got = value
                .as_int()
                .map_or_else(|_| type_name(value), |number| number.to_string());
            let text = format!(
                "{name}(): '{what}' must be a file, subprocess::PIPE or subprocess::DEVNULL, not {got}"
            );
            Err(raise(Kind::TypeError, text))
        }
    }
}

/// What came out of a program, as a script has it; `()` if it wasn't collected.
pub(super) fn value(piped: bool, text: bool, bytes: &[u8], what: &str) -> Result {
    if !piped {
        return Ok(Dynamic::UNIT);
    }
    if !text {
        return Ok(Dynamic::from_blob(bytes.to_vec()));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.replace("\r\n", "\n").into()),
        Err(error) => {
            let message = format!(
                "the program's {what} is no UTF-8 text (byte {}): `text: false` gives it as a blob, which is in e.data",
                error.valid_up_to()
            );
            Err(ScriptError::new(Kind::UnicodeDecodeError, message)
                .with_field("data", Dynamic::from_blob(bytes.to_vec()))
                .into())
        }
    }
}
