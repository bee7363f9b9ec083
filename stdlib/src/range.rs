//! `range`: Python's, beside Rhai's own ranges.
//!
//! One or two numbers give Rhai's range type, which loops, slices and travels. With a step Rhai has an iterator that can do
//! nothing but iterate once; [`SteppedRange`] is a value: it has a length, can be looped over again, and travels.

use crate::api::Registry;
use crate::error::{Kind, Result, raise};
use rhai::{Array, Dynamic, FuncRegistration, NativeCallContext};
use std::ops::{Range, RangeInclusive};

/// The numbers from `start` to before `stop`, by `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteppedRange {
    /// The first number.
    pub start: i64,
    /// The first one that doesn't belong to it any more.
    pub stop: i64,
    /// What lies between two of them; never 0.
    pub step: i64,
}

impl SteppedRange {
    /// How many numbers it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        let (start, stop, step) = (
            i128::from(self.start),
            i128::from(self.stop),
            i128::from(self.step),
        );
        let span = if step > 0 { stop - start } else { start - stop };
        if span <= 0 {
            return 0;
        }
        let step = step.abs();
        u64::try_from((span + step - 1) / step).unwrap_or(u64::MAX)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at `index`.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<i64> {
        if index >= self.len() {
            return None;
        }
        i64::try_from(i128::from(self.start) + i128::from(index) * i128::from(self.step)).ok()
    }

    /// The number at `index`, from the end if that is negative.
    fn item(&self, index: i64) -> Result<i64> {
        let length = i64::try_from(self.len()).unwrap_or(i64::MAX);
        let index = if index < 0 {
            index.saturating_add(length)
        } else {
            index
        };
        u64::try_from(index)
            .ok()
            .and_then(|index| self.get(index))
            .ok_or_else(|| raise(Kind::IndexError, "range object index out of range"))
    }

    /// Whether it has the number.
    #[must_use]
    pub fn contains(&self, value: i64) -> bool {
        let (start, value, step) = (
            i128::from(self.start),
            i128::from(value),
            i128::from(self.step),
        );
        let steps = (value - start) / step;
        (value - start) % step == 0 && u64::try_from(steps).is_ok_and(|steps| steps < self.len())
    }

    /// The numbers, one after the other.
    pub fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.len()).map_while(move |index| self.get(index))
    }

    fn from_args(start: i64, stop: i64, step: i64) -> Result<Self> {
        if step == 0 {
            return Err(raise(Kind::ValueError, "range() arg 3 must not be zero"));
        }
        Ok(Self { start, stop, step })
    }
}

/// The length of any of the range types.
#[must_use]
pub fn length(value: &Dynamic) -> Option<u64> {
    if let Some(range) = value.read_lock::<Range<i64>>() {
        return Some(
            SteppedRange {
                start: range.start,
                stop: range.end,
                step: 1,
            }
            .len(),
        );
    }
    let range = value.read_lock::<RangeInclusive<i64>>()?;
    let stop = i128::from(*range.end()) + 1;
    Some(u64::try_from((stop - i128::from(*range.start())).max(0)).unwrap_or(u64::MAX))
}

fn parts(value: &Dynamic) -> Array {
    let range = *value
        .read_lock::<SteppedRange>()
        .expect("registered for this type");
    [range.start, range.stop, range.step]
        .map(Dynamic::from)
        .into()
}

fn whole(parts: Array) -> Result {
    let number = |index: usize| {
        parts
            .get(index)
            .and_then(|part| part.as_int().ok())
            .unwrap_or(0)
    };
    Ok(Dynamic::from(SteppedRange::from_args(
        number(0),
        number(1),
        number(2),
    )?))
}

