//! Children of programs of every kind: what they find, what they are told, what is left of them.
//!
//! Behaviours of the conformance map that a scripted test can't see from inside: what stands on standard error, what is
//! left after the end, programs that are no file.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const METHODS: [&str; 3] = ["fork", "spawn", "forkserver"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

/// Runs the host with these arguments in a folder, and with a text on standard input.
fn run(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the host starts");
    // It may end without reading.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// What a program prints, which must say nothing else and end with 0.
fn output(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = run(folder, arguments, input);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ctx_11_a_script_needs_no_guard() {
    let folder = folder();
    let text = "print(\"top\");\nfn f() { print(123); }\nlet p = Process(f);\np.start();\np.join();\nprint(p.exitcode);\n";
    write(folder.path(), "script.rhai", text);
    for method in METHODS {
        let printed = output(
            folder.path(),
            &["run", "--start-method", method, "script.rhai"],
            "",
        );
        assert_eq!(printed, "top\n123\n0\n", "{method}");
    }
}

#[test]
fn ctx_13_programs_of_every_kind_have_children() {
    let folder = folder();
    let text = "fn f(q, x) { q.put(x + 1); } let q = Queue(); spawn(f, [q, 1]).join(); print(q.get()); \
                let k = 10; with Pool(1) as p { print(p.map(|x| x + k, [1, 2])); }";
    write(folder.path(), "deep/er/script.rhai", text);
    let absolute = folder.path().join("deep/er/script.rhai");
    let absolute = absolute.to_str().expect("a text");
    for method in METHODS {
        for arguments in [
            vec!["run", "--start-method", method, "deep/er/script.rhai"],
            vec!["run", "--start-method", method, absolute],
            vec!["run", "--start-method", method, "-"],
            vec!["run", "--start-method", method, "-e", text],
        ] {
            assert_eq!(output(folder.path(), &arguments, text), "2\n[11, 12]\n");
        }
    }
}

#[test]
fn ctx_21_children_find_what_their_parent_imported() {
    let folder = folder();
    write(
        folder.path(),
        "program/main.rhai",
        r#"
        import "tools" as tools;
        fn work(q) { q.put(tools::describe(1)); }
        let q = Queue();
        os::chdir("/");
        spawn(work, [q]).join();
        print(q.get());
        with Pool(1) as pool {
            print(pool.map(tools::adder(10), [1, 2]));
            print(pool.map(|x| tools::describe(x), [5]));
            print(pool.map(tools::double, [3]));
        }
        spawn(tools::put_double, [q, 4]).join();
        print(q.get());
        try { tools::hidden } catch (e) { print(e.type); }
        print(tools::in_a_pool([1, 2]));
        print(tools::caught());
        "#,
    );
    write(
        folder.path(),
        "program/tools.rhai",
        r#"
        import "more/words" as words;
        fn describe(x) { words::many(x) }
        fn adder(n) { |x| x + n }
        fn double(x) { x * 2 }
        fn put_double(q, x) { q.put(double(x)); }
        private fn hidden(x) { x }
        fn in_a_pool(items) { with Pool(1) as pool { pool.map(double, items) } }
        fn caught() { try { [1][5] } catch (e) { return e.type; } }
        "#,
    );
    write(
        folder.path(),
        "program/more/words.rhai",
        "fn many(n) { `${n} of them` }",
    );
    for method in METHODS {
        let printed = output(
            folder.path(),
            &["run", "--start-method", method, "program/main.rhai"],
            "",
        );
        assert_eq!(
            printed,
            "1 of them\n[11, 12]\n[\"5 of them\"]\n[6]\n8\nNameError\n[2, 4]\nIndexError\n",
            "{method}"
        );
    }
}

#[test]
fn errors_in_modules_name_their_file() {
    let folder = folder();
    write(
        folder.path(),
        "main.rhai",
        "import \"lib/tools\" as tools;\ntools::fail(1);\n",
    );
    write(
        folder.path(),
        "lib/tools.rhai",
        "fn fail(x) {\n    throw ValueError(`not ${x}`);\n}\n",
    );
    let told = run(folder.path(), &["run", "main.rhai"], "");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.contains("File \"lib/tools.rhai\", line 2, column 5, in fail"),
        "{told}"
    );
    assert!(told.contains("throw ValueError(`not ${x}`);"), "{told}");
    write(folder.path(), "main.rhai", "import \"tolls\" as tools;\n");
    let told = run(folder.path(), &["run", "main.rhai"], "");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.contains("ModuleNotFoundError") && told.contains("tolls"),
        "{told}"
    );
}

