//! Python's `multiprocessing.sharedctypes`: Value, Array, RawValue and RawArray.
//!
//! Numbers in C's layout in memory that all processes of a program have. `Value` and `Array` have a lock beside it, for scripts to take:
//! a single read or write doesn't take it, so `v.value += 1` is two steps that another process may come between.
//!
//! - `typecode`: between a script's values and C's types.
//! - `cells`: elements in shared memory.
//! - `array`, `value`: the types that scripts see.
//!
//! Invariant: every number is checked before anything is written; an assignment to a range writes all of it or nothing.

mod array;
mod cells;
mod typecode;
mod value;

pub use array::{Array, RawArray};
pub(crate) use cells::Cells;
pub use typecode::TypeCode;
pub use value::{RawValue, Value};

use crate::api::{Call, Registry};
use crate::error::Result;
use crate::places;
use crate::synchronize::Guard;
use mphost_core::shared::Block;
use rhai::Dynamic;

/// Registers the four types.
pub fn register(registry: &mut Registry) {
    value::register(registry);
    array::register(registry);
}

/// The memory of an array, if that is what this value is: to read bytes into.
#[must_use]
pub fn memory(value: &Dynamic) -> Option<Block> {
    array::memory(value)
}

/// The option `lock`: true, false or a lock.
fn guard(call: &Call<'_>, index: usize) -> Result<Option<Guard>> {
    match call.peek(index) {
        None => Guard::own(places::of_call(call.ctx)).map(Some),
        Some(value) => match value.as_bool() {
            Ok(true) => Guard::own(places::of_call(call.ctx)).map(Some),
            Ok(false) => Ok(None),
            Err(_) => Guard::from_value(value).map(Some),
        },
    }
}

/// The argument `typecode`.
fn code(call: &Call<'_>) -> Result<TypeCode> {
    TypeCode::parse(&call.string(0).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] = &[
            crate::builtins::register,
            crate::errors::register,
            crate::synchronize::register,
        ];
        crate::testing::run_examples(others, super::register);
    }
}
