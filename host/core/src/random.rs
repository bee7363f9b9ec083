//! Randomness: the one place where this crate and its users get it (getrandom(2)).

use crate::error::{CoreError, Result};

/// Fills `bytes` with bytes that nobody can guess.
///
/// # Errors
/// Where the system has no source of randomness.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|e| {
        CoreError::os(
            "getrandom",
            e.raw_os_error().unwrap_or(nix::errno::Errno::EIO as i32),
        )
    })
}
