//! What people get wrong at the command line and in scripts: each is met with an exit code, a message that
//! says what was wrong and what to do, and no panic.
//!
//! Invariant of every run here: nothing on standard output that wasn't asked for, no word of a panic, and an
//! end within a minute (a hundred times what it takes; a run that hangs is ended and fails).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);
const USAGE: i32 = 2;
const FAILED: i32 = 1;

struct Ran {
    /// `None` where a signal ended it.
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} isn't in:\n{}", self.err);
        }
        assert_eq!(self.out, "");
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Waits for the end of a started run and for all that it wrote.
#[track_caller]
fn ended(mut child: Child) -> Ran {
    drop(child.stdin.take());
    let out = child.stdout.take().map(text);
    let err = text(child.stderr.take().unwrap());
    let pid = Pid::from_raw(child.id() as i32);
    let (sender, status) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    let Ok(status) = status.recv_timeout(LIMIT) else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("it hangs; so far it wrote: {:?}", err.recv_timeout(LIMIT));
    };
    let ran = Ran {
        code: status.unwrap().code(),
        out: out.map_or_else(String::new, |out| out.recv_timeout(LIMIT).unwrap()),
        err: err.recv_timeout(LIMIT).unwrap(),
    };
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}

#[track_caller]
fn ran(command: &mut Command) -> Ran {
    ended(command.spawn().unwrap())
}

#[track_caller]
fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    ran(program().current_dir(folder).args(arguments))
}

#[track_caller]
fn run(arguments: &[&str]) -> Ran {
    ran(program().args(arguments))
}

#[track_caller]
fn code(code: &str) -> Ran {
    run(&["-e", code])
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("ticket.rhai", b"print(1);\n");
    write("syntax.rhai", b"print(1);\nlet x = ;\n");
    write("latin1.rhai", b"print(1);\nprint(\"caf\xe9\");\n");
    write("endless.rhai", b"while true { print(\"y\"); }\n");
    std::fs::create_dir(folder.path().join("chapter")).unwrap();
    folder
}

#[test]
fn a_script_that_cannot_be_read() {
    let folder = folder();
    let cases: &[(&str, &[&str])] = &[
        ("absent.rhai", &["no script 'absent.rhai'"]),
        (
            "tickets.rhai",
            &["no script 'tickets.rhai'", "did you mean 'ticket.rhai'?"],
        ),
        (
            "chapter",
            &["'chapter' is a directory", "chapter/main.rhai"],
        ),
        (
            "ticket.rhai/x",
            &["'ticket.rhai/x' can't be read", "not a directory"],
        ),
        (
            "latin1.rhai",
            &["'latin1.rhai' isn't UTF-8", "line 2", "byte 20"],
        ),
        ("", &["no script ''"]),
        ("two\nlines", &["no script 'two\nlines'"]),
        ("/proc/self/mem", &["'/proc/self/mem' can't be read"]),
    ];
    for (script, parts) in cases {
        for command in ["run", "check"] {
            run_in(folder.path(), &[command, script]).fails(USAGE, parts);
        }
    }
}

#[test]
fn a_syntax_error_is_shown_with_its_place_and_nothing_runs() {
    let folder = folder();
    for command in ["run", "check"] {
        let parts = [
            "syntax.rhai",
            "line 2",
            "    let x = ;\n            ^\n",
            "SyntaxError: ",
        ];
        run_in(folder.path(), &[command, "syntax.rhai"]).fails(USAGE, &parts);
    }
    code("print(1); print((").fails(USAGE, &["<command line>", "SyntaxError"]);
}

#[test]
fn a_command_line_that_says_nothing_or_too_much() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["run"],
            &[
                "no script is given",
                "mphost run SCRIPT",
                "mphost run -e CODE",
            ],
        ),
        (&["check"], &["<SCRIPT>"]),
        (
            &["check", "a.rhai", "b.rhai"],
            &["unexpected argument 'b.rhai'"],
        ),
        (&["-e"], &["a value is required for '-e <CODE>'"]),
        (&["run", "-e"], &["a value is required for '-e <CODE>'"]),
    ];
    for (arguments, parts) in cases {
        run(arguments).fails(USAGE, parts);
    }
}

