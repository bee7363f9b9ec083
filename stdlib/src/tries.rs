//! What `catch (e)` gets: an error value for every error, those of the interpreter included.
//!
//! Problem: what Rhai's own `catch` binds for an error of the interpreter (unknown name, bad index, division by zero) is an object map
//! that has no `type`, says little of an error inside a called function, and some errors (calls too deep, Ctrl-C in the middle of a
//! calculation) it doesn't catch at all. So what stands in a `try` block runs in a block of ours within it ([`crate::catches`] puts it
//! there), which turns each error into one that is thrown with an error value. What is no error, `return`, `break`, the end of the
//! program, goes through as it is.

use crate::error::{ScriptError, thrown_value};
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, Expression, ImmutableString, ParseError};

/// The word in front of the inner block.
pub(crate) const GUARD: &str = "guard__";

/// Adds the syntax to an engine.
pub(crate) fn install(engine: &mut Engine) {
    engine.register_custom_syntax_with_state_raw(GUARD, parse, false, evaluate);
}

fn parse(
    symbols: &[ImmutableString],
    _ahead: &str,
    _state: &mut Dynamic,
) -> Result<Option<ImmutableString>, ParseError> {
    Ok((symbols.len() == 1).then(|| "$block$".into()))
}

fn evaluate(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    inputs: &[Expression<'_>],
    _state: &Dynamic,
) -> Result<Dynamic, Box<EvalAltResult>> {
    match context.eval_expression_tree(&inputs[0]) {
        Err(error) if is_caught(&error) => {
            let source = context.source().map(str::to_owned);
            Err(thrown(error, source.as_deref()))
        }
        result => result,
    }
}

/// Whether a handler gets it: all that went wrong, but not the ways out of a block and the end of the process.
fn is_caught(error: &EvalAltResult) -> bool {
    match error.unwrap_inner() {
        // A text for `eval` and a module may be no script; Rhai catches neither.
        EvalAltResult::ErrorStackOverflow(..) | EvalAltResult::ErrorParsing(..) => true,
        // What a signal's handler raised between two steps of the script; another end of the process is no error.
        EvalAltResult::ErrorTerminated(value, _) => !value.is_unit(),
        inner => inner.is_catchable(),
    }
}

/// The same error, thrown with a value, within the same calls.
fn thrown(error: Box<EvalAltResult>, source: Option<&str>) -> Box<EvalAltResult> {
    match *error {
        EvalAltResult::ErrorInFunctionCall(name, from, inner, position) => {
            let inner = thrown(inner, if from.is_empty() { source } else { Some(&from) });
            Box::new(EvalAltResult::ErrorInFunctionCall(
                name, from, inner, position,
            ))
        }
        EvalAltResult::ErrorInModule(from, inner, position) => {
            let inner = thrown(inner, Some(&from));
            Box::new(EvalAltResult::ErrorInModule(from, inner, position))
        }
        EvalAltResult::ErrorRuntime(..) => error,
        other => {
            let value = value_of(&other, source);
            Box::new(EvalAltResult::ErrorRuntime(value, other.position()))
        }
    }
}

fn value_of(error: &EvalAltResult, source: Option<&str>) -> Dynamic {
    let value = thrown_value(error, source);
    if matches!(error, EvalAltResult::ErrorTerminated(..)) {
        return value;
    }
    // What Rhai's own scripts read of an interpreter's error (`e.line`, `e.error`) stays readable.
    let Some(mut detailed) = value.read_lock::<ScriptError>().map(|error| error.clone()) else {
        return value;
    };
    let variant = format!("{error:?}");
    let variant = variant.split('(').next().unwrap_or_default().to_owned();
    detailed = detailed.with_field("error", variant);
    if let Some(line) = error.position().line() {
        detailed = detailed.with_field("line", i64::try_from(line).unwrap_or(i64::MAX));
    }
    Dynamic::from(detailed)
}
