//! What happens where something runs out, or is taken away: a clear error that a script can catch, and the rest goes on.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const METHODS: [&str; 3] = ["fork", "spawn", "forkserver"];

/// Runs a script under limits of the shell's (`ulimit`).
fn limited(limit: &str, text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("script.rhai");
    std::fs::write(&path, text).expect("a script in it");
    Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{limit} && exec \"$0\" run \"$1\""))
        .arg(env!("CARGO_BIN_EXE_mphost"))
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("the shell starts")
}

#[track_caller]
fn assert_prints(output: &Output, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{stderr}"
    );
}

/// The largest file that may be written is the session's memory: small enough to be filled in a test.
const SMALL_SESSION: &str = "ulimit -f 600000";

#[test]
fn a_thousand_processes_at_once() {
    let text = r#"
        fn wait_for(gate, there) { there.release(); gate.wait(); }
        // Spawned ones are no different, but each needs memory of its own.
        for method in ["fork", "forkserver"] {
            let gate = Event();
            let there = Semaphore(0);
            let all = [];
            for i in range(1000) {
                let p = get_context(method).Process(wait_for, [gate, there]);
                p.start();
                all.push(p);
            }
            for p in all { there.acquire(); }
            print(active_children().len());
            gate.set();
            for p in all { p.join(); }
            print(sum(all.map(|p| p.exitcode)));
        }
    "#;
    assert_prints(&limited("true", text), "1000\n0\n1000\n0\n");
}

#[test]
fn a_hundred_thousand_handles_at_once() {
    let text = r#"
        fn count(q) { let all = q.get(); all[99999].set(); all.len() }
        fn report(q, out) { out.put(count(q)); }
        let all = [];
        for i in range(100000) { all.push(Event()); }
        let q = Queue();
        let out = Queue();
        q.put(all);
        let p = spawn(report, [q, out]);
        print(out.get());
        p.join();
        print(all[99999].is_set());
        // They are given back: as many again have room.
        all.clear();
        for i in range(200000) { all.push(Lock()); }
        print(all.len());
    "#;
    assert_prints(&limited("true", text), "100000\ntrue\n200000\n");
}

#[test]
fn no_room_for_one_more_object() {
    let text = r#"
        let all = [];
        let error = "";
        while error == "" {
            try { all.push(Lock()); } catch (e) { error = e.message; }
        }
        print(all.len() > 10000);
        print(error);
        all.clear();
        let q = Queue();
        q.put("on");
        print(q.get());
    "#;
    assert_prints(
        &limited(SMALL_SESSION, text),
        "true\ntoo many shared objects: the session's table of objects is full\non\n",
    );
}

#[test]
fn no_room_for_one_more_process() {
    let text = r#"
        fn wait_for(gate) { gate.wait(); }
        let gate = Event();
        let all = [];
        let error = "";
        while error == "" {
            try { all.push(spawn(wait_for, [gate])); } catch (e) { error = e.type + ": " + e.message; }
        }
        print(all.len() > 500);
        print(error);
        gate.set();
        for p in all { p.join(); }
        print(sum(all.map(|p| p.exitcode)));
        let p = spawn(|| print("on"));
        p.join();
    "#;
    assert_prints(
        &limited(SMALL_SESSION, text),
        "true\nOSError: too many processes: the session's table of processes is full\n0\non\n",
    );
}

#[test]
fn no_memory_left_for_a_queue() {
    let text = r#"
        let q = Queue();
        let other = Queue();
        let item = "x" * 1000000;
        let n = 0;
        let error = "";
        while error == "" {
            try { q.put(item); n += 1; } catch (e) { error = e.type; }
        }
        print([n > 100, error]);
        // What was put is there, and others go on.
        for i in range(n) { if q.get() != item { throw "torn"; } }
        print(q.empty());
        other.put("on");
        print(other.get());
        q.put(item);
        print(q.get() == item);
    "#;
    assert_prints(
        &limited(SMALL_SESSION, text),
        "[true, \"MemoryError\"]\ntrue\non\ntrue\n",
    );
}

#[test]
fn no_descriptor_left() {
    let text = r#"
        fn answer(c) { c.send("on"); }
        let all = [];
        let error = "";
        while error == "" {
            try { all.push(Pipe()); } catch (e) { error = e.type + ": " + e.message; }
        }
        print(error);
        // Queues and locks need none.
        let q = Queue();
        q.put(1);
        print(q.get());
        for ends in all { ends[0].close(); ends[1].close(); }
        let ends = Pipe();
        let p = spawn(answer, [ends[1]]);
        print(ends[0].recv());
        p.join();
    "#;
    let output = limited("ulimit -n 40", text);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("OSError: ") && lines[0].contains("oo many open files"),
        "{stdout}"
    );
    assert_eq!(lines[1..], ["1", "on"]);
}

