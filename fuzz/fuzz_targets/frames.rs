//! Whatever arrives over a link between a manager and a client: frames within the limit, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mphost_core::transport::{Fill, Link};
use std::io::Write;
use std::os::unix::net::UnixStream;

const LIMIT: usize = 1 << 12;

fuzz_target!(|data: &[u8]| {
    let (ours, mut theirs) = UnixStream::pair().expect("there are descriptors");
    let mut link = Link::new(ours.into(), LIMIT);
    let piece = data.first().map_or(1, |byte| usize::from(*byte) + 1);
    for piece in data.chunks(piece) {
        if theirs.write_all(piece).is_err() {
            return;
        }
        if link.fill() != Ok(Fill::Some) {
            return;
        }
        loop {
            match link.frame() {
                Ok(Some(frame)) => assert!(link.body(&frame).len() <= LIMIT),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
