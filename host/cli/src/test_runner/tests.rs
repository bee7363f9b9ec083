//! The whole runner against a stand-in for mphost: a shell script that takes the lines of a
//! "script" which aren't comments for shell code.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::*;

// A shell can't trap what it inherits as ignored, as these tests may from whoever runs them in the background.
const STAND_IN: &str = r#"#!/usr/bin/env -S --default-signal=QUIT bash
[ "$1 $2" = "run --start-method" ] || { echo "usage: $*" >&2; exit 2; }
method=$3; shift 3
function=
if [ "$1" = --test-function ]; then function=$2; shift 2; fi
script=$1; shift
if [ -n "$function" ]; then
  echo "$function printed this"
  case $function in test_bad*) echo 'AssertionError: bad' >&2; exit 1 ;; esac
  exit 0
fi
eval "$(grep -v '^//' "$script")"
"#;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: TestArgs,
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A folder with scripts and the stand-in.
struct Room {
    folder: TempDir,
}

impl Room {
    fn new(scripts: &[(&str, &str)]) -> Room {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("mphost");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in scripts {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Room { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (u8, String) {
        self.run_with(arguments, &Cancel::new().unwrap())
    }

    fn run_with(&self, arguments: &[&str], cancel: &Cancel) -> (u8, String) {
        let folder = self.folder.path().to_str().unwrap();
        let args = Command::parse_from(["test", folder].iter().chain(arguments)).args;
        let options = TestOptions {
            args,
            program: self.path("mphost"),
            shared_memory: self.path("shm"),
        };
        let screen = Screen::default();
        let mut ui = Ui::captured(screen.clone());
        let code = run_with(&options, &mut ui, cancel).unwrap_or_else(|error| {
            ui.error(error);
            USAGE
        });
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        (code, text.replace(&format!("{folder}/"), ""))
    }
}

/// Whether a process with these arguments lives.
fn lives(command: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words)
            .trim_end_matches('\0')
            .replace('\0', " ")
            == command
    })
}

#[test]
fn results_and_exit_codes() {
    let room = Room::new(&[
        ("a.rhai", "echo one; echo $$\n//> one\n//> [PID]\n"),
        ("b.rhai", "echo one; exit 3\n//> two\n"),
        ("c.rhai", "kill -9 $$\n//# exit: -9\n"),
        ("d.rhai", "//# nonsense: 1\n"),
    ]);
    let (code, text) = room.run(&["--jobs", "1"]);
    assert_eq!(code, FAILED, "{text}");
    assert!(text.contains("ok   a.rhai [fork] "), "{text}");
    assert!(text.contains("FAIL b.rhai [fork] "), "{text}");
    assert!(text.contains("exit code 3, expected 0"), "{text}");
    assert!(text.contains("    -two\n    +one"), "{text}");
    assert!(
        text.contains("d.rhai:1: unknown directive `nonsense`"),
        "{text}"
    );
    assert!(
        text.contains("failed:\n  b.rhai [fork]\n  d.rhai\n"),
        "{text}"
    );
    assert!(text.ends_with("\n2 passed, 2 failed\n"), "{text}");
    let (code, text) = room.run(&["--filter", "a.rhai", "--repeat", "3"]);
    assert_eq!((code, text.lines().count()), (PASSED, 4), "{text}");
    assert!(text.contains("ok   a.rhai [fork] #3 "), "{text}");
}

#[test]
fn usage_errors() {
    let room = Room::new(&[]);
    let (code, text) = room.run(&[]);
    assert_eq!(code, USAGE);
    assert!(text.contains("no tests found"), "{text}");
    let room = Room::new(&[("a.rhai", "")]);
    let (code, text) = room.run(&["--filter", "zzz"]);
    assert_eq!(code, USAGE);
    assert!(text.contains("none of the 1 tests"), "{text}");
    assert_eq!(room.run(&["--filter", "/(/"]).0, USAGE);
    assert_eq!(room.run(&["/nowhere/at/all"]).0, USAGE);
    assert_eq!(
        room.run(&["--list"]),
        (PASSED, "a.rhai [fork]\n".to_owned())
    );
}

