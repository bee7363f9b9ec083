//! A managed namespace: values by name.
//!
//! Source: CPython's `managers.Namespace`.

use super::{Args, Object, Outcome, Turn, malformed, take, unsupported};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::Op;
use rhai::{Dynamic, Map};

/// See the module.
pub(super) struct Namespace {
    names: Map,
}

impl Namespace {
    /// A namespace with the entries of a map.
    pub(super) fn new(init: Dynamic) -> Namespace {
        Namespace {
            names: init.try_cast::<Map>().unwrap_or_default(),
        }
    }
}

fn missing(name: &str) -> Error {
    raise(
        Kind::AttributeError,
        format!("'Namespace' object has no attribute '{name}'"),
    )
}

impl Object for Namespace {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        if op == Op::Items {
            // Sorted by name, as a Rhai map is.
            return Ok(Outcome::Value(Dynamic::from_map(self.names.clone())));
        }
        let name = take(&mut args, 0)
            .into_immutable_string()
            .map_err(|_| malformed())?;
        match op {
            Op::GetAttr => match self.names.get(name.as_str()) {
                Some(value) => turn.give(value),
                None => Err(missing(&name)),
            },
            Op::SetAttr => {
                self.names.insert(name.as_str().into(), take(&mut args, 1));
                Ok(Outcome::Value(Dynamic::UNIT))
            }
            Op::DelAttr => match self.names.remove(name.as_str()) {
                Some(_) => Ok(Outcome::Value(Dynamic::UNIT)),
                None => Err(missing(&name)),
            },
            _ => Err(unsupported(op)),
        }
    }
}
