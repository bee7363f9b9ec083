//! The module `signal`.
//!
//! A handler is a script function, so it can't run inside a real signal handler. The core notes that a signal came; between two steps
//! of the script, or in the middle of any wait, [`dispatch`] calls the handler. An error that it throws comes out of the wait or
//! the step.
//!
//! Invariant: SIGCHLD and SIGURG stay the host's own, which it knows of deaths and requests by.
//!
//! Source: CPython Library Reference, `signal`; signal(7).

use crate::api::{Call, Registry, native_name};
use crate::core_error;
use crate::error::{Error, Kind, Result, raise};
use crate::later::Later;
use crate::nudge::Nudge;
use mphost_core::clock::Deadline;
use mphost_core::deadlock;
use mphost_core::session::session;
use mphost_core::signals;
use mphost_core::wait::{self, WaitKind};
use nix::sys::signal::Signal;
use rhai::{Dynamic, Engine, FnPtr};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

const SIG_DFL: i64 = 0;
const SIG_IGN: i64 = 1;
/// The handler that SIGINT has at first: it raises KeyboardInterrupt.
const INTERRUPT: &str = "default_int_handler";

const OWN: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGURG];

#[derive(Clone)]
enum Handler {
    Default,
    Ignore,
    Interrupt,
    Call(Rc<Later>),
}

thread_local! {
    static HANDLERS: RefCell<BTreeMap<i32, Handler>> = const { RefCell::new(BTreeMap::new()) };
    static HANDLED: Cell<u64> = const { Cell::new(0) };
    static PAUSED: Nudge = Nudge::default();
}

fn handler_of(signo: i32) -> Handler {
    HANDLERS
        .with_borrow(|handlers| handlers.get(&signo).cloned())
        .unwrap_or(match Signal::try_from(signo) {
            Ok(Signal::SIGINT) => Handler::Interrupt,
            // The host ignores it: a write to a closed pipe is a BrokenPipeError.
            Ok(Signal::SIGPIPE) => Handler::Ignore,
            _ => Handler::Default,
        })
}

/// Whether the script handles any signal itself: then one may end a wait that nothing else would.
#[must_use]
pub fn has_handlers() -> bool {
    HANDLERS.with_borrow(|handlers| {
        handlers
            .values()
            .any(|handler| matches!(handler, Handler::Call(_)))
    })
}

/// Does what the script wants done about a signal that was caught.
///
/// # Errors
/// `KeyboardInterrupt` for SIGINT that nobody handles; what the handler throws.
pub fn dispatch(engine: &Engine, signo: i32) -> Result<()> {
    HANDLED.set(HANDLED.get() + 1);
    PAUSED.with(Nudge::nudge);
    match handler_of(signo) {
        Handler::Interrupt => Err(raise(Kind::KeyboardInterrupt, "")),
        Handler::Call(later) => {
            let number = Dynamic::from(i64::from(signo));
            later
                .call_with_one_or_two(engine, "<signal handler>", number, Dynamic::UNIT)
                .map(|_| ())
        }
        Handler::Default if signo == Signal::SIGQUIT as i32 => {
            crate::stuck::show_program();
            Ok(())
        }
        // It came before it was ignored, or is only noted by the host.
        Handler::Default | Handler::Ignore => Ok(()),
    }
}

fn number(call: &Call<'_>, index: usize) -> Result<i32> {
    let given = call.int(index).unwrap_or(0);
    i32::try_from(given)
        .ok()
        .filter(|signo| (1..=64).contains(signo))
        .ok_or_else(|| {
            raise(
                Kind::ValueError,
                format!("{given} is no signal: their numbers are 1 to 64"),
            )
        })
}

fn shown(handler: &Handler) -> Dynamic {
    match handler {
        Handler::Default => Dynamic::from(SIG_DFL),
        Handler::Ignore => Dynamic::from(SIG_IGN),
        Handler::Interrupt => {
            #[expect(
                deprecated,
                reason = "Rhai marks its volatile calls so; the version is pinned"
            )]
            let pointer = FnPtr::from_fn(
                native_name("signal", INTERRUPT),
                |_, _: &mut [&mut Dynamic]| {
                    Err(raise(Kind::KeyboardInterrupt, "").into_rhai(None, rhai::Position::NONE))
                },
            );
            Dynamic::from(pointer.expect("the name of a registered function is a valid identifier"))
        }
        Handler::Call(later) => Dynamic::from(later.function().clone()),
    }
}

