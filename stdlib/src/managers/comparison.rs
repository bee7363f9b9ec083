//! Values compared as Python does: for `in`, `index`, `count`, `remove` and `sort` of managed containers.
//!
//! Source: CPython's language reference, Value comparisons.

use super::keys::whole;
use super::proxy::Proxy;
use crate::error::{Kind, Result, raise};
use rhai::{Array, Blob, Dynamic, ImmutableString, Map};
use std::cmp::Ordering;

/// A number, whichever of Rhai's types it has; `true` is 1.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

fn number(value: &Dynamic) -> Option<Number> {
    if let Ok(int) = value.as_int() {
        return Some(Number::Int(int));
    }
    if let Ok(float) = value.as_float() {
        return Some(Number::Float(float));
    }
    value
        .as_bool()
        .ok()
        .map(|truth| Number::Int(i64::from(truth)))
}

fn compare_numbers(a: Number, b: Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        (Number::Int(int), Number::Float(float)) => match whole(float) {
            Some(whole) => Some(int.cmp(&whole)),
            None if float.is_nan() => None,
            // Between two whole numbers, or beyond all of them.
            None => Some(match whole(float.floor()) {
                Some(below) if int <= below => Ordering::Less,
                None if float > 0.0 => Ordering::Less,
                _ => Ordering::Greater,
            }),
        },
        (Number::Float(_), Number::Int(_)) => compare_numbers(b, a).map(Ordering::reverse),
    }
}

fn text(value: &Dynamic) -> Option<ImmutableString> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Some(text.clone());
    }
    value.as_char().ok().map(|letter| letter.to_string().into())
}

/// `a == b`.
pub(crate) fn equal(a: &Dynamic, b: &Dynamic) -> bool {
    if let Some(first) = number(a) {
        return number(b)
            .is_some_and(|second| compare_numbers(first, second) == Some(Ordering::Equal));
    }
    if let Some(first) = text(a) {
        return text(b).is_some_and(|second| first == second);
    }
    if let Some(first) = a.read_lock::<Array>() {
        let Some(second) = b.read_lock::<Array>() else {
            return false;
        };
        return first.len() == second.len()
            && first.iter().zip(second.iter()).all(|(a, b)| equal(a, b));
    }
    if let Some(first) = a.read_lock::<Map>() {
        let Some(second) = b.read_lock::<Map>() else {
            return false;
        };
        return first.len() == second.len()
            && first
                .iter()
                .zip(second.iter())
                .all(|((k, a), (l, b))| k == l && equal(a, b));
    }
    if let (Some(a), Some(b)) = (Proxy::of(a), Proxy::of(b)) {
        return a.same(&b);
    }
    if a.type_id() != b.type_id() {
        return false;
    }
    if a.is_unit() {
        return true;
    }
    // Handles are equal if they name the same object: then their messages are the same.
    match (crate::convert::encode("", a), crate::convert::encode("", b)) {
        (Ok(a), Ok(b)) => a.bytes() == b.bytes(),
        _ => false,
    }
}

/// `a < b`.
///
/// # Errors
/// `TypeError` where the two have no order.
pub(super) fn less(a: &Dynamic, b: &Dynamic) -> Result<bool> {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(compare_numbers(a, b) == Some(Ordering::Less));
    }
    if let (Some(a), Some(b)) = (text(a), text(b)) {
        return Ok(a < b);
    }
    if let (Some(a), Some(b)) = (a.read_lock::<Array>(), b.read_lock::<Array>()) {
        for (a, b) in a.iter().zip(b.iter()) {
            if !equal(a, b) {
                return less(a, b);
            }
        }
        return Ok(a.len() < b.len());
    }
    if let (Some(a), Some(b)) = (a.read_lock::<Blob>(), b.read_lock::<Blob>()) {
        return Ok(*a < *b);
    }
    Err(raise(
        Kind::TypeError,
        format!(
            "'<' not supported between instances of '{}' and '{}'",
            python_type(a),
            python_type(b)
        ),
    ))
}

/// Python's name of a value's type.
pub(super) fn python_type(value: &Dynamic) -> String {
    if value.is_unit() {
        return "NoneType".into();
    }
    match crate::api::type_name(value).as_str() {
        "string" | "char" => "str".into(),
        "array" => "list".into(),
        "object map" => "dict".into(),
        "blob" => "bytes".into(),
        other => other.into(),
    }
}

/// The order into which a stable sort puts items with these keys: the indices of the items, first to last.
///
/// Rust's own sorts want an order that can't fail; this one stops at the first pair that has none.
///
/// # Errors
/// As [`less`].
pub(super) fn sorted(keys: &[Dynamic], reverse: bool) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    let mut spare = order.clone();
    let mut width = 1;
    while width < keys.len() {
        for start in (0..keys.len()).step_by(2 * width) {
            let middle = (start + width).min(keys.len());
            let end = (start + 2 * width).min(keys.len());
            let (mut left, mut right) = (start, middle);
            for place in &mut spare[start..end] {
                let take_right = if left == middle {
                    true
                } else if right == end {
                    false
                } else {
                    let (a, b) = (&keys[order[left]], &keys[order[right]]);
                    // Only what is strictly smaller overtakes: equal ones stay in order, reversed or not.
                    if reverse { less(a, b)? } else { less(b, a)? }
                };
                let from = if take_right { &mut right } else { &mut left };
                *place = order[*from];
                *from += 1;
            }
        }
        std::mem::swap(&mut order, &mut spare);
        width *= 2;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ints(values: &[i64]) -> Vec<Dynamic> {
        values.iter().copied().map(Dynamic::from).collect()
    }

    proptest! {
        #[test]
        fn sorting_is_stable_either_way(values in prop::collection::vec(-5_i64..5, 0..40)) {
            let keys = ints(&values);
            let mut expected: Vec<usize> = (0..values.len()).collect();
            expected.sort_by_key(|i| values[*i]);
            prop_assert_eq!(sorted(&keys, false).unwrap(), expected.clone());
            expected.sort_by_key(|i| std::cmp::Reverse(values[*i]));
            // A second stable sort by the reversed key: equal ones are in their first order again.
            expected.sort_by_key(|i| (std::cmp::Reverse(values[*i]), *i));
            prop_assert_eq!(sorted(&keys, true).unwrap(), expected);
        }
    }

    #[test]
    fn numbers_of_both_types_are_compared_exactly() {
        let big = i64::MAX;
        assert!(equal(&1_i64.into(), &1.0_f64.into()));
        assert!(equal(&true.into(), &1_i64.into()));
        assert!(!equal(&big.into(), &9_223_372_036_854_775_808.0_f64.into()));
        assert!(less(&big.into(), &9_223_372_036_854_775_808.0_f64.into()).unwrap());
        assert!(less(&0.5_f64.into(), &1_i64.into()).unwrap());
        assert!(!less(&f64::NAN.into(), &1_i64.into()).unwrap());
    }

    #[test]
    fn what_has_no_order_is_a_type_error() {
        let error = sorted(&[1_i64.into(), "a".into()], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "TypeError: '<' not supported between instances of 'str' and 'int'"
        );
        assert!(less(&Dynamic::UNIT, &Dynamic::UNIT).is_err());
        assert!(
            less(
                &Dynamic::from_array(ints(&[1, 2])),
                &Dynamic::from_array(ints(&[1, 3]))
            )
            .unwrap()
        );
        assert!(less(&"a".into(), &"b".into()).unwrap());
    }
}
