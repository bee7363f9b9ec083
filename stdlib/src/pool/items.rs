//! The input of `imap`: anything that a `for` loop can run over, drawn item by item.

use crate::api::iterator;
use crate::error::Result;
use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use std::ops::{Range, RangeInclusive};

/// Items, drawn one by one.
pub(super) type Source = Box<dyn Iterator<Item = std::result::Result<Dynamic, Box<EvalAltResult>>>>;

/// An iterator over `value`, which draws no more than it is asked for where the value itself can do that.
///
/// # Errors
/// `TypeError` for what doesn't iterate.
pub(super) fn source(ctx: &NativeCallContext<'_>, value: Dynamic) -> Result<Source> {
    let value = value.flatten();
    if let Some(range) = value.read_lock::<Range<i64>>() {
        return Ok(Box::new(range.clone().map(|n| Ok(Dynamic::from_int(n)))));
    }
    if let Some(range) = value.read_lock::<RangeInclusive<i64>>() {
        return Ok(Box::new(range.clone().map(|n| Ok(Dynamic::from_int(n)))));
    }
    if let Some(iterate) = iterator(value.type_id()) {
        return Ok(iterate(value));
    }
    // Rhai keeps its own iterators to itself.
    Ok(Box::new(
        crate::items::collect(ctx, value)?.into_iter().map(Ok),
    ))
}
