//! `try { … } catch (e) { … }`, with `e` an error value for every error, those of the interpreter included.
//!
//! Problem: what Rhai's own `catch` binds for an error of the interpreter (unknown name, bad index, division by zero) is an object map
//! that has no `type`, says little of an error inside a called function, and some errors (calls too deep, Ctrl-C in the middle of a
//! calculation) it doesn't catch at all. So the word `try` reaches the parser as a name of ours, which is custom syntax. Its parts are Rhai's
//! own, a block, a name, a block; what goes through it, `return`, `break`, the end of the program, goes through as before.
//!
//! The variable is declared by the handler's first statement, as that of `with … as` is: see [`crate::catches`].

use crate::error::{ScriptError, thrown_value};
use crate::with::{bind, declare, unbind};
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, Expression, ImmutableString, ParseError};

/// What the parser gets in the place of `try`.
pub(crate) const TRY: &str = "try__";

/// Adds the syntax to an engine, whose tokens must come through [`crate::spawn_syntax`].
pub(crate) fn install(engine: &mut Engine) {
    engine.register_custom_syntax_with_state_raw(TRY, parse, false, evaluate);
}

fn parse(
    symbols: &[ImmutableString],
    ahead: &str,
    state: &mut Dynamic,
) -> Result<Option<ImmutableString>, ParseError> {
    *state = crate::catches::declares().into();
    let next = match symbols.len() {
        1 => "$block$",
        2 => "catch",
        3 if ahead == "(" => "(",
        3 => "$block$",
        4 if symbols[3] == "(" => "$ident$",
        5 => ")",
        6 => "$block$",
        _ => return Ok(None),
    };
    Ok(Some(next.into()))
}

fn evaluate(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    inputs: &[Expression<'_>],
    state: &Dynamic,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let (body, name, handler) = match inputs {
        [body, handler] => (body, None, handler),
        [body, name, handler] => (body, name.get_string_value(), handler),
        _ => unreachable!("the parser gives two or three parts"),
    };
    let depth = context.scope().len();
    let error = match context.eval_expression_tree(body) {
        Ok(_) => return Ok(Dynamic::UNIT),
        Err(error) if is_caught(&error) => error,
        Err(error) => return Err(error),
    };
    context.scope_mut().rewind(depth);
    let handled = match name {
        None => context.eval_expression_tree(handler),
        Some(name) => {
            let value = caught(&error, context.source());
            if state.as_bool().unwrap_or(false) {
                declare(value);
                context.eval_expression_tree(handler)
            } else {
                let name = name.to_owned();
                // A constant of that name is in the way: then the handler sees that.
                let hidden = bind(context.scope_mut(), &name, value);
                let depth = context.scope().len();
                let handled = context.eval_expression_tree(handler);
                context.scope_mut().rewind(depth);
                if let Some(hidden) = hidden {
                    unbind(context.scope_mut(), &name, hidden);
                }
                handled
            }
        }
    };
    match handled {
        Ok(_) => Ok(Dynamic::UNIT),
        // `throw;` throws on what was caught.
        Err(thrown) => match *thrown {
            EvalAltResult::ErrorRuntime(value, _) if value.is_unit() => Err(error),
            other => Err(Box::new(other)),
        },
    }
}

/// Whether a handler gets it: all that went wrong, but not the ways out of a block and the end of the process.
fn is_caught(error: &EvalAltResult) -> bool {
    match error.unwrap_inner() {
        EvalAltResult::ErrorStackOverflow(..) => true,
        // What a signal's handler raised between two steps of the script; another end of the process is no error.
        EvalAltResult::ErrorTerminated(value, _) => !value.is_unit(),
        inner => inner.is_catchable(),
    }
}

/// The error as the handler sees it.
fn caught(error: &EvalAltResult, source: Option<&str>) -> Dynamic {
    let mut source = source;
    let mut at = error;
    while let EvalAltResult::ErrorInFunctionCall(_, from, inner, _)
    | EvalAltResult::ErrorInModule(from, inner, _) = at
    {
        if !from.is_empty() {
            source = Some(from.as_str());
        }
        at = inner;
    }
    let value = thrown_value(error, source);
    if matches!(
        at,
        EvalAltResult::ErrorRuntime(..) | EvalAltResult::ErrorTerminated(..)
    ) {
        return value;
    }
    // What Rhai's own scripts read of an interpreter's error (`e.line`, `e.error`) stays readable.
    let Some(mut error) = value.read_lock::<ScriptError>().map(|error| error.clone()) else {
        return value;
    };
    let variant = format!("{at:?}");
    let variant = variant.split('(').next().unwrap_or_default().to_owned();
    error = error.with_field("error", variant);
    if let Some(line) = at.position().line() {
        error = error.with_field("line", i64::try_from(line).unwrap_or(i64::MAX));
    }
    Dynamic::from(error)
}
