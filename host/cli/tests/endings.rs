//! How programs end: nothing is left behind, whatever ends them.
//!
//! Each test starts the built binary with a script, ends it in some way, and then looks for what it left: processes, descriptors,
//! names in /dev/shm. Waiting is done on pipes and pids, never by guessing a time.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const METHODS: [&str; 3] = ["fork", "spawn", "forkserver"];

/// How long anything here may take before the test gives up: many times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn script(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a script in it");
    (folder, path)
}

fn start(method: &str, path: &PathBuf) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["run", "--start-method", method])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the host starts")
}

/// The pids that the script prints, a line each, until it says `ready`.
fn pids_until_ready(child: &mut Child) -> Vec<i32> {
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut pids = Vec::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        match line.as_str() {
            "ready" => return pids,
            number => pids.push(number.parse().expect("a pid")),
        }
    }
    let mut stderr = String::new();
    let _ = child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr);
    panic!("the script ended before it was ready: {stderr}");
}

fn is_alive(pid: i32) -> bool {
    // A zombie has ended; whoever inherited it reaps it in its own time.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
    })
}

fn assert_all_gone(pids: &[i32], how: &str) {
    let begin = Instant::now();
    while let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
        assert!(
            begin.elapsed() < PATIENCE,
            "process {pid} outlived its program, ended by {how}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shared_memory_names() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains("mphost"))
        .collect()
}

/// Children and grandchildren that would run for ever; each tells its pid.
const TREE: &str = r#"
fn leaf(q) { q.put(os::getpid()); time::sleep(3600); }
fn branch(q) {
    let p = spawn(leaf, [q]);
    q.put(os::getpid());
    time::sleep(3600);
}
let q = Queue();
let branches = [spawn(branch, [q]), spawn(branch, [q])];
let alone = Process(leaf, [q], #{daemon: true});
alone.start();
for i in range(5) { print(q.get()); }
// Under nohup it is ignored from the start.
signal::signal(signal::SIGHUP, signal::SIG_DFL);
print("ready");
WAY
"#;

fn a_tree_ends(way_in_script: &str, signal: Option<&str>, how: &str) {
    for method in METHODS {
        let (_folder, path) = script("tree.rhai", &TREE.replace("WAY", way_in_script));
        let mut child = start(method, &path);
        let pids = pids_until_ready(&mut child);
        assert_eq!(pids.len(), 5);
        if let Some(signal) = signal {
            let status = Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .expect("kill");
            assert!(status.success());
        }
        child.wait().expect("it ends");
        assert_all_gone(&pids, how);
        assert_eq!(shared_memory_names(), Vec::<String>::new());
    }
}

#[test]
fn nothing_outlives_a_main_process_that_is_killed() {
    a_tree_ends("time::sleep(3600);", Some("-KILL"), "SIGKILL");
}

#[test]
fn nothing_outlives_a_main_process_that_is_terminated() {
    a_tree_ends("time::sleep(3600);", Some("-TERM"), "SIGTERM");
}

#[test]
fn nothing_outlives_a_main_process_that_loses_its_terminal() {
    a_tree_ends("time::sleep(3600);", Some("-HUP"), "SIGHUP");
}

#[test]
fn nothing_outlives_a_main_process_that_runs_out_of_memory() {
    use std::os::unix::process::ExitStatusExt;
    for method in METHODS {
        // It may have some more memory than it has, and no more.
        let way = "let text = \"x\" * 1000000; loop { text += text; }";
        let gate = format!("sys::stdin.readline(); {way}");
        let (_folder, path) = script("tree.rhai", &TREE.replace("WAY", &gate));
        let mut child = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .args(["run", "--start-method", method])
            .arg(&path)
            // Rust's own report of what it can't allocate would allocate, and hang.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let pids = pids_until_ready(&mut child);
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.expect("it runs");
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let size = size.and_then(|size| size.split_whitespace().next());
        let size: u64 = size.expect("in kB").parse().expect("a number");
        let limited = Command::new("prlimit")
            .args(["--pid", &child.id().to_string()])
            .arg(format!("--as={}", (size + 100_000) * 1024))
            .status()
            .expect("prlimit");
        assert!(limited.success());
        drop(child.stdin.take());
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(6), "{method}: {status}");
        assert_all_gone(&pids, "running out of memory");
    }
}

#[test]
fn a_killed_child_takes_its_own_children_along() {
    a_tree_ends(
        "for p in branches { p.kill(); p.join(); }",
        None,
        "the death of their parents",
    );
}

#[test]
fn an_interrupt_ends_everything_with_one_traceback() {
    for method in METHODS {
        let (_folder, path) = script("tree.rhai", &TREE.replace("WAY", "time::sleep(3600);"));
        let mut child = start(method, &path);
        let pids = pids_until_ready(&mut child);
        let status = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success());
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("text");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(130), "{method}: {stderr}");
        assert_eq!(stderr.matches("Traceback").count(), 1, "{method}: {stderr}");
        assert!(stderr.contains("KeyboardInterrupt"), "{method}: {stderr}");
        assert_all_gone(&pids, "Ctrl-C");
    }
}

fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is there");
}

fn stderr_line(stderr: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "no {wanted}");
    }
}

#[test]
fn a_second_interrupt_ends_a_program_that_takes_its_time_to_end() {
    use std::os::unix::process::ExitStatusExt;
    for method in METHODS {
        let way = "atexit::register(|| time::sleep(3600)); time::sleep(3600);";
        let (_folder, path) = script("tree.rhai", &TREE.replace("WAY", way));
        let mut child = start(method, &path);
        let pids = pids_until_ready(&mut child);
        interrupt(&child);
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        stderr_line(&mut stderr, "KeyboardInterrupt");
        // Its children are gone before the script's own exit handlers are called.
        assert_all_gone(&pids, "Ctrl-C");
        interrupt(&child);
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(2), "{method}: {status}");
    }
}

#[test]
fn a_second_interrupt_ends_a_program_that_hangs_in_a_system_call() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    // Nobody opens the other end.
    let way = format!("open({:?});", fifo.display().to_string());
    let (_folder, path) = script("tree.rhai", &TREE.replace("WAY", &way));
    let mut child = start("fork", &path);
    let pids = pids_until_ready(&mut child);
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("a child").is_none());
    interrupt(&child);
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(2), "{status}");
    assert_all_gone(&pids, "two Ctrl-C");
}

