//! ShareableList: a list of a fixed length, of numbers, texts and bytes, in shared memory.
//!
//! The memory: the number of items n; n + 1 offsets of the items' slots in the data; n formats of 8 bytes each, for the
//! type of the item that is there now; the data. A slot is at least 8 bytes long, and as long as it was at the start for ever.
//!
//! What is read from it is checked like any message: another process may have written anything.

use super::block::{SharedMemory, name_argument, name_of};
use crate::api::{Class, Registry, type_name};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::given::{Given, fingerprint};
use crate::{items, places, spelling};
use mphost_core::position::Position;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use rhai::{Array, Blob, Dynamic, ImmutableString};
use std::rc::Rc;

/// Every slot begins at a multiple of this, and is a multiple of it long.
const ALIGNMENT: usize = 8;
/// The length of the number of items.
const HEAD: usize = 8;

/// A list in shared memory.
#[derive(Clone)]
pub struct ShareableList(Rc<Parts>);

struct Parts {
    memory: SharedMemory,
    given: Given,
}

/// What an item can be; the numbers are what stands in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Format {
    None = 0,
    Bool = 1,
    Int = 2,
    Float = 3,
    Str = 4,
    Bytes = 5,
}

impl Format {
    fn from_code(code: u64) -> Option<Self> {
        [
            Self::None,
            Self::Bool,
            Self::Int,
            Self::Float,
            Self::Str,
            Self::Bytes,
        ]
        .into_iter()
        .find(|f| *f as u64 == code)
    }
}

/// One item, ready to be written.
struct Item {
    format: Format,
    bytes: Vec<u8>,
    /// The length that Python reserves for: characters of a text, bytes of a blob.
    length: usize,
}

impl Item {
    fn of(value: &Dynamic) -> Result<Self> {
        let item = |format, bytes: &[u8], length| Item {
            format,
            bytes: bytes.to_vec(),
            length,
        };
        Ok(if value.is_unit() {
            item(Format::None, &[0; 8], 0)
        } else if let Ok(truth) = value.as_bool() {
            item(Format::Bool, &u64::from(truth).to_ne_bytes(), 0)
        } else if let Ok(int) = value.as_int() {
            item(Format::Int, &int.to_ne_bytes(), 0)
        } else if let Ok(float) = value.as_float() {
            item(Format::Float, &float.to_ne_bytes(), 0)
        } else if let Ok(letter) = value.as_char() {
            item(Format::Str, letter.encode_utf8(&mut [0; 4]).as_bytes(), 1)
        } else if let Some(text) = value.read_lock::<ImmutableString>() {
            item(Format::Str, text.as_bytes(), text.chars().count())
        } else if let Some(blob) = value.read_lock::<Blob>() {
            item(Format::Bytes, &blob, blob.len())
        } else {
            return Err(raise(
                Kind::TypeError,
                format!(
                    "a ShareableList holds numbers, true and false, texts, blobs and (), not {}",
                    type_name(value)
                ),
            ));
        })
    }

    fn content(&self) -> u64 {
        fingerprint(&self.bytes).rotate_left(self.format as u32)
    }

    /// The slot that it gets in a new list: strictly longer than its length, so that there is always a zero behind it.
    fn slot(&self) -> usize {
        let by_length = ALIGNMENT * (self.length / ALIGNMENT + 1);
        by_length.max(self.bytes.len().next_multiple_of(ALIGNMENT))
    }
}

impl ShareableList {
    fn over(memory: SharedMemory) -> Self {
        Self(Rc::new(Parts {
            memory,
            given: Given::default(),
        }))
    }

    fn create(values: &Array, name: Option<&str>, position: Position) -> Result<Self> {
        let items: Vec<Item> = values.iter().map(Item::of).collect::<Result<_>>()?;
        let data: usize = items.iter().map(Item::slot).sum();
        let size = HEAD + 8 * (items.len() + 1) + 8 * items.len() + data;
        let memory = SharedMemory::create(name, size, position)?;
        let block = memory.block();
        block.set(0, items.len() as u64)?;
        let mut offset = 0;
        let list = Self::over(memory.clone());
        for (index, item) in items.iter().enumerate() {
            block.set(HEAD + 8 * index, offset as u64)?;
            offset += item.slot();
        }
        block.set(HEAD + 8 * items.len(), offset as u64)?;
        for (index, item) in items.iter().enumerate() {
            list.write(index, item)?;
        }
        Ok(list)
    }