#[test]
fn words_that_are_no_option_and_no_command() {
    let folder = folder();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--fast"], &["no option '--fast'", "mphost --help"]),
        (&["run", "--fast", "ticket.rhai"], &["no option '--fast'"]),
        (
            &["run", "--strat-method=spawn", "ticket.rhai"],
            &[
                "no option '--strat-method'",
                "did you mean '--start-method'?",
            ],
        ),
        (&["run", "-x"], &["no option '-x'"]),
        (&["-c", "print(1)"], &["a line of code is given by -e"]),
        (
            &["rnu", "ticket.rhai"],
            &["no command 'rnu'", "did you mean 'run'?"],
        ),
        (
            &["ticket.rhai"],
            &["'ticket.rhai' is no command", "`mphost run ticket.rhai`"],
        ),
        (&["-"], &["`mphost run -`"]),
        (&["test", "--jbos", "2"], &["'--jbos'"]),
        (
            &["__child"],
            &["'__child' is how this program starts its own processes"],
        ),
        (&["__forkserver"], &["it can't be used by hand"]),
    ];
    for (arguments, parts) in cases {
        run_in(folder.path(), arguments).fails(USAGE, parts);
    }
}

#[test]
fn option_values_that_mean_nothing() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["run", "--start-method", "thread", "a.rhai"],
            &["'thread'", "fork, spawn and forkserver"],
        ),
        (&["run", "--start-method"], &["a value is required"]),
        (
            &["test", "--jobs", "0"],
            &["'0'", "whole number, 1 or more"],
        ),
        (
            &["test", "--repeat", "many"],
            &["'many'", "whole number, 1 or more"],
        ),
        (
            &["test", "--filter", "/(/", "."],
            &["--filter", "unclosed group"],
        ),
    ];
    let folder = folder();
    for (arguments, parts) in cases {
        run_in(folder.path(), arguments).fails(USAGE, parts);
    }
}

#[test]
fn tests_that_are_not_there() {
    let folder = folder();
    run_in(folder.path(), &["test", "absent"]).fails(USAGE, &["absent", "No such file"]);
    run_in(folder.path(), &["test", "chapter"]).fails(USAGE, &["no tests found in chapter"]);
}

/// What follows a script is the script's own, whatever it looks like.
#[test]
fn options_after_the_script_are_not_ours() {
    let folder = folder();
    for after in [["--fast", "-x"], ["--start-method", "thread"]] {
        let arguments = [&["run", "ticket.rhai"], &after[..]].concat();
        let ran = run_in(folder.path(), &arguments);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), "1\n", "")
        );
    }
}

#[test]
fn names_that_are_not_there() {
    code("Proces(1)").fails(
        FAILED,
        &["NameError", "'Proces'", "did you mean 'Process'?"],
    );
    code("let p = Process(); p.strat()").fails(
        FAILED,
        &[
            "AttributeError",
            "'Process' object",
            "'strat'",
            "did you mean 'start'?",
        ],
    );
    code("let q = Queue(); q.gett()").fails(FAILED, &["AttributeError", "did you mean 'get'?"]);
    code("nothing").fails(FAILED, &["NameError", "nothing"]);
    code("Event().colour").fails(FAILED, &["AttributeError", "colour"]);
    code("import \"absent\" as a;").fails(FAILED, &["ModuleNotFoundError", "absent"]);
    code("get_context(\"thread\")").fails(FAILED, &["ValueError", "fork, spawn and forkserver"]);
}

