//! The input of `map` and `imap`: anything that a `for` loop can run over.

use crate::api::{iterator, type_name};
use crate::error::{Kind, Result, raise};
use rhai::{Array, Blob, Dynamic, EvalAltResult, ImmutableString, NativeCallContext};
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
    Ok(Box::new(all(ctx, value)?.into_iter().map(Ok)))
}

/// All items of `value`.
///
/// # Errors
/// `TypeError` for what doesn't iterate; what its iterator throws.
pub(super) fn all(ctx: &NativeCallContext<'_>, value: Dynamic) -> Result<Array> {
    let value = value.flatten();
    if value.is_array() {
        return Ok(value.cast::<Array>());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(text.chars().map(Dynamic::from_char).collect());
    }
    if let Some(blob) = value.read_lock::<Blob>() {
        return Ok(blob
            .iter()
            .map(|byte| Dynamic::from_int(i64::from(*byte)))
            .collect());
    }
    if value.is::<Range<i64>>()
        || value.is::<RangeInclusive<i64>>()
        || iterator(value.type_id()).is_some()
    {
        let items: std::result::Result<Array, _> = source(ctx, value)?.collect();
        return Ok(items?);
    }
    Err(raise(
        Kind::TypeError,
        format!("'{}' object is not iterable", type_name(&value)),
    ))
}
