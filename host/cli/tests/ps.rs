//! `mphost ps`: programs that run, seen from another terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const SCRIPT: &str = r#"
fn inner(l) { l.acquire(); }
fn outer(l, q) {
    let p = spawn(inner, [l]);
    q.get(true, 600);
    p.kill();
}
let l = Lock();
let q = Queue(3);
let other = Queue();
other.put(1);
other.put(2);
l.acquire();
let p = spawn(outer, [l, q]);
print(p.pid);
input();
q.put(1);
p.join();
"#;

fn ps(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mphost"))
        .arg("ps")
        .args(args)
        .output()
        .expect("the host starts")
}

#[test]
fn a_program_is_listed_and_shown_and_not_disturbed() {
    for method in ["fork", "spawn", "forkserver"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("busy.rhai"), SCRIPT).expect("a script in it");
        let mut program = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .args(["run", "--start-method", method, "busy.rhai"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        let main = program.id().to_string();
        let mut stdout = BufReader::new(program.stdout.take().expect("piped"));
        let mut child = String::new();
        stdout.read_line(&mut child).expect("text");
        let child = child.trim_end();

        let begin = Instant::now();
        let text = loop {
            // Any of its processes will do.
            let shown = ps(&[child]);
            assert!(shown.status.success(), "{shown:?}");
            let text = String::from_utf8(shown.stdout).expect("text");
            // Until the middle one has started its child by the forkserver, it waits for that.
            let starting = text.contains("waits for another program");
            if text.matches("waits for").count() == 3 && !starting {
                break text;
            }
            assert!(begin.elapsed() < PATIENCE, "{text}");
        };
        // Of the program, and of each process.
        let with_memory = text.lines().filter(|line| line.ends_with(" MB"));
        assert_eq!(
            with_memory.count(),
            if method == "forkserver" { 5 } else { 4 },
            "{text}"
        );
        let processes = if method == "forkserver" { 4 } else { 3 };
        for part in [
            &format!("busy.rhai: {processes} processes, up "),
            &format!(
                "  MainProcess (pid {main}) waits for a connection, a file or a terminal; up "
            ),
            "    holds a Lock, since\n        busy.rhai:13:3    l.acquire();\n",
            &format!(
                "    Process-1 (pid {child}) waits for an item of a Queue (made at busy.rhai:9:9): it is empty, with a time limit; up "
            ),
            "busy.rhai:5:7    q.get(true, 600);\n",
            "      Process-1:1 (pid ",
            " waits for a Lock (made at busy.rhai:8:9); up ",
            &format!("        held by MainProcess (pid {main}), since\n"),
            "  queues:\n    Queue (made at busy.rhai:9:9): it is empty\n    Queue (made at busy.rhai:10:13): 2 items",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }

        let list = String::from_utf8(ps(&[]).stdout).expect("text");
        let line = list
            .lines()
            .find(|line| line.trim_start().starts_with(&main));
        let line = line.unwrap_or_else(|| panic!("{main} is missing in\n{list}"));
        assert!(line.ends_with("  busy.rhai"), "{line}");
        assert!(line.contains(&format!(" {processes} ")), "{line}");

        let mut stdin = program.stdin.take().expect("piped");
        stdin.write_all(b"\n").expect("it reads");
        let mut stderr = String::new();
        let mut pipe = program.stderr.take().expect("piped");
        pipe.read_to_string(&mut stderr).expect("text");
        assert!(program.wait().expect("it ends").success());
        assert_eq!(stderr, "");
        assert_eq!(ps(&[&main]).status.code(), Some(1));
    }
}

#[test]
fn what_is_no_program_is_refused() {
    for pid in [
        std::process::id().to_string(),
        "2000000000".to_owned(),
        "-1".to_owned(),
    ] {
        let refused = ps(&["--", &pid]);
        let stderr = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(refused.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(&format!("process {pid} is of no program")),
            "{stderr}"
        );
    }
}

/// A file of the right name that holds nonsense: whoever can make one is this user, and still `ps` doesn't fall over.
#[test]
fn nonsense_in_memory_of_that_name_is_no_program() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::unix::fs::FileExt;
    let memory = memfd_create(c"mphost", MFdFlags::empty()).expect("memory");
    let memory = std::fs::File::from(memory);
    let own = std::process::id().to_string();
    for (length, magic) in [(100, 0_u64), (1 << 30, 1), (1 << 30, 0x6d70_686f_7374_0002)] {
        memory.set_len(length).expect("it grows");
        memory.write_all_at(&magic.to_ne_bytes(), 0).expect("room");
        if magic > 1 {
            // Tables full of ones, which would be handles, offsets and lengths.
            let ones = vec![0xff; 1 << 20];
            for at in (4096..900 << 20).step_by(16 << 20) {
                memory.write_all_at(&ones, at).expect("room");
            }
        }
        let shown = ps(&[&own]);
        assert_eq!(shown.status.code(), Some(1), "{shown:?}");
        assert!(ps(&[]).status.success());
    }
}