#[test]
fn ctx_18_options_reach_children() {
    let folder = folder();
    let text = "fn f(q) { q.put([get_start_method(), mp::get_logger().level]); } let q = Queue(); spawn(f, [q]).join(); print(q.get());";
    for method in METHODS {
        let ran = run(
            folder.path(),
            &["run", "--start-method", method, "--log", "info", "-e", text],
            "",
        );
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert_eq!(printed, format!("[\"{method}\", 20]\n"));
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(
            told.contains("[INFO/Process-1] process exiting with exitcode 0\n"),
            "{told}"
        );
    }
}

#[test]
fn x_25_and_26_nothing_is_said_and_nothing_is_left() {
    let folder = folder();
    // Global locks, memory with a name, a manager that nobody ends, a pool that nobody closes.
    let text = r#"
        const LOCK = Lock();
        const SEMAPHORE = Semaphore(2);
        fn child(q, l) { with global::LOCK { with global::SEMAPHORE { l[0] = 5; q.put(os::getpid()); } } }
        let q = Queue();
        let blocks = mp::managers::SharedMemoryManager();
        blocks.start();
        let l = blocks.ShareableList([1, 2]);
        let p = spawn(child, [q, l]);
        p.join();
        print(q.get() == p.pid, l[0]);
        let block = mp::shared_memory::SharedMemory(#{create: true, size: 100});
        let m = Manager();
        let d = m.dict(#{a: 1});
        let pool = Pool(2);
        print(pool.map(|x| x + 1, [1, 2]), d);
    "#;
    write(folder.path(), "script.rhai", text);
    for method in METHODS {
        let printed = output(
            folder.path(),
            &["run", "--start-method", method, "script.rhai"],
            "",
        );
        assert_eq!(printed, "true 5\n[2, 3] {'a': 1}\n", "{method}");
        let names = std::fs::read_dir("/dev/shm")
            .into_iter()
            .flatten()
            .flatten();
        let left: Vec<_> = names
            .filter(|entry| entry.file_name().to_string_lossy().contains("mphost"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn options_may_stand_before_the_command() {
    let folder = folder();
    write(
        folder.path(),
        "script.rhai",
        "print(get_start_method(), sys::argv.len(), sys::argv[1]);",
    );
    let printed = output(
        folder.path(),
        &[
            "--start-method",
            "spawn",
            "--no-deadlock-detection",
            "run",
            "script.rhai",
            "--log",
        ],
        "",
    );
    assert_eq!(printed, "spawn 2 --log\n");
    let refused = run(
        folder.path(),
        &["--log", "info", "check", "script.rhai"],
        "",
    );
    assert_eq!(refused.status.code(), Some(2));
    let wrong = run(folder.path(), &["--log", "info", "rnu", "script.rhai"], "");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("did you mean 'run'"), "{said}");
}

#[test]
fn x_10_and_11_programs_end_in_order() {
    let folder = folder();
    let text = r#"
        fn sleep(started) { atexit::register(|| print("never")); started.set(); time::sleep(3600); }
        fn finish(gate) { gate.wait(); print("child"); }
        let started = Event();
        let gate = Event();
        Process(sleep, [started], #{daemon: true}).start();
        spawn(finish, [gate]);
        started.wait();
        atexit::register(|| { print("exit handler"); gate.set(); });
        print("end");
    "#;
    write(folder.path(), "script.rhai", text);
    for method in METHODS {
        let printed = output(
            folder.path(),
            &["run", "--start-method", method, "script.rhai"],
            "",
        );
        assert_eq!(printed, "end\nexit handler\nchild\n", "{method}");
    }
}
