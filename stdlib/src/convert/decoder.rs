//! Messages into a script's values.
//!
//! Problem: a message comes from another process, which may be another program, or have died in the middle; whatever it holds, it makes a value
//! or an error.

use super::{TABLES, native_named};
use crate::core_error::from_wire;
use crate::error::{ErrorDetail, Kind, Result, ScriptError, raise};
use mphost_core::session::{ObjRef, session};
use mphost_core::wire::{CallableHead, ErrorHead, HandleHead, Reader, Token};
use rhai::{Array, Dynamic, FnPtr, Identifier, Map};
use std::os::fd::OwnedFd;

/// A map of so many entries is made one by one.
const FEW: usize = 16;

/// How the objects in a message become this process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// The message keeps its references; the receiver takes further ones (an item of a queue).
    Claim,
    /// The message's references become the receiver's (a message over a pipe).
    Adopt,
    /// The parent granted them before this process started.
    Granted,
    /// The message may come from another program, whose objects mean nothing here.
    Foreign,
}

/// Reads values out of one message.
pub struct Decoder<'a> {
    reader: Reader<'a>,
    fds: Vec<Option<OwnedFd>>,
    references: References,
}

impl<'a> Decoder<'a> {
    /// Reads a message; `fds` are the descriptors that came beside it.
    ///
    /// # Errors
    /// Where the bytes are no message.
    pub fn new(bytes: &'a [u8], fds: Vec<OwnedFd>, references: References) -> Result<Self> {
        let reader = Reader::new(bytes).map_err(|e| from_wire(&e))?;
        Ok(Self {
            reader,
            fds: fds.into_iter().map(Some).collect(),
            references,
        })
    }

    /// The value that is all of the message.
    ///
    /// # Errors
    /// As [`Decoder::value`], and where something follows it.
    pub fn only_value(mut self) -> Result<Dynamic> {
        let value = self.value()?;
        self.reader.finish().map_err(|e| from_wire(&e))?;
        Ok(value)
    }

    /// Reads the rest of a message whose head the caller has read itself.
    #[must_use]
    pub fn over(reader: Reader<'a>, fds: Vec<OwnedFd>, references: References) -> Self {
        Self {
            reader,
            fds: fds.into_iter().map(Some).collect(),
            references,
        }
    }

