//! The prompt, in a terminal and without one.

#![expect(clippy::unwrap_used, reason = "tests")]

use nix::sys::signal::Signal;
use rexpect::process::PtyProcess;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: u16 = 60;
const COLUMNS: u16 = 150;

fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .env("XDG_STATE_HOME", state)
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .current_dir(state);
    command
}

fn blank() -> vt100::Parser {
    let size = |n: u16| std::num::NonZero::new(n).unwrap();
    vt100::Parser::new(size(ROWS), size(COLUMNS), 0)
}

/// A prompt in a terminal whose screen can be looked at.
struct Prompt {
    process: PtyProcess,
    keys: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    state: tempfile::TempDir,
}

impl Prompt {
    fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args)
    }

    fn start_in(state: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = command(state.path());
        command.args(args);
        let process = PtyProcess::new(command).unwrap();
        let keys = process.get_file_handle().unwrap();
        let size = rustix::termios::Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&keys, size).unwrap();
        let mut reader = process.get_file_handle().unwrap();
        let (send, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last process has ended can't be read.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut prompt = Self {
            process,
            keys,
            output,
            screen: blank(),
            state,
        };
        prompt.wait("the first prompt", |text| {
            text.trim_end().ends_with("\n>>>")
        });
        prompt
    }

    fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as it should be; what is on it.
    fn wait(&mut self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let text = self.screen.screen().contents();
            if done(&text) {
                return text;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(_) => panic!("{what} isn't on the screen:\n{text}"),
            }
        }
    }

    fn wait_for(&mut self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Waits for the next prompt; what came before it.
    fn ready(&mut self) -> String {
        self.wait("the next prompt", |text| text.trim_end().ends_with("\n>>>"))
    }

    fn clear(&mut self) {
        self.screen = blank();
    }

    /// Types a line on an empty screen; what is on it at the next prompt.
    fn line(&mut self, text: &str) -> String {
        self.clear();
        self.keys(text);
        self.keys("\r");
        self.ready()
    }

    fn exit_code(&mut self) -> i32 {
        match self.process.wait().unwrap() {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        // The terminal is gone, so the prompt is as well; and with it its program.
        let _ = self.process.kill(Signal::SIGKILL);
    }
}

#[test]
fn values_and_names_live_on_from_line_to_line() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.line("let x = 41;");
    assert!(prompt.line("x + 1").contains("42"));
    prompt.line("fn double(n) { n * 2 }");
    assert!(prompt.line("double(x)").contains("82"));
    prompt.line("const BASE = 1000;");
    prompt.line("fn based(n) { global::BASE + n }");
    assert!(prompt.line("based(7)").contains("1007"));
    // A function that is typed again replaces the one before.
    prompt.line("fn double(n) { n * 20 }");
    assert!(prompt.line("double(x)").contains("820"));
    std::fs::write(
        prompt.state.path().join("half.rhai"),
        "fn half(n) { n / 2 }",
    )
    .unwrap();
    prompt.line("import \"half\" as h;");
    assert!(prompt.line("h::half(x + 1)").contains("21"));
    // A mistake ends its line only.
    let report = prompt.line("x / 0");
    assert!(report.contains("ZeroDivisionError"), "{report}");
    assert!(report.contains("line 12, column 3"), "{report}");
    let report = prompt.line("let y = ;");
    assert!(report.contains("SyntaxError"), "{report}");
    assert!(prompt.line("x").contains("41"));
    prompt.keys(":quit\r");
    assert_eq!(prompt.exit_code(), 0);
}

#[test]
fn open_brackets_go_on_in_the_next_line() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.keys("fn triple(n) {\r    let m = n * 3;\r    m\r");
    assert!(!prompt.line("} // end").contains("Error"));
    assert!(prompt.line("triple(14) + 0").contains("42"));
}