#[test]
fn an_interrupt_that_is_caught_is_forgotten() {
    let text = r#"
        for i in range(3) {
            try { print("ready"); time::sleep(3600); } catch (e) { print(e.type); }
        }
    "#;
    let (_folder, path) = script("script.rhai", text);
    let mut child = start("fork", &path);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        interrupt(&child);
        let line = lines.next().expect("a line").expect("text");
        assert_eq!(line, "KeyboardInterrupt");
    }
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn children_that_ignore_what_they_are_asked_are_ended_all_the_same() {
    for method in METHODS {
        let text = r#"
            fn stubborn(q) {
                for n in [signal::SIGTERM, signal::SIGINT, signal::SIGHUP] { signal::signal(n, signal::SIG_IGN); }
                q.put(os::getpid());
                time::sleep(3600);
            }
            let q = Queue();
            let d = Process(stubborn, [q], #{daemon: true});
            d.start();
            let pool = Pool(2);
            for i in range(2) { pool.apply_async(stubborn, [q]); }
            for i in range(3) { print(q.get()); }
            print("ready");
            pool.terminate();
            pool.join();
        "#;
        let (_folder, path) = script("script.rhai", text);
        let mut child = start(method, &path);
        let pids = pids_until_ready(&mut child);
        assert!(child.wait().expect("it ends").success());
        // The program has waited for them: they are gone at once.
        for pid in pids {
            assert!(!is_alive(pid), "{method}: {pid}");
        }
    }
}

fn output_of(method: &str, text: &str) -> String {
    let (_folder, path) = script("script.rhai", text);
    let output = start(method, &path).wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{method}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_thousand_processes_leave_no_descriptor() {
    for method in METHODS {
        let text = r#"
            fn noop() {}
            fn descriptors() { os::listdir("/proc/self/fd").len() }
            spawn(noop).join();
            let before = descriptors();
            for i in range(1000) {
                let p = spawn(noop);
                p.join();
                if p.exitcode != 0 { throw p.exitcode; }
            }
            print(descriptors() - before);
        "#;
        assert_eq!(output_of(method, text), "0\n", "{method}");
    }
}

#[test]
fn a_thousand_queues_leave_no_descriptor() {
    let text = r#"
        fn descriptors() { os::listdir("/proc/self/fd").len() }
        let before = descriptors();
        for i in range(1000) {
            let q = Queue();
            q.put(q);
            q.get();
        }
        print(descriptors() - before);
    "#;
    assert_eq!(output_of("fork", text), "0\n");
}

#[test]
fn non_daemonic_children_are_joined_at_the_end_and_daemonic_ones_ended() {
    for method in METHODS {
        let text = r#"
            fn finish(started, gate) { started.set(); gate.wait(); print("finished"); }
            fn never(started) { started.set(); time::sleep(3600); print("never"); }
            let gate = Event();
            let a = Event();
            let b = Event();
            spawn(finish, [a, gate]);
            let d = Process(never, [b], #{daemon: true});
            d.start();
            a.wait();
            b.wait();
            print("end of the script");
            gate.set();
        "#;
        assert_eq!(
            output_of(method, text),
            "end of the script\nfinished\n",
            "{method}"
        );
    }
}

#[test]
fn an_uncaught_error_still_joins_the_children() {
    for method in METHODS {
        let text = "fn say(gate) { gate.wait(); print(\"child\"); }\nlet gate = Event();\nspawn(say, [gate]);\ngate.set();\nthrow ValueError(\"bad\");";
        let (_folder, path) = script("script.rhai", text);
        let output = start(method, &path).wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "child\n");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("line 5, column 1") && stderr.ends_with("ValueError: bad\n"),
            "{stderr}"
        );
    }
}

#[test]
fn a_childs_error_is_one_traceback_under_its_name() {
    for method in METHODS {
        let text = "fn inner(x) { throw ValueError(\"bad \" + x); }\nfn outer(x) { inner(x); }\nlet p = Process(outer, [1], #{name: \"worker\"});\np.start();\np.join();\nprint(p.exitcode);";
        let (_folder, path) = script("script.rhai", text);
        let output = start(method, &path).wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
        let path = path.display();
        let expected = format!(
            "Process worker:\nTraceback (most recent call last):\n  File \"{path}\", line 2, column 15, in outer\n    fn outer(x) {{ inner(x); }}\n                  ^\n  File \"{path}\", line 1, column 15, in inner\n    fn inner(x) {{ throw ValueError(\"bad \" + x); }}\n                  ^\nValueError: bad 1\n"
        );
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            expected,
            "{method}"
        );
    }
}

#[test]
fn a_killed_forkserver_is_started_again_and_its_children_live_on() {
    let text = r#"
        fn noop() {}
        fn wait_for(gate, done) { gate.wait(); done.put(os::getppid()); }
        fn server(q) { q.put(os::getppid()); }
        let gate = Event();
        let done = Queue();
        let q = Queue();
        let waiting = spawn(wait_for, [gate, done]);
        spawn(server, [q]).join();
        let first = q.get();
        os::kill(first, 9);
        let p = spawn(server, [q]);
        p.join();
        let second = q.get();
        gate.set();
        done.get();
        waiting.join();
        print([first != second, waiting.exitcode, p.exitcode]);
    "#;
    assert_eq!(output_of("forkserver", text), "[true, 0, 0]\n");
}