    /// Whether the message may come from another program.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.references == References::Foreign
    }

    /// The core's reader, for what is no script value.
    pub fn reader(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }

    /// The next value.
    ///
    /// # Errors
    /// Where the bytes are malformed, or name an object that is gone or a function that this process doesn't have.
    pub fn value(&mut self) -> Result<Dynamic> {
        let token = self.reader.next_token().map_err(|e| from_wire(&e))?;
        Ok(match token {
            Token::Unit => Dynamic::UNIT,
            Token::Bool(value) => value.into(),
            Token::Int(value) => value.into(),
            Token::Float(value) => value.into(),
            Token::Char(value) => value.into(),
            Token::Str(text) => text.into(),
            Token::Blob(bytes) => Dynamic::from_blob(bytes.to_vec()),
            Token::Range {
                start,
                end,
                inclusive: false,
            } => Dynamic::from(start..end),
            Token::Range {
                start,
                end,
                inclusive: true,
            } => Dynamic::from(start..=end),
            Token::Array(length) => {
                let mut array = Array::with_capacity(self.reader.capacity::<Dynamic>(length));
                for _ in 0..length {
                    array.push(self.value()?);
                }
                self.reader.end();
                Dynamic::from_array(array)
            }
            Token::Map(length) => Dynamic::from_map(self.map(length)?),
            Token::Callable(head) => self.callable(&head)?,
            Token::Error(head) => self.error(&head)?,
            Token::Handle(head) => {
                let decode = TABLES.with_borrow(|tables| tables.decoders.get(&head.kind).copied());
                match decode {
                    Some(decode) => decode(head, self)?,
                    None => {
                        return Err(raise(
                            Kind::RuntimeError,
                            format!(
                                "a message holds a {:?}, which this process can't use",
                                head.kind
                            ),
                        ));
                    }
                }
            }
        })
    }

    fn map(&mut self, length: usize) -> Result<Map> {
        let map = if length <= FEW {
            let mut map = Map::new();
            for _ in 0..length {
                let (key, value) = self.entry()?;
                map.insert(key, value);
            }
            map
        } else {
            // They come in order, of which a map is made at once several times faster than one by one.
            let room = self.reader.capacity::<(Identifier, Dynamic)>(length);
            let mut entries = Vec::with_capacity(room);
            for _ in 0..length {
                entries.push(self.entry()?);
            }
            entries.into_iter().collect()
        };
        self.reader.end();
        Ok(map)
    }

    fn entry(&mut self) -> Result<(Identifier, Dynamic)> {
        let key = self.reader.key().map_err(|e| from_wire(&e))?;
        Ok((key.into(), self.value()?))
    }

    /// The session object of a handle, as this process's own.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn object(&mut self, head: &HandleHead) -> Result<ObjRef> {
        let Some(raw) = head.object else {
            return Err(raise(
                Kind::RuntimeError,
                "a message holds a handle without its object",
            ));
        };
        Ok(match self.references {
            References::Claim => session().claim(raw)?,
            References::Adopt => session().adopt(raw)?,
            References::Granted => session().adopt_granted(raw)?,
            References::Foreign => {
                return Err(raise(
                    Kind::RuntimeError,
                    format!(
                        "a {:?} belongs to its program: it means nothing in another one",
                        head.kind
                    ),
                ));
            }
        })
    }

    /// The descriptor of a handle; it can be taken once.
    ///
    /// # Errors
    /// Where it didn't come.
    pub fn fd(&mut self, head: &HandleHead) -> Result<OwnedFd> {
        head.fd
            .and_then(|index| self.fds.get_mut(index as usize))
            .and_then(Option::take)
            .ok_or_else(|| {
                raise(
                    Kind::RuntimeError,
                    "a message holds a connection whose descriptor didn't come",
                )
            })
    }

    fn callable(&mut self, head: &CallableHead<'_>) -> Result<Dynamic> {
        let mut pointer = find_function(head.name, head.native)?;
        for _ in 0..head.curry {
            let captured = self.value()?;
            pointer.add_curry(captured);
        }
        self.reader.end();
        Ok(Dynamic::from(pointer))
    }

    fn error(&mut self, head: &ErrorHead<'_>) -> Result<Dynamic> {
        let cause = if head.cause {
            self.value()?
        } else {
            Dynamic::UNIT
        };
        let mut fields = Map::new();
        for _ in 0..head.fields {
            let name = self.reader.key().map_err(|e| from_wire(&e))?;
            fields.insert(name.into(), self.value()?);
        }
        self.reader.end();
        Ok(Dynamic::from(ScriptError::from_detail(ErrorDetail {
            kind: Kind::from_name(head.class).unwrap_or(Kind::RemoteError),
            message: head.message.to_owned(),
            position: head.position.map(|p| p.file.to_owned()).unwrap_or_default(),
            traceback: head.traceback.to_owned(),
            cause,
            fields,
        })))
    }
}

fn find_function(name: &str, native: bool) -> Result<FnPtr> {
    let known = if native {
        native_named(name)
    } else {
        // It may have been typed at a prompt after this process began.
        crate::runtime::refresh()?;
        // Several functions of one name differ in their parameters: the call decides, so the plain name is right.
        TABLES.with_borrow(|tables| match tables.scripts.get(name).map(Vec::as_slice) {
            Some([only]) => Some(FnPtr::from(only.clone())),
            _ => None,
        })
    };
    match known {
        Some(pointer) => Ok(pointer),
        None => FnPtr::new(name).map_err(|_| {
            raise(
                Kind::NameError,
                format!("function '{name}' is not defined in this process"),
            )
        }),
    }
}