#[test]
fn calls_with_the_wrong_number_of_arguments() {
    let cases = [
        ("Lock(1)", "Lock() takes at most 0 arguments, 1 were given"),
        ("Queue(1, 2)", "Queue() takes at most 1 arguments"),
        ("Queue().put()", "put(): 'item' is missing"),
        (
            "Queue().put(1, true, 1, 1)",
            "put() takes at most 3 arguments, 4 were given",
        ),
        (
            "Lock().acquire(true, 1, 1)",
            "acquire() takes at most 2 arguments",
        ),
        ("Event().set(1)", "set() takes at most 0 arguments"),
        ("Barrier()", "Barrier(): 'parties' is missing"),
        ("Value()", "Value(): 'typecode' is missing"),
        ("Pipe(true, true)", "Pipe() takes at most 1 arguments"),
        ("Pipe()[0].send()", "send(): 'obj' is missing"),
        ("Process().start(1)", "start() takes at most 0 arguments"),
    ];
    for (call, part) in cases {
        code(call).fails(FAILED, &["TypeError: ", part, "line 1"]);
    }
}

#[test]
fn calls_with_arguments_of_the_wrong_type() {
    let cases = [
        (
            "Process(1)",
            "Process(): 'target' must be a function, not int",
        ),
        (
            "spawn(|| 1, 5)",
            "spawn(): 'args' must be an array, not int",
        ),
        (
            "Process().join(\"x\")",
            "'timeout' must be a number of seconds, or () for ever, not string",
        ),
        (
            "Queue(\"a\")",
            "Queue(): 'maxsize' must be a whole number, not string",
        ),
        (
            "Queue().get(true, [])",
            "get(): 'timeout' must be a number of seconds",
        ),
        (
            "Lock().acquire(\"x\")",
            "acquire(): 'block' must be true or false, not string",
        ),
        (
            "Semaphore(\"x\")",
            "Semaphore(): 'value' must be a whole number, not string",
        ),
        (
            "Barrier(1.5)",
            "Barrier(): 'parties' must be a whole number, not float",
        ),
        (
            "Value(\"i\", \"a\")",
            "typecode 'i' (c_int) takes a whole number, not string",
        ),
        (
            "Array(\"i\", 3)[0] = \"x\"",
            "takes a whole number, not string",
        ),
        ("Pipe(1)", "Pipe(): 'duplex' must be true or false, not int"),
        ("set_start_method(1)", "'method' must be a string, not int"),
        ("with 5 { }", "'int' object can't be used with `with`"),
    ];
    for (call, part) in cases {
        // An assignment needs a variable in front.
        let call = match call.strip_prefix("Array(\"i\", 3)[0]") {
            Some(rest) => format!("let a = Array(\"i\", 3); a[0]{rest}"),
            None => call.to_owned(),
        };
        code(&call).fails(FAILED, &["TypeError: ", part]);
    }
}

#[test]
fn options_of_a_call_that_it_does_not_have() {
    code("Lock().acquire(#{timout: 1})").fails(
        FAILED,
        &[
            "TypeError",
            "no option 'timout'",
            "did you mean 'timeout'?",
            "it takes: block, timeout",
        ],
    );
    code("Process(#{traget: 1})").fails(
        FAILED,
        &["TypeError", "no option 'traget'", "did you mean 'target'?"],
    );
}

#[test]
fn values_out_of_range() {
    let cases = [
        (
            "Semaphore(-1)",
            "ValueError: semaphore initial value must be >= 0",
        ),
        ("Barrier(0)", "ValueError: parties must be >= 1"),
        ("Value(\"z\", 1)", "ValueError: unknown typecode 'z'"),
        (
            "Value(\"i\", 99999999999)",
            "OverflowError: 99999999999 is out of range",
        ),
        (
            "Array(\"i\", -1)",
            "ValueError: Array(): the size must not be negative",
        ),
        (
            "Array(\"i\", 3)[7]",
            "IndexError: invalid index: 7 in an array of 3",
        ),
        ("1 / 0", "ZeroDivisionError: "),
        ("fn f(x) { f(x) } f(1)", "RecursionError: "),
        (
            "Lock().release()",
            "ValueError: semaphore or lock released too many times",
        ),
    ];
    for (call, part) in cases {
        code(call).fails(FAILED, &[part]);
    }
}