    fn attach(name: &str) -> Result<Self> {
        let list = Self::over(SharedMemory::attach(name)?);
        list.len()?;
        Ok(list)
    }

    fn memory(&self) -> Result<&mphost_core::shared::Block> {
        if self.0.memory.closed() {
            return Err(raise(
                Kind::ValueError,
                "the shared memory of this ShareableList is closed",
            ));
        }
        Ok(self.0.memory.block())
    }

    fn len(&self) -> Result<usize> {
        let block = self.memory()?;
        let len = block
            .get::<u64>(0)
            .ok()
            .and_then(|len| usize::try_from(len).ok());
        let fits = |len: &usize| {
            len.checked_mul(16)
                .and_then(|n| n.checked_add(HEAD + 8))
                .is_some_and(|n| n <= block.len())
        };
        len.filter(fits).ok_or_else(damaged)
    }

    /// Where an item's slot lies in the block, and how long it is.
    fn slot(&self, index: usize) -> Result<(usize, usize)> {
        let block = self.memory()?;
        let len = self.len()?;
        let offset = |index: usize| -> Result<usize> {
            usize::try_from(block.get::<u64>(HEAD + 8 * index)?).map_err(|_| damaged())
        };
        let (start, end) = (offset(index)?, offset(index + 1)?);
        let data = HEAD + 8 * (len + 1) + 8 * len;
        let room = block.len() - data;
        if start > end || end > room || end - start < ALIGNMENT {
            return Err(damaged());
        }
        Ok((data + start, end - start))
    }

    fn format_at(&self, index: usize) -> Result<usize> {
        Ok(HEAD + 8 * (self.len()? + 1) + 8 * index)
    }

    fn format(&self, index: usize) -> Result<Format> {
        Format::from_code(self.memory()?.get(self.format_at(index)?)?).ok_or_else(damaged)
    }

    fn write(&self, index: usize, item: &Item) -> Result<()> {
        let (at, room) = self.slot(index)?;
        if item.bytes.len() > room {
            return Err(raise(
                Kind::ValueError,
                "bytes/str item exceeds available storage",
            ));
        }
        let mut bytes = item.bytes.clone();
        bytes.resize(room, 0);
        let block = self.memory()?;
        block.write(at, &bytes)?;
        Ok(block.set(self.format_at(index)?, item.format as u64)?)
    }

    fn read(&self, index: usize) -> Result {
        let (at, room) = self.slot(index)?;
        let block = self.memory()?;
        // Python strips the zeros at the end, and so can't tell them from those of the item.
        let text = || -> Result<Vec<u8>> {
            let mut bytes = vec![0; room];
            block.read(at, &mut bytes)?;
            bytes.truncate(
                bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1),
            );
            Ok(bytes)
        };
        Ok(match self.format(index)? {
            Format::None => Dynamic::UNIT,
            Format::Bool => (block.get::<u64>(at)? != 0).into(),
            Format::Int => block.get::<i64>(at)?.into(),
            Format::Float => block.get::<f64>(at)?.into(),
            Format::Bytes => Dynamic::from_blob(text()?),
            Format::Str => String::from_utf8(text()?).map_err(|_| damaged())?.into(),
        })
    }

    fn index(&self, index: &Dynamic, what: &str) -> Result<usize> {
        let number = index.as_int().map_err(|_| {
            raise(
                Kind::TypeError,
                format!("list indices must be integers, not {}", type_name(index)),
            )
        })?;
        let len = self.len()?;
        let length = i64::try_from(len).unwrap_or(i64::MAX);
        let from_start = if number < 0 {
            number.saturating_add(length)
        } else {
            number
        };
        usize::try_from(from_start)
            .ok()
            .filter(|index| *index < len)
            .ok_or_else(|| {
                raise(
                    Kind::IndexError,
                    format!("{what} out of range: {number} in a list of {len}"),
                )
            })
    }

    fn items(&self) -> Result<Array> {
        (0..self.len()?).map(|index| self.read(index)).collect()
    }

    /// Python's packing format of all items.
    fn packing(&self) -> Result<String> {
        let mut all = String::new();
        for index in 0..self.len()? {
            let (_, room) = self.slot(index)?;
            match self.format(index)? {
                Format::None => all.push_str("xxxxxx?x"),
                Format::Bool => all.push_str("xxxxxxx?"),
                Format::Int => all.push('q'),
                Format::Float => all.push('d'),
                Format::Str | Format::Bytes => all.push_str(&format!("{room}s")),
            }
        }
        Ok(all)
    }

    fn show(&self) -> String {
        match self.items() {
            Ok(items) => {
                let items: Vec<String> = items.iter().map(show_item).collect();
                format!(
                    "ShareableList([{}], name='{}')",
                    items.join(", "),
                    self.0.memory.name()
                )
            }
            Err(_) => format!("ShareableList(…, name='{}')", self.0.memory.name()),
        }
    }
}