#[test]
fn what_is_typed_runs_in_processes_and_pools_under_every_start_method() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.line("let q = Queue();");
    prompt.line("let offset = 100;");
    for method in ["fork", "spawn", "forkserver"] {
        prompt.line(&format!(":start-method {method}"));
        assert!(
            prompt
                .line("get_start_method() + \"!\"")
                .contains(&format!("{method}!"))
        );
        // The forkserver and the pool's workers begin before these functions are typed.
        prompt.line("let pool = Pool(2);");
        let first = format!("let p = spawn(|q| q.put(\"up {method}\"), [q]); p.join(); q.get()");
        assert!(prompt.line(&first).contains(&format!("up {method}\"")));
        prompt.line(&format!(
            "fn add_{method}(a, b) {{ helper_{method}(a) + b }}"
        ));
        prompt.line(&format!("fn helper_{method}(a) {{ a * 1000 }}"));
        prompt.line(&format!(
            "let p = spawn(|q| q.put(add_{method}(3, 1)), [q]); p.join();"
        ));
        assert!(prompt.line("q.get() + 0").contains("3001"));
        let mapped = prompt.line(&format!("pool.map(|n| add_{method}(n, offset), 1..4)"));
        assert!(mapped.contains("[1100, 2100, 3100]"), "{method}: {mapped}");
        let applied = prompt.line(&format!("pool.apply(add_{method}, [5, 6])"));
        assert!(applied.contains("5006"), "{method}: {applied}");
        // The workers learn a function that is typed again.
        prompt.line(&format!("fn helper_{method}(a) {{ a * 2000 }}"));
        let applied = prompt.line(&format!("pool.apply(add_{method}, [5, 7])"));
        assert!(applied.contains("10007"), "{method}: {applied}");
        prompt.line("pool.terminate();");
    }
    prompt.keys("sys::exit(7)\r");
    assert_eq!(prompt.exit_code(), 7);
}

#[test]
fn ctrl_c_ends_a_line_or_a_call_and_nothing_else() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.clear();
    prompt.keys("let never = 1");
    prompt.wait_for("never = 1");
    prompt.keys("\x03");
    prompt.ready();
    assert!(prompt.line("never + 0").contains("NameError"));
    // A process in the background goes on.
    prompt.line("let start = Event(); let q = Queue();");
    prompt.line("let p = spawn(|e, q| { e.wait(); q.put(6 * 7); }, [start, q]);");
    for endless in ["Queue().get(true, 600)", "loop { }", "time::sleep(600)"] {
        prompt.clear();
        prompt.keys(&format!("print(6 * 111); {endless}\r"));
        prompt.wait_for("\n666");
        prompt.keys("\x03");
        prompt.wait_for("\nKeyboardInterrupt");
        prompt.ready();
    }
    prompt.line("start.set();");
    let got = prompt.line("q.get() + 0");
    assert!(got.contains("42"), "{got}");
    assert!(prompt.line("p.join(); p.exitcode").contains('0'));
    prompt.keys("\x04");
    assert_eq!(prompt.exit_code(), 0);
}

#[test]
fn output_of_children_leaves_the_line_that_is_typed() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.line("let q = Queue();");
    prompt.line("fn talk(q) { q.get(); for i in 0..3 { print(`from the child ${i * 11}`); } sys::write(\"no end\"); q.get(); }");
    prompt.line("let p = spawn(talk, [q]);");
    prompt.line("let r = spawn(|q| { time::sleep(0.5); q.put(1); }, [q]);");
    prompt.clear();
    prompt.keys("let typed = 40 + 2");
    prompt.wait("the end of the output above the line", |text| {
        text.trim_end().ends_with(
            "from the child 0\nfrom the child 11\nfrom the child 22\nno end\n>>> let typed = 40 + 2",
        )
    });
    // It goes on where it was.
    prompt.line("000;");
    assert!(prompt.line("typed + 0").contains("2040"));
    prompt.line("q.put(1); p.join();");
}

#[test]
fn the_prompt_helps() {
    let mut prompt = Prompt::start(&["repl"]);
    let help = prompt.line(":help JoinableQueue.task_done");
    assert!(
        help.contains("Says that one item that was taken is done with."),
        "{help}"
    );
    assert!(prompt.line(":help").contains(":start-method METHOD"));
    assert!(prompt.line(":hlep").contains("did you mean ':help'?"));
    prompt.line("let queue_of_jobs = JoinableQueue();");
    // Tab completes a variable, then a method of its class.
    prompt.clear();
    prompt.keys("queue_of\t");
    prompt.wait_for("queue_of_jobs");
    prompt.keys(".put_\t");
    // The signature is shown behind the bracket.
    prompt.wait_for("queue_of_jobs.put_nowait(item: any)");
    prompt.keys("5)\r");
    prompt.ready();
    assert!(prompt.line("queue_of_jobs.get() * 3").contains("15"));
    let processes = prompt.line(":ps");
    assert!(processes.contains("MainProcess"), "{processes}");
    assert!(prompt.line(":time 6 * 7").contains(" s"));
    let file = prompt.state.path().join("load me.rhai");
    std::fs::write(
        &file,
        "fn loaded(n) {\n    n + 1\n}\nlet from_file = loaded(99);\n",
    )
    .unwrap();
    prompt.line(&format!(":load {}", file.display()));
    assert!(prompt.line("from_file + 0").contains("100"));
    assert!(prompt.line(":load nowhere.rhai").contains("can't be read"));
    let file = prompt.state.path().join("fails.rhai");
    std::fs::write(&file, "fn fails() {\n    1 / 0\n}\nfails();\n").unwrap();
    for line in [format!(":load {}", file.display()), "fails()".to_owned()] {
        let report = prompt.line(&line);
        assert!(
            report.contains("fails.rhai\", line 2, column 7, in fails"),
            "{report}"
        );
    }
}

