//! SharedMemory, and the bytes of it that scripts index.

use crate::api::{Call, Class, Registry, type_name};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::sharedctypes::{Cells, TypeCode};
use crate::{core_error, handle, places, with};
use mphost_core::names;
use mphost_core::position::Position;
use mphost_core::session::ObjRef;
use mphost_core::shared::Block;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use nix::errno::Errno;
use rhai::{Dynamic, ImmutableString};
use std::cell::Cell;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

/// A block of bytes with a name.
#[derive(Clone)]
pub struct SharedMemory(Rc<Parts>);

/// The bytes of a block, as scripts index them.
#[derive(Clone)]
pub struct MemoryView(Rc<Parts>);

struct Parts {
    name: ImmutableString,
    cells: Cells,
    closed: Cell<bool>,
}

/// How a name is made up where none is given: as long as Python's, and as hard to guess.
fn made_up() -> Result<String> {
    let mut bytes = [0; 4];
    mphost_core::random::fill(&mut bytes)?;
    Ok(format!("psm_{:08x}", u32::from_ne_bytes(bytes)))
}

fn missing(name: &str) -> Error {
    core_error::os("", Errno::ENOENT as i32, Some(name)).into()
}

/// What a name must be before the session is asked for it.
fn check_name(name: &str) -> Result<()> {
    if name.contains('\0') {
        return Err(raise(
            Kind::ValueError,
            "embedded null character in a shared memory's name",
        ));
    }
    if name.len() > names::LONGEST {
        return Err(core_error::os("", Errno::ENAMETOOLONG as i32, Some(name)).into());
    }
    if name.is_empty() {
        return Err(raise(
            Kind::ValueError,
            "a shared memory's name must not be empty",
        ));
    }
    Ok(())
}

impl PartialEq for SharedMemory {
    fn eq(&self, other: &Self) -> bool {
        self.object() == other.object()
    }
}

impl SharedMemory {
    /// A new block; without a name it gets one of its own.
    ///
    /// # Errors
    /// `FileExistsError` where the name is taken; `ValueError` for what can be no name.
    pub fn create(name: Option<&str>, size: usize, position: Position) -> Result<Self> {
        if let Some(name) = name {
            check_name(name)?;
        }
        let block = Block::create(size, position)?;
        let name = match name {
            Some(name) if names::publish(name, block.obj(), position)? => name.to_owned(),
            Some(name) => return Err(core_error::os("", Errno::EEXIST as i32, Some(name)).into()),
            None => loop {
                let name = made_up()?;
                if names::publish(&name, block.obj(), position)? {
                    break name;
                }
            },
        };
        Ok(Self::of(name.into(), block))
    }

    /// The block of that name.
    ///
    /// # Errors
    /// `FileNotFoundError` where there is none.
    pub fn attach(name: &str) -> Result<Self> {
        check_name(name)?;
        let object = names::find(name)?.ok_or_else(|| missing(name))?;
        Ok(Self::of(name.into(), Block::from_ref(object)?))
    }

