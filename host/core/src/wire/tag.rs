//! The bytes that begin a value, and the encoding of lengths. Writer and reader agree through this file alone.
//!
//! | tag | value | what follows |
//! |---|---|---|
//! | 0 | unit | |
//! | 1, 2 | false, true | |
//! | 3, 4, 5 | integer | 2, 4 or 8 bytes |
//! | 6 | float | 8 bytes |
//! | 7 | char | 4 bytes |
//! | 8, 9 | string, blob | length, bytes |
//! | 10 | array | length, values |
//! | 11 | map | length, then string and value in turn |
//! | 12 | range | start, end (8 bytes each), 1 byte: inclusive |
//! | 13 | callable | flags, name, \[module\], length, values |
//! | 14 | error | flags, class, message, \[file, line, column\], traceback, number of fields, \[cause\], fields |
//! | 15 | handle | kind, flags, \[index, generation\], \[fd\], length, values |
//! | 64 … 255 | integers -32 … 159 | |
//!
//! Numbers are little-endian. Lengths, lines, columns, indexes and generations are written as bincode's variable-length integers are:
//! below 251 in one byte, else 251, 252 or 253 and then 2, 4 or 8 bytes. A name inside a head is a length and bytes, without a tag.

pub(super) const UNIT: u8 = 0;
pub(super) const FALSE: u8 = 1;
pub(super) const TRUE: u8 = 2;
pub(super) const INT16: u8 = 3;
pub(super) const INT32: u8 = 4;
pub(super) const INT64: u8 = 5;
pub(super) const FLOAT: u8 = 6;
pub(super) const CHAR: u8 = 7;
pub(super) const STR: u8 = 8;
pub(super) const BLOB: u8 = 9;
pub(super) const ARRAY: u8 = 10;
pub(super) const MAP: u8 = 11;
pub(super) const RANGE: u8 = 12;
pub(super) const CALLABLE: u8 = 13;
pub(super) const ERROR: u8 = 14;
pub(super) const HANDLE: u8 = 15;

/// The first of the tags that are an integer themselves.
pub(super) const SMALL_INT: u8 = 64;
/// The integer that [`SMALL_INT`] stands for.
pub(super) const SMALL_INT_MIN: i64 = -32;
/// The integer that tag 255 stands for.
pub(super) const SMALL_INT_MAX: i64 = SMALL_INT_MIN + (u8::MAX - SMALL_INT) as i64;

/// The largest number that is written as one byte.
pub(super) const ONE_BYTE_MAX: u64 = 250;
pub(super) const TWO_BYTES: u8 = 251;
pub(super) const FOUR_BYTES: u8 = 252;
pub(super) const EIGHT_BYTES: u8 = 253;

/// Flags of a callable.
pub(super) const CALLABLE_NATIVE: u8 = 1;
pub(super) const CALLABLE_MODULE: u8 = 2;

/// Flags of an error.
pub(super) const ERROR_POSITION: u8 = 1;
pub(super) const ERROR_CAUSE: u8 = 2;

/// Flags of a handle.
pub(super) const HANDLE_OBJECT: u8 = 1;
pub(super) const HANDLE_FD: u8 = 2;
