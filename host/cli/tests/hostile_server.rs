//! What a server can do to its clients that has the key and answers nonsense: give them an error.

use mphost_core::authentication::{self, Challenge};
use mphost_core::transport::{Fill, Frame, Link};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

const ROUNDS: usize = 60;

const SCRIPT: &str = r#"
let answered = 0;
for round in 0..parse_int(sys::argv[2]) {
    let m = mp::managers::SyncManager(["127.0.0.1", parse_int(sys::argv[1])], "key");
    m.register("thing");
    try {
        m.connect();
        let d = m.dict();
        d["a"] = 1;
        d["a"];
        m.thing(1, 2).use_it();
    } catch (e) {
        // An error, or whatever the server says that was thrown.
        print("caught", e);
    }
    answered += 1;
}
print(answered);
"#;

/// The next frame, or none at the end.
fn receive(link: &mut Link) -> Option<Frame> {
    loop {
        if let Some(frame) = link.frame().ok()? {
            return Some(frame);
        }
        let mut fds = [nix::poll::PollFd::new(
            link.socket().as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut fds, 60_000_u16).ok()?;
        if link.fill().ok()? == Fill::End {
            return None;
        }
    }
}

/// A server's side of the handshake.
fn authenticate(link: &mut Link) -> Option<()> {
    let ours = Challenge::new().ok()?;
    link.send(ours.message(), &[]).ok()?;
    let answer = receive(link)?;
    ours.check(b"key", link.body(&answer)).ok()?;
    link.send(authentication::WELCOME, &[]).ok()?;
    let theirs = receive(link)?;
    let answer = authentication::answer(b"key", link.body(&theirs)).ok()?;
    link.send(&answer, &[]).ok()?;
    let verdict = receive(link)?;
    (link.body(&verdict) == authentication::WELCOME).then_some(())
}

/// Serves one client: answers that begin well and go on as `random` says.
fn serve(stream: TcpStream, random: &mut impl FnMut() -> u64) -> Option<()> {
    let mut link = Link::new(OwnedFd::from(stream), 1 << 20);
    authenticate(&mut link)?;
    link.set_limit(1 << 20);
    receive(&mut link)?;
    // Whether it is of the same program: no, or nonsense.
    let greeting: &[u8] = if random().is_multiple_of(4) {
        &[1, 77]
    } else {
        &[1, 1]
    };
    link.send(greeting, &[]).ok()?;
    while receive(&mut link).is_some() {
        let length = random() % 60;
        // The version, a status, a value.
        let mut body = vec![1, 96 + (random() % 4) as u8, (random() % 20) as u8];
        body.extend((0..length).map(|_| (random() >> 32) as u8));
        match random() % 10 {
            // A frame that never ends, a client that is left alone, a descriptor that isn't there.
            0 => link.send(&vec![9; 1 << 16], &[]).ok()?,
            1 => return None,
            _ => link.send(&body, &[]).ok()?,
        }
    }
    Some(())
}

#[test]
fn nonsense_from_a_server_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            // A client may have several connections.
            std::thread::spawn(move || {
                // A small generator of our own: the same bytes each time.
                let mut state = 0x9e37_79b9_7f4a_7c15_u64 + number as u64;
                let mut random = move || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                };
                serve(stream, &mut random)
            });
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("client.rhai");
    std::fs::write(&script, SCRIPT).expect("it can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .arg("run")
        .arg(&script)
        .args([port.to_string(), ROUNDS.to_string()])
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().last(), Some(ROUNDS.to_string().as_str()));
    let caught = said.lines().filter(|line| line.starts_with("caught "));
    assert!(caught.count() > ROUNDS / 2, "{said}");
}