/// Registers `range` and its type.
pub fn register(registry: &mut Registry) {
    crate::copies::travels::<SteppedRange>("range", parts, whole);
    registry.function(
        "",
        "range(start: int, stop: int = (), step: int = ())",
        "The whole numbers from `start` to before `stop`, by `step`; with one argument, from 0 to before it.\n\n\
         - `start`, `stop`: whole numbers.\n- `step`: what lies between two of them, 1 if left out; negative ones count down.\n\n\
         Raises `ValueError` where `step` is 0.\n\n\
         ```rhai\nlet all = [];\nfor i in range(3) { all.push(i); }\nfor i in range(10, 4, -2) { all.push(i); }\n\
         if all != [0, 1, 2, 10, 8, 6] { throw all; }\n```",
        |call| {
            let first = call.int(0).unwrap_or(0);
            match (call.int(1), call.int(2)) {
                (None, None) => Ok(Dynamic::from(0..first)),
                (Some(stop), None) => Ok(Dynamic::from(first..stop)),
                (Some(stop), Some(step)) => Ok(Dynamic::from(SteppedRange::from_args(first, stop, step)?)),
                (None, Some(_)) => Err(raise(Kind::TypeError, "range(): 'step' needs a 'stop'")),
            }
        },
    );
    // Rhai has an exact match for three numbers, which would come before ours.
    registry.module("").set_native_fn(
        "range",
        |ctx: NativeCallContext<'_>, start: i64, stop: i64, step: i64| {
            SteppedRange::from_args(start, stop, step)
                .map_err(|e| e.into_rhai(ctx.call_source(), ctx.call_position()))
        },
    );
    // Those of Rhai's type, too.
    FuncRegistration::new_index_getter().set_into_module(
        registry.module(""),
        |ctx: NativeCallContext<'_>, range: &mut Range<i64>, index: i64| {
            let (start, stop) = (range.start, range.end);
            SteppedRange {
                start,
                stop,
                step: 1,
            }
            .item(index)
            .map_err(|e| e.into_rhai(ctx.call_source(), ctx.call_position()))
        },
    );
    registry
        .class::<SteppedRange>("range")
        .method("len()", "How many numbers the range has.", |call| {
            Ok(Dynamic::from(
                i64::try_from(call.this::<SteppedRange>().len()).unwrap_or(i64::MAX),
            ))
        })
        .method(
            "contains(value: any)",
            "Whether it is one of the numbers; so is `value in range`.",
            |call| {
                let range = call.this::<SteppedRange>();
                Ok(call
                    .int(0)
                    .is_some_and(|value| range.contains(value))
                    .into())
            },
        )
        .index_getter(
            "The number at an index; negative indexes count from the end.",
            |call| {
                let index = call
                    .int(0)
                    .ok_or_else(|| raise(Kind::TypeError, "range indices must be integers"))?;
                call.this::<SteppedRange>().item(index).map(Dynamic::from)
            },
        )
        .display(|range| format!("range({}, {}, {})", range.start, range.stop, range.step))
        .equality(|a, b| {
            a.len() == b.len()
                && (a.is_empty() || a.start == b.start && (a.len() == 1 || a.step == b.step))
        })
        .iterate(|range| range.iter().map(|number| Ok(Dynamic::from(number))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{self, Decoder};
    use crate::testing::{check, engine};

    #[test]
    fn lengths_are_pythons() {
        // From `len(range(a, b, s))`.
        for (start, stop, step, expected) in [
            (0, 10, 1, 10),
            (0, 10, 3, 4),
            (10, 0, -3, 4),
            (10, 0, 3, 0),
            (0, 10, -1, 0),
            (5, 5, 1, 0),
            (0, 9, 3, 3),
            (i64::MIN, i64::MAX, 1, u64::MAX),
            (i64::MAX, i64::MIN, i64::MIN, 2),
        ] {
            assert_eq!(
                SteppedRange { start, stop, step }.len(),
                expected,
                "range({start}, {stop}, {step})"
            );
        }
    }

    #[test]
    fn ranges_in_scripts() {
        let engine = engine(&[crate::builtins::register, crate::errors::register]);
        check(
            &engine,
            &[
                (
                    "let r = range(2, 11, 3); [2 in r, 8 in r, 9 in r, 11 in r, -1 in r, r.contains(5), range(5, 0, -2).contains(1), range(5, 0, -2).contains(0)]",
                    "[true, true, false, false, false, true, true, false]",
                ),
                ("[range(3)[1], range(3)[-1], (2..5)[0]]", "[1, 2, 2]"),
                (
                    "try { range(3)[3] } catch (e) { return `${e}`; }",
                    "IndexError: range object index out of range",
                ),
                (
                    "let a = []; for i in range(4) { a.push(i); } a",
                    "[0, 1, 2, 3]",
                ),
                (
                    "let a = []; for i in range(1, 4) { a.push(i); } a",
                    "[1, 2, 3]",
                ),
                (
                    "let a = []; for i in range(1, 9, 3) { a.push(i); } a",
                    "[1, 4, 7]",
                ),
                (
                    "let a = []; for i in range(3, 0, -1) { a.push(i); } a",
                    "[3, 2, 1]",
                ),
                ("let a = []; for i in range(-1) { a.push(i); } a", "[]"),
                ("repr(range(5))", "range(0, 5)"),
                ("repr(range(5, 1, -2))", "range(5, 1, -2)"),
                ("len(range(2, 9))", "7"),
                ("len(range(9, 2))", "0"),
                ("len(2..=4)", "3"),
                ("len(range(0, 10, 4))", "3"),
                ("range(0, 10, 4)[-1]", "8"),
                ("[range(3)[1], range(2, 5)[-1], (7..9)[0]]", "[1, 4, 7]"),
                ("range(3)[3]", "IndexError: range object index out of range"),
                (
                    "range(0, 10, 4)[3]",
                    "IndexError: range object index out of range",
                ),
                ("range(0, 10, 4) == range(0, 12, 4)", "true"),
                (
                    "range(1, 2, 0)",
                    "ValueError: range() arg 3 must not be zero",
                ),
                (
                    "range(2.5)",
                    "TypeError: range(): 'start' must be a whole number, not float",
                ),
                ("range()", "TypeError: range(): 'start' is missing"),
                ("sum(range(1, 10, 2))", "25"),
            ],
        );
    }

    #[test]
    fn a_stepped_range_travels() {
        crate::copies::travels::<SteppedRange>("range", parts, whole);
        let range = SteppedRange {
            start: 7,
            stop: -7,
            step: -2,
        };
        let message = convert::encode("item", &Dynamic::from(range)).unwrap();
        let mut decoder =
            Decoder::new(message.bytes(), vec![], convert::References::Claim).unwrap();
        assert_eq!(decoder.value().unwrap().cast::<SteppedRange>(), range);
    }
}
