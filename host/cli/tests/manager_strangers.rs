//! What strangers can do to a manager that listens on a port: nothing but end their own connection. And how many clients it bears.

use mphost_core::authentication::{self, Challenge};
use mphost_core::transport::{Fill, Frame, Link};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
let m = mp::managers::SyncManager(["127.0.0.1", 0], "key");
m.start();
let l = m.list([1]);
print(m.address[1]);
while input() != "end" { l.append(l.len()); print(l.len()); }
m.shutdown();
"#;

/// Longer than anything here can take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client's first request: operation 0 of object 0, with six numbers (who it is, its program, its process) and what it holds.
const HELLO: &[u8] = &[
    1, ZERO, ZERO, 10, 7, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, 10, 0,
];
/// How the number 0 is written; the next ones follow.
const ZERO: u8 = 96;
/// The operation that every client may ask for, and that ends a server.
const SHUTDOWN: u8 = ZERO + 6;
/// A client's request for the number of objects.
const COUNT: &[u8] = &[1, ZERO + 7, ZERO, 10, 0];

struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Program {
    fn start() -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .args(["run", "-e", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("its output is a pipe");
        let mut program = Program {
            child,
            output: BufReader::new(output),
            port: 0,
        };
        program.port = program.line().parse().expect("it prints its port");
        program
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it prints a line");
        line.trim().to_owned()
    }

    fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input is a pipe");
        input.write_all(text.as_bytes()).expect("it reads");
    }

    /// Has the program use its manager: it still works.
    fn check(&mut self, length: usize) {
        self.say("\n");
        assert_eq!(self.line(), length.to_string());
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        // As clients do: small messages don't wait for each other.
        stream.set_nodelay(true).expect("it is TCP");
        stream
    }

    /// A connection that has authenticated itself.
    fn client(&self) -> Link {
        let mut link = Link::new(OwnedFd::from(self.connect()), 1 << 20);
        let theirs = receive(&mut link).expect("its challenge");
        let answer = authentication::answer(b"key", link.body(&theirs)).expect("a challenge");
        link.send(&answer, &[]).expect("it reads");
        let verdict = receive(&mut link).expect("its verdict");
        assert_eq!(link.body(&verdict), authentication::WELCOME);
        let ours = Challenge::new().expect("randomness");
        link.send(ours.message(), &[]).expect("it reads");
        let answer = receive(&mut link).expect("its answer");
        ours.check(b"key", link.body(&answer))
            .expect("it has the key");
        link.send(authentication::WELCOME, &[]).expect("it reads");
        link
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next frame, or none at the end.
fn receive(link: &mut Link) -> Option<Frame> {
    loop {
        if let Some(frame) = link.frame().expect("a frame") {
            return Some(frame);
        }
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(link.socket()),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut fds, 60_000_u16).expect("poll");
        if link.fill().expect("it can be read") == Fill::End {
            return None;
        }
    }
}

/// How long the program takes to use its manager `times` times.
fn seconds(program: &mut Program, length: &mut usize, times: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        *length += 1;
        program.check(*length);
    }
    start.elapsed().as_secs_f64()
}

fn reaches_its_end(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // The server's challenge may come first; a reset is an end, too.
    let _ = stream.read_to_end(&mut rest);
}

