//! Whatever a stranger sends to a listener or a client during the handshake: without the key nobody is let in, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mphost_core::transport::Handshake;
use std::io::Write;
use std::os::unix::net::UnixStream;

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let (ours, mut theirs) = UnixStream::pair().expect("there are descriptors");
    theirs
        .set_nonblocking(true)
        .expect("a socket takes the flag");
    let mut side = if first & 1 == 0 {
        Handshake::listening(ours.into()).expect("the peer is there")
    } else {
        Handshake::connecting(ours.into())
    };
    // In pieces, as they might arrive.
    for piece in data.chunks(usize::from(first >> 1) + 1) {
        if theirs.write_all(piece).is_err() {
            return;
        }
        match side.advance(b"a key that the fuzzer doesn't have") {
            Ok(done) => assert!(!done, "let in without the key"),
            Err(_) => return,
        }
    }
});