    fn of(name: ImmutableString, block: Block) -> Self {
        let cells = Cells::over(block, TypeCode::UByte);
        Self(Rc::new(Parts {
            name,
            cells,
            closed: Cell::new(false),
        }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ImmutableString {
        &self.0.name
    }

    /// Its bytes.
    #[must_use]
    pub fn block(&self) -> &Block {
        self.0.cells.block()
    }

    /// Whether this process has closed this handle.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Closes this handle in this process.
    pub fn close(&self) {
        self.0.closed.set(true);
    }

    /// Takes the name away; whoever has the block goes on using it.
    ///
    /// # Errors
    /// `FileNotFoundError` where the name is gone already.
    pub fn unlink(&self) -> Result<()> {
        if names::remove(&self.0.name)? {
            Ok(())
        } else {
            Err(missing(&self.0.name))
        }
    }

    fn object(&self) -> &ObjRef {
        self.block().obj()
    }
}

impl MemoryView {
    /// The bytes, unless the shared memory was closed.
    pub(super) fn memory(&self) -> Option<Block> {
        (!self.0.closed.get()).then(|| self.0.cells.block().clone())
    }

    fn cells(&self) -> Result<&Cells> {
        if self.0.closed.get() {
            return Err(raise(
                Kind::ValueError,
                "operation forbidden on released memoryview object",
            ));
        }
        Ok(&self.0.cells)
    }

    fn bytes(&self, range: Range<usize>, at: rhai::Position) -> Result {
        Ok(Dynamic::from_blob(self.cells()?.give(range, at)?))
    }

    fn range(&self, range: &Range<i64>) -> Result<Range<usize>> {
        Ok(self.cells()?.range(range.start, range.end))
    }

    fn range_inclusive(&self, range: &RangeInclusive<i64>) -> Result<Range<usize>> {
        Ok(self.cells()?.range_inclusive(*range.start(), *range.end()))
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.function(
        "mp::shared_memory",
        "SharedMemory(name: string = (), create: bool = false, size: int = 0, *, track: bool = true)",
        "A block of bytes that the processes of this program find by its name.\n\n\
         With `create` it is new, has `size` bytes, all zero, and gets a name of its own if none is given; without, the block \
         of that `name`. It is there until `unlink`, at the latest until the program ends. `track` has no meaning here, since \
         nothing can be left behind.\n\n```rhai\nlet m = mp::shared_memory::SharedMemory(#{create: true, size: 16});\nm.buf[0] = 1;\nprint(mp::shared_memory::SharedMemory(m.name).buf[0]);\nm.unlink();\n```",
        |call| {
            let name = call.string(0);
            let size = call.int(2).unwrap_or(0);
            if size < 0 {
                return Err(raise(Kind::ValueError, "'size' must be a positive integer"));
            }
            let memory = if call.bool(1, false) {
                let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or_else(|| {
                    raise(Kind::ValueError, "'size' must be a positive number different from zero")
                })?;
                SharedMemory::create(name.as_deref(), size, places::of_call(call.ctx))?
            } else {
                let name = name.ok_or_else(|| raise(Kind::ValueError, "'name' can only be None if create=True"))?;
                SharedMemory::attach(&name)?
            };
            Ok(Dynamic::from(memory))
        },
    );
    let mut class = registry.class::<SharedMemory>("SharedMemory");
    with::context::<SharedMemory>(None, "close");
    convert::portable::<SharedMemory>(encode);
    convert::decoder(HandleKind::SharedMemory, decode);
    class
        .display(|memory| {
            format!(
                "SharedMemory('{}', size={})",
                memory.0.name,
                memory.block().len()
            )
        })
        .equality(|a, b| a == b)
        .getter("name", "Its name.", |call| {
            Ok(call.this::<SharedMemory>().0.name.clone().into())
        })
        .getter("size", "Its size in bytes.", |call| {
            Ok(length(&call.this::<SharedMemory>().0.cells))
        })
        .getter(
            "buf",
            "Its bytes, to be indexed and sliced; `()` after `close`.",
            |call| {
                let memory = call.this::<SharedMemory>();
                Ok(if memory.closed() {
                    Dynamic::UNIT
                } else {
                    Dynamic::from(MemoryView(memory.0.clone()))
                })
            },
        )
        // Rhai writes back what it got from the getter after `memory.buf[0] = 1`.
        .setter("buf", |call| match call.take(0).try_cast::<MemoryView>() {
            Some(view) if Rc::ptr_eq(&view.0, &call.this::<SharedMemory>().0) => Ok(Dynamic::UNIT),
            _ => Err(raise(
                Kind::AttributeError,
                "property 'buf' of 'SharedMemory' object has no setter; write buf[i] or buf[i..j]",
            )),
        })
        .method(
            "close()",
            "Ends the use of this object in this process. Again is fine.",
            |call| {
                call.this::<SharedMemory>().close();
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "unlink()",
            "Takes the name away; the memory is freed when nobody uses it any more.",
            |call| {
                call.this::<SharedMemory>().unlink()?;
                Ok(Dynamic::UNIT)
            },
        );
    view(&mut registry.class::<MemoryView>("memoryview"));
}

fn length(cells: &Cells) -> Dynamic {
    Dynamic::from(cells.length())
}

fn view(class: &mut Class<'_, MemoryView>) {
    class
        .display(|view| format!("<memory at {:#x}>", handle::identity(view.0.cells.block().obj())))
        .equality(|a, b| Rc::ptr_eq(&a.0, &b.0))
        .index_getter("`buf[i]` is one byte, 0 to 255, `buf[i..j]` a blob. Negative places count from the end.", |call| {
            let view = call.this::<MemoryView>();
            let index = call.take(0);
            let at = call.ctx.call_position();
            if let Ok(index) = index.as_int() {
                view.cells()?.get(index, at)
            } else if let Some(range) = index.read_lock::<Range<i64>>() {
                view.bytes(view.range(&range)?, at)
            } else if let Some(range) = index.read_lock::<RangeInclusive<i64>>() {
                view.bytes(view.range_inclusive(&range)?, at)
            } else {
                Err(wrong_index(&index))
            }
        })
        .index_setter(|call| {
            let view = call.this::<MemoryView>();
            let (index, value) = (call.take(0), call.take(1));
            let at = call.ctx.call_position();
            if let Ok(index) = index.as_int() {
                view.cells()?.set(index, &value, at)?;
            } else if let Some(range) = index.read_lock::<Range<i64>>() {
                write(&view, view.range(&range)?, &value, at)?;
            } else if let Some(range) = index.read_lock::<RangeInclusive<i64>>() {
                write(&view, view.range_inclusive(&range)?, &value, at)?;
            } else {
                return Err(wrong_index(&index));
            }
            Ok(Dynamic::UNIT)
        })
        .iterate(|view| {
            (0..view.0.cells.length()).map(move |index| {
                let byte = view.cells().and_then(|cells| cells.get(index, rhai::Position::NONE));
                byte.map_err(|error| error.into_rhai(None, rhai::Position::NONE))
            })
        })
        .method("len()", "How many bytes there are.", |call| Ok(length(call.this::<MemoryView>().cells()?)))
        .method("tobytes()", "All bytes, as a blob: a copy.", |call| {
            let view = call.this::<MemoryView>();
            view.bytes(0..view.0.cells.block().len(), rhai::Position::NONE)
        })
        .method("to_array()", "All bytes, as an array of numbers: a copy.", |call| {
            call.this::<MemoryView>().cells()?.to_array()
        });
}

/// Writes a blob, a string's bytes or an array of numbers over a range of the same length.
fn write(
    view: &MemoryView,
    range: Range<usize>,
    values: &Dynamic,
    at: rhai::Position,
) -> Result<()> {
    let text = values
        .read_lock::<ImmutableString>()
        .map(|text| Dynamic::from_blob(text.as_bytes().to_vec()));
    view.cells()?
        .set_range(range, text.as_ref().unwrap_or(values), at)
}

fn wrong_index(index: &Dynamic) -> Error {
    raise(
        Kind::TypeError,
        format!(
            "memoryview indices must be integers or ranges, not {}",
            type_name(index)
        ),
    )
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let memory = value
        .read_lock::<SharedMemory>()
        .expect("encoders are found by the type of the value");
    encoder.begin_handle(HandleKind::SharedMemory, Some(memory.object()), None, 1)?;
    encoder.writer().str(&memory.0.name);
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    // The message's reference, which isn't needed: the name leads to the object.
    decoder.object(&head)?;
    let name = name_of(HandleKind::SharedMemory, &head, decoder)?;
    Ok(Dynamic::from(SharedMemory::attach(&name)?))
}

/// The attribute of an object that travels as its name.
pub(super) fn name_of(
    kind: HandleKind,
    head: &HandleHead,
    decoder: &mut Decoder<'_>,
) -> Result<ImmutableString> {
    if head.attributes != 1 {
        return Err(handle::malformed(kind));
    }
    let name = decoder
        .value()?
        .try_cast::<ImmutableString>()
        .ok_or_else(|| handle::malformed(kind))?;
    decoder.reader().end();
    Ok(name)
}

/// The argument `name`, checked by nobody yet.
pub(super) fn name_argument(call: &Call<'_>, index: usize) -> Option<ImmutableString> {
    call.string(index)
}
