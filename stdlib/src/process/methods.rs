//! The calls of the `process` room.

use super::{Blueprint, Phase, Process, child, children, current, ending, own};
use crate::api::{Call, Registry, type_name};
use crate::error::{Kind, Result, raise};
use mphost_core::clock::Deadline;
use mphost_core::process::Method;
use nix::sys::signal::Signal;
use rhai::{Dynamic, ImmutableString};
use std::os::fd::AsRawFd;

/// `Process(…)`, from a call whose signature is the one below.
///
/// # Errors
/// `TypeError` for what isn't an option, unless there is a `run`: then it is a field.
pub(crate) fn construct(call: &mut Call<'_>, method: Option<Method>) -> Result<Process> {
    let mut fields = call.take_extra();
    let run = match fields.remove("run") {
        Some(run) if !run.is_unit() => Some(run.try_cast::<rhai::FnPtr>().ok_or_else(|| {
            raise(Kind::TypeError, "Process(): 'run' must be a function; it is called with `this` bound to the process")
        })?),
        _ => None,
    };
    if run.is_none()
        && let Some(name) = fields.keys().next()
    {
        return Err(call.unknown_option(name));
    }
    let group = call.take(5);
    if !group.is_unit() {
        return Err(raise(
            Kind::AssertionError,
            "group argument must be None for now",
        ));
    }
    let name = match call.take(3) {
        name if name.is_unit() => None,
        name => Some(name_text(&name)?),
    };
    Ok(Process::new(Blueprint {
        target: call.callable(0),
        args: call.array(1),
        kwargs: call.has(2).then(|| call.map(2)),
        run,
        name,
        prefix: "",
        server: false,
        helper: false,
        daemon: call.has(4).then(|| call.bool(4, false)),
        fields,
        method,
    }))
}

fn name_text(value: &Dynamic) -> Result<String> {
    value
        .read_lock::<ImmutableString>()
        .map(|name| name.to_string())
        .ok_or_else(|| raise(Kind::AssertionError, "name must be a string"))
}

/// `Process(target, args, options)`: all names of Python's constructor, and `run` with fields of its own.
pub(crate) const SIGNATURE: &str = "Process(target: callable = (), args: array = [], *, kwargs: map = (), name: any = (), daemon: bool = (), group: any = (), **fields)";

const FIELDS: [&str; 9] = [
    "name", "pid", "ident", "exitcode", "daemon", "authkey", "sentinel", "start", "join",
];

/// What a script can't set, nor cover by a field of the same name.
const READ_ONLY: [&str; 4] = ["pid", "ident", "exitcode", "sentinel"];

/// Registers this room.
pub fn register(registry: &mut Registry) {
    registry.constructor(
        SIGNATURE,
        "A process that runs `target(…args)` once it is started.\n\n\
         `kwargs` is passed as one object map behind the arguments. `daemon`: it is ended with its parent, and may have no children. \
         With a function `run` among the options it is called instead, with `this` bound to the process, and every other option is a field: \
         `Process(#{run: greet, person: \"Ann\"})`.\n\n\
         ```rhai\nfn hello(name) { print(`hello ${name}`); }\nlet p = Process(hello, [\"Ann\"]);\np.start();\np.join();\n```",
        |call| Ok(construct(call, crate::context::fixed_method())?.into_dynamic()),
    );
    registry.constructor(
        "spawn(target: callable, args: array = [], *, kwargs: map = (), name: any = (), daemon: bool = (), group: any = (), **fields)",
        "Makes a process, starts it and returns it.\n\n```rhai\nfn f(x) { print(x); }\nlet p = spawn(f, [1]);\np.join();\n```",
        |call| {
            let process = construct(call, crate::context::fixed_method())?;
            process.start(call.ctx)?;
            Ok(process.into_dynamic())
        },
    );
    registry.constructor(
        "current_process()",
        "This process. Its fields stay for the life of the process: a pool's initializer can leave there what its tasks need.",
        |_| Ok(current().into_dynamic()),
    );
    registry.constructor(
        "parent_process()",
        "The process that started this one, or `()` in the main process.",
        |_| Ok(own(|own| own.parent.clone()).map_or(Dynamic::UNIT, Process::into_dynamic)),
    );
    registry.constructor(
        "active_children()",
        "The children that are alive; those that have ended are joined by the way.",
        |_| {
            ending::reap();
            Ok(children()
                .into_iter()
                .map(Process::into_dynamic)
                .collect::<rhai::Array>()
                .into())
        },
    );
    registry.function("", child_enter(), "The host's own.", |call| {
        child::enter(call.ctx)
    });
    methods(registry);
    properties(registry);
}

// The name is a constant of the child room; a signature is a text, so it is spelled here once more and compared by a test.
const fn child_enter() -> &'static str {
    "__enter_task()"
}

