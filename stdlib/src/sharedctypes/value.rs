//! Value and RawValue: one number in shared memory.

use super::cells::Cells;
use super::{TypeCode, code, guard};
use crate::api::{Class, Registry};
use crate::convert::{Decoder, Encoder};
use crate::error::Result;
use crate::handle::{self, Handle};
use crate::places;
use crate::synchronize::Guard;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::{Dynamic, Position};
use std::rc::Rc;

/// A number in shared memory.
#[derive(Clone)]
pub struct RawValue(Rc<Cells>);

/// A number in shared memory, and a lock.
#[derive(Clone)]
pub struct Value(Rc<(RawValue, Guard)>);

trait Cell: Handle {
    fn cell(&self) -> &Cells;
}

impl Cell for RawValue {
    fn cell(&self) -> &Cells {
        &self.0
    }
}

impl Cell for Value {
    fn cell(&self) -> &Cells {
        &self.0.0.0
    }
}

impl Handle for RawValue {
    const KIND: HandleKind = HandleKind::RawValue;
    const ATTRIBUTES: usize = 1;

    fn object(&self) -> &ObjRef {
        self.0.block.obj()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        self.0.write_code(encoder);
        Ok(())
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let cells = Cells::rebuild(object, Self::KIND, decoder)?;
        if cells.len == 0 {
            return Err(handle::malformed(Self::KIND));
        }
        Ok(Self(Rc::new(cells)))
    }
}

impl Handle for Value {
    const KIND: HandleKind = HandleKind::Value;
    const ATTRIBUTES: usize = 2;

    fn object(&self) -> &ObjRef {
        self.0.0.object()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        self.cell().write_code(encoder);
        self.0.1.write(encoder)
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let raw = RawValue::rebuild(object, decoder)?;
        let lock = Guard::from_value(&decoder.value()?)?;
        Ok(Self(Rc::new((raw, lock))))
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Value(typecode: string, init: plain = 0, *, lock: any = true)",
        "A number in shared memory, with a lock (`get_lock`) to make several steps one.\n\n\
         `lock` is `true` for an RLock of its own, `false` for none, or a lock to use.\n\n\
         ```rhai\nlet v = Value(\"i\", 5);\nwith v.get_lock() {\n    v.value += 1;\n}\nprint(v.value);\n```",
        |call| {
            let lock = guard(call, 2)?;
            let raw = create(call)?;
            Ok(match lock {
                Some(lock) => Dynamic::from(Value(Rc::new((raw, lock)))),
                None => Dynamic::from(raw),
            })
        },
    );
    registry.constructor(
        "RawValue(typecode: string, init: plain = 0)",
        "A number in shared memory, without a lock.\n\n```rhai\nlet v = RawValue(\"d\", 2.5);\nv.value *= 2;\n```",
        |call| Ok(Dynamic::from(create(call)?)),
    );
    let mut class = registry.class::<RawValue>("RawValue");
    common(&mut class);
    class.display(|value| value.cell().show());
    let mut class = registry.class::<Value>("Value");
    common(&mut class);
    Guard::methods(&mut class, |value| &value.0.1);
    class
        .display(|value| format!("<Synchronized wrapper for {}>", value.cell().show()))
        .method("get_lock()", "The lock.", |call| {
            Ok(call.this::<Value>().0.1.value())
        })
        .method(
            "get_obj()",
            "The number without its lock: a RawValue.",
            |call| Ok(Dynamic::from(call.this::<Value>().0.0.clone())),
        );
}

fn create(call: &mut crate::api::Call<'_>) -> Result<RawValue> {
    let code = code(call)?;
    let cells = Cells::create(code, 1, places::of_call(call.ctx))?;
    if let Some(init) = call.peek(1) {
        code.store(&cells.block, 0, code.encode(init)?)?;
    }
    Ok(RawValue(Rc::new(cells)))
}

fn common<T: Cell>(class: &mut Class<'_, T>) {
    handle::register(class);
    class
        .getter(
            "value",
            "The number; for 'c' a blob of one byte, for 'u' a character, for '?' true or false.",
            |call| call.this::<T>().cell().get(0, call.ctx.call_position()),
        )
        .setter("value", |call| {
            let new = call.take(0);
            call.this::<T>()
                .cell()
                .set(0, &new, call.ctx.call_position())?;
            Ok(Dynamic::UNIT)
        });
}

impl Cells {
    /// Python's text for a single number: `c_int(5)`.
    fn show(&self) -> String {
        let value = match self.get(0, Position::NONE) {
            Err(_) => "…".to_owned(),
            Ok(value) => match (self.code, value.as_bool()) {
                (_, Ok(truth)) => if truth { "True" } else { "False" }.to_owned(),
                (TypeCode::Char, _) => {
                    let byte = value.into_blob().unwrap_or_default();
                    format!("b'{}'", byte.escape_ascii())
                }
                (TypeCode::WideChar, _) => format!("'{value}'"),
                _ => value.to_string(),
            },
        };
        format!("{}({value})", self.code.c_name())
    }
}