/// An item in Python's spelling.
fn show_item(item: &Dynamic) -> String {
    if item.is_unit() {
        return "None".into();
    }
    if let Ok(truth) = item.as_bool() {
        return if truth { "True" } else { "False" }.into();
    }
    if let Some(blob) = item.read_lock::<Blob>() {
        return format!("b'{}'", blob.escape_ascii());
    }
    if let Ok(float) = item.as_float() {
        return spelling::float(float);
    }
    match item.read_lock::<ImmutableString>() {
        Some(text) => {
            let mut quoted = String::new();
            spelling::quote(&text, &mut quoted);
            quoted
        }
        None => item.to_string(),
    }
}

fn damaged() -> Error {
    raise(
        Kind::RuntimeError,
        "this shared memory holds no ShareableList, or a damaged one",
    )
}

/// Python's `==` for what a list can hold.
fn same(a: &Dynamic, b: &Dynamic) -> bool {
    let number = |value: &Dynamic| match (value.as_int(), value.as_bool()) {
        (Ok(int), _) => Some(int),
        (_, Ok(truth)) => Some(i64::from(truth)),
        _ => None,
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "as precise as a comparison with a float can be"
    )]
    let float = |value: &Dynamic| {
        value
            .as_float()
            .ok()
            .or_else(|| number(value).map(|int| int as f64))
    };
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (float(a), float(b)) {
        return a == b;
    }
    match (Item::of(a), Item::of(b)) {
        (Ok(a), Ok(b)) => a.format == b.format && a.bytes == b.bytes,
        _ => false,
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.function(
        "mp::shared_memory",
        "ShareableList(sequence: items = (), *, name: string = ())",
        "A list in shared memory, of a length that stays: numbers, true and false, texts, blobs and `()`. Items can be changed, \
         texts and blobs up to the length that they had at first, rounded up to the next eight bytes.\n\n\
         With a `sequence` it is new, and gets a name of its own if none is given; with a `name` alone it is the list of that name.\n\n```rhai\nlet l = mp::shared_memory::ShareableList([1, \"two\", 3.0]);\nl[0] += 1;\nprint(l);\nl.shm.unlink();\n```",
        |call| {
            let name = name_argument(call, 1);
            let list = match call.peek(0) {
                Some(_) => {
                    let values = items::collect(call.ctx, call.take(0))?;
                    ShareableList::create(&values, name.as_deref(), places::of_call(call.ctx))?
                }
                None => {
                    let name = name.ok_or_else(|| raise(Kind::ValueError, "a ShareableList needs a sequence or a name"))?;
                    ShareableList::attach(&name)?
                }
            };
            Ok(Dynamic::from(list))
        },
    );
    let mut class = registry.class::<ShareableList>("ShareableList");
    convert::portable::<ShareableList>(encode);
    convert::decoder(HandleKind::ShareableList, decode);
    methods(&mut class);
}

/// Makes a list, for the manager.
pub(super) fn create(values: &Array, position: Position) -> Result<(Dynamic, SharedMemory)> {
    let list = ShareableList::create(values, None, position)?;
    let memory = list.0.memory.clone();
    Ok((Dynamic::from(list), memory))
}

