//! Programs that are stuck, seen from outside: what is printed, how often, how they end, and what keeps one from being called so.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than it takes to find out that a program is stuck.
const A_WHILE: Duration = Duration::from_millis(1200);
/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(options: &[&str], code: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .arg("run")
            .args(options)
            .args(["-e", code])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Waits for what can only be seen by looking.
    fn until(&mut self, what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < PATIENCE, "it never happens");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Exit code, the rest of standard output, standard error.
    fn end(mut self) -> (i32, String, String) {
        drop(self.child.stdin.take());
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).expect("text");
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("piped");
        pipe.read_to_string(&mut stderr).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.code().unwrap_or(-1), stdout, stderr)
    }
}

fn state_of(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    rest.chars().next().unwrap_or('?')
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn the_picture_is_printed_once_and_the_exit_code_is_1() {
    for method in ["fork", "spawn", "forkserver"] {
        let code = "fn f(q) { q.get(); } let q = Queue(); spawn(f, [q]); q.get();";
        let (exit, _, stderr) = Program::start(&["--start-method", method], code).end();
        assert_eq!(exit, 1, "{stderr}");
        assert_eq!(count(&stderr, "MainProcess (pid"), 1, "{stderr}");
        assert_eq!(count(&stderr, "Process-1 (pid"), 1, "{stderr}");
        assert_eq!(count(&stderr, "Traceback"), 1, "{stderr}");
        assert_eq!(
            count(&stderr, "mphost: this program is stuck"),
            1,
            "{stderr}"
        );
        assert!(
            stderr.ends_with("\nDeadlockError: this program is stuck: each of its 2 processes waits for another one\n"),
            "{stderr}"
        );
    }
}

#[test]
fn of_many_that_wait_alike_some_are_described() {
    let code = "fn f(q) { q.get(); } let q = Queue(); for i in 0..30 { spawn(f, [q]); } q.get();";
    let (exit, _, stderr) = Program::start(&["--start-method", "fork"], code).end();
    assert_eq!(exit, 1, "{stderr}");
    assert!(stderr.contains("each of its 31 processes"), "{stderr}");
    assert!(stderr.contains("MainProcess (pid"), "{stderr}");
    // The main process waits at another place.
    assert_eq!(count(&stderr, "  Process-"), 5, "{stderr}");
    assert!(
        stderr.contains("  and 25 more, mostly like these (pid "),
        "{stderr}"
    );
}

#[test]
fn a_child_that_can_never_end_ends_with_its_program() {
    let code = "fn f(q) { q.get(); } let q = Queue(); spawn(f, [q]); print(1);";
    let (exit, stdout, stderr) = Program::start(&[], code).end();
    assert_eq!((exit, stdout.as_str()), (1, "1\n"), "{stderr}");
    assert!(
        stderr.contains("waits for the end of Process-1") && stderr.contains(", at its own end"),
        "{stderr}"
    );
    assert_eq!(
        count(&stderr, "mphost: this program is stuck"),
        1,
        "{stderr}"
    );
}

#[test]
fn what_the_script_held_is_free_after_it() {
    let code = "fn f(l) { l.acquire(); print(\"got it\"); } let l = Lock(); let p = spawn(f, [l]); with l { p.join(); }";
    // The child may be faster than the main process: then nobody is stuck.
    let (exit, stdout, stderr) = Program::start(&[], code).end();
    assert_eq!(stdout, "got it\n", "{stderr}");
    assert!(
        exit == 0 || count(&stderr, "DeadlockError") == 1,
        "{stderr}"
    );
}

#[test]
fn a_stopped_process_is_alive_until_it_goes_on() {
    let code = "fn f(q) { print(os::getpid()); q.get(); } let q = Queue(); let p = spawn(f, [q]); p.join();";
    let mut program = Program::start(&[], code);
    let child: i32 = program.line().parse().expect("a pid");
    kill(Pid::from_raw(child), Signal::SIGSTOP).expect("it runs");
    program.until(|| state_of(child) == 'T');
    std::thread::sleep(A_WHILE);
    assert!(program.is_running());
    kill(Pid::from_raw(child), Signal::SIGCONT).expect("it is there");
    let (exit, _, stderr) = program.end();
    assert_eq!((exit, count(&stderr, "mphost: this")), (1, 1), "{stderr}");
}

#[test]
fn who_waits_for_input_keeps_the_others_alive() {
    let code = "fn f(q) { print(q.get()); } let q = Queue(); let p = spawn(f, [q]); q.put(input()); p.join();";
    let mut program = Program::start(&[], code);
    std::thread::sleep(A_WHILE);
    assert!(program.is_running());
    let mut stdin = program.child.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").expect("it reads");
    let (exit, stdout, stderr) = program.end();
    assert_eq!((exit, stdout.as_str(), stderr.as_str()), (0, "hello\n", ""));
}

#[test]
fn nobody_looks_if_told_not_to() {
    let code = "print(1); Event().wait();";
    let mut program = Program::start(&["--no-deadlock-detection"], code);
    assert_eq!(program.line(), "1");
    std::thread::sleep(A_WHILE);
    assert!(program.is_running());
    kill(program.pid(), Signal::SIGINT).expect("it runs");
    let (exit, _, stderr) = program.end();
    assert_eq!(exit, 130);
    assert!(!stderr.contains("stuck"), "{stderr}");
}

#[test]
fn a_quit_signal_is_answered_with_a_picture_and_the_program_goes_on() {
    for method in ["fork", "spawn", "forkserver"] {
        let code = "fn f(l, q) { l.acquire(); print(\"held\"); q.get(true, 50); l.release(); } let q = Queue(); let l = Lock(); \
                    let p = spawn(f, [l, q]); let line = input(); q.put(line); p.join(); print(line);";
        let mut program = Program::start(&["--start-method", method], code);
        assert_eq!(program.line(), "held");
        let pid = program.pid();
        let mut stderr = BufReader::new(program.child.stderr.take().expect("piped"));
        let mut picture = || {
            kill(pid, Signal::SIGQUIT).expect("it runs");
            let mut text = String::new();
            while !text.contains("queues:\n") || !text.ends_with("it is empty\n") {
                assert_ne!(stderr.read_line(&mut text).expect("text"), 0, "{text}");
            }
            text
        };
        let begin = Instant::now();
        let mut text = picture();
        // It takes them some steps from the line above to their waits.
        while count(&text, "waits for") < 2 && begin.elapsed() < PATIENCE {
            text = picture();
        }
        for part in [
            "MainProcess (pid",
            "waits for a connection, a file or a terminal",
            "    Process-1 (pid",
            "waits for an item of a Queue (made at <command line>:1:",
            ", with a time limit",
            "holds a Lock, since",
            "  queues:\n    Queue (made at",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        program.child.stderr = Some(stderr.into_inner());
        let mut stdin = program.child.stdin.take().expect("piped");
        stdin.write_all(b"on\n").expect("it reads");
        let (exit, stdout, stderr) = program.end();
        assert_eq!((exit, stdout.as_str(), stderr.as_str()), (0, "on\n", ""));
    }
}
