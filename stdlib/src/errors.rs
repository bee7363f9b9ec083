//! Errors as values: a constructor for each of Python's classes, and what a caught error tells.
//!
//! What the host raises and what a script throws with these constructors is the same type. Errors of the interpreter itself become
//! it too: see [`crate::tries`].
//!
//! Source: CPython Library Reference, Built-in Exceptions; `multiprocessing` and `queue` for theirs.

use crate::api::{Call, Registry};
use crate::error::{ErrorDetail, Kind, ScriptError, raise};
use crate::spelling;
use rhai::Dynamic;
use std::sync::LazyLock;

struct Constructor {
    signature: String,
    doc: String,
}

/// In the order of [`Kind::ALL`].
static CONSTRUCTORS: LazyLock<Vec<Constructor>> = LazyLock::new(|| {
    Kind::ALL
        .iter()
        .map(|&kind| {
            let name = kind.name();
            Constructor {
                signature: format!("{name}(message: any = \"\", **fields)"),
                doc: format!(
                    "An error for {}.\n\n- `message`: what was wrong.\n- `fields`: an object map of what the error carries besides; \
                     `cause` is what led to it.\n\n```rhai\ntry {{\n    throw {name}(\"why\");\n}} catch (e) {{\n    \
                     if e.type != \"{name}\" || e.message != \"why\" {{ throw e; }}\n}}\n```",
                    meaning(kind)
                ),
            }
        })
        .collect()
});

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::ValueError => "a value of the right type that can't be used",
        Kind::TypeError => "a value of the wrong type",
        Kind::LookupError => "a key or an index that isn't there",
        Kind::KeyError => "a key that isn't there",
        Kind::IndexError => "an index that is out of range",
        Kind::AttributeError => "a property or method that an object doesn't have",
        Kind::RuntimeError => "what fits no other class",
        Kind::AssertionError => "a condition that should have held",
        Kind::NotImplementedError => "what is not there yet",
        Kind::ArithmeticError => "a calculation that has no result",
        Kind::OverflowError => "a number that is out of its type's range",
        Kind::ZeroDivisionError => "a division by zero",
        Kind::NameError => "a name that isn't defined",
        Kind::SyntaxError => "a script that can't be read",
        Kind::ModuleNotFoundError => "a module that can't be imported",
        Kind::RecursionError => "functions that call each other too deep",
        Kind::MemoryError => "memory that has run out",
        Kind::OSError => "a system call that failed",
        Kind::FileNotFoundError => "a file that isn't there",
        Kind::FileExistsError => "a file that is there already",
        Kind::IsADirectoryError => "a directory where a file was wanted",
        Kind::NotADirectoryError => "a file where a directory was wanted",
        Kind::PermissionError => "what isn't allowed to this process",
        Kind::ProcessLookupError => "a process that isn't there",
        Kind::ConnectionError => "a connection that failed",
        Kind::ConnectionRefusedError => "a peer that nobody listens at",
        Kind::ConnectionResetError => "a connection that the peer reset",
        Kind::ConnectionAbortedError => "a connection that was given up",
        Kind::BrokenPipeError => "a write to a connection whose other end is closed",
        Kind::EOFError => "input or a connection that has ended",
        Kind::KeyboardInterrupt => "Ctrl-C",
        Kind::SystemExit => "a process that wants to end",
        Kind::ProcessError => "what goes wrong between processes",
        Kind::TimeoutError => "a time limit that has passed",
        Kind::BufferTooShort => {
            "a buffer that a message doesn't fit into; the message is in `data`"
        }
        Kind::AuthenticationError => "a peer that doesn't know the key",
        Kind::BrokenBarrierError => "a barrier that was aborted or reset while somebody waited",
        Kind::RemoteError => "what went wrong in a manager's server",
        Kind::StopIteration => "an iterator that has no more items",
        Kind::Empty => "a queue that has no item",
        Kind::Full => "a queue that has no room",
        Kind::PicklingError => "a value that can't travel to another process",
        Kind::UnicodeDecodeError => "bytes that are no text",
        Kind::JSONDecodeError => "a text that is no JSON",
        Kind::CalledProcessError => "a program that ended with an error",
        Kind::TimeoutExpired => "a program that ran too long",
        Kind::BrokenProcessPool => "a pool that can't run tasks any more",
        Kind::WorkerLostError => "a pool's worker that died over its task",
        Kind::OwnerDiedError => "a lock whose holder died",
        Kind::CancelledError => "a task that was cancelled",
        Kind::BlockingIOError => "an operation that would have to wait where that isn't wanted",
        Kind::DeadlockError => "processes that wait for each other, so that none can go on",
        _ => "anything that goes wrong",
    }
}

/// The modules that have the class in Python as well.
fn homes(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::ProcessError
        | Kind::TimeoutError
        | Kind::BufferTooShort
        | Kind::AuthenticationError
        | Kind::WorkerLostError
        | Kind::OwnerDiedError
        | Kind::DeadlockError => &["mp"],
        Kind::RemoteError => &["mp::managers"],
        Kind::Empty | Kind::Full => &["queue"],
        _ => &[],
    }
}

