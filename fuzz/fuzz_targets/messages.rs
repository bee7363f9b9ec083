//! Whatever arrives over a connection by address, in CPython's framing: messages, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mphost_core::connection::Connection;
use mphost_core::position::Position;
use mphost_core::session::Session;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Once;

static SESSION: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // Waiting is the session's.
    SESSION.call_once(|| {
        Session::create().expect("there is memory for a session");
    });
    let (ours, mut theirs) = UnixStream::pair().expect("there are descriptors");
    theirs
        .set_nonblocking(true)
        .expect("a socket takes the flag");
    if theirs.write_all(data).is_err() {
        return;
    }
    drop(theirs);
    let end = Connection::from_stream_fd(ours.into());
    let mut message = Vec::new();
    while end
        .recv(&mut message, Some(1 << 20), Position::NONE)
        .is_ok()
    {
        assert!(message.len() <= data.len());
    }
    assert!(message.is_empty(), "nobody sees half a message");
});
