//! Between a script's values and messages: one pass each way, no tree in between.
//!
//! [`Encoder`] writes a [`Dynamic`] as a message of the core's wire format, or refuses with a `PicklingError` that names the type
//! and the path to it; nothing has been sent then. [`Decoder`] builds the value again in the receiving process.
//!
//! Handles: a type that can travel says so by [`portable`], its kinds are decoded by what [`decoder()`] registered. A message owns
//! one reference to each session object in it: [`Encoder::seal`] takes them, once it is certain that the message is whole.
//!
//! Script functions travel by name; a closure's name is a hash that all processes of a program agree on, and what it captured
//! travels as values.

mod decoder;

pub use decoder::{Decoder, References};

use crate::api::native_name;
use crate::core_error::from_wire;
use crate::error::{Kind, Result, ScriptError, raise};
use mphost_core::connection::Connection;
use mphost_core::session::ObjRef;
use mphost_core::value::{HandleKind, RawHandle};
use mphost_core::wire::{CallableHead, ErrorHead, HandleHead, PositionHead, Writer};
use rhai::{Array, Blob, Dynamic, FnPtr, ImmutableString, Map, Shared};
use smallvec::SmallVec;
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

type EncodeFn = fn(&Dynamic, &mut Encoder) -> Result<()>;
type DecodeFn = fn(HandleHead, &mut Decoder<'_>) -> Result<Dynamic>;

/// A module's native function: module, name, and what makes its value.
type Native = (&'static str, &'static str, Box<dyn Fn() -> FnPtr>);

#[derive(Default)]
struct Tables {
    encoders: HashMap<TypeId, EncodeFn>,
    decoders: HashMap<HandleKind, DecodeFn>,
    natives: Vec<Native>,
    /// Those of them that have travelled.
    made: HashMap<String, FnPtr>,
    scripts: HashMap<ImmutableString, Vec<Shared<rhai::ScriptFuncDef>>>,
}

thread_local! {
    static TABLES: RefCell<Tables> = RefCell::new(Tables::default());
}

/// Says that values of type `T` can travel, and how.
pub fn portable<T: 'static>(encode: EncodeFn) {
    TABLES.with_borrow_mut(|tables| tables.encoders.insert(TypeId::of::<T>(), encode));
}

/// Says how handles of a kind are made again in the receiving process.
pub fn decoder(kind: HandleKind, decode: DecodeFn) {
    TABLES.with_borrow_mut(|tables| tables.decoders.insert(kind, decode));
}

/// Makes a module's native function known by its full name (`os__getpid`), under which it travels; `make` is called if it does.
pub fn native_function(
    module: &'static str,
    name: &'static str,
    make: impl Fn() -> FnPtr + 'static,
) {
    TABLES.with_borrow_mut(|tables| tables.natives.push((module, name, Box::new(make))));
}

/// The script function of that name with so many parameters, captured ones included.
pub(crate) fn script_function(
    name: &str,
    parameters: usize,
) -> Option<Shared<rhai::ScriptFuncDef>> {
    TABLES.with_borrow(|tables| {
        let known = tables.scripts.get(name)?;
        known
            .iter()
            .find(|definition| definition.params.len() == parameters)
            .cloned()
    })
}

/// The native function of that full name, if there is one.
#[must_use]
pub fn native_named(name: &str) -> Option<FnPtr> {
    // Few script functions have such names: for the others this is all that it costs.
    if !name.contains("__") {
        return None;
    }
    known_native(name).or_else(|| {
        // It may come from a program that names more than this one: these are all that there are.
        let _ = crate::runtime::try_runtime()?.entries();
        known_native(name)
    })
}

fn known_native(name: &str) -> Option<FnPtr> {
    TABLES.with_borrow_mut(|tables| {
        if let Some(made) = tables.made.get(name) {
            return Some(made.clone());
        }
        let (_, _, make) = tables
            .natives
            .iter()
            .find(|(module, own, _)| name.ends_with(own) && native_name(module, own) == name)?;
        let pointer = make();
        tables.made.insert(name.to_owned(), pointer.clone());
        Some(pointer)
    })
}

