//! Control messages: the host's own structures, such as what a started process is told first, or a request to the forkserver.
//!
//! They are rare and come from the same build of this program, so serde and bincode do; still they are decoded as if a stranger
//! had sent them. bincode reserves memory for a text by its claimed length, so its own limit (a constant of the type) is chosen from
//! the length of what has arrived.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Serialize, de::DeserializeOwned};

use super::WireError;

/// Numbers of fixed size: then what bincode counts against its limit is what it reads, byte for byte.
type Config<const LIMIT: usize> = Configuration<LittleEndian, Fixint, Limit<LIMIT>>;

/// The largest control message, in bytes.
pub(super) const CONTROL_LIMIT: usize = 1 << 30;

/// Makes a control message.
///
/// The type's structure must not be recursive, nor hold sequences of zero-sized elements: bincode limits neither.
///
/// # Errors
/// [`WireError::Control`] where serde can't (a sequence of unknown length), [`WireError::TooLarge`] over 1 GiB.
pub fn encode_control<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, WireError> {
    let config = bincode::config::standard().with_fixed_int_encoding();
    let bytes = bincode::serde::encode_to_vec(message, config)
        .map_err(|error| WireError::Control(error.to_string()))?;
    check_length(bytes.len(), CONTROL_LIMIT)?;
    Ok(bytes)
}

/// The structure in a control message of at most `limit` bytes.
///
/// # Errors
/// [`WireError::TooLarge`] before anything is looked at, [`WireError::Control`] for what isn't a `T`, [`WireError::Trailing`].
pub fn decode_control<T: DeserializeOwned>(message: &[u8], limit: usize) -> Result<T, WireError> {
    check_length(message.len(), limit.min(CONTROL_LIMIT))?;
    // Steps of 16: so no claimed length reserves more than 16 times what has arrived (or a page).
    match message.len() {
        0..=0x1000 => decode_within::<T, 0x1000>(message),
        0x1001..=0x1_0000 => decode_within::<T, 0x1_0000>(message),
        0x1_0001..=0x10_0000 => decode_within::<T, 0x10_0000>(message),
        0x10_0001..=0x100_0000 => decode_within::<T, 0x100_0000>(message),
        0x100_0001..=0x1000_0000 => decode_within::<T, 0x1000_0000>(message),
        _ => decode_within::<T, CONTROL_LIMIT>(message),
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), WireError> {
    if length > limit {
        Err(WireError::TooLarge { length, limit })
    } else {
        Ok(())
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(message: &[u8]) -> Result<T, WireError> {
    let config: Config<LIMIT> = bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(message, config)
        .map_err(|error| WireError::Control(error.to_string()))?;
    match message.len() - used {
        0 => Ok(value),
        trailing => Err(WireError::Trailing(trailing)),
    }
}
