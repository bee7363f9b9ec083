//! `with EXPR { … }` and `with EXPR as NAME { … }`.
//!
//! Problem: what a block has entered must be left on every way out, a thrown error, `return`, `break` and `continue` included.
//! In Rhai all of these pass through the block as `Err`, so leaving on both ways out of one evaluation does it.
//!
//! Each type says by which method it is left ([`context`]), and perhaps by which it is entered; locks, whose blocks are short and many, by
//! what these methods do ([`guarded`]). Variables: without `as` the
//! block is an ordinary block. With `as` it is one too, where [`crate::catches`] has put `let NAME=bound__();` at its beginning: that
//! call takes the value that was entered. Elsewhere (`eval`) the block has one more variable than the parser knew of. The parser has turned the other
//! ones into places counted from the scope's end, for closures beyond any looking up by name; so the new one goes to the scope's
//! beginning, where no place changes, and where a name that the parser didn't know is found. A variable of that name that the parser did
//! know holds the new value for the length of the block.

use crate::error::{Kind, raise};
use crate::places;
use mphost_core::position::Position;
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, Expression, ImmutableString, Scope};
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// What entering or leaving an object does; the position is that of the `with`.
type Direct = Box<dyn Fn(&Dynamic, Position) -> crate::error::Result>;

/// One way into or out of a context.
enum Step {
    /// A method, found by its name as the script would find it.
    Method(&'static str),
    /// What the method does, without looking for it.
    Direct(Direct),
}

struct Protocol {
    enter: Option<Step>,
    leave: Step,
}

thread_local! {
    static PROTOCOLS: RefCell<HashMap<TypeId, Rc<Protocol>, ahash::RandomState>> =
        const { RefCell::new(HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))) };
    /// What was entered, for the first statement of the block.
    static VALUE: Cell<Option<Dynamic>> = const { Cell::new(None) };
    static POSITION: Cell<Position> = const { Cell::new(Position::NONE) };
}

/// Says how a type is entered and left: by the names of its methods.
pub fn context<T: 'static>(enter: Option<&'static str>, leave: &'static str) {
    add::<T>(enter.map(Step::Method), Step::Method(leave));
}

/// Says how a type is entered and left that is acquired and released: without a search for its methods.
pub fn guarded<T: Clone + 'static>(
    acquire: impl Fn(&T, Position) -> crate::error::Result<bool> + 'static,
    release: impl Fn(&T) -> crate::error::Result<()> + 'static,
) {
    add::<T>(
        Some(direct(move |object: &T, at| {
            Ok(Dynamic::from(acquire(object, at)?))
        })),
        direct(move |object: &T, _| {
            release(object)?;
            Ok(Dynamic::UNIT)
        }),
    );
}

fn direct<T: Clone + 'static>(
    step: impl Fn(&T, Position) -> crate::error::Result + 'static,
) -> Step {
    Step::Direct(Box::new(move |object, at| {
        // A copy, since the step may wait, and what runs meanwhile may want the variable.
        let object = object
            .read_lock::<T>()
            .expect("a protocol is found by its type")
            .clone();
        step(&object, at)
    }))
}

fn add<T: 'static>(enter: Option<Step>, leave: Step) {
    let protocol = Rc::new(Protocol { enter, leave });
    PROTOCOLS.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), protocol));
}

/// Where the innermost `with` that is being entered or left stands; calls made by it have no place of their own.
#[must_use]
pub fn position() -> Position {
    POSITION.get()
}

/// The function that gives a block its variable's value.
pub(crate) const BOUND: &str = "bound__";

/// Adds the syntax to an engine.
pub fn install(engine: &mut Engine) {
    engine.register_fn(BOUND, || VALUE.take().unwrap_or(Dynamic::UNIT));
    engine.register_custom_syntax_with_state_raw("with", parse, false, evaluate);
}

fn parse(
    symbols: &[ImmutableString],
    ahead: &str,
    state: &mut Dynamic,
) -> Result<Option<ImmutableString>, rhai::ParseError> {
    *state = crate::catches::declares().into();
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
    state: &Dynamic,
) -> Result<Dynamic, Box<EvalAltResult>> {
    let at = inputs[0].position();
    let mut object = context.eval_expression_tree(&inputs[0])?;
    let Some(protocol) = PROTOCOLS.with_borrow(|all| all.get(&object.type_id()).cloned()) else {
        let type_name = crate::api::type_name(&object);
        let message = format!(
            "'{type_name}' object can't be used with `with`: it has nothing to enter and leave"
        );
        return Err(raise(Kind::TypeError, message).into_rhai(context.source(), at));
    };
    let here = places::of(context.source(), at);
    let call =
        |context: &mut EvalContext<'_, '_, '_, '_, '_, '_>, object: &mut Dynamic, step: &Step| {
            let method = match step {
                Step::Method(name) => name,
                Step::Direct(step) => {
                    let result = step(object, here);
                    return result.map_err(|error| error.into_rhai(context.source(), at));
                }
            };
            let outer = POSITION.replace(here);
            let result = context.call_native_fn_raw(method, true, &mut [object]);
            POSITION.set(outer);
            result.map_err(|mut error| {
                if error.position().is_none() {
                    error.set_position(at);
                }
                error
            })
        };
    let entered = match &protocol.enter {
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
            if state.as_bool().unwrap_or(false) {
                VALUE.set(Some(value));
                let result = context.eval_expression_tree(block);
                let left = call(context, &mut object, &protocol.leave);
                return result.and_then(|value| left.map(|_| value));
            }
            let Some(hidden) = bind(context.scope_mut(), &name, value) else {
                let message = format!("'{name}' is a constant: `with … as` needs another name");
                let error = raise(Kind::TypeError, message).into_rhai(context.source(), at);
                let _ = call(context, &mut object, &protocol.leave);
                return Err(error);
            };
            let depth = context.scope().len();
            let result = context.eval_expression_tree(block);
            context.scope_mut().rewind(depth);
            unbind(context.scope_mut(), &name, hidden);
            result
        }
        [_, block] => context.eval_expression_tree(block),
        _ => unreachable!("the parser gives two or three parts"),
    };
    // A forked child that ran its task inside the block never comes back here: it exits.
    let left = call(context, &mut object, &protocol.leave);
    // What the block threw matters more than a failure to leave.
    result.and_then(|value| left.map(|_| value))
}

/// What a variable held before, if there was one of that name.
struct Hidden(Option<Dynamic>);

/// Gives the block its variable; `None` where the name is a constant's.
fn bind(scope: &mut Scope<'_>, name: &str, value: Dynamic) -> Option<Hidden> {
    if scope.contains(name) {
        let place = scope.get_mut(name)?;
        return Some(Hidden(Some(std::mem::replace(place, value))));
    }
    let others = std::mem::take(scope);
    scope.push_dynamic(name, value);
    for (name, value, aliases) in others {
        scope.push_dynamic(name.as_str(), value);
        for alias in aliases {
            scope.set_alias(name.as_str(), alias);
        }
    }
    Some(Hidden(None))
}

fn unbind(scope: &mut Scope<'_>, name: &str, hidden: Hidden) {
    match hidden.0 {
        Some(value) => {
            if let Some(place) = scope.get_mut(name) {
                *place = value;
            }
        }
        None => {
            let _ = scope.remove::<Dynamic>(name);
        }
    }
}
