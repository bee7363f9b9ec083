//! Type codes: the C types that shared values and arrays are made of.
//!
//! Between a script's numbers and bytes in C's layout. A number that its type can't hold is an `OverflowError`, never wrapped; a value
//! of another type a `TypeError`. One value is converted by [`TypeCode::encode`] and [`TypeCode::decode`], many at once by
//! [`TypeCode::encode_all`] and [`TypeCode::decode_all`]. Bytes are in the order of the machines that this runs on: the lowest first.

use crate::api::type_name;
use crate::error::{Error, Kind, Result, raise};
use mphost_core::shared::Block;
use rhai::{Array, Blob, Dynamic, ImmutableString};

/// A type code, as in Python's `array` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the C type of its name")]
pub enum TypeCode {
    Char = b'c',
    WideChar = b'u',
    Byte = b'b',
    UByte = b'B',
    Short = b'h',
    UShort = b'H',
    Int = b'i',
    UInt = b'I',
    Long = b'l',
    ULong = b'L',
    LongLong = b'q',
    ULongLong = b'Q',
    Float = b'f',
    Double = b'd',
    Bool = b'?',
}

impl TypeCode {
    const ALL: [TypeCode; 15] = [
        TypeCode::Char,
        TypeCode::WideChar,
        TypeCode::Byte,
        TypeCode::UByte,
        TypeCode::Short,
        TypeCode::UShort,
        TypeCode::Int,
        TypeCode::UInt,
        TypeCode::Long,
        TypeCode::ULong,
        TypeCode::LongLong,
        TypeCode::ULongLong,
        TypeCode::Float,
        TypeCode::Double,
        TypeCode::Bool,
    ];