#[test]
fn a_script_gets_what_its_directives_say() {
    let room = Room::new(&[(
        "a.rhai",
        concat!(
            "echo \"$# $2 $method\"; cat; ls -A; basename \"$script\"\n",
            "//# args: a 'b c'\n//# stdin: x\\ny\\n\n//# start-methods: fork spawn forkserver\n",
            "//> 2 b c [..]\n//> x\n//> y\n//> a.rhai\n",
        ),
    )]);
    let (code, text) = room.run(&[]);
    assert_eq!(code, PASSED, "{text}");
    assert!(text.ends_with("3 passed, 0 failed\n"), "{text}");
    let (_, text) = room.run(&["--start-method", "spawn,fork"]);
    assert!(text.ends_with("2 passed, 0 failed\n"), "{text}");
}

#[test]
fn test_functions_are_tests() {
    let room = Room::new(&[(
        "a_test.rhai",
        "fn test_good() {}\nfn test_bad() {}\nfn helper() {}\n",
    )]);
    let (code, text) = room.run(&["--jobs", "1"]);
    assert_eq!(code, FAILED);
    assert!(
        text.contains("ok   a_test.rhai::test_good [fork]"),
        "{text}"
    );
    assert!(text.contains("FAIL a_test.rhai::test_bad [fork]"), "{text}");
    assert!(text.contains("    AssertionError: bad"), "{text}");
    assert!(text.ends_with("1 passed, 1 failed\n"), "{text}");
}

#[test]
fn a_time_limit_shows_who_waited_and_kills_all() {
    let room = Room::new(&[(
        "a.rhai",
        concat!(
            "trap 'echo Process-1 waits for a lock >&2' QUIT\n",
            "setsid sleep 4000001 & sleep 4000002 &\nwhile :; do wait; sleep 4000003; done\n//# timeout: 3\n",
        ),
    )]);
    let (code, text) = room.run(&[]);
    assert_eq!(code, FAILED);
    assert!(text.contains("timed out after "), "{text}");
    assert!(
        text.contains("who waited for what:\n    Process-1 waits for a lock"),
        "{text}"
    );
    for number in 1..=3 {
        assert!(!lives(&format!("sleep 400000{number}")), "{number}");
    }
}

#[test]
fn a_process_left_behind_is_named_and_ended() {
    let room = Room::new(&[
        ("a.rhai", "sleep 4000011 >/dev/null 2>&1 &\n"),
        ("b.rhai", "setsid sleep 4000012 &\n"),
        ("c.rhai", "(setsid env -i sleep 4000013 &)\n"),
        ("d.rhai", "sleep 0.2 &\n"),
    ]);
    let (code, text) = room.run(&["--jobs", "4"]);
    assert_eq!(code, FAILED);
    for number in 1..=3 {
        let name = format!("sleep 400001{number}");
        assert!(text.contains(&format!(", {name}\n")), "{text}");
        assert!(!lives(&name), "{name}");
    }
    assert!(text.contains("ok   d.rhai"), "{text}");
    assert!(text.ends_with("1 passed, 3 failed\n"), "{text}");
}

#[test]
fn a_shared_memory_object_left_behind_is_named() {
    let room = Room::new(&[]);
    let folder = room.path("shm");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("mphost-old"), "").unwrap();
    let script = format!("cd {}; touch mphost-new other\n", folder.display());
    fs::write(room.path("a.rhai"), script).unwrap();
    let (code, text) = room.run(&[]);
    assert_eq!(code, FAILED);
    assert!(
        text.contains("left behind: a shared memory object"),
        "{text}"
    );
    assert!(text.contains("shm/mphost-new\n"), "{text}");
    assert!(!text.contains("mphost-old"), "{text}");
}