/// Registers the constructors and the error type's properties.
pub fn register(registry: &mut Registry) {
    for (index, &kind) in Kind::ALL.iter().enumerate() {
        // Their texts are only made for who needs them.
        if !registry.needs(kind.name()) {
            continue;
        }
        let constructor = &CONSTRUCTORS[index];
        let construct = move |call: &mut Call<'_>| {
            let message = call.take(0);
            let message = if message.is_unit() {
                String::new()
            } else {
                spelling::text(call.ctx, &message)
            };
            let mut fields = call.take_extra();
            let cause = fields.remove("cause").unwrap_or_default();
            let detail = ErrorDetail {
                kind,
                message,
                position: String::new(),
                traceback: String::new(),
                cause,
                fields,
            };
            let error = ScriptError::from_detail(detail)
                .at(call.ctx.call_source(), call.ctx.call_position());
            Ok(Dynamic::from(error))
        };
        registry.function("", &constructor.signature, &constructor.doc, construct);
        for module in homes(kind) {
            registry.also(module, &constructor.signature, construct);
        }
    }
    register_properties(registry);
}

fn register_properties(registry: &mut Registry) {
    let mut class = registry.class::<ScriptError>("Error");
    let text = |text: &str| Ok(Dynamic::from(text.to_owned()));
    class
        .getter("type", "The name of its class, Python's.", move |call| text(call.this::<ScriptError>().kind().name()))
        .getter("message", "What was wrong.", move |call| text(&call.this::<ScriptError>().detail().message))
        .getter("position", "Where it was raised: `file:line:column`.", move |call| {
            text(&call.this::<ScriptError>().detail().position)
        })
        .getter(
            "traceback",
            "Where it came from another process: that process's name, pid and script stack. Else empty.",
            move |call| text(&call.this::<ScriptError>().detail().traceback),
        )
        .getter("cause", "What led to it, or `()`.", |call| Ok(call.this::<ScriptError>().detail().cause.clone()))
        .method(
            "is_a(name: string)",
            "Whether its class is `name` or derives from it, as in Python: a `FileNotFoundError` is an `OSError`.\n\n\
             Raises `NameError` for a class that doesn't exist.\n\n\
             ```rhai\nif !FileNotFoundError().is_a(\"OSError\") { throw \"is_a\"; }\n```",
            |call| {
                let name = call.string(0).unwrap_or_default();
                let Some(kind) = Kind::from_name(&name) else {
                    let hint = crate::api::suggest(&name, Kind::ALL.iter().map(|kind| kind.name()));
                    return Err(raise(Kind::NameError, format!("there is no error class '{name}'{hint}")));
                };
                Ok(Dynamic::from(call.this::<ScriptError>().kind().is_a(kind)))
            },
        )
        .index_getter("What it carries besides: `e.pid`, `e[\"pid\"]`.", |call| {
            let error = call.this::<ScriptError>();
            let name = call.string(0).unwrap_or_default();
            error.detail().fields.get(name.as_str()).cloned().ok_or_else(|| {
                let known = ["type", "message", "position", "traceback", "cause"].into_iter();
                let hint = crate::api::suggest(&name, known.chain(error.detail().fields.keys().map(|key| key.as_str())));
                raise(Kind::AttributeError, format!("'{}' has no attribute '{name}'{hint}", error.kind().name()))
            })
        })
        .display(ToString::to_string)
        .equality(|a, b| {
            let (a, b) = (a.detail(), b.detail());
            std::ptr::eq(a, b)
                || a.kind == b.kind
                    && a.message == b.message
                    && a.position == b.position
                    && a.fields.len() == b.fields.len()
                    && a.fields.keys().eq(b.fields.keys())
        });
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, run_examples};

    #[test]
    fn errors_tell_what_they_are() {
        let engine = engine(&[crate::builtins::register, super::register]);
        check(
            &engine,
            &[
                ("throw ValueError(\"bad\")", "ValueError: bad"),
                ("throw Full()", "Full"),
                ("ValueError(\"bad\").message", "bad"),
                ("ValueError(\"bad\").type", "ValueError"),
                ("let e = ValueError(\"bad\"); `${e}`", "ValueError: bad"),
                (
                    "try { throw KeyError(\"k\") } catch (e) { return [e.type, e.message, e.position, e.traceback, e.cause]; }",
                    "[\"KeyError\", \"k\", \"<script>:1:13\", \"\", ()]",
                ),
                ("ValueError(5).message", "5"),
                ("ValueError([1, ()]).message", "[1, None]"),
                ("ProcessError(\"x\", #{pid: 7}).pid", "7"),
                ("ProcessError(\"x\", #{pid: 7})[\"pid\"]", "7"),
                (
                    "ProcessError(\"x\", #{pid: 7}).pdi",
                    "AttributeError: 'ProcessError' has no attribute 'pdi'; did you mean 'pid'?",
                ),
                (
                    "RuntimeError(\"x\", #{cause: ValueError(\"y\")}).cause",
                    "ValueError: y",
                ),
                ("FileNotFoundError().is_a(\"OSError\")", "true"),
                ("FileNotFoundError().is_a(\"Exception\")", "true"),
                ("OSError().is_a(\"FileNotFoundError\")", "false"),
                (
                    "OSError().is_a(\"ValuError\")",
                    "NameError: there is no error class 'ValuError'; did you mean 'ValueError'?",
                ),
                ("let e = OSError(\"x\"); let f = e; e == f", "true"),
                ("let e = OSError(\"x\"); e != OSError(\"y\")", "true"),
                (
                    "OSError(\"x\").nothing()",
                    "AttributeError: 'Error' object has no method 'nothing'",
                ),
                (
                    "ValueError(1, 2)",
                    "TypeError: ValueError(): what follows the first 1 arguments is given by name, in an object map: #{…}: ValueError(message: any = \"\", **fields)",
                ),
                ("try { throw 5 } catch (e) { return e; }", "5"),
                ("try { throw #{a: 1} } catch (e) { return e.a; }", "1"),
            ],
        );
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[crate::builtins::register, crate::os::register],
            super::register,
        );
    }
}