/// Makes the functions of a compiled script known, so that closures are found again by their names.
pub fn script_functions(library: &rhai::Module) {
    TABLES.with_borrow_mut(|tables| {
        for (.., name, _, definition) in library.iter_script_fn_info() {
            let known = tables.scripts.entry(name.into()).or_default();
            known.retain(|d| d.params.len() != definition.params.len());
            known.push(definition.clone());
        }
    });
}

/// Forgets the functions of a script that another one takes the place of.
pub(crate) fn forget_script_functions() {
    TABLES.with_borrow_mut(|tables| tables.scripts.clear());
}

/// Makes a module's function or closure known; false where the script has one of that name.
pub(crate) fn adopt_function(name: &str, definition: &Shared<rhai::ScriptFuncDef>) -> bool {
    TABLES.with_borrow_mut(|tables| {
        let known = tables.scripts.entry(name.into()).or_default();
        // The same again: the module was compiled for the second time, in a forked child perhaps.
        let new = known.is_empty();
        if new {
            known.push(definition.clone());
        }
        new
    })
}

/// Writes values as one message.
pub struct Encoder {
    writer: Writer,
    objects: Vec<ObjRef>,
    /// Values whose descriptors are in the message, where nobody else keeps them until it is sent.
    kept: Vec<Dynamic>,
    /// Whether the message may be read more than once, or not at all.
    repeated: bool,
    /// Whether messages may be read by another program.
    foreign: bool,
    /// Ends of pipes in such a message.
    leaving: Vec<Rc<Connection>>,
    /// Values that the message only names then: its sender keeps them as long as it may be read.
    pinned: Vec<Dynamic>,
    /// Where we are inside the value, innermost last: filled in only while an error travels outwards.
    path: Vec<String>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self {
            writer: Writer::new(),
            objects: Vec::new(),
            kept: Vec::new(),
            repeated: false,
            foreign: false,
            leaving: Vec::new(),
            pinned: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Forgets the message, keeps its memory for the next one.
    pub fn clear(&mut self) {
        self.writer.clear();
        self.objects.clear();
        self.kept.clear();
        self.repeated = false;
        self.leaving.clear();
        self.pinned.clear();
        self.path.clear();
    }

    /// Says, before anything is written, that the message may be read more than once or not at all: what counts its messages (a manager's
    /// objects) doesn't count this one, and whoever sends it keeps [`Encoder::pinned`] for as long.
    pub fn repeat(&mut self) {
        self.repeated = true;
    }

    /// Whether the message may be read more than once.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Says, before anything is written, whether this message and those after it may be read by another program: what is this one's alone
    /// isn't written then, where there is another way.
    pub fn set_foreign(&mut self, foreign: bool) {
        self.foreign = foreign;
    }

    /// Whether the message may be read by another program.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Notes an end of a pipe that is in a message for another program.
    pub(crate) fn leaves(&mut self, end: Rc<Connection>) {
        self.leaving.push(end);
    }

    /// The message is going to be sent: the ends of pipes in it leave their program, if it is for another one.
    ///
    /// # Errors
    /// `PicklingError` where messages lie in one.
    pub fn depart(&self) -> Result<()> {
        for end in &self.leaving {
            end.leave_program()
                .map_err(|error| raise(Kind::PicklingError, error.to_string()))?;
        }
        Ok(())
    }

    /// Adds a value that the message only names.
    pub(crate) fn pin(&mut self, value: Dynamic) {
        self.pinned.push(value);
    }

    /// The values that a message which may be read more than once only names.
    pub fn pinned(&self) -> &[Dynamic] {
        &self.pinned
    }

    /// Keeps a value that was written until the message is cleared, if there are descriptors in it: they are in the message by their
    /// numbers alone, and go with their last owner.
    pub(crate) fn keep(&mut self, value: &Dynamic) {
        if !self.fds().is_empty() {
            self.kept.push(value.clone());
        }
    }

    /// The core's writer, for what is no script value (heads of control messages).
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The message so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.writer.as_bytes()
    }

