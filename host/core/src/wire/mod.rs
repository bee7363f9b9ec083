//! The wire format: how values become bytes, and bytes values.
//!
//! Every item of a queue, every message of a pipe, every argument of a process that starts anew and every call of a manager is one
//! message of this format. It solves two problems at once. It is fast, because it is on the way of everything: [`Writer`] and
//! [`Reader`] push and pull tokens with no tree in between, a small integer is one byte, a blob one copy. And it can be fed anything:
//! the other side may be a process that died in mid-message, or a stranger on a network.
//!
//! Two kinds of messages:
//! - *Values* ([`encode`], [`decode`], or [`Writer`], [`Reader`]): a version byte, then one value as a tagged tree, see `tag.rs`.
//! - *Control messages* ([`encode_control`], [`decode_control`]): the host's own structures, by serde and bincode. bincode is used
//!   nowhere else.
//!
//! Invariants:
//! - Containers nest [`DEPTH_LIMIT`] deep at most, for the writer and for the reader, so that no message can exhaust a stack.
//! - Nothing is allocated on the word of a length alone: a length is checked against the bytes that are there, and the room that is reserved
//!   ahead is never larger than those.
//! - Whatever the bytes, decoding ends in a value or in a [`WireError`], in time linear in their number.
//!
//! # Examples
//!
//! ```
//! use mphost_core::value::Value;
//! use mphost_core::wire::{Reader, Token, Writer, decode};
//!
//! let mut writer = Writer::new();
//! writer.begin_array(2)?;
//! writer.int(42);
//! writer.str("hello");
//! writer.end();
//! assert_eq!(decode(writer.as_bytes())?, Value::Array(vec![Value::Int(42), Value::from("hello")]));
//!
//! let mut reader = Reader::new(writer.as_bytes())?;
//! assert!(matches!(reader.next_token()?, Token::Array(2)));
//! assert!(matches!(reader.next_token()?, Token::Int(42)));
//! # Ok::<(), mphost_core::wire::WireError>(())
//! ```

mod control;
mod reader;
mod tag;
mod writer;

pub use control::{decode_control, encode_control};
pub use reader::{Reader, Token};
pub use writer::Writer;

use crate::value::{SourcePosition, Value};

/// The first byte of every message of values. Processes of one session are of one build; strangers are told apart by this byte.
pub const VERSION: u8 = 1;

/// How deep containers (arrays, maps, callables, errors, handles) may nest.
pub const DEPTH_LIMIT: u32 = 128;

/// Why bytes are no message, or why a value can't become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first byte isn't [`VERSION`].
    #[error(
        "the message has version {0}, but this program speaks version {VERSION}: both sides must run the same mphost"
    )]
    Version(u8),
    /// Containers nest deeper than [`DEPTH_LIMIT`].
    #[error("the value nests deeper than {DEPTH_LIMIT} levels: flatten it, or send it in parts")]
    TooDeep,
    /// The bytes end inside a value.
    #[error("the message ends in the middle of a value")]
    Truncated,
    /// A length is larger than what is left of the message can hold.
    #[error("the message claims {claimed} parts where only {remaining} bytes are left")]
    BadLength {
        /// How many bytes or elements the message says follow.
        claimed: u64,
        /// How many bytes do follow.
        remaining: usize,
    },
    /// A byte where a value should begin begins none.
    #[error("unknown tag {0:#04x} in a message")]
    UnknownTag(u8),
    /// A combination of flags has no meaning.
    #[error("unknown flags {0:#04x} in a message")]
    UnknownFlags(u8),
    /// A handle is of no known kind.
    #[error("unknown kind of handle {0} in a message")]
    UnknownHandleKind(u8),
    /// A text isn't UTF-8.
    #[error("a text in the message is not valid UTF-8")]
    BadText,
    /// A character's number is none of Unicode's.
    #[error("{0:#x} in the message is not a character")]
    BadChar(u32),
    /// The message goes on after its value.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    /// A control message is larger than its receiver allows.
    #[error("a control message of {length} bytes is over its limit of {limit} bytes")]
    TooLarge {
        /// The message's length in bytes.
        length: usize,
        /// The largest length that is allowed here, in bytes.
        limit: usize,
    },
    /// A control message that isn't one, or a structure that can't become one.
    #[error("malformed control message: {0}")]
    Control(String),
}

/// What a message says of a callable, before its captured values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallableHead<'a> {
    /// See [`Callable::name`](crate::value::Callable::name).
    pub name: &'a str,
    /// See [`Callable::native`](crate::value::Callable::native).
    pub native: bool,
    /// See [`Callable::module`](crate::value::Callable::module).
    pub module: Option<&'a str>,
    /// How many captured values follow.
    pub curry: usize,
}

/// What a message says of an error, before its cause and its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorHead<'a> {
    /// See [`ErrorValue::class`](crate::value::ErrorValue::class).
    pub class: &'a str,
    /// See [`ErrorValue::message`](crate::value::ErrorValue::message).
    pub message: &'a str,
    /// See [`ErrorValue::position`](crate::value::ErrorValue::position).
    pub position: Option<PositionHead<'a>>,
    /// See [`ErrorValue::traceback`](crate::value::ErrorValue::traceback).
    pub traceback: &'a str,
    /// Whether a value follows that is the cause.
    pub cause: bool,
    /// How many fields, each a key and a value, follow after that.
    pub fields: usize,
}

/// A [`SourcePosition`] inside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionHead<'a> {
    /// See [`SourcePosition::file`].
    pub file: &'a str,
    /// See [`SourcePosition::line`].
    pub line: u32,
    /// See [`SourcePosition::column`].
    pub column: u32,
}

impl PositionHead<'_> {
    /// The same position with a text of its own.
    #[must_use]
    pub fn to_owned(&self) -> SourcePosition {
        SourcePosition {
            file: self.file.to_owned(),
            line: self.line,
            column: self.column,
        }
    }
}

impl<'a> From<&'a SourcePosition> for PositionHead<'a> {
    fn from(position: &'a SourcePosition) -> Self {
        PositionHead {
            file: &position.file,
            line: position.line,
            column: position.column,
        }
    }
}

/// What a message says of a handle, before its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleHead {
    /// See [`Handle::kind`](crate::value::Handle::kind).
    pub kind: crate::value::HandleKind,
    /// See [`Handle::object`](crate::value::Handle::object).
    pub object: Option<crate::value::RawHandle>,
    /// See [`Handle::fd`](crate::value::Handle::fd).
    pub fd: Option<u32>,
    /// How many attributes follow.
    pub attributes: usize,
}

/// Makes a message of a value.
///
/// # Errors
/// [`WireError::TooDeep`].
pub fn encode(value: &Value) -> Result<Vec<u8>, WireError> {
    let mut writer = Writer::new();
    writer.value(value)?;
    Ok(writer.into_bytes())
}

/// The value of a message, which may be any bytes at all.
///
/// # Errors
/// What the bytes violate.
pub fn decode(message: &[u8]) -> Result<Value, WireError> {
    let mut reader = Reader::new(message)?;
    let value = reader.value()?;
    reader.finish()?;
    Ok(value)
}
