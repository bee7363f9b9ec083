//! Constants that are evaluated anew in a child, because their value couldn't travel: `const START = timestamp();`.
//!
//! Problem: `const POOL = Pool(4);` or `const P = spawn(f);` can't travel either, and evaluated anew they would start processes, each of
//! which would evaluate them again: a fork bomb. So nothing is started on the way to a child's task, and a constant that wanted to is
//! `()` there; the pool or process is its parent's alone anyhow.
//!
//! Invariant: [`finish`] is called before the task runs.

use super::child;
use crate::error::{Kind, Result, raise};
use rhai::{
    Dynamic, Engine, EvalAltResult, EvalContext, Expr, Expression, ImmutableString, ParseError,
    Position, Stmt,
};
use std::cell::Cell;

/// The word in front of the expression.
const WORD: &str = "anew__";

thread_local! {
    /// Whether constants are being evaluated.
    static EVALUATING: Cell<bool> = const { Cell::new(false) };
    /// Whether the one at work wanted to start a process.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Adds the syntax to an engine.
pub(crate) fn install(engine: &mut Engine) {
    engine.register_custom_syntax_with_state_raw(WORD, parse, false, evaluate);
}

/// Constants are evaluated from now on.
pub(super) fn begin() {
    EVALUATING.set(true);
}

/// All constants are there.
pub(super) fn finish() {
    EVALUATING.set(false);
}

/// Asked before a process is started.
///
/// # Errors
/// `RuntimeError` where that isn't to be.
pub(super) fn refuse() -> Result<()> {
    if !EVALUATING.get() {
        return Ok(());
    }
    REFUSED.set(true);
    Err(raise(
        Kind::RuntimeError,
        "a constant that is evaluated anew in a child starts no process",
    ))
}

/// The expression of a constant, as it is evaluated in a child.
///
/// # Errors
/// Never, in an engine that has the syntax.
pub(super) fn wrap(expression: Expr, position: Position) -> Result<Expr> {
    let template = child::compile(&format!("{WORD} 0"))?;
    if let [Stmt::Expr(template)] = template.statements()
        && let Expr::Custom(template, _) = &**template
    {
        let mut custom = template.clone();
        custom.inputs[0] = expression;
        return Ok(Expr::Custom(custom, position));
    }
    Err(raise(
        Kind::RuntimeError,
        "this engine doesn't evaluate constants anew",
    ))
}

fn parse(
    symbols: &[ImmutableString],
    _ahead: &str,
    _state: &mut Dynamic,
) -> std::result::Result<Option<ImmutableString>, ParseError> {
    Ok((symbols.len() == 1).then(|| "$expr$".into()))
}

fn evaluate(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    inputs: &[Expression<'_>],
    _state: &Dynamic,
) -> std::result::Result<Dynamic, Box<EvalAltResult>> {
    REFUSED.set(false);
    match context.eval_expression_tree(&inputs[0]) {
        Err(_) if REFUSED.take() => Ok(Dynamic::UNIT),
        result => result,
    }
}