    /// Descriptors that must travel beside the message.
    #[must_use]
    pub fn fds(&self) -> &[RawFd] {
        self.writer.fds()
    }

    /// The same descriptors, for calls that want them borrowed.
    ///
    /// # Errors
    /// `OSError` where one was closed since it was encoded.
    pub fn borrowed_fds(&self) -> Result<SmallVec<[BorrowedFd<'_>; 2]>> {
        let fds = self
            .writer
            .fds()
            .iter()
            .map(|fd| mphost_core::process::borrow_fd(*fd));
        Ok(fds.collect::<mphost_core::error::Result<_>>()?)
    }

    /// The session objects in the message, without taking references: for grants to a child that is about to start.
    #[must_use]
    pub fn handles(&self) -> Vec<RawHandle> {
        self.objects.iter().map(ObjRef::handle).collect()
    }

    /// The session objects in the message, for a sender that sends it more than once.
    #[must_use]
    pub fn objects(&self) -> &[ObjRef] {
        &self.objects
    }

    /// Takes the message's references. From here on they belong to it: whoever drops it releases them.
    #[must_use]
    pub fn seal(&mut self) -> Vec<RawHandle> {
        if self.objects.is_empty() {
            return Vec::new();
        }
        self.objects
            .drain(..)
            .map(|object| object.export())
            .collect()
    }

    /// Writes `value`; `root` is how an error calls it (`item`, `result`, `args[0]`).
    ///
    /// # Errors
    /// `PicklingError` with the path to what can't travel.
    pub fn value_at(&mut self, root: &str, value: &Dynamic) -> Result<()> {
        self.value(value).map_err(|error| self.explain(root, error))
    }

