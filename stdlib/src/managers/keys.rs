//! Keys of dicts and members of sets: hashed and compared as Python does.
//!
//! `1`, `1.0` and `true` are one key, as in Python; so are a character and the text of that character, since Python has no
//! characters. The key that came first stays as it was.
//!
//! Invariant: equal keys have equal hashes.

use crate::error::{Kind, Result, raise};
use rhai::{Array, Blob, Dynamic, ImmutableString};
use std::hash::{Hash, Hasher};

/// A value that can be a key.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Char(char),
    Str(ImmutableString),
    Blob(Box<[u8]>),
    Array(Box<[Key]>),
}

impl Key {
    /// The key that a value is.
    ///
    /// # Errors
    /// `TypeError` for what can't be one: it may change.
    pub(super) fn new(value: &Dynamic) -> Result<Key> {
        Ok(if let Some(text) = value.read_lock::<ImmutableString>() {
            Key::Str(text.clone())
        } else if let Ok(int) = value.as_int() {
            Key::Int(int)
        } else if let Ok(float) = value.as_float() {
            Key::Float(float)
        } else if let Ok(truth) = value.as_bool() {
            Key::Bool(truth)
        } else if value.is_unit() {
            Key::Unit
        } else if let Ok(letter) = value.as_char() {
            Key::Char(letter)
        } else if let Some(array) = value.read_lock::<Array>() {
            Key::Array(array.iter().map(Key::new).collect::<Result<_>>()?)
        } else if let Some(blob) = value.read_lock::<Blob>() {
            Key::Blob(blob.as_slice().into())
        } else {
            let name = crate::api::type_name(value);
            return Err(raise(
                Kind::TypeError,
                format!(
                    "unhashable type: '{name}' (a key is a number, a string, a char, a bool, a blob, () or an array of those)"
                ),
            ));
        })
    }

    /// The value that the key was made of.
    pub(super) fn value(&self) -> Dynamic {
        match self {
            Key::Unit => Dynamic::UNIT,
            Key::Bool(truth) => (*truth).into(),
            Key::Int(int) => (*int).into(),
            Key::Float(float) => (*float).into(),
            Key::Char(letter) => (*letter).into(),
            Key::Str(text) => text.clone().into(),
            Key::Blob(bytes) => Dynamic::from_blob(bytes.to_vec()),
            Key::Array(parts) => Dynamic::from_array(parts.iter().map(Key::value).collect()),
        }
    }

    /// The whole number that this key equals, if there is one.
    fn whole(&self) -> Option<i64> {
        match self {
            Key::Bool(truth) => Some(i64::from(*truth)),
            Key::Int(int) => Some(*int),
            Key::Float(float) => whole(*float),
            _ => None,
        }
    }

    fn text<'t>(&'t self, buffer: &'t mut [u8; 4]) -> Option<&'t str> {
        match self {
            Key::Str(text) => Some(text),
            Key::Char(letter) => Some(letter.encode_utf8(buffer)),
            _ => None,
        }
    }
}

/// The whole number that a float is, if it is one that fits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "in the range that was just checked"
)]
pub(super) fn whole(float: f64) -> Option<i64> {
    // -2^63 is a float, 2^63 is the first one too large.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    (fits && float.fract() == 0.0).then_some(float as i64)
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::Int(a), Key::Int(b)) => a == b,
            (Key::Str(a), Key::Str(b)) => a == b,
            (Key::Unit, Key::Unit) => true,
            (Key::Blob(a), Key::Blob(b)) => a == b,
            (Key::Array(a), Key::Array(b)) => a == b,
            // A NaN equals itself here, so that it can be found again.
            (Key::Float(a), Key::Float(b)) => a == b || a.to_bits() == b.to_bits(),
            _ => match (self.whole(), other.whole()) {
                (Some(a), Some(b)) => a == b,
                (None, None) => {
                    let (mut a, mut b) = ([0; 4], [0; 4]);
                    let a = self.text(&mut a);
                    a.is_some() && a == other.text(&mut b)
                }
                _ => false,
            },
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Some(whole) = self.whole() {
            return whole.hash(state);
        }
        let mut buffer = [0; 4];
        if let Some(text) = self.text(&mut buffer) {
            return text.hash(state);
        }
        match self {
            Key::Float(float) => float.to_bits().hash(state),
            Key::Blob(bytes) => bytes.hash(state),
            Key::Array(parts) => parts.hash(state),
            _ => 0_u8.hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    fn hash(key: &Key) -> u64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish()
    }

    fn key() -> impl Strategy<Value = Key> {
        let leaf = prop_oneof![
            Just(Key::Unit),
            any::<bool>().prop_map(Key::Bool),
            (-3_i64..4).prop_map(Key::Int),
            any::<i64>().prop_map(Key::Int),
            (-3_i32..4).prop_map(|n| Key::Float(f64::from(n) / 2.0)),
            any::<f64>().prop_map(Key::Float),
            prop_oneof![Just('a'), Just('b')].prop_map(Key::Char),
            "[ab]{0,2}".prop_map(|text| Key::Str(text.into())),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop::collection::vec(inner, 0..3).prop_map(|parts| Key::Array(parts.into()))
        })
    }

    proptest! {
        #[test]
        fn equal_keys_hash_alike(a in key(), b in key()) {
            prop_assert_eq!(a == b, b == a);
            if a == b {
                prop_assert_eq!(hash(&a), hash(&b));
            }
            let again = Key::new(&a.value()).unwrap();
            prop_assert_eq!(&again, &a);
            prop_assert_eq!(hash(&again), hash(&a));
        }
    }

    #[test]
    fn numbers_are_equal_as_in_python() {
        assert_eq!(Key::Int(1), Key::Float(1.0));
        assert_eq!(Key::Int(1), Key::Bool(true));
        assert_ne!(Key::Int(i64::MAX), Key::Float(9_223_372_036_854_775_808.0));
        assert_eq!(Key::Char('a'), Key::Str("a".into()));
        assert_ne!(Key::Unit, Key::Int(0));
        assert!(Key::new(&Dynamic::from_map(rhai::Map::new())).is_err());
    }
}