    /// The type code that a script gave.
    ///
    /// # Errors
    /// `ValueError` if there is none of that name.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|code| text.as_bytes() == [*code as u8])
            .ok_or_else(|| {
                raise(
                    Kind::ValueError,
                    format!("unknown typecode '{text}'; there are: c u b B h H i I l L q Q f d ?"),
                )
            })
    }

    /// Its letter.
    #[must_use]
    pub fn letter(self) -> char {
        char::from(self as u8)
    }

    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Char | Self::Byte | Self::UByte | Self::Bool => 1,
            Self::Short | Self::UShort => 2,
            Self::WideChar | Self::Int | Self::UInt | Self::Float => 4,
            Self::Long | Self::ULong | Self::LongLong | Self::ULongLong | Self::Double => 8,
        }
    }

    /// The name of the C type in Python's texts.
    #[must_use]
    pub fn c_name(self) -> &'static str {
        match self {
            Self::Char => "c_char",
            Self::WideChar => "c_wchar",
            Self::Byte => "c_byte",
            Self::UByte => "c_ubyte",
            Self::Short => "c_short",
            Self::UShort => "c_ushort",
            Self::Int => "c_int",
            Self::UInt => "c_uint",
            // What `long long` is called where it is as wide as `long`.
            Self::Long | Self::LongLong => "c_long",
            Self::ULong | Self::ULongLong => "c_ulong",
            Self::Float => "c_float",
            Self::Double => "c_double",
            Self::Bool => "c_bool",
        }
    }

    /// The bits of element number `index` of a block, as many as [`TypeCode::size`] says, the others 0.
    ///
    /// # Errors
    /// `ValueError` where there is no such element.
    pub fn load(self, block: &Block, index: usize) -> Result<u64> {
        let at = index * self.size();
        Ok(match self.size() {
            1 => u64::from(block.get::<u8>(at)?),
            2 => u64::from(block.get::<u16>(at)?),
            4 => u64::from(block.get::<u32>(at)?),
            _ => block.get::<u64>(at)?,
        })
    }

    /// Writes the bits of element number `index` of a block.
    ///
    /// # Errors
    /// `ValueError` where there is no such element.
    pub fn store(self, block: &Block, index: usize, bits: u64) -> Result<()> {
        let at = index * self.size();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only so many bits of an element are used"
        )]
        match self.size() {
            1 => block.set(at, bits as u8)?,
            2 => block.set(at, bits as u16)?,
            4 => block.set(at, bits as u32)?,
            _ => block.set(at, bits)?,
        }
        Ok(())
    }

    /// An element's bits as a script's value.
    ///
    /// # Errors
    /// `OverflowError` for an unsigned number that a script's integers can't hold.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "only so many bits of an element are used, and their top one is a sign where the type has one"
    )]
    pub fn decode(self, bits: u64) -> Result<Dynamic> {
        Ok(match self {
            Self::Byte => i64::from(bits as i8).into(),
            Self::Short => i64::from(bits as i16).into(),
            Self::Int => i64::from(bits as i32).into(),
            Self::UByte | Self::UShort | Self::UInt | Self::Long | Self::LongLong => {
                (bits as i64).into()
            }
            Self::ULong | Self::ULongLong => self.unsigned(bits)?,
            Self::Float => f64::from(f32::from_bits(bits as u32)).into(),
            Self::Double => f64::from_bits(bits).into(),
            Self::Bool => (bits != 0).into(),
            Self::Char => Dynamic::from_blob(vec![bits as u8]),
            Self::WideChar => wide(bits as u32).into(),
        })
    }

    /// A script's value as an element's bits.
    ///
    /// # Errors
    /// `TypeError`, `OverflowError`.
    pub fn encode(self, value: &Dynamic) -> Result<u64> {
        match self {
            Self::Byte => self.narrow::<i8>(value).map(|n| n.cast_unsigned().into()),
            Self::UByte => self.narrow::<u8>(value).map(u64::from),
            Self::Short => self.narrow::<i16>(value).map(|n| n.cast_unsigned().into()),
            Self::UShort => self.narrow::<u16>(value).map(u64::from),
            Self::Int => self.narrow::<i32>(value).map(|n| n.cast_unsigned().into()),
            Self::UInt => self.narrow::<u32>(value).map(u64::from),
            Self::Long | Self::LongLong => self.narrow::<i64>(value).map(i64::cast_unsigned),
            Self::ULong | Self::ULongLong => self.narrow::<u64>(value),
            Self::Float => {
                let wide = self.number(value)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "single precision is what the code asks for; infinity is checked"
                )]
                let single = wide as f32;
                if single.is_infinite() && wide.is_finite() {
                    return Err(raise(
                        Kind::OverflowError,
                        format!(
                            "{} is too large for typecode 'f' (c_float)",
                            crate::spelling::float(wide)
                        ),
                    ));
                }
                Ok(single.to_bits().into())
            }
            Self::Double => self.number(value).map(f64::to_bits),
            Self::Bool => match (value.as_bool(), value.as_int()) {
                (Ok(truth), _) => Ok(truth.into()),
                (_, Ok(int)) => Ok((int != 0).into()),
                _ => Err(self.wrong_type("true or false", value)),
            },
            Self::Char => self.character(value).map(u64::from),
            Self::WideChar => match letter(value) {
                Some(letter) => Ok(letter.into()),
                None => Err(self.wrong_type("one character", value)),
            },
        }
    }

    /// Many values in C's layout, from what may be written to a range of an array: an array of values, another array's bytes as a blob,
    /// a string of characters.
    ///
    /// # Errors
    /// As [`TypeCode::encode`]; `TypeError` if it is nothing of this kind.
    pub fn encode_all(self, values: &Dynamic) -> Result<Vec<u8>> {
        let size = self.size();
        if let Some(array) = values.read_lock::<Array>() {
            let mut all = Vec::with_capacity(array.len() * size);
            for value in array.iter() {
                all.extend_from_slice(&self.encode(value)?.to_le_bytes()[..size]);
            }
            return Ok(all);
        }
        if let Some(blob) = values.read_lock::<Blob>() {
            if matches!(self, Self::Char | Self::UByte) {
                return Ok(blob.clone());
            }
            return self.encode_each(blob.iter().map(|byte| i64::from(*byte)));
        }
        if let Some(text) = values.read_lock::<ImmutableString>() {
            match self {
                Self::Char => return Ok(text.as_bytes().to_vec()),
                Self::WideChar => {
                    return Ok(text
                        .chars()
                        .flat_map(|letter| u32::from(letter).to_le_bytes())
                        .collect());
                }
                _ => {}
            }
        }
        if let Some(range) = values.read_lock::<std::ops::Range<i64>>() {
            return self.encode_each(range.clone());
        }
        if let Some(range) = values.read_lock::<std::ops::RangeInclusive<i64>>() {
            return self.encode_each(range.clone());
        }
        Err(self.wrong_type("an array of values", values))
    }

    fn encode_each(self, numbers: impl Iterator<Item = i64>) -> Result<Vec<u8>> {
        let size = self.size();
        let mut all = Vec::with_capacity(numbers.size_hint().0.saturating_mul(size).min(1 << 20));
        for number in numbers {
            all.extend_from_slice(&self.encode(&number.into())?.to_le_bytes()[..size]);
        }
        Ok(all)
    }

    /// Many elements as a script has them: an array; a blob for 'c', a string for 'u'.
    ///
    /// # Errors
    /// As [`TypeCode::load`].
    pub fn decode_all(self, raw: Vec<u8>) -> Result<Dynamic> {
        macro_rules! numbers {
            ($of:ty, $make:expr) => {{
                let (chunks, _) = raw.as_chunks::<{ size_of::<$of>() }>();
                // Made in its whole length at once: what collects results can't know it, and grows.
                let mut values = Array::with_capacity(chunks.len());
                for chunk in chunks {
                    let value: Result = $make(<$of>::from_le_bytes(*chunk));
                    values.push(value?);
                }
                Ok(Dynamic::from_array(values))
            }};
        }
        match self {
            Self::Char => Ok(Dynamic::from_blob(raw)),
            Self::WideChar => {
                let (chunks, _) = raw.as_chunks::<4>();
                Ok(chunks
                    .iter()
                    .map(|chunk| wide(u32::from_le_bytes(*chunk)))
                    .collect::<String>()
                    .into())
            }
            Self::Byte => numbers!(i8, |n| Ok(i64::from(n).into())),
            Self::UByte => numbers!(u8, |n| Ok(i64::from(n).into())),
            Self::Bool => numbers!(u8, |n| Ok((n != 0).into())),
            Self::Short => numbers!(i16, |n| Ok(i64::from(n).into())),
            Self::UShort => numbers!(u16, |n| Ok(i64::from(n).into())),
            Self::Int => numbers!(i32, |n| Ok(i64::from(n).into())),
            Self::UInt => numbers!(u32, |n| Ok(i64::from(n).into())),
            Self::Long | Self::LongLong => numbers!(i64, |n| Ok(Dynamic::from(n))),
            Self::ULong | Self::ULongLong => numbers!(u64, |n| self.unsigned(n)),
            Self::Float => numbers!(f32, |n| Ok(f64::from(n).into())),
            Self::Double => numbers!(f64, |n| Ok(Dynamic::from(n))),
        }
    }

    fn narrow<T: TryFrom<i64>>(self, value: &Dynamic) -> Result<T> {
        let int = match value.as_int() {
            Ok(int) => int,
            Err(_) => i64::from(
                value
                    .as_bool()
                    .map_err(|_| self.wrong_type("a whole number", value))?,
            ),
        };
        T::try_from(int).map_err(|_| {
            let (low, high) = self.range();
            raise(
                Kind::OverflowError,
                format!(
                    "{int} is out of range for typecode '{}' ({}): {low} to {high}",
                    self.letter(),
                    self.c_name()
                ),
            )
        })
    }

    fn range(self) -> (i128, i128) {
        let bits = self.size() * 8;
        match self {
            Self::UByte | Self::UShort | Self::UInt | Self::ULong | Self::ULongLong => {
                (0, (1 << bits) - 1)
            }
            _ => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        }
    }

    fn number(self, value: &Dynamic) -> Result<f64> {
        if let Ok(float) = value.as_float() {
            return Ok(float);
        }
        #[expect(clippy::cast_precision_loss, reason = "as C and Python convert")]
        if let Ok(int) = value.as_int() {
            return Ok(int as f64);
        }
        match value.as_bool() {
            Ok(truth) => Ok(f64::from(u8::from(truth))),
            Err(_) => Err(self.wrong_type("a number", value)),
        }
    }

    fn character(self, value: &Dynamic) -> Result<u8> {
        if let Some(blob) = value.read_lock::<Blob>()
            && let [byte] = blob.as_slice()
        {
            return Ok(*byte);
        }
        if let Some(letter) = letter(value).filter(char::is_ascii) {
            return Ok(letter as u8);
        }
        if let Ok(int) = value.as_int()
            && let Ok(byte) = u8::try_from(int)
        {
            return Ok(byte);
        }
        Err(self.wrong_type(
            "one byte (a blob of length 1, an ASCII character or 0 to 255)",
            value,
        ))
    }

    fn unsigned(self, number: u64) -> Result<Dynamic> {
        i64::try_from(number).map(Dynamic::from).map_err(|_| {
            raise(
                Kind::OverflowError,
                format!(
                    "{number} in shared memory (typecode '{}') is beyond a script's integers",
                    self.letter()
                ),
            )
        })
    }

    fn wrong_type(self, expected: &str, value: &Dynamic) -> Error {
        raise(
            Kind::TypeError,
            format!(
                "typecode '{}' ({}) takes {expected}, not {}",
                self.letter(),
                self.c_name(),
                type_name(value)
            ),
        )
    }
}

/// The character of a char or of a string of one.
fn letter(value: &Dynamic) -> Option<char> {
    if let Ok(letter) = value.as_char() {
        return Some(letter);
    }
    let text = value.read_lock::<ImmutableString>()?;
    let mut letters = text.chars();
    letters.next().filter(|_| letters.next().is_none())
}

/// A wide character; what is none (another process may have written bytes) becomes the replacement character.
fn wide(number: u32) -> char {
    char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)
}