#[test]
fn much_output_and_unread_input_block_nothing() {
    let stdin = "x".repeat(300_000);
    let room = Room::new(&[(
        "a.rhai",
        &format!(
            "head -c 2000000 /dev/zero | tr '\\0' e >&2; head -c 2000000 /dev/zero | tr '\\0' o\n//# stdin: {stdin}\n//> o[..]o\n"
        ),
    )]);
    let (code, text) = room.run(&[]);
    assert_eq!(code, PASSED, "{}", &text[..text.len().min(500)]);
}

#[test]
fn a_report_in_xml() {
    let room = Room::new(&[
        ("a.rhai", "echo '<&>'; printf 'x\\033[1m'\n"),
        ("b_test.rhai", "fn test_x() {}"),
    ]);
    let file = room.path("report.xml");
    let (code, _) = room.run(&["--junit", file.to_str().unwrap()]);
    assert_eq!(code, FAILED);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("failures=\"1\" errors=\"0\" time"), "{text}");
    assert!(text.contains("name=\"test_x [fork]\""), "{text}");
    assert!(text.contains("&lt;&amp;&gt;"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(room.run(&["--junit", "/nowhere/x.xml"]).0, USAGE);
}

#[test]
fn update_writes_expectations_that_pass() {
    let room = Room::new(&[
        (
            "a.rhai",
            "echo main $$; echo $RANDOM; date; echo same; echo again $$; echo oops $$ >&2; exit 4\n",
        ),
        ("b.rhai", "echo ok\n//> [..]\n"),
        ("c.rhai", "sleep 4000021 >/dev/null 2>&1 &\n//> kept\n"),
        ("d.rhai", "exit $((RANDOM % 200))\n"),
    ]);
    let (code, text) = room.run(&["--update"]);
    assert_eq!(code, FAILED, "{text}");
    assert!(text.contains("a.rhai updated"), "{text}");
    assert!(text.contains("[PID] in 2 places"), "{text}");
    assert!(text.contains("b.rhai unchanged"), "{text}");
    assert!(text.contains("left behind"), "{text}");
    assert!(text.contains("1 updated, 1 unchanged, 2 failed"), "{text}");
    let new = fs::read_to_string(room.path("a.rhai")).unwrap();
    for line in [
        "//# exit: 4",
        "//> main [PID:a]",
        "//> [N]",
        "//> same",
        "//> again [PID:a]",
        "//! oops [PID]",
    ] {
        assert!(new.lines().any(|found| found == line), "{line}: {new}");
    }
    assert!(
        fs::read_to_string(room.path("c.rhai"))
            .unwrap()
            .ends_with("//> kept\n")
    );
    let (code, text) = room.run(&["--filter", "/[ab].rhai/"]);
    assert_eq!(code, PASSED, "{text}");
}

#[test]
fn a_cancelled_run_ends_its_tests() {
    let room = Room::new(&[]);
    let sign = room.path("begun");
    for name in ["a.rhai", "b.rhai", "c.rhai"] {
        fs::write(
            room.path(name),
            format!(
                "touch {}; sleep 4000031\n//# timeout: 1000\n",
                sign.display()
            ),
        )
        .unwrap();
    }
    let cancel = Cancel::new().unwrap();
    let (code, text) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !sign.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.cancel(2);
        });
        room.run_with(&["--jobs", "2"], &cancel)
    });
    assert_eq!(code, 130, "{text}");
    assert!(text.contains("cancelled; not begun: 1"), "{text}");
    assert!(text.contains("  cancelled\n"), "{text}");
    assert!(!lives("sleep 4000031"));
}

#[test]
fn a_program_that_is_missing_is_a_failure() {
    let room = Room::new(&[("a.rhai", "")]);
    fs::remove_file(room.path("mphost")).unwrap();
    let (code, text) = room.run(&[]);
    assert_eq!(code, FAILED);
    assert!(text.contains("can't run "), "{text}");
}

#[test]
fn the_examples_are_understood() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts"));
    let scripts = discovery::scripts(&[folder]).unwrap();
    assert!(!scripts.is_empty());
    for script in scripts {
        assert!(script.expected.is_ok(), "{:?}", script.expected);
    }
}
