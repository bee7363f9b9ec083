//! Array and RawArray: numbers of one type, side by side in shared memory.

use super::cells::Cells;
use super::typecode::TypeCode;
use super::{code, guard};
use crate::api::{Call, Class, Registry, type_name};
use crate::convert::{Decoder, Encoder};
use crate::error::{Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::managers::equal;
use crate::synchronize::Guard;
use crate::{items, places};
use mphost_core::session::ObjRef;
use mphost_core::shared::Block;
use mphost_core::value::HandleKind;
use rhai::{Dynamic, EvalAltResult, FuncRegistration, NativeCallContext, Position};
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

/// Numbers in shared memory.
#[derive(Clone)]
pub struct RawArray(Rc<Cells>);

/// Numbers in shared memory, and a lock.
#[derive(Clone)]
pub struct Array(Rc<(RawArray, Guard)>);

trait Row: Handle {
    fn cells(&self) -> &Rc<Cells>;
}

impl Row for RawArray {
    fn cells(&self) -> &Rc<Cells> {
        &self.0
    }
}

impl Row for Array {
    fn cells(&self) -> &Rc<Cells> {
        &self.0.0.0
    }
}

impl Handle for RawArray {
    const KIND: HandleKind = HandleKind::RawArray;
    const ATTRIBUTES: usize = 1;

    fn object(&self) -> &ObjRef {
        self.0.block.obj()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        self.0.write_code(encoder);
        Ok(())
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self(Rc::new(Cells::rebuild(object, Self::KIND, decoder)?)))
    }
}

impl Handle for Array {
    const KIND: HandleKind = HandleKind::Array;
    const ATTRIBUTES: usize = 2;

    fn object(&self) -> &ObjRef {
        self.0.0.object()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        self.cells().write_code(encoder);
        self.0.1.write(encoder)
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let raw = RawArray::rebuild(object, decoder)?;
        let lock = Guard::from_value(&decoder.value()?)?;
        Ok(Self(Rc::new((raw, lock))))
    }
}

/// The memory behind either type.
pub(super) fn memory(value: &Dynamic) -> Option<Block> {
    if let Some(array) = value.read_lock::<Array>() {
        return Some(array.cells().block.clone());
    }
    value
        .read_lock::<RawArray>()
        .map(|array| array.cells().block.clone())
}

pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Array(typecode: string, size_or_initializer: items, *, lock: any = true)",
        "Numbers of one type in shared memory, with a lock (`get_lock`) to make several steps one.\n\n\
         A number is the size, all zero; an array, a range, a blob or (for 'c') a string are the contents. `a[i]` and `a[i..j]` read and \
         write; negative places count from the end.\n\n\
         ```rhai\nlet a = Array(\"i\", [1, 2, 3]);\na[-1] = 30;\nprint(a[0..3]);\n```",
        |call| {
            let lock = guard(call, 2)?;
            let raw = create(call)?;
            Ok(match lock {
                Some(lock) => Dynamic::from(Array(Rc::new((raw, lock)))),
                None => Dynamic::from(raw),
            })
        },
    );
    registry.constructor(
        "RawArray(typecode: string, size_or_initializer: items)",
        "Numbers of one type in shared memory, without a lock.\n\n```rhai\nlet a = RawArray(\"c\", 10);\na.value = \"text\";\nprint(a.value.as_string());\n```",
        |call| Ok(Dynamic::from(create(call)?)),
    );
    let mut class = registry.class::<RawArray>("RawArray");
    common(&mut class);
    class.display(|array| array.cells().show_array(array.object()));
    fast(registry.module(""), |array: &RawArray| array.cells());

    let mut class = registry.class::<Array>("Array");
    common(&mut class);
    Guard::methods(&mut class, |array| &array.0.1);
    class
        .display(|array| {
            let kind = if array.cells().code == TypeCode::Char {
                "SynchronizedString"
            } else {
                "SynchronizedArray"
            };
            format!(
                "<{kind} wrapper for {}>",
                array.cells().show_array(array.object())
            )
        })
        .method("get_lock()", "The lock.", |call| {
            Ok(call.this::<Array>().0.1.value())
        })
        .method(
            "get_obj()",
            "The numbers without their lock: a RawArray.",
            |call| Ok(Dynamic::from(call.this::<Array>().0.0.clone())),
        );
    fast(registry.module(""), |array: &Array| array.cells());
}