fn set(call: &mut Call<'_>) -> Result {
    let signo = number(call, 0)?;
    let handler = call.take(1);
    if let Some(own) = OWN.iter().find(|own| **own as i32 == signo) {
        return Err(raise(
            Kind::ValueError,
            format!("{own} is the host's own: it learns by it of what its processes do"),
        ));
    }
    let handler = match (
        handler.as_int(),
        handler.read_lock::<FnPtr>().map(|pointer| pointer.clone()),
    ) {
        (Ok(SIG_DFL), _) => Handler::Default,
        (Ok(SIG_IGN), _) => Handler::Ignore,
        (_, Some(pointer)) if pointer.fn_name() == native_name("signal", INTERRUPT) => {
            Handler::Interrupt
        }
        (_, Some(pointer)) => Handler::Call(Rc::new(Later::new(call.ctx, pointer))),
        _ => {
            let message = "signal handler must be signal::SIG_IGN, signal::SIG_DFL, or a function";
            return Err(raise(Kind::TypeError, message));
        }
    };
    match handler {
        Handler::Default => signals::default(signo)?,
        Handler::Ignore => signals::ignore(signo)?,
        Handler::Interrupt | Handler::Call(_) => signals::catch(signo)?,
    }
    if signo == Signal::SIGINT as i32 {
        let is_main = session().me() == session().main_slot();
        signals::insist_on_interrupts(is_main && matches!(handler, Handler::Interrupt));
    }
    let before = shown(&handler_of(signo));
    HANDLERS.with_borrow_mut(|handlers| handlers.insert(signo, handler));
    deadlock::expect_signals(has_handlers());
    Ok(before)
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    for signal in Signal::iterator() {
        registry.constant(
            "signal",
            signal.as_str(),
            i64::from(signal as i32),
            "A signal's number, see signal(7).",
        );
    }
    registry.constant(
        "signal",
        "SIG_DFL",
        SIG_DFL,
        "In place of a handler: what the system does by itself.",
    );
    registry.constant(
        "signal",
        "SIG_IGN",
        SIG_IGN,
        "In place of a handler: nothing is done.",
    );
    registry.function(
        "signal",
        "signal(signalnum: int, handler: any)",
        "Chooses what is done when a signal comes. Forked children inherit it.\n\n- `signalnum`: which, as `signal::SIGTERM`.\n\
         - `handler`: a function of the signal's number (and, as in Python, of a second argument, which is `()`), `signal::SIG_IGN` or \
         `signal::SIG_DFL`. It runs between two steps of the script or in the middle of a wait.\n\n\
         Gives the handler before. Raises `ValueError` for what is no signal and for SIGCHLD and SIGURG, `OSError` for SIGKILL and \
         SIGSTOP, which can't be handled.\n\n\
         ```rhai\nfn stop(signum) { throw RuntimeError(\"asked to stop\"); }\nsignal::signal(signal::SIGUSR1, stop);\n\
         signal::signal(signal::SIGUSR1, signal::SIG_IGN);\n```",
        set,
    );
    registry.function(
        "signal",
        "getsignal(signalnum: int)",
        "The handler of a signal: a function, `signal::SIG_DFL` or `signal::SIG_IGN`.\n\n- `signalnum`: which.\n\n\
         ```rhai\nif signal::getsignal(signal::SIGTERM) != signal::SIG_DFL { throw \"SIGTERM\"; }\n```",
        |call| Ok(shown(&handler_of(number(call, 0)?))),
    );
    registry.function(
        "signal",
        "default_int_handler(signalnum: any = (), frame: any = ())",
        "Raises `KeyboardInterrupt`: SIGINT's handler at first.\n\n\
         ```rhai\nsignal::signal(signal::SIGINT, signal::default_int_handler);\n```",
        |_| Err(raise(Kind::KeyboardInterrupt, "")),
    );
    registry.function(
        "signal",
        "raise_signal(signalnum: int)",
        "Sends a signal to this process; its handler has run when the call returns.\n\n- `signalnum`: which.\n\n\
         ```rhai\nsignal::signal(signal::SIGUSR1, signal::SIG_IGN);\nsignal::raise_signal(signal::SIGUSR1);\n```",
        |call| {
            let signal = Signal::try_from(number(call, 0)?).map_err(|errno| failed("raise", errno))?;
            nix::sys::signal::raise(signal).map_err(|errno| failed("raise", errno))?;
            wait::poll_interrupts()?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "signal",
        "pause()",
        "Waits until a signal has been handled.\n\n```rhai\nfn wait_for_a_signal() { signal::pause() }\n```",
        |call| {
            let before = HANDLED.get();
            let at = crate::places::of_call(call.ctx);
            // The nudge is this thread's own and lives as long as it does.
            PAUSED.with(|paused| paused.wait(WaitKind::Descriptors, Deadline::NEVER, at, || HANDLED.get() != before))?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "signal",
        "alarm(seconds: int)",
        "Has the system send SIGALRM to this process later.\n\n- `seconds`: when; 0 calls off the one that was asked for before.\n\n\
         Gives the seconds that were left of that one.\n\n```rhai\nsignal::alarm(100);\nif signal::alarm(0) < 1 { throw \"alarm\"; }\n```",
        |call| {
            let seconds = u32::try_from(call.int(0).unwrap_or(0))
                .map_err(|_| raise(Kind::ValueError, "alarm(): 'seconds' is out of range"))?;
            let before = if seconds == 0 { nix::unistd::alarm::cancel() } else { nix::unistd::alarm::set(seconds) };
            deadlock::expect_timer(deadlock::Timer::System, Deadline::after_secs(f64::from(seconds)));
            Ok(Dynamic::from(i64::from(before.unwrap_or(0))))
        },
    );
    registry.function(
        "signal",
        "strsignal(signalnum: int)",
        "A signal's name.\n\n- `signalnum`: which.\n\n```rhai\nif signal::strsignal(15) != \"SIGTERM\" { throw \"name\"; }\n```",
        |call| {
            let signo = number(call, 0)?;
            Ok(Signal::try_from(signo).map(|signal| Dynamic::from(signal.as_str())).unwrap_or_default())
        },
    );
}

fn failed(what: &str, errno: nix::errno::Errno) -> Error {
    core_error::os(what, errno as i32, None).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, engine, outcome, run_examples};

    #[test]
    fn signals_in_scripts() {
        let engine = engine(&[crate::builtins::register, crate::errors::register, register]);
        check(
            &engine,
            &[
                (
                    "[signal::SIGTERM, signal::SIGKILL, signal::SIGINT, signal::SIGUSR1]",
                    "[15, 9, 2, 10]",
                ),
                (
                    "signal::getsignal(signal::SIGHUP) == signal::SIG_DFL",
                    "true",
                ),
                (
                    "repr(signal::getsignal(signal::SIGINT))",
                    "<function signal.default_int_handler>",
                ),
                (
                    "signal::getsignal(signal::SIGINT).call(2, ())",
                    "KeyboardInterrupt",
                ),
                (
                    "fn f(n) {} [signal::signal(signal::SIGHUP, f), signal::signal(signal::SIGHUP, signal::SIG_IGN).name, signal::signal(signal::SIGHUP, signal::SIG_DFL)]",
                    "[0, \"f\", 1]",
                ),
                (
                    "signal::signal(99, 0)",
                    "ValueError: 99 is no signal: their numbers are 1 to 64",
                ),
                (
                    "signal::signal(signal::SIGHUP, 7)",
                    "TypeError: signal handler must be signal::SIG_IGN, signal::SIG_DFL, or a function",
                ),
                (
                    "signal::signal(signal::SIGCHLD, 1)",
                    "ValueError: SIGCHLD is the host's own: it learns by it of what its processes do",
                ),
                (
                    "try { signal::signal(signal::SIGKILL, 1) } catch (e) { return e.is_a(\"OSError\"); }",
                    "true",
                ),
                ("signal::strsignal(9)", "SIGKILL"),
            ],
        );
    }

    #[test]
    fn handlers_are_called_with_what_they_take() {
        let engine = engine(&[crate::builtins::register, crate::errors::register, register]);
        let usr1 = Signal::SIGUSR1 as i32;
        let script = "const LIMIT = 5; let seen = []; fn f(n) { throw ValueError(`${n} ${global::LIMIT} ${g()}`) } fn g() { 7 } signal::signal(signal::SIGUSR1, f);";
        assert_eq!(outcome(&engine, script), "0");
        assert!(has_handlers());
        let error = dispatch(&engine, usr1).expect_err("the handler throws");
        let text = match &error {
            Error::Rhai(error) => crate::testing::text_of(error),
            other => other.to_string(),
        };
        assert!(text.contains("10 5 7"), "{text}");
        outcome(
            &engine,
            "signal::signal(signal::SIGUSR1, |n, frame| if frame != () { throw frame })",
        );
        dispatch(&engine, usr1).expect("a handler with two parameters gets both");
        outcome(&engine, "signal::signal(signal::SIGUSR1, signal::SIG_IGN)");
        dispatch(&engine, usr1).expect("nothing is done");
        let interrupt = dispatch(&engine, Signal::SIGINT as i32).expect_err("nobody handles it");
        assert_eq!(interrupt.to_string(), "KeyboardInterrupt");
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[
                crate::builtins::register,
                crate::os::register,
                crate::errors::register,
            ],
            register,
        );
    }
}
