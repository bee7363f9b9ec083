//! Everything that a `for` loop can run over, as an array: for calls that take "items".
//!
//! Rhai keeps its iterators to itself: only the interpreter's own `for` reaches all of them. So what isn't an array, a range or
//! another plain value goes through a `for` loop in a small script of ours.

use crate::api::type_name;
use crate::error::{Kind, Result, raise};
use crate::{range, room};
use rhai::{
    AST, Array, Blob, Dynamic, EvalAltResult, ImmutableString, Map, NativeCallContext, Scope,
};
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

const COLLECT: &str =
    "fn collect(items) { let all = []; for item in items { all.push(item); } all }";

thread_local! {
    static SCRIPT: RefCell<Option<AST>> = const { RefCell::new(None) };
}

/// The items of `value`; a map's are its keys, as in Python, and a text's its characters.
///
/// # Errors
/// `TypeError` for what doesn't iterate; what an iterator throws.
pub fn collect(ctx: &NativeCallContext<'_>, value: Dynamic) -> Result<Array> {
    let value = value.flatten();
    if value.is_array() {
        return Ok(value.cast::<Array>());
    }
    let stepped = || Some(value.read_lock::<range::SteppedRange>()?.len());
    if let Some(length) = range::length(&value).or_else(stepped) {
        room::ensure(
            usize::try_from(length).unwrap_or(usize::MAX),
            size_of::<Dynamic>(),
        )?;
    }
    if let Some(range) = value.read_lock::<Range<i64>>() {
        return Ok(range.clone().map(Dynamic::from).collect());
    }
    if let Some(range) = value.read_lock::<RangeInclusive<i64>>() {
        return Ok(range.clone().map(Dynamic::from).collect());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(text.chars().map(Dynamic::from).collect());
    }
    if let Some(blob) = value.read_lock::<Blob>() {
        return Ok(blob
            .iter()
            .map(|byte| Dynamic::from(i64::from(*byte)))
            .collect());
    }
    if let Some(map) = value.read_lock::<Map>() {
        return Ok(map
            .keys()
            .map(|key| Dynamic::from(key.as_str().to_owned()))
            .collect());
    }
    let name = type_name(&value);
    let script = match SCRIPT.with_borrow(Option::clone) {
        Some(script) => script,
        None => {
            // A bare engine: the host's syntax and limits are of no use to one loop.
            let script = rhai::Engine::new_raw()
                .compile(COLLECT)
                .expect("the loop is a valid script");
            SCRIPT.with_borrow_mut(|kept| kept.insert(script).clone())
        }
    };
    ctx.engine()
        .call_fn::<Array>(&mut Scope::new(), &script, "collect", (value,))
        .map_err(|error| {
            // The frame of our own loop means nothing to the script.
            let error = match *error {
                EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => inner,
                other => Box::new(other),
            };
            match *error {
                EvalAltResult::ErrorFor(_) => {
                    raise(Kind::TypeError, format!("'{name}' object is not iterable"))
                }
                other => Box::new(other).into(),
            }
        })
}