    /// [`Encoder::value_at`] for an array.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn array_at(&mut self, root: &str, array: &[Dynamic]) -> Result<()> {
        self.array(array).map_err(|error| self.explain(root, error))
    }

    /// [`Encoder::value_at`] for a map.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn map_at(&mut self, root: &str, map: &Map) -> Result<()> {
        self.map(map).map_err(|error| self.explain(root, error))
    }

    /// The error of [`Encoder::value`] with the path to what can't travel; `root` is how the value is called.
    pub fn explain(&mut self, root: &str, error: crate::error::Error) -> crate::error::Error {
        let mut path = root.to_owned();
        for part in self.path.drain(..).rev() {
            path.push_str(&part);
        }
        match error {
            crate::error::Error::Script(error) if error.kind() == Kind::PicklingError => raise(
                Kind::PicklingError,
                format!("{} ({path})", error.detail().message),
            ),
            other => other,
        }
    }

    /// Writes a value that is part of another; the caller is a handle's own encoder.
    ///
    /// # Errors
    /// As [`Encoder::value_at`], without the path.
    pub fn value(&mut self, value: &Dynamic) -> Result<()> {
        if let Ok(int) = value.as_int() {
            self.writer.int(int);
        } else if let Some(text) = value.read_lock::<ImmutableString>() {
            self.writer.str(&text);
        } else if value.is_unit() {
            self.writer.unit();
        } else if let Ok(float) = value.as_float() {
            self.writer.float(float);
        } else if let Ok(truth) = value.as_bool() {
            self.writer.bool(truth);
        } else if let Some(array) = value.read_lock::<Array>() {
            self.array(&array)?;
        } else if let Some(map) = value.read_lock::<Map>() {
            self.map(&map)?;
        } else if let Some(blob) = value.read_lock::<Blob>() {
            self.writer.blob(&blob);
        } else if let Ok(letter) = value.as_char() {
            self.writer.char(letter);
        } else if let Some(pointer) = value.read_lock::<FnPtr>() {
            self.callable(&pointer)?;
        } else if let Some(error) = value.read_lock::<ScriptError>() {
            self.error(&error)?;
        } else if let Some(range) = value.read_lock::<std::ops::Range<i64>>() {
            self.writer.range(range.start, range.end, false);
        } else if let Some(range) = value.read_lock::<std::ops::RangeInclusive<i64>>() {
            self.writer.range(*range.start(), *range.end(), true);
        } else {
            let encode =
                TABLES.with_borrow(|tables| tables.encoders.get(&value.type_id()).copied());
            match encode {
                Some(encode) => encode(value, self)?,
                None => {
                    let name = crate::api::type_name(value);
                    return Err(raise(
                        Kind::PicklingError,
                        format!("a {name} can't travel to another process"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn array(&mut self, array: &[Dynamic]) -> Result<()> {
        self.writer
            .begin_array(array.len())
            .map_err(|e| from_wire(&e))?;
        for (index, item) in array.iter().enumerate() {
            if let Err(error) = self.value(item) {
                self.path.push(format!("[{index}]"));
                return Err(error);
            }
        }
        self.writer.end();
        Ok(())
    }

    fn map(&mut self, map: &Map) -> Result<()> {
        self.writer
            .begin_map(map.len())
            .map_err(|e| from_wire(&e))?;
        for (key, item) in map {
            self.writer.key(key);
            if let Err(error) = self.value(item) {
                self.path.push(format!(".{key}"));
                return Err(error);
            }
        }
        self.writer.end();
        Ok(())
    }

    fn callable(&mut self, pointer: &FnPtr) -> Result<()> {
        let name = pointer.fn_name();
        let native = native_named(name).is_some();
        let head = CallableHead {
            name,
            native,
            module: None,
            curry: pointer.curry().len(),
        };
        self.writer
            .begin_callable(&head)
            .map_err(|e| from_wire(&e))?;
        for (index, captured) in pointer.iter_curry().enumerate() {
            if let Err(error) = self.value(captured) {
                self.path.push(format!(".captured[{index}]"));
                return Err(error);
            }
        }
        self.writer.end();
        Ok(())
    }

    fn error(&mut self, error: &ScriptError) -> Result<()> {
        let detail = error.detail();
        let position = (!detail.position.is_empty()).then_some(PositionHead {
            file: &detail.position,
            line: 0,
            column: 0,
        });
        let head = ErrorHead {
            class: detail.kind.name(),
            message: &detail.message,
            position,
            traceback: &detail.traceback,
            cause: !detail.cause.is_unit(),
            fields: detail.fields.len(),
        };
        self.writer.begin_error(&head).map_err(|e| from_wire(&e))?;
        if head.cause {
            self.value(&detail.cause)?;
        }
        for (name, field) in &detail.fields {
            self.writer.key(name);
            self.value(field)?;
        }
        self.writer.end();
        Ok(())
    }

    /// Begins a handle: `attributes` values follow by [`Encoder::value`] or the writer, then `writer().end()`.
    ///
    /// # Errors
    /// `PicklingError` where values nest too deep.
    pub fn begin_handle(
        &mut self,
        kind: HandleKind,
        object: Option<&ObjRef>,
        fd: Option<BorrowedFd<'_>>,
        attributes: usize,
    ) -> Result<()> {
        use std::os::fd::AsRawFd;
        self.writer
            .begin_handle(
                kind,
                object.map(ObjRef::handle),
                fd.map(|fd| fd.as_raw_fd()),
                attributes,
            )
            .map_err(|e| from_wire(&e))?;
        if let Some(object) = object {
            self.objects.push(object.clone());
        }
        Ok(())
    }
}

/// Encodes one value with a fresh encoder, for what isn't on a hot path.
///
/// # Errors
/// As [`Encoder::value_at`].
pub fn encode(root: &str, value: &Dynamic) -> Result<Encoder> {
    let mut encoder = Encoder::new();
    encoder.value_at(root, value)?;
    Ok(encoder)
}