fn methods(class: &mut Class<'_, ShareableList>) {
    class
        .display(ShareableList::show)
        .equality(|a, b| a.0.memory.block().obj() == b.0.memory.block().obj())
        .index_getter("`list[i]`; negative places count from the end.", |call| {
            let list = call.this::<ShareableList>();
            let index = list.index(&call.take(0), "index")?;
            let value = list.read(index)?;
            let item = Item::of(&value)?;
            list.0
                .given
                .note(call.ctx.call_position(), index, item.content());
            Ok(value)
        })
        .index_setter(|call| {
            let list = call.this::<ShareableList>();
            let index = list.index(&call.take(0), "assignment index")?;
            let item = Item::of(&call.take(1))?;
            if !list
                .0
                .given
                .is_written_back(call.ctx.call_position(), index, || item.content())
            {
                list.write(index, &item)?;
            }
            Ok(Dynamic::UNIT)
        })
        .iterate(|list| {
            let len = list.len();
            let (count, failed) = match len {
                Ok(len) => (len, None),
                Err(error) => (0, Some(error)),
            };
            let items = (0..count).map(move |index| list.read(index));
            failed
                .into_iter()
                .map(Err)
                .chain(items)
                .map(|item| item.map_err(|error| error.into_rhai(None, rhai::Position::NONE)))
        })
        .method("len()", "How many items there are.", |call| {
            Ok(Dynamic::from(
                i64::try_from(call.this::<ShareableList>().len()?).unwrap_or(i64::MAX),
            ))
        })
        .method(
            "index(value: any)",
            "The place of the first item that equals `value`; without one, a `ValueError`.",
            |call| {
                let value = call.take(0);
                let items = call.this::<ShareableList>().items()?;
                let at = items.iter().position(|item| same(item, &value));
                let at = at.and_then(|at| i64::try_from(at).ok());
                at.map(Dynamic::from)
                    .ok_or_else(|| raise(Kind::ValueError, "ShareableList.index(x): x not in list"))
            },
        )
        .method(
            "count(value: any)",
            "How many items equal `value`.",
            |call| {
                let value = call.take(0);
                let items = call.this::<ShareableList>().items()?;
                let count = items.iter().filter(|item| same(item, &value)).count();
                Ok(Dynamic::from(i64::try_from(count).unwrap_or(i64::MAX)))
            },
        )
        .method(
            "contains(value: any)",
            "Whether an item equals `value`.",
            |call| {
                let value = call.take(0);
                Ok(call
                    .this::<ShareableList>()
                    .items()?
                    .iter()
                    .any(|item| same(item, &value))
                    .into())
            },
        )
        .method(
            "to_array()",
            "All items, as an ordinary array: a copy.",
            |call| Ok(Dynamic::from_array(call.this::<ShareableList>().items()?)),
        )
        .getter(
            "format",
            "Python's packing format of the items as they are now.",
            |call| Ok(call.this::<ShareableList>().packing()?.into()),
        )
        .getter(
            "shm",
            "The shared memory that the list lies in, for `name`, `close` and `unlink`.",
            |call| Ok(Dynamic::from(call.this::<ShareableList>().0.memory.clone())),
        )
        // Rhai writes back what it got from the getter after `list.shm.unlink()`.
        .setter("shm", |call| {
            match call.take(0).try_cast::<SharedMemory>() {
                Some(memory) if memory == call.this::<ShareableList>().0.memory => {
                    Ok(Dynamic::UNIT)
                }
                _ => Err(raise(
                    Kind::AttributeError,
                    "property 'shm' of 'ShareableList' object has no setter",
                )),
            }
        });
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let list = value
        .read_lock::<ShareableList>()
        .expect("encoders are found by the type of the value");
    encoder.begin_handle(
        HandleKind::ShareableList,
        Some(list.0.memory.block().obj()),
        None,
        1,
    )?;
    encoder.writer().str(list.0.memory.name());
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    decoder.object(&head)?;
    let name = name_of(HandleKind::ShareableList, &head, decoder)?;
    Ok(Dynamic::from(ShareableList::attach(&name)?))
}