impl Cells {
    fn show_array(&self, object: &ObjRef) -> String {
        let name = self.code.c_name();
        format!(
            "<multiprocessing.sharedctypes.{name}_Array_{} object at {:#x}>",
            self.len,
            handle::identity(object)
        )
    }
}

fn create(call: &mut Call<'_>) -> Result<RawArray> {
    let code = code(call)?;
    let given = call.take(1);
    let position = places::of_call(call.ctx);
    let cells = if let Ok(size) = given.as_int() {
        let size = usize::try_from(size).map_err(|_| {
            raise(
                Kind::ValueError,
                format!("Array(): the size must not be negative, as {size} is"),
            )
        })?;
        Cells::create(code, size, position)?
    } else {
        let raw = if given.is_blob() || given.is_string() {
            code.encode_all(&given)?
        } else if given.as_float().is_ok() {
            return Err(raise(
                Kind::TypeError,
                "Array(): 'size_or_initializer' must be a whole number or values, not float",
            ));
        } else {
            code.encode_all(&items::collect(call.ctx, given)?.into())?
        };
        let cells = Cells::create(code, raw.len() / code.size(), position)?;
        cells.block.write(0, &raw)?;
        cells
    };
    Ok(RawArray(Rc::new(cells)))
}

fn common<T: Row>(class: &mut Class<'_, T>) {
    handle::register(class);
    class
        .index_getter(
            "`a[i]` is one element, `a[i..j]` several: an array, for 'c' a blob, for 'u' a string. Negative places count from the end.",
            |call| Err(wrong_index(&call.take(0))),
        )
        .index_setter(|call| Err(wrong_index(&call.take(0))))
        .iterate(|array| {
            let cells = array.cells().clone();
            (0..cells.len).map(move |index| {
                let bits = cells.code.load(&cells.block, index);
                bits.and_then(|bits| cells.code.decode(bits))
                    .map_err(|error| error.into_rhai(None, Position::NONE))
            })
        })
        .method("len()", "How many elements there are.", |call| Ok(Dynamic::from(call.this::<T>().cells().length())))
        .method("contains(value: any)", "Whether an element equals `value`; the same as `value in a`.", |call| {
            let value = call.take(0);
            let array = call.this::<T>();
            let cells = array.cells();
            for index in 0..cells.len {
                let item = cells.code.decode(cells.code.load(&cells.block, index)?)?;
                if equal(&item, &value) {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        })
        .method("to_array()", "All elements as an ordinary array: a copy.", |call| call.this::<T>().cells().to_array())
        .method(
            "slice(start: int = (), stop: int = (), step: int = 1)",
            "Python's `a[start:stop:step]`: a copy. Places beyond the ends are cut off.",
            |call| {
                let array = call.this::<T>();
                let cells = array.cells();
                cells.get_stepped(&cells.stepped(call.int(0), call.int(1), call.int(2).unwrap_or(1))?)
            },
        )
        .method(
            "set_slice(values: any, start: int = (), stop: int = (), step: int = 1)",
            "Python's `a[start:stop:step] = values`; there must be as many values as places.",
            |call| {
                let array = call.this::<T>();
                let cells = array.cells();
                let places = cells.stepped(call.int(1), call.int(2), call.int(3).unwrap_or(1))?;
                cells.set_stepped(&places, &call.take(0))?;
                Ok(Dynamic::UNIT)
            },
        )
        .getter("value", "Arrays of 'c' and 'u': what stands before the first zero, as a blob or a string.", |call| {
            let array = call.this::<T>();
            text_of(&array, "value")?.text(call.ctx.call_position())
        })
        .setter("value", |call| {
            let array = call.this::<T>();
            let text = call.take(0);
            text_of(&array, "value")?.set_text(&text, call.ctx.call_position())?;
            Ok(Dynamic::UNIT)
        })
        .getter("raw", "Arrays of 'c': all bytes, as a blob.", |call| {
            let array = call.this::<T>();
            let cells = bytes_of(&array)?;
            cells.get_range(0..cells.len, call.ctx.call_position())
        })
        .setter("raw", |call| {
            let array = call.this::<T>();
            let cells = bytes_of(&array)?;
            let raw = cells.code.encode_all(&call.take(0))?;
            if raw.len() > cells.len {
                return Err(raise(
                    Kind::ValueError,
                    format!("byte string too long: {} in an array of {}", raw.len(), cells.len),
                ));
            }
            cells.set_bytes(&raw, call.ctx.call_position())?;
            Ok(Dynamic::UNIT)
        });
}

fn text_of<'a, T: Row>(array: &'a T, attribute: &str) -> Result<&'a Rc<Cells>> {
    let cells = array.cells();
    match cells.code {
        TypeCode::Char | TypeCode::WideChar => Ok(cells),
        code => Err(raise(
            Kind::AttributeError,
            format!(
                "'{}_Array_{}' object has no attribute '{attribute}'",
                code.c_name(),
                cells.len
            ),
        )),
    }
}

