//! Elements of one type in a block of shared memory: what all four shared types read and write.
//!
//! Invariant: `len` elements of `code` fit into the block; every index is checked against `len` before the block is touched.

use super::typecode::TypeCode;
use crate::convert::{Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::given::{Given, fingerprint};
use crate::handle;
use mphost_core::session::ObjRef;
use mphost_core::shared::Block;
use mphost_core::value::HandleKind;
use rhai::{Array, Dynamic, Position};
use std::ops::Range;

/// Elements in shared memory.
pub(crate) struct Cells {
    pub(super) block: Block,
    pub(super) code: TypeCode,
    pub(super) len: usize,
    given: Given,
}

impl Cells {
    /// `len` new elements, all zero.
    pub(super) fn create(
        code: TypeCode,
        len: usize,
        position: mphost_core::position::Position,
    ) -> Result<Self> {
        let bytes = len
            .checked_mul(code.size())
            .ok_or(mphost_core::error::CoreError::OutOfMemory)?;
        Ok(Self {
            block: Block::create(bytes, position)?,
            code,
            len,
            given: Given::default(),
        })
    }

    /// All of a block.
    pub(crate) fn over(block: Block, code: TypeCode) -> Self {
        let len = block.len() / code.size();
        let given = Given::default();
        Self {
            block,
            code,
            len,
            given,
        }
    }

    /// The memory.
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Those that a message tells of: the attribute is the type code's letter.
    pub(super) fn rebuild(
        object: ObjRef,
        kind: HandleKind,
        decoder: &mut Decoder<'_>,
    ) -> Result<Self> {
        let letter = decoder.value()?;
        let letter = letter
            .read_lock::<rhai::ImmutableString>()
            .ok_or_else(|| handle::malformed(kind))?;
        let code = TypeCode::parse(&letter)?;
        Ok(Self::over(Block::from_ref(object)?, code))
    }

    pub(super) fn write_code(&self, encoder: &mut Encoder) {
        encoder
            .writer()
            .str(self.code.letter().encode_utf8(&mut [0; 4]));
    }

    /// The place of a script's index: negative ones count from the end.
    pub(crate) fn index(&self, index: i64) -> Result<usize> {
        let from_start = if index < 0 {
            index.saturating_add(self.length())
        } else {
            index
        };
        usize::try_from(from_start)
            .ok()
            .filter(|index| *index < self.len)
            .ok_or_else(|| {
                raise(
                    Kind::IndexError,
                    format!("invalid index: {index} in an array of {}", self.len),
                )
            })
    }

    #[expect(
        clippy::cast_possible_wrap,
        reason = "no block is longer than the address space's positive half"
    )]
    pub(crate) fn length(&self) -> i64 {
        self.len as i64
    }

    /// The places that a script's range means: negative ends count from the end, and it is cut off where the array ends.
    pub(crate) fn range(&self, start: i64, end: i64) -> Range<usize> {
        let start = self.clip(start);
        start..self.clip(end).max(start)
    }

    fn clip(&self, at: i64) -> usize {
        let at = if at < 0 {
            at.saturating_add(self.length())
        } else {
            at
        };
        usize::try_from(at.clamp(0, self.length())).unwrap_or(0)
    }

    /// The same for `start..=last`.
    pub(crate) fn range_inclusive(&self, start: i64, last: i64) -> Range<usize> {
        // The one behind -1 is the end, not the start.
        let end = if last == -1 {
            self.length()
        } else {
            last.saturating_add(1)
        };
        self.range(start, end)
    }

    /// One element; `at` is where the script asks for it.
    pub(crate) fn get(&self, index: i64, at: Position) -> Result {
        let index = self.index(index)?;
        let bits = self.code.load(&self.block, index)?;
        self.given.note(at, index, bits);
        self.code.decode(bits)
    }

    pub(crate) fn set(&self, index: i64, value: &Dynamic, at: Position) -> Result<()> {
        let index = self.index(index)?;
        let bits = self.code.encode(value)?;
        if self.given.is_written_back(at, index, || bits) {
            return Ok(());
        }
        self.code.store(&self.block, index, bits)
    }

    pub(crate) fn raw(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let size = self.code.size();
        let mut raw = vec![0; range.len() * size];
        self.block.read(range.start * size, &mut raw)?;
        Ok(raw)
    }

    pub(super) fn get_range(&self, range: Range<usize>, at: Position) -> Result {
        self.code.decode_all(self.give(range, at)?)
    }

    pub(crate) fn set_range(
        &self,
        range: Range<usize>,
        values: &Dynamic,
        at: Position,
    ) -> Result<()> {
        // Bytes are written from where they lie.
        if let Some(blob) = values.read_lock::<rhai::Blob>()
            && matches!(self.code, TypeCode::Char | TypeCode::UByte)
        {
            return self.write_range(range, &blob, at);
        }
        let raw = self.code.encode_all(values)?;
        self.write_range(range, &raw, at)
    }

    fn write_range(&self, range: Range<usize>, raw: &[u8], at: Position) -> Result<()> {
        let size = self.code.size();
        if raw.len() != range.len() * size {
            return Err(wrong_size(raw.len() / size, range.len()));
        }
        if self
            .given
            .is_written_back(at, range.start, || fingerprint(raw))
        {
            return Ok(());
        }
        Ok(self.block.write(range.start * size, raw)?)
    }

    /// Writes bytes at the front.
    pub(super) fn set_bytes(&self, raw: &[u8], at: Position) -> Result<()> {
        if self.given.is_written_back(at, 0, || fingerprint(raw)) {
            return Ok(());
        }
        Ok(self.block.write(0, raw)?)
    }

    /// Several elements as bytes; `at` is where the script asks for them.
    pub(crate) fn give(&self, range: Range<usize>, at: Position) -> Result<Vec<u8>> {
        let start = range.start;
        let raw = self.raw(range)?;
        self.given.note(at, start, fingerprint(&raw));
        Ok(raw)
    }

    /// Python's `start:stop:step` as places, in order.
    pub(super) fn stepped(
        &self,
        start: Option<i64>,
        stop: Option<i64>,
        step: i64,
    ) -> Result<Vec<usize>> {
        if step == 0 {
            return Err(raise(Kind::ValueError, "slice step cannot be zero"));
        }
        let length = self.length();
        // Going down, the place before the first is where to stop, and the last is where to start.
        let (low, high) = if step > 0 {
            (0, length)
        } else {
            (-1, length - 1)
        };
        let place = |at: Option<i64>, default: i64| match at {
            None => default,
            Some(at) if at < 0 => at.saturating_add(length).clamp(low, high),
            Some(at) => at.clamp(low, high),
        };
        let (first, last) = if step > 0 { (low, high) } else { (high, low) };
        let (mut at, stop) = (place(start, first), place(stop, last));
        let mut places = Vec::new();
        while if step > 0 { at < stop } else { at > stop } {
            places.push(usize::try_from(at).unwrap_or(0));
            at = at.saturating_add(step);
        }
        Ok(places)
    }

    pub(super) fn get_stepped(&self, places: &[usize]) -> Result {
        let size = self.code.size();
        let mut raw = vec![0; places.len() * size];
        for (place, into) in places.iter().zip(raw.chunks_exact_mut(size)) {
            self.block.read(place * size, into)?;
        }
        self.code.decode_all(raw)
    }

    pub(super) fn set_stepped(&self, places: &[usize], values: &Dynamic) -> Result<()> {
        let size = self.code.size();
        let raw = self.code.encode_all(values)?;
        if raw.len() != places.len() * size {
            return Err(wrong_size(raw.len() / size, places.len()));
        }
        for (place, from) in places.iter().zip(raw.chunks_exact(size)) {
            self.block.write(place * size, from)?;
        }
        Ok(())
    }

    /// All elements, always as an array.
    pub(crate) fn to_array(&self) -> Result {
        let all = self.code.decode_all(self.raw(0..self.len)?)?;
        if let Some(text) = all.read_lock::<rhai::ImmutableString>() {
            return Ok(text.chars().map(Dynamic::from).collect::<Array>().into());
        }
        if let Some(blob) = all.read_lock::<rhai::Blob>() {
            return Ok(blob
                .iter()
                .map(|byte| Dynamic::from_blob(vec![*byte]))
                .collect::<Array>()
                .into());
        }
        Ok(all)
    }

    /// What stands before the first zero of a text: `a.value` of 'c' and 'u'.
    pub(super) fn text(&self, at: Position) -> Result {
        let mut raw = self.raw(0..self.len)?;
        let size = self.code.size();
        let end = raw
            .chunks_exact(size)
            .position(|element| element.iter().all(|byte| *byte == 0))
            .unwrap_or(self.len);
        raw.truncate(end * size);
        self.given.note(at, 0, fingerprint(&raw));
        self.code.decode_all(raw)
    }

    /// Writes a text, and a zero behind it if there is room.
    pub(super) fn set_text(&self, value: &Dynamic, at: Position) -> Result<()> {
        let size = self.code.size();
        let mut raw = self.code.encode_all(value)?;
        if raw.len() > self.len * size {
            let what = if self.code == TypeCode::Char {
                "byte string"
            } else {
                "string"
            };
            return Err(raise(
                Kind::ValueError,
                format!(
                    "{what} too long: {} in an array of {}",
                    raw.len() / size,
                    self.len
                ),
            ));
        }
        if self.given.is_written_back(at, 0, || fingerprint(&raw)) {
            return Ok(());
        }
        if raw.len() < self.len * size {
            raw.resize(raw.len() + size, 0);
        }
        Ok(self.block.write(0, &raw)?)
    }
}

fn wrong_size(values: usize, places: usize) -> Error {
    raise(
        Kind::ValueError,
        format!("Can only assign sequence of same size: {values} values to {places} places"),
    )
}
