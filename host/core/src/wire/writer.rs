//! The push side: tokens into bytes.
//!
//! One writer is kept by a process and used for every message it sends, so that the steady state allocates nothing. What must
//! happen beside the bytes (a reference counted for the message, a descriptor duplicated) is collected on the way and left to the
//! sender: the writer itself has no side effects, and an abandoned message costs nothing.

use std::os::fd::RawFd;

use super::{CallableHead, DEPTH_LIMIT, ErrorHead, PositionHead, VERSION, WireError, tag};
use crate::value::{HandleKind, RawHandle, Value};

/// Above this capacity, in bytes, [`Writer::clear`] gives the buffer back: one huge message isn't paid for until the process ends.
const KEPT_CAPACITY: usize = 4 << 20;

/// What is as long as this, in bytes, gets room for more behind it.
const LONG: usize = 64 << 10;

/// Writes one message at a time into a buffer that it keeps.
///
/// A container is begun with its number of parts, which must follow exactly, and closed by [`end`](Writer::end). That the numbers
/// are right is the caller's duty; where they aren't, the receiver gets an error or another value, and nothing worse.
#[derive(Debug)]
pub struct Writer {
    buffer: Vec<u8>,
    objects: Vec<RawHandle>,
    fds: Vec<RawFd>,
    depth: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A writer with an empty message.
    #[must_use]
    pub fn new() -> Self {
        Writer {
            buffer: vec![VERSION],
            objects: Vec::new(),
            fds: Vec::new(),
            depth: 0,
        }
    }

    /// Forgets the message and begins a new one in the same memory.
    pub fn clear(&mut self) {
        if self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.buffer.push(VERSION);
        self.objects.clear();
        self.fds.clear();
        self.depth = 0;
    }

