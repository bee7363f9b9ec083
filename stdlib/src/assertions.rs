//! What scripted tests say: `assert`, `assert_eq`, `assert_throws`.
//!
//! They are there in every script, so that a function with assertions in it is the same in a test and in a program.

use crate::api::{Call, Registry};
use crate::error::{Error, Kind, Result, ScriptError, raise, thrown_value};
use crate::spelling;
use rhai::{Dynamic, EvalAltResult, FnPtr, NativeCallContext};

/// Registers the three.
pub fn register(registry: &mut Registry) {
    registry.function(
        "",
        "assert(condition: bool, message: any = \"\")",
        "Raises `AssertionError` unless the condition is true.\n\n\
         - `condition`: what should hold.\n- `message`: what to say if it doesn't.\n\n\
         ```rhai\nassert(1 < 2);\nassert(os::cpu_count() > 0, \"there is a processor\");\n```",
        |call| {
            if call.bool(0, false) {
                return Ok(Dynamic::UNIT);
            }
            let message = said(call, 1).unwrap_or_else(|| "the condition is false".to_owned());
            Err(raise(Kind::AssertionError, message))
        },
    );
    registry.function(
        "",
        "assert_eq(actual: any, expected: any, message: any = \"\")",
        "Raises `AssertionError` with both values unless they are equal.\n\n\
         Numbers are equal as numbers, so `1` equals `1.0`; arrays and object maps are equal if what they hold is; handles are \
         equal if they mean the same object.\n\n\
         - `actual`: what came out.\n- `expected`: what should have.\n- `message`: what to say besides.\n\n\
         ```rhai\nassert_eq([1, 2].len(), 2);\nassert_eq(#{a: [1, ()]}, #{a: [1, ()]});\n```",
        |call| {
            let (actual, expected) = (call.take(0), call.take(1));
            if equal(call.ctx, &actual, &expected)? {
                return Ok(Dynamic::UNIT);
            }
            let (left, right) = (
                spelling::repr(call.ctx, &actual),
                spelling::repr(call.ctx, &expected),
            );
            let mut text = format!("{left} is not equal to {right}");
            if let Some(message) = said(call, 2) {
                text = format!("{message}: {text}");
            }
            Err(raise(Kind::AssertionError, text))
        },
    );
    registry.function(
        "",
        "assert_throws(type: string, function: callable)",
        "Calls a function, which must throw an error of a class, and gives the error.\n\n\
         Raises `AssertionError` if it throws nothing or something else.\n\n\
         - `type`: the name of the class, or of one that it derives from.\n- `function`: what to call; it takes no arguments.\n\n\
         ```rhai\nlet e = assert_throws(\"ValueError\", || throw ValueError(\"bad\"));\nassert_eq(e.message, \"bad\");\n\
         assert_eq(assert_throws(\"OSError\", || open(\"no such file\")).type, \"FileNotFoundError\");\n```",
        |call| {
            let name = call.string(0).unwrap_or_default();
            let Some(kind) = Kind::from_name(&name) else {
                let hint = crate::api::suggest(&name, Kind::ALL.iter().map(|kind| kind.name()));
                return Err(raise(
                    Kind::NameError,
                    format!("there is no error class '{name}'{hint}"),
                ));
            };
            let Some(function) = call.callable(1) else {
                return Err(raise(
                    Kind::TypeError,
                    "assert_throws(): 'function' must be a function",
                ));
            };
            throws(call.ctx, kind, &function)
        },
    );
}

/// The message that the test gives, if it gives one.
fn said(call: &mut Call<'_>, index: usize) -> Option<String> {
    let message = call.take(index);
    let text = spelling::text(call.ctx, &message);
    (!message.is_unit() && !text.is_empty()).then_some(text)
}

fn throws(ctx: &NativeCallContext<'_>, kind: Kind, function: &FnPtr) -> Result {
    let missing = |what: String| Err(raise(Kind::AssertionError, what));
    let error = match function.call_raw(ctx, None, []) {
        Ok(value) => {
            let value = spelling::repr(ctx, &value);
            return missing(format!(
                "nothing was thrown instead of a {}: the function returned {value}",
                kind.name()
            ));
        }
        Err(error) => error,
    };
    // The program's end is no error that a test could wait for.
    if matches!(
        error.unwrap_inner(),
        EvalAltResult::Exit(..) | EvalAltResult::ErrorTerminated(..)
    ) {
        return Err(Error::Rhai(error));
    }
    let value = thrown_value(&error, ctx.call_source());
    let class = value.read_lock::<ScriptError>().map(|error| error.kind());
    match class {
        Some(class) if class.is_a(kind) => Ok(value),
        _ => missing(format!(
            "{} was thrown instead of a {}",
            spelling::repr(ctx, &value),
            kind.name()
        )),
    }
}

/// Whether two values are equal as `==` has it, which for values of types that can't be compared is false.
fn equal(ctx: &NativeCallContext<'_>, a: &Dynamic, b: &Dynamic) -> Result<bool> {
    if a.is_unit() || b.is_unit() {
        return Ok(a.is_unit() && b.is_unit());
    }
    let (mut a, mut b) = (a.clone(), b.clone());
    match ctx.call_native_fn_raw("==", true, &mut [&mut a, &mut b]) {
        Ok(value) => Ok(value.as_bool().unwrap_or(false)),
        Err(error) if matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)) => Ok(false),
        Err(error) => Err(Error::Rhai(error)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, run_examples};

    #[test]
    fn an_assertion_holds_or_says_what_was_wrong() {
        let engine = engine(&[
            crate::builtins::register,
            crate::errors::register,
            crate::os::register,
            super::register,
        ]);
        check(
            &engine,
            &[
                ("assert(true)", ""),
                ("assert(false)", "AssertionError: the condition is false"),
                ("assert(1 > 2, \"order\")", "AssertionError: order"),
                (
                    "assert(1)",
                    "TypeError: assert(): 'condition' must be true or false, not int",
                ),
                ("assert_eq(1, 1.0)", ""),
                ("assert_eq([1, [\"a\", ()]], [1, [\"a\", ()]])", ""),
                ("assert_eq(#{a: 1}, #{a: 1})", ""),
                ("assert_eq((), ())", ""),
                (
                    "assert_eq([1, ()], [1, 2])",
                    "AssertionError: [1, None] is not equal to [1, 2]",
                ),
                (
                    "assert_eq(1, (), \"how many\")",
                    "AssertionError: how many: 1 is not equal to None",
                ),
                (
                    "assert_eq(1, \"1\")",
                    "AssertionError: 1 is not equal to '1'",
                ),
                (
                    "assert_throws(\"OSError\", || throw FileNotFoundError(\"f\")).message",
                    "f",
                ),
                (
                    "assert_throws(\"ZeroDivisionError\", || 1 / 0).type",
                    "ZeroDivisionError",
                ),
                (
                    "assert_throws(\"ValueError\", || 5)",
                    "AssertionError: nothing was thrown instead of a ValueError: the function returned 5",
                ),
                (
                    "assert_throws(\"ValueError\", || throw KeyError(\"k\"))",
                    "AssertionError: KeyError('k') was thrown instead of a ValueError",
                ),
                (
                    "assert_throws(\"ValueError\", || throw 5)",
                    "AssertionError: 5 was thrown instead of a ValueError",
                ),
                (
                    "assert_throws(\"ValuError\", || 5)",
                    "NameError: there is no error class 'ValuError'; did you mean 'ValueError'?",
                ),
            ],
        );
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[
                crate::builtins::register,
                crate::errors::register,
                crate::os::register,
            ],
            super::register,
        );
    }
}
