//! Blocks: plain shared memory, what values and arrays are made of.
//!
//! A small block lies in its entry, a larger one in pages of its own. Elements of 1, 2, 4 and
//! 8 bytes at multiples of their size are read and written whole; several processes may do so at once, and which
//! of them is last wins. Everything else is bytes.

use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::BODY_WORDS;
use crate::session::pages::{self, Run};
use crate::session::{ObjRef, ObjectKind, objects, session};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Words of the body before an inline block: length, run.
const HEAD_WORDS: usize = 2;
/// The longest block that lies in its entry.
const INLINE: usize = (BODY_WORDS - HEAD_WORDS) * 8;

/// A block of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    object: ObjRef,
    base: *mut u8,
    len: usize,
}

mod sealed {
    /// Numbers that a block can hold, by their bits.
    pub trait Element: Copy {
        /// Bytes of one.
        const SIZE: usize;
        /// Reads one whole.
        ///
        /// # Safety
        /// `at` is valid for reads of `SIZE` bytes.
        unsafe fn load(at: *mut u8) -> Self;
        /// Writes one whole.
        ///
        /// # Safety
        /// `at` is valid for writes of `SIZE` bytes.
        unsafe fn store(at: *mut u8, value: Self);
    }
}
use sealed::Element;

macro_rules! elements {
    ($($type:ty as $bits:ty, $atomic:ty;)*) => {$(
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            unsafe fn load(at: *mut u8) -> Self {
                if at.cast::<$atomic>().is_aligned() {
                    // SAFETY: valid by the caller, aligned; shared memory is only used through
                    // atomics and copies.
                    let bits = unsafe { (*at.cast::<$atomic>()).load(Relaxed) };
                    Self::from_ne_bytes(bits.to_ne_bytes())
                } else {
                    // SAFETY: valid by the caller; any bytes are a number.
                    unsafe { at.cast::<Self>().read_unaligned() }
                }
            }
            unsafe fn store(at: *mut u8, value: Self) {
                if at.cast::<$atomic>().is_aligned() {
                    let bits = <$bits>::from_ne_bytes(value.to_ne_bytes());
                    // SAFETY: as in `load`.
                    unsafe { (*at.cast::<$atomic>()).store(bits, Relaxed) };
                } else {
                    // SAFETY: valid by the caller.
                    unsafe { at.cast::<Self>().write_unaligned(value) };
                }
            }
        }
    )*};
}
elements! {
    u8 as u8, AtomicU8; i8 as u8, AtomicU8;
    u16 as u16, AtomicU16; i16 as u16, AtomicU16;
    u32 as u32, AtomicU32; i32 as u32, AtomicU32; f32 as u32, AtomicU32;
    u64 as u64, AtomicU64; i64 as u64, AtomicU64; f64 as u64, AtomicU64;
}

impl Block {
    /// A new block of `len` bytes, all 0.
    ///
    /// # Errors
    /// `ObjectTableFull`; `OutOfMemory`.
    pub fn create(len: usize, position: Position) -> Result<Self> {
        Self::create_as(ObjectKind::Block, len, position)
    }

    /// [`Block::create`] under another kind ([`ObjectKind::Pool`], [`ObjectKind::Other`]).
    ///
    /// # Errors
    /// As [`Block::create`]; `Type` for a kind that is no plain memory.
    pub fn create_as(kind: ObjectKind, len: usize, position: Position) -> Result<Self> {
        if !matches!(
            kind,
            ObjectKind::Block | ObjectKind::Pool | ObjectKind::Other
        ) {
            return Err(CoreError::Type(format!("{kind:?} is no plain memory")));
        }
        let object = objects::create(kind, position, |entry| {
            entry.body[0].store(len as u64, Relaxed);
        })?;
        if len > INLINE {
            let session = session();
            let run = pages::allocate(session, object.index(), pages::needed(len)?, None)?;
            if let Some(base) = session
                .region()
                .bytes(session.page_offset(run.first), run.bytes())
            {
                // SAFETY: the run was just allocated for this object, which nobody else knows yet.
                unsafe { base.write_bytes(0, run.bytes()) };
            }
            object.entry()?.body[1].store(run.to_u64(), Relaxed);
        }
        Self::from_ref(object)
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        let entry = object.expect(&[ObjectKind::Block, ObjectKind::Pool, ObjectKind::Other])?;
        let lost = || CoreError::Corrupt("a block without its memory".into());
        let session = session();
        let len = usize::try_from(entry.body[0].load(Relaxed)).map_err(|_| lost())?;
        let offset = if len <= INLINE {
            session.region().offset_of(&entry.body[HEAD_WORDS])
        } else {
            let run = Run::from_u64(entry.body[1].load(Relaxed))
                .filter(|r| r.bytes() >= len)
                .ok_or_else(lost)?;
            session.page_offset(run.first)
        };
        let base = session.region().bytes(offset, len).ok_or_else(lost)?;
        Ok(Self { object, base, len })
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        &self.object
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether its length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: usize, len: usize) -> Result<*mut u8> {
        // Inherited by fork without being granted, it may be gone.
        self.object.entry()?;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(CoreError::Value(format!(
                "bytes {offset}..{} lie outside of a block of {} bytes",
                offset.saturating_add(len),
                self.len
            )));
        }
        Ok(self.base.wrapping_add(offset))
    }

    /// Copies bytes at `offset` out.
    ///
    /// # Errors
    /// `Value` outside of the block.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let at = self.at(offset, into.len())?;
        // SAFETY: in the block (checked), and `into` is this process's own.
        unsafe { std::ptr::copy_nonoverlapping(at, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes in at `offset`.
    ///
    /// # Errors
    /// `Value` outside of the block.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        let at = self.at(offset, from.len())?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) };
        Ok(())
    }

    /// Sets `len` bytes at `offset` to `byte`.
    ///
    /// # Errors
    /// `Value` outside of the block.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<()> {
        let at = self.at(offset, len)?;
        // SAFETY: as in `read`.
        unsafe { at.write_bytes(byte, len) };
        Ok(())
    }

    /// The number at byte `offset`: u8 to u64, i8 to i64, f32 or f64.
    ///
    /// # Errors
    /// `Value` outside of the block.
    pub fn get<T: Element>(&self, offset: usize) -> Result<T> {
        let at = self.at(offset, T::SIZE)?;
        // SAFETY: in the block (checked).
        Ok(unsafe { T::load(at) })
    }

    /// Sets the number at byte `offset`.
    ///
    /// # Errors
    /// `Value` outside of the block.
    pub fn set<T: Element>(&self, offset: usize, value: T) -> Result<()> {
        let at = self.at(offset, T::SIZE)?;
        // SAFETY: in the block (checked).
        unsafe { T::store(at, value) };
        Ok(())
    }

    /// The atomic word at byte `offset`, a multiple of 8: for records that several processes keep.
    ///
    /// # Errors
    /// `Value` outside of the block or unaligned.
    pub fn atomic(&self, offset: usize) -> Result<&AtomicU64> {
        let at = self.at(offset, 8)?;
        if !offset.is_multiple_of(8) {
            return Err(CoreError::Value(format!(
                "offset {offset} is no multiple of 8"
            )));
        }
        // SAFETY: in the block (checked), aligned (a block begins at a multiple of 16), and an
        // atomic takes any bytes. The borrow keeps this process's reference, and so the memory.
        Ok(unsafe { &*at.cast::<AtomicU64>() })
    }
}
