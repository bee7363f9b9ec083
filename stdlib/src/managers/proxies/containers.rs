//! What is given to containers: items of whatever iterates, pairs of whatever maps.

use super::super::protocol::{Op, Tag};
use super::super::proxy::Proxy;
use crate::error::{Kind, Result, raise};
use crate::{items as plain, places};
use rhai::{Array, Dynamic, ImmutableString, Map, NativeCallContext};

/// The items of a value, one request for those of a proxy.
///
/// # Errors
/// `TypeError` for what doesn't iterate.
pub(in super::super) fn items(ctx: &NativeCallContext<'_>, value: Dynamic) -> Result<Array> {
    let Some(proxy) = Proxy::of(&value) else {
        return plain::collect(ctx, value);
    };
    let position = places::of_call(ctx);
    let all = match proxy.tag() {
        Tag::List | Tag::Array => {
            proxy.call(Op::GetSlice, &[&0_i64.into(), &i64::MAX.into()], position)?
        }
        Tag::Dict => proxy.call(Op::Keys, &[], position)?,
        Tag::Set => proxy.call(Op::Items, &[], position)?,
        _ => return plain::collect(ctx, value),
    };
    Ok(all.try_cast::<Array>().unwrap_or_default())
}

/// Keys and values, alternating, of a map, a dict's proxy, or an array of pairs.
///
/// # Errors
/// `TypeError` for what is none of those, `ValueError` for a pair that isn't one.
pub(in super::super) fn pairs(ctx: &NativeCallContext<'_>, value: Dynamic) -> Result<Dynamic> {
    if let Some(map) = value.read_lock::<Map>() {
        let flat = map
            .iter()
            .flat_map(|(key, value)| [ImmutableString::from(key.as_str()).into(), value.clone()]);
        return Ok(Dynamic::from_array(flat.collect()));
    }
    let all = match Proxy::of(&value) {
        Some(proxy) if proxy.tag() == Tag::Dict => proxy
            .call(Op::Items, &[], places::of_call(ctx))?
            .try_cast::<Array>()
            .unwrap_or_default(),
        _ => items(ctx, value)?,
    };
    let mut flat = Array::with_capacity(2 * all.len());
    for (index, pair) in all.into_iter().enumerate() {
        let name = crate::api::type_name(&pair);
        let pair = pair.try_cast::<Array>().ok_or_else(|| {
            raise(Kind::TypeError, format!("cannot convert dictionary update sequence element #{index} to a sequence: it is {name}"))
        })?;
        if pair.len() != 2 {
            return Err(raise(
                Kind::ValueError,
                format!(
                    "dictionary update sequence element #{index} has length {}; 2 is required",
                    pair.len()
                ),
            ));
        }
        flat.extend(pair);
    }
    Ok(Dynamic::from_array(flat))
}

/// Start and end of a range that stands for a slice, as Python's; `None` for what is no range.
pub(super) fn slice_ends(index: &Dynamic) -> Option<(Dynamic, Dynamic)> {
    if let Some(range) = index.read_lock::<std::ops::Range<i64>>() {
        return Some((range.start.into(), range.end.into()));
    }
    let range = index.read_lock::<std::ops::RangeInclusive<i64>>()?;
    // Up to and with the last item.
    let end = if *range.end() == -1 {
        i64::MAX
    } else {
        range.end().saturating_add(1)
    };
    Some(((*range.start()).into(), end.into()))
}
