//! The pull side: bytes into tokens.
//!
//! The bytes may be anything: cut off, flipped, made up. Each step checks what it takes against what is there, so that a reader can
//! only ever say what the bytes say or that they are wrong. Texts and blobs are borrowed from the message.

use super::{
    CallableHead, DEPTH_LIMIT, ErrorHead, HandleHead, PositionHead, VERSION, WireError, tag,
};
use crate::value::{Callable, ErrorValue, Handle, HandleKind, RawHandle, Value};

/// The next part of a message. After one that announces further parts the caller reads exactly those, and then calls
/// [`Reader::end`].
#[derive(Debug, Clone, PartialEq)]
pub enum Token<'a> {
    /// `()`.
    Unit,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// A character.
    Char(char),
    /// A text.
    Str(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
    /// A range of integers.
    Range {
        /// The first integer.
        start: i64,
        /// The last integer, or the one after it.
        end: i64,
        /// Whether `end` belongs to the range.
        inclusive: bool,
    },
    /// An array: as many values follow.
    Array(usize),
    /// A map: as many times a key ([`Reader::key`]) and a value follow.
    Map(usize),
    /// A callable: `curry` values follow.
    Callable(CallableHead<'a>),
    /// An error: its cause, if it has one, and then `fields` times a key and a value follow.
    /// In a box, since it is by far the largest token and the rarest: all others are copied around with its size.
    Error(Box<ErrorHead<'a>>),
    /// A handle: `attributes` values follow.
    Handle(HandleHead),
}

/// Reads one message.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    /// A reader of `message`, which may be any bytes.
    ///
    /// # Errors
    /// [`WireError::Version`], [`WireError::Truncated`] if there is nothing.
    #[inline]
    pub fn new(message: &'a [u8]) -> Result<Self, WireError> {
        match message.split_first() {
            Some((&VERSION, rest)) => Ok(Reader { rest, depth: 0 }),
            Some((&version, _)) => Err(WireError::Version(version)),
            None => Err(WireError::Truncated),
        }
    }

    /// How many bytes the blob has that is all of `message`, at its end; none if it is anything else.
    #[must_use]
    pub fn lone_blob(message: &'a [u8]) -> Option<usize> {
        let mut reader = Self::new(message).ok()?;
        let is_blob = reader.byte().ok()? == tag::BLOB;
        let length = is_blob.then(|| reader.bytes())?.ok()?.len();
        reader.rest.is_empty().then_some(length)
    }

    /// How many bytes of the message are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// For how many elements of type `T` room may be reserved where the message announces `length` of them: never more memory than
    /// the bytes that are there take up.
    #[must_use]
    pub fn capacity<T>(&self, length: usize) -> usize {
        length.min(self.rest.len() / size_of::<T>().max(1))
    }

    /// The next value, or the head of one.
    ///
    /// # Errors
    /// What the bytes violate. The reader is of no use then.
    #[inline]
    pub fn next_token(&mut self) -> Result<Token<'a>, WireError> {
        let tag = self.byte()?;
        if tag >= tag::SMALL_INT {
            return Ok(Token::Int(
                i64::from(tag - tag::SMALL_INT) + tag::SMALL_INT_MIN,
            ));
        }
        Ok(match tag {
            tag::INT16 => Token::Int(i16::from_le_bytes(self.array()?).into()),
            tag::INT32 => Token::Int(i32::from_le_bytes(self.array()?).into()),
            tag::INT64 => Token::Int(i64::from_le_bytes(self.array()?)),
            tag::STR => Token::Str(self.text()?),
            _ => return self.other_token(tag),
        })
    }

    /// The tokens that aren't worth a place in the code of every caller.
    #[inline(never)]
    fn other_token(&mut self, tag: u8) -> Result<Token<'a>, WireError> {
        Ok(match tag {
            tag::UNIT => Token::Unit,
            tag::FALSE => Token::Bool(false),
            tag::TRUE => Token::Bool(true),
            tag::FLOAT => Token::Float(f64::from_bits(u64::from_le_bytes(self.array()?))),
            tag::CHAR => {
                let number = u32::from_le_bytes(self.array()?);
                Token::Char(char::from_u32(number).ok_or(WireError::BadChar(number))?)
            }
            tag::BLOB => Token::Blob(self.bytes()?),
            tag::ARRAY => {
                self.begin()?;
                Token::Array(self.count(1)?)
            }
            tag::MAP => {
                self.begin()?;
                Token::Map(self.count(2)?)
            }
            tag::RANGE => Token::Range {
                start: i64::from_le_bytes(self.array()?),
                end: i64::from_le_bytes(self.array()?),
                inclusive: self.flags(1)? == 1,
            },
            tag::CALLABLE => Token::Callable(self.callable_head()?),
            tag::ERROR => Token::Error(Box::new(self.error_head()?)),
            tag::HANDLE => Token::Handle(self.handle_head()?),
            _ => return Err(WireError::UnknownTag(tag)),
        })
    }

    /// The key of a map's next value, or the name of an error's next field.
    ///
    /// # Errors
    /// What the bytes violate.
    #[inline]
    pub fn key(&mut self) -> Result<&'a str, WireError> {
        self.text()
    }

    /// Leaves the container entered last; its announced parts have been read.
    #[inline]
    pub fn end(&mut self) {
        debug_assert!(self.depth > 0, "no container of the message is open");
        self.depth = self.depth.saturating_sub(1);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WireError::Trailing`] if the message goes on.
    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            trailing => Err(WireError::Trailing(trailing)),
        }
    }

    /// The next value with all its parts.
    ///
    /// # Errors
    /// What the bytes violate.
    pub fn value(&mut self) -> Result<Value, WireError> {
        Ok(match self.next_token()? {
            Token::Unit => Value::Unit,
            Token::Bool(value) => Value::Bool(value),
            Token::Int(value) => Value::Int(value),
            Token::Float(value) => Value::Float(value),
            Token::Char(value) => Value::Char(value),
            Token::Str(value) => Value::Str(value.to_owned()),
            Token::Blob(value) => Value::Blob(value.to_owned()),
            Token::Range {
                start,
                end,
                inclusive,
            } => Value::Range {
                start,
                end,
                inclusive,
            },
            Token::Array(length) => {
                let values = self.values(length)?;
                self.end();
                Value::Array(values)
            }
            Token::Map(length) => {
                let entries = self.entries(length)?;
                self.end();
                Value::Map(entries)
            }
            Token::Callable(head) => {
                let curry = self.values(head.curry)?;
                self.end();
                Value::from(Callable {
                    name: head.name.to_owned(),
                    native: head.native,
                    module: head.module.map(str::to_owned),
                    curry,
                })
            }
            Token::Error(head) => {
                let cause = if head.cause {
                    Some(self.value()?)
                } else {
                    None
                };
                let fields = self.entries(head.fields)?;
                self.end();
                Value::from(ErrorValue {
                    class: head.class.to_owned(),
                    message: head.message.to_owned(),
                    position: head.position.map(|position| position.to_owned()),
                    traceback: head.traceback.to_owned(),
                    cause,
                    fields,
                })
            }
            Token::Handle(head) => {
                let attributes = self.values(head.attributes)?;
                self.end();
                Value::from(Handle {
                    kind: head.kind,
                    object: head.object,
                    fd: head.fd,
                    attributes,
                })
            }
        })
    }

    fn values(&mut self, length: usize) -> Result<Vec<Value>, WireError> {
        let mut values = Vec::with_capacity(self.capacity::<Value>(length));
        for _ in 0..length {
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn entries(&mut self, length: usize) -> Result<Vec<(String, Value)>, WireError> {
        let mut entries = Vec::with_capacity(self.capacity::<(String, Value)>(length));
        for _ in 0..length {
            entries.push((self.key()?.to_owned(), self.value()?));
        }
        Ok(entries)
    }

    #[inline(never)]
    fn callable_head(&mut self) -> Result<CallableHead<'a>, WireError> {
        self.begin()?;
        let flags = self.flags(tag::CALLABLE_NATIVE | tag::CALLABLE_MODULE)?;
        Ok(CallableHead {
            native: flags & tag::CALLABLE_NATIVE != 0,
            name: self.text()?,
            module: if flags & tag::CALLABLE_MODULE != 0 {
                Some(self.text()?)
            } else {
                None
            },
            curry: self.count(1)?,
        })
    }

    #[inline(never)]
    fn error_head(&mut self) -> Result<ErrorHead<'a>, WireError> {
        self.begin()?;
        let flags = self.flags(tag::ERROR_POSITION | tag::ERROR_CAUSE)?;
        Ok(ErrorHead {
            cause: flags & tag::ERROR_CAUSE != 0,
            class: self.text()?,
            message: self.text()?,
            position: if flags & tag::ERROR_POSITION != 0 {
                Some(PositionHead {
                    file: self.text()?,
                    line: self.small_number()?,
                    column: self.small_number()?,
                })
            } else {
                None
            },
            traceback: self.text()?,
            fields: self.count(2)?,
        })
    }

    #[inline(never)]
    fn handle_head(&mut self) -> Result<HandleHead, WireError> {
        self.begin()?;
        let kind = self.byte()?;
        let kind = HandleKind::from_u8(kind).ok_or(WireError::UnknownHandleKind(kind))?;
        let flags = self.flags(tag::HANDLE_OBJECT | tag::HANDLE_FD)?;
        Ok(HandleHead {
            kind,
            object: if flags & tag::HANDLE_OBJECT != 0 {
                Some(RawHandle {
                    index: self.small_number()?,
                    generation: self.small_number()?,
                })
            } else {
                None
            },
            fd: if flags & tag::HANDLE_FD != 0 {
                Some(self.small_number()?)
            } else {
                None
            },
            attributes: self.count(1)?,
        })
    }

    #[inline]
    fn begin(&mut self) -> Result<(), WireError> {
        if self.depth == DEPTH_LIMIT {
            return Err(WireError::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, WireError> {
        let (&byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A byte of which only the bits of `known` may be set.
    fn flags(&mut self, known: u8) -> Result<u8, WireError> {
        match self.byte()? {
            flags if flags & !known == 0 => Ok(flags),
            flags => Err(WireError::UnknownFlags(flags)),
        }
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.count(1)?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn text(&mut self) -> Result<&'a str, WireError> {
        str::from_utf8(self.bytes()?).map_err(|_| WireError::BadText)
    }

    /// A number of parts, each of which takes `least` bytes or more of what is left.
    #[inline]
    fn count(&mut self, least: usize) -> Result<usize, WireError> {
        let claimed = self.number()?;
        let remaining = self.rest.len();
        match usize::try_from(claimed) {
            Ok(count) if count <= remaining / least => Ok(count),
            _ => Err(WireError::BadLength { claimed, remaining }),
        }
    }

    fn small_number(&mut self) -> Result<u32, WireError> {
        let claimed = self.number()?;
        u32::try_from(claimed).map_err(|_| WireError::BadLength {
            claimed,
            remaining: self.rest.len(),
        })
    }

    #[inline]
    fn number(&mut self) -> Result<u64, WireError> {
        let first = self.byte()?;
        Ok(match first {
            tag::TWO_BYTES => u16::from_le_bytes(self.array()?).into(),
            tag::FOUR_BYTES => u32::from_le_bytes(self.array()?).into(),
            tag::EIGHT_BYTES => u64::from_le_bytes(self.array()?),
            small if u64::from(small) <= tag::ONE_BYTE_MAX => small.into(),
            unknown => return Err(WireError::UnknownTag(unknown)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::Reader;

    #[test]
    fn a_lone_blob_is_told_from_anything_else() {
        let mut writer = Writer::new();
        writer.blob(&[7; 300]);
        assert_eq!(Reader::lone_blob(writer.as_bytes()), Some(300));
        assert!(writer.as_bytes().ends_with(&[7; 300]));
        for length in 0..writer.as_bytes().len() {
            assert_eq!(Reader::lone_blob(&writer.as_bytes()[..length]), None);
        }
        writer.unit();
        assert_eq!(Reader::lone_blob(writer.as_bytes()), None);
        writer.clear();
        writer.str("text");
        assert_eq!(Reader::lone_blob(writer.as_bytes()), None);
    }
}
