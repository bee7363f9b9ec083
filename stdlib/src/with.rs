//! `with EXPR { … }` and `with EXPR as NAME { … }`.
//!
//! Problem: what a block has entered must be left on every way out, a thrown error, `return`, `break` and `continue` included.
//! In Rhai all of these pass through the block as `Err`, so leaving on both ways out of one evaluation does it.
//!
//! Each type says by which method it is left ([`context`]), and perhaps by which it is entered. Variables: without `as` the
//! block is an ordinary block. With `as` one more variable stands in the scope than the parser knew of, so variables are
//! looked up by name while the block runs; that is slower, hence not done where no name is bound.

use crate::error::{Kind, raise};
use mphost_core::position::Position;
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, Expression, ImmutableString};
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

#[derive(Clone, Copy)]
struct Protocol {
    enter: Option<&'static str>,
    leave: &'static str,
}

thread_local! {
    static PROTOCOLS: RefCell<HashMap<TypeId, Protocol>> = RefCell::new(HashMap::new());
    static POSITION: Cell<Position> = const { Cell::new(Position::NONE) };
}

/// Says how a type is entered and left: by the names of its methods.
pub fn context<T: 'static>(enter: Option<&'static str>, leave: &'static str) {
    PROTOCOLS.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), Protocol { enter, leave }));
}

/// Where the innermost `with` that is being entered or left stands; calls made by it have no place of their own.
#[must_use]
pub fn position() -> Position {
    POSITION.get()
}

/// Adds the syntax to an engine.
pub fn install(engine: &mut Engine) {
    engine.register_custom_syntax_with_state_raw("with", parse, false, evaluate);
}

fn parse(
    symbols: &[ImmutableString],
    ahead: &str,
    _state: &mut Dynamic,
) -> Result<Option<ImmutableString>, rhai::ParseError> {
    let next = match symbols.len() {
        1 => "$expr$",
        2 if ahead == "as" => "as",
        2 => "$block$",
        3 if symbols[2] == "as" => "$ident$",
        4 => "$block$",
        _ => return Ok(None),
    };
    Ok(Some(next.into()))
}

fn evaluate(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    inputs: &[Expression<'_>],
    _state: &Dynamic,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let at = inputs[0].position();
    let mut object = context.eval_expression_tree(&inputs[0])?;
    let Some(protocol) = PROTOCOLS.with_borrow(|all| all.get(&object.type_id()).copied()) else {
        let type_name = crate::api::type_name(&object);
        let message = format!(
            "'{type_name}' object can't be used with `with`: it has nothing to enter and leave"
        );
        return Err(raise(Kind::TypeError, message).into_rhai(context.source(), at));
    };
    let call =
        |context: &mut EvalContext<'_, '_, '_, '_, '_, '_>, object: &mut Dynamic, method: &str| {
            let outer = POSITION.replace(here(at));
            let result = context.call_native_fn_raw(method, true, &mut [object]);
            POSITION.set(outer);
            result.map_err(|mut error| {
                if error.position().is_none() {
                    error.set_position(at);
                }
                error
            })
        };
    let entered = match protocol.enter {
        Some(enter) => call(context, &mut object, enter)?,
        None => Dynamic::UNIT,
    };
    let result = match inputs {
        [_, name, block] => {
            let name = name.get_string_value().unwrap_or_default().to_owned();
            let value = if entered.is_unit() {
                object.clone()
            } else {
                entered
            };
            let depth = context.scope().len();
            let by_name = std::mem::replace(
                &mut context.global_runtime_state_mut().always_search_scope,
                true,
            );
            context.scope_mut().push_dynamic(name, value);
            let result = context.eval_expression_tree(block);
            context.scope_mut().rewind(depth);
            context.global_runtime_state_mut().always_search_scope = by_name;
            result
        }
        [_, block] => context.eval_expression_tree(block),
        _ => unreachable!("the parser gives two or three parts"),
    };
    // A forked child that ran its task inside the block never comes back here: it exits.
    let left = call(context, &mut object, protocol.leave);
    // What the block threw matters more than a failure to leave.
    result.and_then(|value| left.map(|_| value))
}

fn here(at: rhai::Position) -> Position {
    Position::new(
        1,
        u32::try_from(at.line().unwrap_or(0)).unwrap_or(u32::MAX),
        u16::try_from(at.position().unwrap_or(0)).unwrap_or(u16::MAX),
    )
}