#[test]
fn lines_are_remembered() {
    let mut prompt = Prompt::start(&[]);
    prompt.line("let remembered = 6 * 7;");
    prompt.keys(":quit\r");
    assert_eq!(prompt.exit_code(), 0);
    let history = prompt.state.path().join("mphost/history");
    let text = std::fs::read_to_string(&history).unwrap();
    assert!(text.contains("let remembered = 6 * 7;"), "{text}");
    let state = std::mem::replace(&mut prompt.state, tempfile::tempdir().unwrap());
    let mut again = Prompt::start_in(state, &[]);
    // Twice up: the last line, and the one before.
    again.keys("\x1b[A\x1b[A");
    again.wait_for(">>> let remembered = 6 * 7;");
}

#[test]
fn a_script_asks_at_the_prompt() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.clear();
    prompt.keys("let name = input(\"your name\" + \"? \");\r");
    prompt.wait_for("\nyour name?");
    prompt.keys("Ada (\r");
    prompt.ready();
    assert!(prompt.line("`hello ${name}!`").contains("hello Ada (!"));
}

#[test]
fn a_program_that_dies_is_reported() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.keys("os::kill(os::getpid(), signal::SIGKILL)\r");
    prompt.wait_for("the program was ended by SIGKILL");
    assert_eq!(prompt.exit_code(), 137);
}

#[test]
fn a_program_ends_with_its_prompt() {
    let mut prompt = Prompt::start(&["repl"]);
    let pid = prompt.line("os::getpid() + 0");
    let pid: i32 = pid
        .lines()
        .find_map(|line| line.trim().parse().ok())
        .unwrap();
    let child = prompt.line("spawn(|| time::sleep(600)).pid + 0");
    let child: i32 = child
        .lines()
        .find_map(|line| line.trim().parse().ok())
        .unwrap();
    prompt.process.kill(Signal::SIGKILL).unwrap();
    let end = Instant::now() + LIMIT;
    for pid in [pid, child] {
        while nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok() {
            // Who becomes its parent may reap it late.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.contains(") Z ") || stat.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "{pid} is still there");
            std::thread::yield_now();
        }
    }
}

#[test]
fn without_a_terminal_lines_are_evaluated_as_they_come() {
    let state = tempfile::tempdir().unwrap();
    let mut child = command(state.path())
        .arg("repl")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let script = "fn twice(n) {\n    n * 2\n}\ntwice(21)\n1 / 0\nlet q = Queue();\n\
                  spawn(|q| q.put(twice(4)), [q]).join(); q.get()\nlet name = input(\"? \");\nAda\nname\nsys::exit(3)\nprint(\"never\")\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "42\n8\n? \"Ada\"\n"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("ZeroDivisionError"));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn deadlock_detection_can_be_turned_off_at_the_prompt() {
    let mut prompt = Prompt::start(&["repl"]);
    prompt.line("let l = Lock(); l.acquire();");
    let stuck = prompt.line("l.acquire()");
    assert!(stuck.contains("DeadlockError"), "{stuck}");

    // A second is what finding it may take.
    let mut prompt = Prompt::start(&["--no-deadlock-detection"]);
    prompt.line("let l = Lock(); l.acquire();");
    prompt.clear();
    prompt.keys("l.acquire()\r");
    let end = Instant::now() + Duration::from_secs(2);
    while let Ok(bytes) = prompt
        .output
        .recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        prompt.screen.process(&bytes);
    }
    prompt.keys("\x03");
    let waited = prompt.wait_for("KeyboardInterrupt");
    assert!(!waited.contains("DeadlockError"), "{waited}");
    assert!(prompt.line("40 + 2").contains("42"));
}
