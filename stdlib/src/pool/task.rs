//! The messages between a pool and its workers: tasks one way, reports the other.
//!
//! A task is its id, its [`Shape`], the function and the arguments; a report is the task's id and what came of it. The function is a
//! message in the message, so that a worker recognises one that it has seen by its bytes alone.
//!
//! Invariant: what [`write_call`] and [`write_chunk`] write is what [`Task::read`] reads; what [`write_report`] writes is what
//! [`Report::read`] reads.

use crate::convert::{Decoder, Encoder, References};
use crate::core_error::from_wire;
use crate::error::{Kind, Result, raise};
use mphost_core::session::ObjRef;
use mphost_core::wire::{Reader, Token};
use rhai::{Array, Dynamic, FnPtr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What came of one call: its value, or what it threw.
pub(super) type Outcome = std::result::Result<Dynamic, Dynamic>;

/// How a task's arguments are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One call with these arguments.
    Call,
    /// One call for each item; the values, or the first error.
    Map,
    /// The same; each item is an array of arguments.
    Starmap,
    /// One call for each item; value or error for each.
    Each,
}

impl Shape {
    const ALL: [Shape; 4] = [Shape::Call, Shape::Map, Shape::Starmap, Shape::Each];

    fn number(self) -> i64 {
        self as i64
    }
}

/// A function as it travels.
#[derive(Debug)]
pub(super) struct Function {
    name: String,
    bytes: Vec<u8>,
    objects: Vec<ObjRef>,
    fds: Vec<OwnedFd>,
    /// What the message only names, since each task has it again.
    _pinned: Vec<Dynamic>,
}

impl Function {
    /// Writes a function down.
    ///
    /// # Errors
    /// `PicklingError` where something that it has captured can't travel.
    pub(super) fn new(pointer: &FnPtr) -> Result<Self> {
        let mut encoder = Encoder::new();
        encoder.repeat();
        encoder.value_at("func", &Dynamic::from(pointer.clone()))?;
        let name = match pointer.fn_name() {
            closure if closure.starts_with("anon$") => "a closure".to_owned(),
            native if crate::convert::native_named(native).is_some() => {
                format!("'{}'", native.replace("__", "::"))
            }
            name => format!("'{name}'"),
        };
        Ok(Self {
            name,
            bytes: encoder.bytes().to_vec(),
            objects: encoder.objects().to_vec(),
            fds: duplicates(&encoder.borrowed_fds()?)?,
            _pinned: encoder.pinned().to_vec(),
        })
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The session objects that it has captured.
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjRef> {
        self.objects.iter()
    }

    /// The descriptors that it has captured: they travel behind those of the arguments.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd)
    }
}

/// Descriptors that live as long as a message may be sent again.
///
/// # Errors
/// `OSError` where there is no room for them.
pub(super) fn duplicates(fds: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>> {
    fds.iter()
        .map(|fd| {
            fd.try_clone_to_owned()
                .map_err(|e| crate::core_error::from_io(&e, "dup", None).into())
        })
        .collect()
}

/// Writes a task of one call; `kwds` is `()` or the map that follows the arguments.
///
/// # Errors
/// `PicklingError` with the path to what can't travel.
pub(super) fn write_call(
    encoder: &mut Encoder,
    id: u64,
    function: &Function,
    args: &Dynamic,
    kwds: &Dynamic,
) -> Result<()> {
    head(encoder, id, Shape::Call, function);
    encoder.value_at("args", args)?;
    encoder.value_at("kwds", kwds)
}

/// Writes a task of one call for each item; `first` is the first one's place in the input.
///
/// # Errors
/// `PicklingError` with the path to what can't travel.
pub(super) fn write_chunk(
    encoder: &mut Encoder,
    id: u64,
    shape: Shape,
    function: &Function,
    first: usize,
    items: &[Dynamic],
) -> Result<()> {
    head(encoder, id, shape, function);
    encoder
        .writer()
        .begin_array(items.len())
        .map_err(|e| from_wire(&e))?;
    for (offset, item) in items.iter().enumerate() {
        if let Err(error) = encoder.value(item) {
            return Err(encoder.explain(&format!("items[{}]", first + offset), error));
        }
    }
    encoder.writer().end();
    Ok(())
}

fn head(encoder: &mut Encoder, id: u64, shape: Shape, function: &Function) {
    let writer = encoder.writer();
    writer.int(id.cast_signed());
    writer.int(shape.number());
    writer.int(function.fds.len().try_into().unwrap_or(i64::MAX));
    writer.blob(&function.bytes);
}

/// The id with which a message begins; 0, which no task has, if it is malformed.
pub(super) fn id_of(message: &[u8]) -> u64 {
    match Reader::new(message).and_then(|mut reader| reader.next_token()) {
        Ok(Token::Int(id)) => id.cast_unsigned(),
        _ => 0,
    }
}

/// A task as a worker reads it.
pub(super) struct Task<'a> {
    pub(super) shape: Shape,
    /// The function's message.
    pub(super) function: &'a [u8],
    /// The descriptors that the function has captured.
    pub(super) captured: Vec<OwnedFd>,
    decoder: Decoder<'a>,
}