fn bytes_of<T: Row>(array: &T) -> Result<&Rc<Cells>> {
    let cells = text_of(array, "raw")?;
    match cells.code {
        TypeCode::Char => Ok(cells),
        code => Err(raise(
            Kind::AttributeError,
            format!(
                "'{}_Array_{}' object has no attribute 'raw'",
                code.c_name(),
                cells.len
            ),
        )),
    }
}

fn wrong_index(index: &Dynamic) -> crate::error::Error {
    raise(
        Kind::TypeError,
        format!(
            "array indices must be integers or ranges, not {}",
            type_name(index)
        ),
    )
}

/// Indexing, by functions of exact types: nothing stands between Rhai's call and the memory but the check of the index.
fn fast<T: Row>(module: &mut rhai::Module, cells: impl Fn(&T) -> &Rc<Cells> + Copy + 'static) {
    type Outcome<T = Dynamic> = std::result::Result<T, Box<EvalAltResult>>;
    fn placed<V>(ctx: &NativeCallContext<'_>, result: Result<V>) -> Outcome<V> {
        result.map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
    }
    let getter = || {
        FuncRegistration::new_index_getter()
            .in_global_namespace()
            .with_purity(true)
            .with_volatility(true)
    };
    let setter = || {
        FuncRegistration::new_index_setter()
            .in_global_namespace()
            .with_purity(true)
            .with_volatility(true)
    };
    getter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>, array: &mut T, index: i64| -> Outcome {
            placed(&ctx, cells(array).get(index, ctx.call_position()))
        },
    );
    getter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>, array: &mut T, range: Range<i64>| -> Outcome {
            let cells = cells(array);
            placed(
                &ctx,
                cells.get_range(cells.range(range.start, range.end), ctx.call_position()),
            )
        },
    );
    getter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>, array: &mut T, range: RangeInclusive<i64>| -> Outcome {
            let cells = cells(array);
            placed(
                &ctx,
                cells.get_range(
                    cells.range_inclusive(*range.start(), *range.end()),
                    ctx.call_position(),
                ),
            )
        },
    );
    setter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>,
              array: &mut T,
              index: i64,
              value: Dynamic|
              -> Outcome<()> {
            placed(&ctx, cells(array).set(index, &value, ctx.call_position()))
        },
    );
    setter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>,
              array: &mut T,
              range: Range<i64>,
              values: Dynamic|
              -> Outcome<()> {
            let cells = cells(array);
            placed(
                &ctx,
                cells.set_range(
                    cells.range(range.start, range.end),
                    &values,
                    ctx.call_position(),
                ),
            )
        },
    );
    setter().set_into_module(
        module,
        move |ctx: NativeCallContext<'_>,
              array: &mut T,
              range: RangeInclusive<i64>,
              values: Dynamic|
              -> Outcome<()> {
            let cells = cells(array);
            placed(
                &ctx,
                cells.set_range(
                    cells.range_inclusive(*range.start(), *range.end()),
                    &values,
                    ctx.call_position(),
                ),
            )
        },
    );
}
