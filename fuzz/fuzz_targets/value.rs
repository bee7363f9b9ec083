//! Whatever a message's body is: a value that is written the same way again, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mphost_core::wire::{decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = decode(data) {
        let again = encode(&value).expect("what was read can be written");
        let value = decode(&again).expect("what was written can be read");
        // Once more: NaNs differ from themselves, but not in bytes.
        assert_eq!(encode(&value).expect("and written again"), again);
    }
});
