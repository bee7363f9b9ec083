//! Managed values: one of any type, and arrays of one type.
//!
//! Source: CPython's `managers.Value`, and its Library Reference, array.

use super::list::{place, slice};
use super::{Args, Object, Outcome, Turn, array, int, length, malformed, take, unsupported};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::Op;
use crate::sharedctypes::TypeCode;
use rhai::{Array, Dynamic};

/// One value of any type: CPython doesn't enforce the typecode of a managed Value.
pub(super) struct Value {
    value: Dynamic,
}

impl Value {
    pub(super) fn new(value: Dynamic) -> Value {
        Value { value }
    }
}

impl Object for Value {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        match op {
            Op::Get => turn.give(&self.value),
            Op::Set => {
                self.value = take(&mut args, 0);
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            _ => Err(unsupported(op)),
        }
    }
}

/// An array of numbers of one type, each kept in its range.
pub(super) struct TypedArray {
    code: TypeCode,
    items: Array,
}

impl TypedArray {
    /// An array of the values of the second argument, of the type that the first one names.
    pub(super) fn new(args: &mut Args) -> Result<TypedArray> {
        let code = take(args, 0)
            .into_immutable_string()
            .map_err(|_| malformed())?;
        let code = TypeCode::parse(&code)?;
        let items = array(args, 1)?
            .into_iter()
            .map(|item| fit(code, &item))
            .collect::<Result<_>>()?;
        Ok(TypedArray { code, items })
    }

    fn place(&self, args: &Args, what: &str) -> Result<usize> {
        let index = int(args, 0).ok_or_else(malformed)?;
        place(index, self.items.len()).ok_or_else(|| out_of_range(what))
    }
}

/// The value as an item of that type: out of its range is an OverflowError, of another type a TypeError.
fn fit(code: TypeCode, value: &Dynamic) -> Result<Dynamic> {
    code.decode(code.encode(value)?)
}

fn out_of_range(what: &str) -> Error {
    raise(Kind::IndexError, format!("array {what}index out of range"))
}

impl Object for TypedArray {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let ends = |args: &Args, len: usize| match (int(args, 0), int(args, 1)) {
            (Some(start), Some(end)) => Ok(slice(start, end, len)),
            _ => Err(malformed()),
        };
        match op {
            Op::GetItem => {
                let at = self.place(&args, "")?;
                return turn.give(&self.items[at]);
            }
            Op::GetSlice => {
                let range = ends(&args, self.items.len())?;
                return turn.give_all(self.items[range].iter());
            }
            Op::Len => return Ok(Outcome::Value(length(self.items.len()))),
            Op::Get => return Ok(Outcome::Value(self.code.letter().into())),
            Op::SetItem => {
                let at = self.place(&args, "assignment ")?;
                self.items[at] = fit(self.code, &take(&mut args, 1))?;
            }
            Op::SetSlice => {
                let range = ends(&args, self.items.len())?;
                let code = self.code;
                let items: Array = array(&mut args, 2)?
                    .iter()
                    .map(|item| fit(code, item))
                    .collect::<Result<_>>()?;
                self.items.splice(range, items);
            }
            _ => return Err(unsupported(op)),
        }
        Ok(Outcome::Value(Dynamic::UNIT))
    }
}