impl<'a> Task<'a> {
    /// Reads all but the arguments; `fds` came beside the message.
    ///
    /// # Errors
    /// Where the message is malformed.
    pub(super) fn read(message: &'a [u8], mut fds: Vec<OwnedFd>) -> Result<Self> {
        let mut reader = Reader::new(message).map_err(|e| from_wire(&e))?;
        let mut next = || reader.next_token().map_err(|e| from_wire(&e));
        let (Token::Int(_), Token::Int(shape), Token::Int(captured), Token::Blob(function)) =
            (next()?, next()?, next()?, next()?)
        else {
            return Err(malformed());
        };
        let shape = Shape::ALL
            .into_iter()
            .find(|known| known.number() == shape)
            .ok_or_else(malformed)?;
        let own = usize::try_from(captured)
            .ok()
            .and_then(|captured| fds.len().checked_sub(captured))
            .ok_or_else(malformed)?;
        let captured = fds.split_off(own);
        Ok(Self {
            shape,
            function,
            captured,
            decoder: Decoder::over(reader, fds, References::Claim),
        })
    }

    /// The arguments of one call.
    ///
    /// # Errors
    /// Where something in them can't be made in this process.
    pub(super) fn arguments(&mut self) -> Result<Array> {
        let mut args = self.items()?;
        let kwds = self.decoder.value()?;
        if !kwds.is_unit() {
            args.push(kwds);
        }
        Ok(args)
    }

    /// The items of a chunk.
    ///
    /// # Errors
    /// As [`Task::arguments`].
    pub(super) fn items(&mut self) -> Result<Array> {
        self.decoder
            .value()?
            .try_cast::<Array>()
            .ok_or_else(malformed)
    }
}

/// Reads a function's message.
///
/// # Errors
/// Where this process doesn't have the function, or can't make what it has captured.
pub(super) fn read_function(message: &[u8], fds: Vec<OwnedFd>) -> Result<FnPtr> {
    Decoder::new(message, fds, References::Claim)?
        .only_value()?
        .try_cast::<FnPtr>()
        .ok_or_else(malformed)
}

fn malformed() -> crate::error::Error {
    raise(Kind::RuntimeError, "a pool's message is malformed")
}

/// What came of a task.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// One call's value, or what was thrown.
    One(Outcome),
    /// The values of a chunk.
    Values(Array),
    /// Value or error of each call of a chunk.
    Each(Vec<Outcome>),
    /// The worker's initializer threw this; the report is of no task.
    InitializerFailed(Dynamic),
}

const VALUE: i64 = 0;
const ERROR: i64 = 1;
const VALUES: i64 = 2;
const EACH: i64 = 3;
const INITIALIZER_FAILED: i64 = 4;

/// Writes a report.
///
/// # Errors
/// `PicklingError` with the path to what can't travel, which begins with `result` or `error`.
pub(super) fn write_report(encoder: &mut Encoder, id: u64, report: &Report) -> Result<()> {
    encoder.writer().int(id.cast_signed());
    match report {
        Report::One(Ok(value)) => {
            encoder.writer().int(VALUE);
            encoder.value_at("result", value)?;
        }
        Report::One(Err(error)) => {
            encoder.writer().int(ERROR);
            encoder.value_at("error", error)?;
        }
        Report::InitializerFailed(error) => {
            encoder.writer().int(INITIALIZER_FAILED);
            encoder.value_at("error", error)?;
        }
        Report::Values(values) => {
            encoder.writer().int(VALUES);
            encoder
                .writer()
                .begin_array(values.len())
                .map_err(|e| from_wire(&e))?;
            for value in values {
                encoder.value_at("result", value)?;
            }
            encoder.writer().end();
        }
        Report::Each(outcomes) => {
            encoder.writer().int(EACH);
            encoder
                .writer()
                .int(outcomes.len().try_into().unwrap_or(i64::MAX));
            for outcome in outcomes {
                encoder.writer().bool(outcome.is_ok());
                match outcome {
                    Ok(value) => encoder.value_at("result", value)?,
                    Err(error) => encoder.value_at("error", error)?,
                }
            }
        }
    }
    Ok(())
}

impl Report {
    /// Reads a report; `fds` came beside it.
    ///
    /// # Errors
    /// Where something in it can't be made in this process.
    pub(super) fn read(message: &[u8], fds: Vec<OwnedFd>) -> Result<Self> {
        let mut decoder = Decoder::new(message, fds, References::Claim)?;
        let number = |decoder: &mut Decoder<'_>| -> Result<i64> {
            match decoder.reader().next_token().map_err(|e| from_wire(&e))? {
                Token::Int(number) => Ok(number),
                _ => Err(malformed()),
            }
        };
        number(&mut decoder)?;
        Ok(match number(&mut decoder)? {
            VALUE => Report::One(Ok(decoder.only_value()?)),
            ERROR => Report::One(Err(decoder.only_value()?)),
            INITIALIZER_FAILED => Report::InitializerFailed(decoder.only_value()?),
            VALUES => Report::Values(
                decoder
                    .only_value()?
                    .try_cast::<Array>()
                    .ok_or_else(malformed)?,
            ),
            EACH => {
                let mut outcomes = Vec::new();
                for _ in 0..number(&mut decoder)? {
                    let fine = decoder.value()?.as_bool().map_err(|_| malformed())?;
                    let value = decoder.value()?;
                    outcomes.push(if fine { Ok(value) } else { Err(value) });
                }
                Report::Each(outcomes)
            }
            _ => return Err(malformed()),
        })
    }
}