#[test]
fn what_cannot_travel_is_named_with_its_path() {
    for method in ["fork", "spawn", "forkserver"] {
        let start = "fn f(x) {} Process(f, [1, #{a: [Process()]}]).start()";
        run(&["run", "--start-method", method, "-e", start])
            .fails(FAILED, &["PicklingError", "Process", "args[1].a[0]"]);
    }
    code("Queue().put([1, #{a: Process()}])").fails(FAILED, &["PicklingError", "item[1].a"]);
}

#[test]
fn a_reader_that_goes_away() {
    let folder = folder();
    let mut child = program()
        .current_dir(folder.path())
        .args(["run", "endless.rhai"])
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    // Its reading end is closed now, as `mphost run endless.rhai | head -1` does.
    ended(child).fails(FAILED, &["BrokenPipeError", "standard output"]);
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let child = program()
        .args(["-e", "print(1)"])
        .stdout(full())
        .spawn()
        .unwrap();
    ended(child).fails(
        FAILED,
        &["OSError", "standard output", "No space left on device"],
    );
    // There is nowhere to say so, but the exit code tells.
    let status = program()
        .args(["-e", "print(1)"])
        .stdout(full())
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(FAILED));
}

#[test]
fn standard_streams_that_are_closed() {
    let all = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"];
    for closed in all {
        // A session's memory must never take the number of a standard stream.
        let script =
            format!("exec \"$0\" -e 'let q = Queue(); print(1); q.put(2); q.get()' {closed}");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &script, env!("CARGO_BIN_EXE_mphost")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let ran = ran(&mut shell);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{closed}");
    }
}

#[test]
fn a_working_directory_that_takes_no_files_or_is_gone() {
    let folder = folder();
    let script = folder.path().join("processes.rhai");
    std::fs::write(
        &script,
        "fn f(q) { q.put(1); } let q = Queue(); let p = spawn(f, [q]); p.join(); print(q.get());",
    )
    .unwrap();
    let gone = tempfile::tempdir().unwrap().keep();
    for method in ["fork", "spawn", "forkserver"] {
        let mut command = program();
        command.args(["run", "--start-method", method]).arg(&script);
        // Not even root can make a file there.
        let unwritable = ran(command.current_dir("/proc"));
        assert_eq!(
            (unwritable.out.as_str(), unwritable.err.as_str()),
            ("1\n", ""),
            "{method}"
        );
        let mut shell = Command::new("/bin/sh");
        shell
            .args([
                "-c",
                "rmdir \"$2\"; exec \"$0\" run --start-method \"$3\" \"$1\"",
            ])
            .arg(env!("CARGO_BIN_EXE_mphost"))
            .args([&script, &gone])
            .arg(method)
            .current_dir(&gone)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let removed = ran(&mut shell);
        assert_eq!(
            (removed.out.as_str(), removed.err.as_str()),
            ("1\n", ""),
            "{method}"
        );
        let _ = std::fs::create_dir(&gone);
    }
    let _ = std::fs::remove_dir(&gone);
}

#[test]
fn standard_input_that_is_no_script() {
    for (bytes, part) in [
        (&b"print(1);\xff"[..], "'<stdin>' isn't UTF-8"),
        (&b"let = 1"[..], "<stdin>"),
    ] {
        let mut child = program()
            .args(["run", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        ended(child).fails(USAGE, &[part]);
    }
    let directory = File::open("/proc").unwrap();
    let child = program()
        .args(["run", "-"])
        .stdin(directory)
        .spawn()
        .unwrap();
    ended(child).fails(USAGE, &["standard input can't be read", "is a directory"]);
}