fn methods(registry: &mut Registry) {
    registry
        .class::<Process>("Process")
        .method("start()", "Starts the process. Twice: `AssertionError`. What can't travel: `PicklingError`.", |call| {
            call.this::<Process>().start(call.ctx)?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "join(timeout: seconds = ())",
            "Waits until the process has ended, or `timeout` seconds; returns `()` either way: ask `exitcode`.",
            |call| {
                let process = call.this::<Process>();
                process.check_open()?;
                process.check_joinable()?;
                let deadline = Deadline::from_timeout(true, call.seconds(0));
                process.join(deadline, crate::places::of_call(call.ctx))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("is_alive()", "Whether the process runs.", |call| {
            let process = call.this::<Process>();
            process.check_open()?;
            let foreign = process.0.borrow().owner != std::process::id();
            if foreign {
                return Err(raise(Kind::AssertionError, "can only test a child process"));
            }
            Ok(process.is_alive().into())
        })
        .method("run()", "Calls in this process what the started process would call.", |call| {
            child::run_here(&call.this::<Process>().open()?, call.ctx)
        })
        .method("terminate()", "Ends the process by SIGTERM: its exit code is -15.", |call| {
            signal(&call.this(), Signal::SIGTERM)
        })
        .method("kill()", "Ends the process by SIGKILL: its exit code is -9.", |call| signal(&call.this(), Signal::SIGKILL))
        .method("interrupt()", "Sends SIGINT: a KeyboardInterrupt in the process.", |call| {
            signal(&call.this(), Signal::SIGINT)
        })
        .method("close()", "Gives back what the object holds; a running process can't be closed (`ValueError`).", |call| {
            call.this::<Process>().close()?;
            Ok(Dynamic::UNIT)
        })
        .display(show)
        .equality(|a, b| a == b);
}

fn properties(registry: &mut Registry) {
    registry
        .class::<Process>("Process")
        .getter(
            "name",
            "Its name: `Process-1`, a grandchild's `Process-1:1`, or one of its own.",
            |call| Ok(call.this::<Process>().open()?.name().into()),
        )
        .setter("name", |call| {
            let name = name_text(&call.take(0))?;
            let process = call.this::<Process>().open()?;
            if let Some(slot) = process.slot() {
                mphost_core::table::set_name(slot, &name);
            }
            process.0.borrow_mut().name = name;
            Ok(Dynamic::UNIT)
        })
        .getter("pid", "Its process id, `()` before the start.", pid)
        .getter("ident", "The same as `pid`.", pid)
        .getter(
            "exitcode",
            "`()` while it runs; -N when signal N ended it; else what it exited with.",
            |call| {
                let process = call.this::<Process>().open()?;
                Ok(process
                    .exitcode()
                    .map_or(Dynamic::UNIT, |code| i64::from(code).into()))
            },
        )
        .getter(
            "daemon",
            "Whether it is ended with its parent; can be set before the start only.",
            |call| Ok(call.this::<Process>().open()?.is_daemon().into()),
        )
        .setter("daemon", |call| {
            let value = call.take(0);
            let daemon = value.as_bool().map_err(|_| {
                let got = type_name(&value);
                raise(
                    Kind::TypeError,
                    format!("'daemon' must be true or false, not {got}"),
                )
            })?;
            let process = call.this::<Process>().open()?;
            if !matches!(process.0.borrow().phase, Phase::Initial) {
                return Err(raise(Kind::AssertionError, "process has already started"));
            }
            process.0.borrow_mut().daemon = daemon;
            Ok(Dynamic::UNIT)
        })
        .getter(
            "authkey",
            "The key that its connections authenticate with, a blob; inherited from its parent.",
            |call| {
                let key = call.this::<Process>().open()?.0.borrow().authkey.clone();
                Ok(Dynamic::from_blob(key))
            },
        )
        .setter("authkey", |call| {
            let value = call.take(0);
            let key = match (
                value.read_lock::<rhai::Blob>(),
                value.read_lock::<ImmutableString>(),
            ) {
                (Some(blob), _) => blob.clone(),
                (_, Some(text)) => text.as_bytes().to_vec(),
                _ => {
                    return Err(raise(
                        Kind::TypeError,
                        "'authkey' must be a string or a blob",
                    ));
                }
            };
            call.this::<Process>().open()?.0.borrow_mut().authkey = key;
            Ok(Dynamic::UNIT)
        })
        .getter(
            "sentinel",
            "A number that `mp::connection::wait` finds ready when the process has ended.",
            |call| Ok(i64::from(call.this::<Process>().open()?.sentinel()?).into()),
        )
        .index_getter(
            "A field that was given to the constructor or set before.",
            |call| {
                let name = field_name(&call.take(0))?;
                let process = call.this::<Process>().open()?;
                let state = process.0.borrow();
                state.fields.get(name.as_str()).cloned().ok_or_else(|| {
                    let known = state.fields.keys().map(AsRef::as_ref).chain(FIELDS);
                    let message = crate::habits::no_attribute("Process", &name, known);
                    raise(Kind::AttributeError, message)
                })
            },
        )
        .index_setter(|call| {
            let name = field_name(&call.take(0))?;
            if READ_ONLY.contains(&name.as_str()) {
                return Err(raise(
                    Kind::AttributeError,
                    format!("property '{name}' of 'Process' object has no setter"),
                ));
            }
            let value = call.take(1);
            call.this::<Process>()
                .open()?
                .0
                .borrow_mut()
                .fields
                .insert(name.as_str().into(), value);
            Ok(Dynamic::UNIT)
        });
}

fn field_name(value: &Dynamic) -> Result<String> {
    value
        .read_lock::<ImmutableString>()
        .map(|name| name.to_string())
        .ok_or_else(|| {
            raise(
                Kind::TypeError,
                "a process is indexed by the name of a field, a string",
            )
        })
}

fn pid(call: &mut Call<'_>) -> Result {
    Ok(call
        .this::<Process>()
        .open()?
        .pid()
        .map_or(Dynamic::UNIT, |pid| i64::from(pid).into()))
}

fn signal(process: &Process, signal: Signal) -> Result {
    process.check_open()?;
    if matches!(process.0.borrow().phase, Phase::Initial) {
        return Err(raise(
            Kind::AttributeError,
            "the process hasn't been started: there is nothing to signal",
        ));
    }
    if process.0.borrow().owner != std::process::id() {
        return Err(raise(
            Kind::AssertionError,
            "can only signal a child process",
        ));
    }
    process.signal(signal);
    Ok(Dynamic::UNIT)
}

impl Process {
    fn open(self) -> Result<Self> {
        self.check_open()?;
        Ok(self)
    }

    fn check_joinable(&self) -> Result<()> {
        let state = self.0.borrow();
        if state.owner != std::process::id() || matches!(state.phase, Phase::Current) {
            return Err(raise(Kind::AssertionError, "can only join a child process"));
        }
        if matches!(state.phase, Phase::Initial) {
            return Err(raise(
                Kind::AssertionError,
                "can only join a started process",
            ));
        }
        Ok(())
    }

    fn join(&self, deadline: Deadline, position: mphost_core::position::Position) -> Result<()> {
        if self.refresh().is_none()
            && let Some(slot) = self.slot()
        {
            mphost_core::table::join(slot, deadline, position)?;
            self.refresh();
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        if matches!(self.0.borrow().phase, Phase::Started { .. }) && self.refresh().is_none() {
            return Err(raise(
                Kind::ValueError,
                "Cannot close a process while it is still running. You should first call join() or terminate().",
            ));
        }
        let mut state = self.0.borrow_mut();
        state.phase = Phase::Closed;
        state.sentinel = None;
        Ok(())
    }

    fn sentinel(&self) -> Result<i32> {
        if let Some(fd) = &self.0.borrow().sentinel {
            return Ok(fd.as_raw_fd());
        }
        let ended = self.refresh().is_some();
        let pid = match self.pid() {
            Some(pid) => pid,
            None => return Err(raise(Kind::ValueError, "process not started")),
        };
        let fd = mphost_core::process::sentinel(if ended { None } else { Some(pid) })?;
        let number = fd.as_raw_fd();
        self.0.borrow_mut().sentinel = Some(fd);
        Ok(number)
    }
}

fn show(process: &Process) -> String {
    let exitcode = process.exitcode();
    let state = process.0.borrow();
    let mut text = format!("<Process name='{}'", state.name);
    if let Some(pid) = process.pid() {
        text.push_str(&format!(" pid={pid}"));
    }
    if !matches!(state.phase, Phase::Parent { .. } | Phase::Closed) {
        text.push_str(&format!(
            " parent={}",
            own(|own| own.parent.as_ref().and_then(Process::pid))
                .filter(|_| matches!(state.phase, Phase::Current))
                .unwrap_or_else(|| nix::unistd::getpid().as_raw())
        ));
    }
    let status = match (&state.phase, exitcode) {
        (Phase::Initial, _) => "initial".to_owned(),
        (Phase::Closed, _) => "closed".to_owned(),
        (_, None) => "started".to_owned(),
        (_, Some(0)) => "stopped exitcode=0".to_owned(),
        (_, Some(code)) if code < 0 => match Signal::try_from(-code) {
            Ok(signal) => format!("stopped exitcode=-{signal}"),
            Err(_) => format!("stopped exitcode={code}"),
        },
        (_, Some(code)) => format!("stopped exitcode={code}"),
    };
    text.push_str(&format!(" {status}"));
    if state.daemon {
        text.push_str(" daemon");
    }
    text.push('>');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hidden_call_has_one_name() {
        assert_eq!(super::child_enter(), format!("{}()", super::child::ENTER));
    }
}
