//! Who is at the other end: the mutual challenge of CPython's `multiprocessing.connection` (3.12 and later).
//!
//! One side sends a challenge, random bytes behind the name of a digest; the other answers with their HMAC under the shared
//! key, and gets told whether it was right. Then the roles change. So each side knows that the other has the key, which itself never
//! travels. The digest is SHA-256: what CPython names by default, and the only one that is accepted here.
//!
//! This room makes and checks the messages; it sends nothing, so that it serves those who wait and those who never do.
//!
//! Invariants: an answer is compared in constant time; nothing of a peer's message is used before its length and form are checked.

use crate::error::{CoreError, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The longest message of a handshake, in bytes, CPython's.
pub const MESSAGE_LIMIT: usize = 256;

const CHALLENGE: &[u8] = b"#CHALLENGE#";
/// The digest's name, in front of a challenge's random bytes and of an answer.
const DIGEST: &[u8] = b"{sha256}";
const RANDOM: usize = 40;
/// A challenge with fewer random bytes than this would make old answers useful again.
const SHORTEST: usize = 20;
const MAC: usize = 32;

/// What the challenger says of a right answer.
pub const WELCOME: &[u8] = b"#WELCOME#";
/// What it says of any other.
pub const FAILURE: &[u8] = b"#FAILURE#";

/// A challenge that this side has made.
#[derive(Debug)]
pub struct Challenge {
    message: Vec<u8>,
}

impl Challenge {
    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn new() -> Result<Challenge> {
        let mut random = [0; RANDOM];
        crate::random::fill(&mut random)?;
        Ok(Challenge {
            message: [CHALLENGE, DIGEST, &random].concat(),
        })
    }

    /// What to send.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Checks the peer's answer. Then [`WELCOME`] or [`FAILURE`] is to be sent.
    ///
    /// # Errors
    /// [`CoreError::Authentication`].
    pub fn check(&self, key: &[u8], answer: &[u8]) -> Result<()> {
        let given = answer.strip_prefix(DIGEST).ok_or_else(|| {
            refused("the peer's answer names no digest that is accepted (sha256 is)")
        })?;
        let expected = mac(key, &self.message[CHALLENGE.len()..]);
        if given.len() == MAC && bool::from(given.ct_eq(&expected)) {
            Ok(())
        } else {
            Err(refused("digest received was wrong"))
        }
    }
}

/// The answer to a peer's challenge.
///
/// # Errors
/// [`CoreError::Authentication`] for what is no challenge, or one that isn't safe to answer.
pub fn answer(key: &[u8], challenge: &[u8]) -> Result<Vec<u8>> {
    let message = challenge
        .strip_prefix(CHALLENGE)
        .ok_or_else(|| refused("Protocol error, expected challenge"))?;
    let random = message.strip_prefix(DIGEST).ok_or_else(|| {
        refused("the peer's challenge names no digest that is accepted (sha256 is)")
    })?;
    if random.len() < SHORTEST {
        return Err(refused("the peer's challenge is too short"));
    }
    Ok([DIGEST, &mac(key, message)].concat())
}

/// Reads what the challenger said of an answer.
///
/// # Errors
/// [`CoreError::Authentication`] unless it was right.
pub fn check_welcome(message: &[u8]) -> Result<()> {
    if message == WELCOME {
        Ok(())
    } else {
        Err(refused("digest sent was rejected"))
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; MAC] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length, RFC 2104");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn refused(text: &str) -> CoreError {
    CoreError::Authentication(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_key_is_welcome() {
        let challenge = Challenge::new().unwrap();
        assert!(challenge.message().len() <= MESSAGE_LIMIT);
        let answer = answer(b"key", challenge.message()).unwrap();
        challenge.check(b"key", &answer).unwrap();
        assert_eq!(
            challenge.check(b"other", &answer).unwrap_err(),
            CoreError::Authentication("digest received was wrong".into())
        );
        assert!(
            Challenge::new().unwrap().check(b"key", &answer).is_err(),
            "an old answer"
        );
        check_welcome(WELCOME).unwrap();
        assert!(check_welcome(FAILURE).is_err());
    }

    #[test]
    fn malformed_messages_are_refused() {
        let challenge = Challenge::new().unwrap();
        let good = answer(b"k", challenge.message()).unwrap();
        for cut in 0..good.len() {
            assert!(challenge.check(b"k", &good[..cut]).is_err());
        }
        assert!(
            challenge
                .check(b"k", &[good.as_slice(), b"x"].concat())
                .is_err()
        );
        for bad in [
            &b""[..],
            b"#CHALLENGE#",
            b"#CHALLENGE#{md5}0123456789012345678901234567890123456789",
            b"#CHALLENGE#{sha256}short",
        ] {
            assert!(answer(b"k", bad).is_err());
        }
    }

    /// `hmac.new(b"secret", b"{sha256}" + bytes(range(40)), "sha256").hexdigest()` in CPython.
    #[test]
    fn answers_are_cpythons() {
        let message: Vec<u8> = [CHALLENGE, DIGEST, &(0..40).collect::<Vec<u8>>()].concat();
        let answer = answer(b"secret", &message).unwrap();
        let hex: String = answer[DIGEST.len()..]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "fc57fbe650d6124b98215e7b5d197d5807ad69982d275a9735ea2d56f1fa6989"
        );
    }
}