/// Everything that takes descriptors is tried with 0 to 11 of them left: it works, or says that there are none left; what was begun is taken back,
/// and nothing is stuck.
#[test]
fn hardly_any_descriptor_left() {
    let text = r#"
        fn noop() {}
        fn answer(c) { c.send("on"); }
        fn use_queue() { let q = Queue(); q.put(1); q.get(); }
        fn use_pipe() { let ends = Pipe(); ends[0].send(1); ends[1].recv(); ends[0].close(); ends[1].close(); }
        fn start(method) {
            let p = get_context(method).Process(noop);
            p.start();
            p.join();
            if p.exitcode != 0 { throw `started by ${method}, it ends with ${p.exitcode}`; }
        }
        fn start_with_pipe(method) {
            let ends = Pipe();
            let p = ();
            try {
                p = get_context(method).Process(answer, [ends[1]]);
                p.start();
                ends[1].close();
                if ends[0].recv() != "on" { throw "no answer"; }
            } catch (e) { ends[0].close(); ends[1].close(); throw e; }
            ends[0].close();
            p.join();
            if p.exitcode != 0 { throw `started by ${method} with a pipe, it ends with ${p.exitcode}`; }
        }
        fn use_manager() { with Manager() as m { let d = m.dict(); d["a"] = 1; } }
        fn use_pool() { with Pool(1) as pool { pool.apply(noop); } }
        fn use_file() { open("/dev/null").close(); }
        fn use_socket() { socket::socket().close(); }
        fn use_listener() { mp::connection::Listener(["127.0.0.1", 0]).close(); }
        fn use_program() { subprocess::run(["true"]); }
        fn use_memory() { let m = mp::shared_memory::SharedMemory(#{create: true, size: 100}); m.close(); m.unlink(); }
        fn descriptors() { os::listdir("/proc/self/fd").len() }
        let uses = [use_queue, use_pipe, use_manager, use_pool, use_file, use_socket, use_listener, use_program, use_memory];
        for method in ["fork", "spawn", "forkserver"] { uses.push(|| start(method)); uses.push(|| start_with_pipe(method)); }
        // Once, so that the forkserver is there.
        for u in uses { u.call(); }
        let before = descriptors();
        let refused = 0;
        for free in range(12) {
            let held = [];
            let full = false;
            while !full { try { held.push(open("/dev/null")); } catch (e) { full = true; } }
            for i in range(free) { held.pop().close(); }
            for u in uses {
                try { u.call(); } catch (e) {
                    if type_of(e) == "string" || e.type != "OSError" || !e.message.contains("oo many open files") { throw `${free} left: ${e}`; }
                    refused += 1;
                }
            }
            while held.len() > 0 { held.pop().close(); }
        }
        if refused < 20 { throw `only ${refused} were refused`; }
        for u in uses { u.call(); }
        if descriptors() != before { throw `${descriptors() - before} descriptors more than before`; }
        if active_children().len() != 0 { throw "a process is left"; }
        print("on");
    "#;
    assert_prints(&limited("ulimit -n 64", text), "on\n");
}

/// Uses whatever a program may need of the system.
const EVERYTHING: &str = r#"
    fn work(q, a) { a[0] = 7; q.put(os::getpid()); }
    for method in ["fork", "spawn", "forkserver"] {
        let q = Queue();
        let a = Array("i", 100000);
        let p = get_context(method).Process(work, [q, a]);
        p.start();
        if q.get() != p.pid || a[0] != 7 { throw method; }
        p.join();
    }
    with Pool(2) as pool { if pool.map(|x| x * x, [1, 2, 3]) != [1, 4, 9] { throw "Pool"; } }
    with Manager() as m { let d = m.dict(); d["a"] = 1; if d["a"] != 1 { throw "Manager"; } }
    let m = mp::shared_memory::SharedMemory(#{create: true, size: 1000000});
    m.buf[999999] = 1;
    m.close();
    m.unlink();
    let l = mp::connection::Listener();
    l.close();
    if subprocess::run(["true"]).returncode != 0 { throw "subprocess"; }
"#;

/// Runs a script where the file system has been changed by `prepare`, for it alone (unshare(1)): `$0` is a folder for that. Nothing where this system
/// lets nobody do so.
fn elsewhere(prepare: &str, text: &str) -> Option<Output> {
    let may = |options: &[&str]| {
        let tried = Command::new("unshare").args(options).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    let options = [
        &["--mount"][..],
        &["--user", "--map-root-user", "--mount"][..],
    ];
    let Some(options) = options.into_iter().find(|options| may(options)) else {
        eprintln!("not tested: this system has no namespaces of mounts for its users");
        return None;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("script.rhai");
    std::fs::write(&path, text).expect("a script in it");
    let output = Command::new("unshare")
        .args(options)
        .args(["/bin/sh", "-c"])
        .arg(format!("set -e; {prepare}; exec \"$1\" run \"$2\""))
        .arg(folder.path())
        .arg(env!("CARGO_BIN_EXE_mphost"))
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    Some(output.expect("unshare starts"))
}

#[test]
fn no_dev_shm() {
    let without = "mkdir $0/dev; mount -t tmpfs none $0/dev; ln -s /proc/self/fd $0/dev/fd; \
                   for n in null zero random urandom; do touch $0/dev/$n; mount --bind /dev/$n $0/dev/$n; done; \
                   mount --bind $0/dev /dev; test ! -e /dev/shm";
    let text = format!("{EVERYTHING} print(os::path::exists(\"/dev/shm\"));");
    if let Some(output) = elsewhere(without, &text) {
        assert_prints(&output, "false\n");
    }
}

#[test]
fn a_working_directory_that_cannot_be_written() {
    let read_only =
        "mkdir $0/here; mount --bind $0/here $0/here; mount -o remount,ro,bind $0/here; cd $0/here";
    let text = format!(
        "{EVERYTHING} try {{ open(\"x\", \"w\"); }} catch (e) {{ print(`${{e.type}}: ${{e.message}}`); }} print(\"on\");"
    );
    if let Some(output) = elsewhere(read_only, &text) {
        assert_prints(&output, "OSError: Read-only file system: 'x'\non\n");
    }
}

#[test]
fn a_working_directory_that_is_not_there() {
    let text = format!(
        "{EVERYTHING} for f in [|| os::getcwd(), || open(\"x\", \"w\")] {{ try {{ f.call(); }} catch (e) {{ print(e.type); }} }} print(\"on\");"
    );
    let output = limited(
        "mkdir -p \"$1.d/d\" && cd \"$1.d/d\" && rm -r \"$1.d\"",
        &text,
    );
    assert_prints(&output, "FileNotFoundError\nFileNotFoundError\non\n");
}

#[test]
fn no_room_for_a_value_whose_size_is_a_slip() {
    let text = r#"
        fn huge(x) { blob(99999999999999) }
        for f in [|| blob(99999999999999), || "x" * 99999999999999, || RawArray("d", 99999999999999), || os::urandom(99999999999999)] {
            try { f.call(); print("made"); } catch (e) { print(e.type); }
        }
        let p = spawn(huge, [1]);
        p.join();
        print(p.exitcode);
        with Pool(1) as pool { try { pool.apply(huge, [1]); } catch (e) { print(e.message); } }
    "#;
    let output = limited("true", text);
    assert_prints(
        &output,
        "MemoryError\nMemoryError\nMemoryError\nMemoryError\n1\nthere is no memory for a value of 99999999999999 bytes\n",
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("Process Process-1:"));
}

#[test]
fn values_nested_too_deep_are_refused_whole() {
    let text = r#"
        let deep = [];
        for i in range(200) { deep = [deep]; }
        let q = Queue();
        let ends = Pipe();
        for send in [|| q.put(deep), || ends[0].send(deep), || spawn(|x| x, [deep])] {
            try { send.call(); print("sent"); } catch (e) { print(e.type); }
        }
        print([q.empty(), ends[1].poll()]);
    "#;
    assert_prints(
        &limited("true", text),
        "PicklingError\nPicklingError\nPicklingError\n[true, false]\n",
    );
}

#[test]
fn functions_that_call_each_other_too_deep_are_an_error_and_no_crash() {
    let text = r#"
        fn f(x) { f(x + 1) }
        let p = spawn(f, [0]);
        p.join();
        print(p.exitcode);
        with Pool(1) as pool {
            try { pool.apply(f, [0]); } catch (e) { print(e.type); }
            print(pool.apply(|x| x, ["on"]));
        }
        try { f(0); } catch (e) { print(e.type); }
        f(0);
    "#;
    let output = limited("true", text);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\nRecursionError\non\nRecursionError\n",
        "{stderr}"
    );
    assert!(
        stderr.contains("Process Process-1:")
            && stderr.ends_with("RecursionError: Stack overflow\n"),
        "{stderr}"
    );
}

/// A program that has begun, and goes on when it is told to.
fn in_the_middle(method: &str, program: &Path, folder: &Path, meanwhile: impl FnOnce()) {
    let script = folder.join("script.rhai");
    let text = r#"
        fn work(q) { q.put("worked"); }
        print("begun");
        input();
        let q = Queue();
        let p = spawn(work, [q]);
        print(q.get());
        p.join();
        with Pool(1) as pool { print(pool.apply(|x| x + 1, [1])); }
    "#;
    std::fs::write(&script, text).expect("a script");
    let mut child = Command::new(program)
        .args(["run", "--start-method", method])
        .arg(&script)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the host starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "begun");
    meanwhile();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"\n").expect("it reads");
    assert_eq!([line(), line()], ["worked", "2"], "{method}");
    assert!(child.wait().expect("it ends").success(), "{method}");
}

#[test]
fn the_program_s_own_file_may_go_while_it_runs() {
    for method in METHODS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = folder.path().join("mphost");
        // A link would do, were it the same file system: then there is nothing to copy.
        if std::fs::hard_link(env!("CARGO_BIN_EXE_mphost"), &program).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_mphost"), &program).expect("a copy");
        }
        in_the_middle(method, &program, folder.path(), || {
            std::fs::remove_file(&program).expect("it is there");
            std::fs::write(&program, "another version").expect("room");
        });
    }
}

#[test]
fn the_working_directory_and_the_script_may_go_while_it_runs() {
    for method in METHODS {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("a folder");
        let program = Path::new(env!("CARGO_BIN_EXE_mphost"));
        in_the_middle(method, program, &inner, || {
            std::fs::remove_dir_all(&inner).expect("it is there");
        });
    }
}