    /// The message so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        debug_assert_eq!(
            self.depth, 0,
            "a container of the message hasn't been closed"
        );
        &self.buffer
    }

    /// The message with the memory that it is in; this begins a new one elsewhere. Objects and descriptors stay listed.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        debug_assert_eq!(
            self.depth, 0,
            "a container of the message hasn't been closed"
        );
        std::mem::replace(&mut self.buffer, vec![VERSION])
    }

    /// The message, with the memory it is in.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        debug_assert_eq!(
            self.depth, 0,
            "a container of the message hasn't been closed"
        );
        self.buffer
    }

    /// The shared objects that the message refers to, in its order, an object as often as it occurs. While it travels, the message
    /// needs a reference of its own to each.
    #[must_use]
    pub fn objects(&self) -> &[RawHandle] {
        &self.objects
    }

    /// The descriptors that must travel beside the message, in the order of their indexes. They are still the caller's.
    #[must_use]
    pub fn fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// Adds a descriptor to the list that travels beside the message, and gives its index there.
    pub fn push_fd(&mut self, fd: RawFd) -> u32 {
        let index =
            u32::try_from(self.fds.len()).expect("a process has fewer than 2^32 descriptors");
        self.fds.push(fd);
        index
    }

    /// Writes `()`.
    #[inline]
    pub fn unit(&mut self) {
        self.buffer.push(tag::UNIT);
    }

    /// Writes a truth value.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(if value { tag::TRUE } else { tag::FALSE });
    }

    /// Writes an integer, in 1, 3, 5 or 9 bytes.
    #[inline]
    pub fn int(&mut self, value: i64) {
        if (tag::SMALL_INT_MIN..=tag::SMALL_INT_MAX).contains(&value) {
            // In 64..=255, by the range just checked.
            self.buffer
                .push((value - tag::SMALL_INT_MIN + i64::from(tag::SMALL_INT)) as u8);
        } else if let Ok(value) = i16::try_from(value) {
            self.tagged(tag::INT16, value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.tagged(tag::INT32, value.to_le_bytes());
        } else {
            self.tagged(tag::INT64, value.to_le_bytes());
        }
    }

    /// Writes a floating point number.
    #[inline]
    pub fn float(&mut self, value: f64) {
        self.tagged(tag::FLOAT, value.to_bits().to_le_bytes());
    }

    /// Writes a character.
    #[inline]
    pub fn char(&mut self, value: char) {
        self.tagged(tag::CHAR, u32::from(value).to_le_bytes());
    }

    /// Writes a text.
    #[inline]
    pub fn str(&mut self, value: &str) {
        self.buffer.push(tag::STR);
        self.text(value);
    }

    /// Writes bytes.
    #[inline]
    pub fn blob(&mut self, value: &[u8]) {
        self.buffer.push(tag::BLOB);
        self.bytes(value);
    }

    /// Begins bytes that are put behind this message by whoever sends it: `length` of them, with nothing after them.
    pub fn blob_head(&mut self, length: usize) {
        self.buffer.push(tag::BLOB);
        self.length(length);
    }

    /// Writes a range of integers.
    pub fn range(&mut self, start: i64, end: i64, inclusive: bool) {
        self.tagged(tag::RANGE, start.to_le_bytes());
        self.buffer.extend_from_slice(&end.to_le_bytes());
        self.buffer.push(u8::from(inclusive));
    }

    /// Begins an array: `length` values follow, then [`end`](Writer::end).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    #[inline]
    pub fn begin_array(&mut self, length: usize) -> Result<(), WireError> {
        self.begin(tag::ARRAY)?;
        self.length(length);
        Ok(())
    }

    /// Begins a map: `length` times a [`key`](Writer::key) and a value follow, then [`end`](Writer::end).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    #[inline]
    pub fn begin_map(&mut self, length: usize) -> Result<(), WireError> {
        self.begin(tag::MAP)?;
        self.length(length);
        Ok(())
    }

    /// Writes the key of a map's next value, or the name of an error's next field.
    #[inline]
    pub fn key(&mut self, key: &str) {
        self.text(key);
    }

    /// Begins a callable: `head.curry` values follow, then [`end`](Writer::end).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    pub fn begin_callable(&mut self, head: &CallableHead<'_>) -> Result<(), WireError> {
        self.begin(tag::CALLABLE)?;
        let native = if head.native { tag::CALLABLE_NATIVE } else { 0 };
        let module = if head.module.is_some() {
            tag::CALLABLE_MODULE
        } else {
            0
        };
        self.buffer.push(native | module);
        self.text(head.name);
        if let Some(module) = head.module {
            self.text(module);
        }
        self.length(head.curry);
        Ok(())
    }

    /// Begins an error: its cause follows if `head.cause`, then `head.fields` times a [`key`](Writer::key) and a value, then
    /// [`end`](Writer::end).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    pub fn begin_error(&mut self, head: &ErrorHead<'_>) -> Result<(), WireError> {
        self.begin(tag::ERROR)?;
        let position = if head.position.is_some() {
            tag::ERROR_POSITION
        } else {
            0
        };
        let cause = if head.cause { tag::ERROR_CAUSE } else { 0 };
        self.buffer.push(position | cause);
        self.text(head.class);
        self.text(head.message);
        if let Some(PositionHead { file, line, column }) = head.position {
            self.text(file);
            self.number(line.into());
            self.number(column.into());
        }
        self.text(head.traceback);
        self.length(head.fields);
        Ok(())
    }

    /// Begins a handle: `attributes` values follow, then [`end`](Writer::end). `object` is noted in [`objects`](Writer::objects),
    /// `fd` in [`fds`](Writer::fds).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    pub fn begin_handle(
        &mut self,
        kind: HandleKind,
        object: Option<RawHandle>,
        fd: Option<RawFd>,
        attributes: usize,
    ) -> Result<(), WireError> {
        let fd = fd.map(|fd| self.push_fd(fd));
        self.handle_head(kind, object, fd, attributes)
    }

    /// Closes the container begun last.
    #[inline]
    pub fn end(&mut self) {
        debug_assert!(self.depth > 0, "no container of the message is open");
        self.depth = self.depth.saturating_sub(1);
    }

    /// Writes a whole tree. The descriptor of a handle in it is an index already: its descriptors come by
    /// [`push_fd`](Writer::push_fd).
    ///
    /// # Errors
    /// [`WireError::TooDeep`].
    pub fn value(&mut self, value: &Value) -> Result<(), WireError> {
        match value {
            Value::Unit => self.unit(),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::Float(value) => self.float(*value),
            Value::Char(value) => self.char(*value),
            Value::Str(value) => self.str(value),
            Value::Blob(value) => self.blob(value),
            Value::Range {
                start,
                end,
                inclusive,
            } => self.range(*start, *end, *inclusive),
            Value::Array(values) => {
                self.begin_array(values.len())?;
                self.values(values)?;
                self.end();
            }
            Value::Map(entries) => {
                self.begin_map(entries.len())?;
                self.entries(entries)?;
                self.end();
            }
            Value::Callable(callable) => {
                self.begin_callable(&CallableHead {
                    name: &callable.name,
                    native: callable.native,
                    module: callable.module.as_deref(),
                    curry: callable.curry.len(),
                })?;
                self.values(&callable.curry)?;
                self.end();
            }
            Value::Error(error) => {
                self.begin_error(&ErrorHead {
                    class: &error.class,
                    message: &error.message,
                    position: error.position.as_ref().map(PositionHead::from),
                    traceback: &error.traceback,
                    cause: error.cause.is_some(),
                    fields: error.fields.len(),
                })?;
                if let Some(cause) = &error.cause {
                    self.value(cause)?;
                }
                self.entries(&error.fields)?;
                self.end();
            }
            Value::Handle(handle) => {
                self.handle_head(
                    handle.kind,
                    handle.object,
                    handle.fd,
                    handle.attributes.len(),
                )?;
                self.values(&handle.attributes)?;
                self.end();
            }
        }
        Ok(())
    }

    fn values(&mut self, values: &[Value]) -> Result<(), WireError> {
        values.iter().try_for_each(|value| self.value(value))
    }

    fn entries(&mut self, entries: &[(String, Value)]) -> Result<(), WireError> {
        entries.iter().try_for_each(|(key, value)| {
            self.key(key);
            self.value(value)
        })
    }

    fn handle_head(
        &mut self,
        kind: HandleKind,
        object: Option<RawHandle>,
        fd: Option<u32>,
        attributes: usize,
    ) -> Result<(), WireError> {
        self.begin(tag::HANDLE)?;
        let object_flag = if object.is_some() {
            tag::HANDLE_OBJECT
        } else {
            0
        };
        let fd_flag = if fd.is_some() { tag::HANDLE_FD } else { 0 };
        self.buffer
            .extend_from_slice(&[kind.into(), object_flag | fd_flag]);
        if let Some(id) = object {
            self.objects.push(id);
            self.number(id.index.into());
            self.number(id.generation.into());
        }
        if let Some(fd) = fd {
            self.number(fd.into());
        }
        self.length(attributes);
        Ok(())
    }

    #[inline]
    fn begin(&mut self, tag: u8) -> Result<(), WireError> {
        if self.depth == DEPTH_LIMIT {
            return Err(WireError::TooDeep);
        }
        self.depth += 1;
        self.buffer.push(tag);
        Ok(())
    }

    /// A tag and a number of fixed size, appended at once.
    #[inline]
    fn tagged<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.buffer.reserve(N + 1);
        self.buffer.push(tag);
        self.buffer.extend_from_slice(&bytes);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        if bytes.len() >= LONG {
            // Or what is written behind it would double all of the buffer.
            self.buffer.reserve(bytes.len() + LONG);
        }
        self.buffer.extend_from_slice(bytes);
    }

    #[inline]
    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    #[inline]
    fn number(&mut self, number: u64) {
        if number <= tag::ONE_BYTE_MAX {
            self.buffer.push(number as u8);
        } else if let Ok(number) = u16::try_from(number) {
            self.tagged(tag::TWO_BYTES, number.to_le_bytes());
        } else if let Ok(number) = u32::try_from(number) {
            self.tagged(tag::FOUR_BYTES, number.to_le_bytes());
        } else {
            self.tagged(tag::EIGHT_BYTES, number.to_le_bytes());
        }
    }
}