#[test]
fn who_does_not_authenticate_is_shown_the_door() {
    let mut program = Program::start();
    let silent = program.connect();
    let half = program.connect();
    (&half).write_all(&[40, 0, 0]).expect("it reads");
    let messages: [&[u8]; 5] = [
        b"GET / HTTP/1.0\r\n\r\n",
        // A length over the limit, too many descriptors, a wrong answer, an answer of another kind.
        &[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
        &[4, 0, 0, 0, 0xff, 0xff, 0, 0],
        &[4, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c', b'd'],
        &[0; 8],
    ];
    for (index, message) in messages.into_iter().enumerate() {
        let mut stream = program.connect();
        stream.write_all(message).expect("it reads");
        reaches_its_end(stream);
        program.check(index + 2);
    }
    drop((silent, half));
    program.check(messages.len() + 2);
    program.say("end\n");
    assert!(program.child.wait().expect("it ends").success());
}

#[test]
fn malformed_requests_end_their_own_connection() {
    let mut program = Program::start();
    let mut length = 1;
    // Nothing, a wrong version, no array of arguments, a number that is no operation, an unfinished value, garbage.
    let bodies: [&[u8]; 6] = [
        &[],
        &[9, 64],
        &[1, 65, 64, 64],
        &[1, 255, 64, 10, 0],
        &[1, 66, 64, 10, 1, 8, 200],
        &[1, 96, 97, 10, 4, 15, 64, 0, 5, 1, 2, 3],
    ];
    for body in bodies {
        for greeted in [false, true] {
            let mut link = program.client();
            if greeted {
                link.send(HELLO, &[]).expect("it reads");
                receive(&mut link).expect("whether it is of the same program");
            }
            let _ = link.send(body, &[]);
            let _ = link.send(body, &[]);
            drop(link);
            length += 1;
            program.check(length);
        }
    }
}

#[test]
fn any_bytes_at_all_leave_the_server_standing() {
    let mut program = Program::start();
    // A small generator of our own: the same bytes each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..40 {
        let mut link = program.client();
        link.send(HELLO, &[]).expect("it reads");
        receive(&mut link).expect("its answer");
        for _ in 0..10 {
            let length = random() % 40;
            let mut body = vec![1, ZERO + (random() % 64) as u8, ZERO, 10];
            body.extend((0..length).map(|_| (random() >> 32) as u8));
            if body[1] == SHUTDOWN {
                continue;
            }
            if link.send(&body, &[]).is_err() {
                break;
            }
        }
        drop(link);
        if round % 10 == 9 {
            program.check(2 + round / 10);
        }
    }
}

#[test]
fn who_says_nothing_is_dropped_after_ten_seconds() {
    let mut program = Program::start();
    let start = Instant::now();
    let silent: Vec<TcpStream> = (0..20).map(|_| program.connect()).collect();
    program.check(2);
    for stream in silent {
        reaches_its_end(stream);
    }
    // Nor before: it may be a slow client.
    assert!(start.elapsed() > Duration::from_secs(5));
    program.check(3);
}

#[test]
fn many_strangers_later_it_answers_as_fast_as_before() {
    // 10,000 take their time: MPHOST_STRANGERS says how many there shall be.
    let strangers = std::env::var("MPHOST_STRANGERS").ok();
    let strangers = strangers.and_then(|n| n.parse().ok()).unwrap_or(1000);
    let mut program = Program::start();
    let mut length = 1;
    let before = seconds(&mut program, &mut length, 200);
    let mut silent = Vec::new();
    for number in 0..strangers {
        let mut stream = program.connect();
        let garbage = vec![number as u8; number % 500];
        // It may have been refused in the middle of it.
        let _ = stream.write_all(&garbage);
        if number % 5 == 0 {
            silent.push(stream);
        }
        if silent.len() > 300 {
            silent.clear();
        }
    }
    let after = seconds(&mut program, &mut length, 200);
    assert!(
        after < 10.0 * before + 5.0,
        "{after} s after {strangers} strangers, {before} s before"
    );
    // So many silent ones, and there is room for a client.
    drop(program.client());
}

#[test]
fn a_thousand_clients_are_held_and_two_hundred_served() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const HELD: usize = 1000;
    const ACTIVE: usize = 200;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    if hard < 4 * HELD as u64 {
        println!("skipped: this process may have {hard} descriptors");
        return;
    }
    // As on most systems: the server sees to it itself that it may have more.
    setrlimit(Resource::RLIMIT_NOFILE, 1024, hard).expect("lower is allowed");
    let mut program = Program::start();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
    let mut links: Vec<Link> = (0..HELD)
        .map(|number| {
            let mut link = program.client();
            let mut hello = HELLO.to_vec();
            // The first of the numbers, so that they are several clients: up to 31 it is one byte.
            hello[5] = ZERO + (number % 32) as u8;
            link.send(&hello, &[]).expect("it reads");
            receive(&mut link).expect("whether it is of the same program");
            link
        })
        .collect();
    for round in 0..10 {
        for link in &mut links[..ACTIVE] {
            link.send(COUNT, &[]).expect("it reads");
        }
        program.check(2 + round);
        for link in &mut links[..ACTIVE] {
            let answer = receive(link).expect("an answer");
            assert_eq!(link.body(&answer), [1, ZERO, ZERO + 1], "done: one object");
        }
    }
    // Nobody was forgotten meanwhile.
    for link in &mut links {
        link.send(COUNT, &[]).expect("it reads");
        assert!(receive(link).is_some());
    }
    drop(links);
    program.check(12);
    program.say("end\n");
    assert!(program.child.wait().expect("it ends").success());
}

/// A program of a thousand processes may connect them all at once: those of the same user aren't strangers who push each other out.
#[test]
fn processes_of_the_same_user_dont_push_each_other_out() {
    const SCRIPT: &str = r#"
        let m = mp::managers::SyncManager(sys::argv[1], "key");
        m.start();
        print("listens");
        input();
    "#;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("manager");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["run", "-e", SCRIPT])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("its output is a pipe");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("it prints a line");
    assert_eq!(line, "listens\n");
    let mut peers: Vec<UnixStream> = (0..300)
        .map(|_| UnixStream::connect(&path).expect("it listens"))
        .collect();
    for peer in &mut peers {
        peer.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut challenge = [0; 4];
        peer.read_exact(&mut challenge).expect("it is challenged");
    }
    // The last one is in, and the first one still is: there is nothing more to read, but no end.
    let first = &mut peers[0];
    first.set_nonblocking(true).expect("a socket");
    let mut rest = [0; 1024];
    let end = loop {
        match first.read(&mut rest) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::WouldBlock));
    let mut input = child.stdin.take().expect("its input is a pipe");
    input.write_all(b"\n").expect("it reads");
    assert!(child.wait().expect("it ends").success());
}
