//! What editors, shells and beginners get: definition files, completions, man pages, a program to begin with.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

fn mphost(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_new_program_runs_and_passes_its_own_tests() {
    let place = tempfile::tempdir().unwrap();
    let made = mphost(place.path(), &["new", "deep/squares"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stdout(&made).contains("mphost run deep/squares/main.rhai"));
    let ran = mphost(place.path(), &["run", "deep/squares/main.rhai"]);
    assert!(ran.status.success(), "{}", stderr(&ran));
    assert!(stdout(&ran).starts_with("1 * 1 = 1\n2 * 2 = 4\n"));
    let tested = mphost(place.path(), &["test", "deep/squares"]);
    assert!(tested.status.success(), "{}", stdout(&tested));
    assert!(
        stdout(&tested).contains("test_a_pool_computes_squares_in_order [forkserver]"),
        "{}",
        stdout(&tested)
    );
}

#[test]
fn a_new_program_overwrites_nothing() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("mine")).unwrap();
    std::fs::write(place.path().join("mine/main.rhai"), "print(1);").unwrap();
    let refused = mphost(place.path(), &["new", "mine"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("'mine' is there already"));
    let names: Vec<_> = std::fs::read_dir(place.path().join("mine"))
        .unwrap()
        .collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn definition_files_name_what_scripts_can_call() {
    let place = tempfile::tempdir().unwrap();
    let made = mphost(place.path(), &["definitions", ".rhai/definitions"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let read =
        |name: &str| std::fs::read_to_string(place.path().join(".rhai/definitions").join(name));
    let global = read("__static__.d.rhai").unwrap();
    assert!(global.contains("/// `put(item: any, block: bool = true, timeout: seconds = ())`"));
    assert!(global.contains("fn Process("));
    assert!(read("time.d.rhai").unwrap().contains("fn sleep("));
    // A place that can't be written says so.
    std::fs::write(place.path().join("file"), "").unwrap();
    let refused = mphost(place.path(), &["definitions", "file/below"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("'file/below' can't be written"));
}

#[test]
fn shells_and_the_manual_know_every_command() {
    let place = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = stdout(&mphost(place.path(), &["completions", shell]));
        for command in ["run", "test", "check", "new", "definitions"] {
            assert!(text.contains(command), "{shell}: no {command}");
        }
    }
    let made = mphost(place.path(), &["man", "pages"]);
    assert!(made.status.success(), "{}", stderr(&made));
    for page in ["mphost.1", "mphost-run.1", "mphost-test.1", "mphost-new.1"] {
        let text = std::fs::read_to_string(place.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH DESCRIPTION"), "{page}");
    }
    assert!(stdout(&mphost(place.path(), &["man"])).contains(".TH mphost 1"));
}

#[test]
fn the_help_of_every_command_has_examples() {
    let place = tempfile::tempdir().unwrap();
    let main = stdout(&mphost(place.path(), &["--help"]));
    assert!(main.contains("\nExamples:\n"));
    let commands: Vec<&str> = main
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() >= 7, "{main}");
    for command in commands {
        let help = stdout(&mphost(place.path(), &[command, "--help"]));
        assert!(help.contains("\nExamples:\n  "), "{command}: {help}");
        assert!(help.contains(&format!("mphost {command}")), "{command}");
    }
}

#[test]
fn a_failed_test_function_is_the_first_of_its_traceback() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let text = "// The first line.\nfn check(x) { assert(x, \"said\"); }\nfn test_it() { check(false); }\n";
    std::fs::write(place.path().join("some_test.rhai"), text).expect("a file");
    let tested = mphost(place.path(), &["test", "some_test.rhai"]);
    assert_eq!(tested.status.code(), Some(1));
    let said = stdout(&tested) + &stderr(&tested);
    assert!(said.contains("line 3, column 16, in test_it"), "{said}");
    assert!(said.contains("AssertionError: said"), "{said}");
    assert!(!said.contains("The first line."), "{said}");
}
