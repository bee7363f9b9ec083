//! What scripts see of the system, compared with CPython's.

use super::{cpu_count, environment, set_environment};
use crate::testing::{check, engine, outcome, run_examples};

fn room() -> rhai::Engine {
    engine(&[
        crate::builtins::register,
        crate::errors::register,
        super::register,
    ])
}

#[test]
fn processes() {
    let engine = room();
    assert_eq!(
        outcome(&engine, "os::getpid()"),
        std::process::id().to_string()
    );
    assert_eq!(
        outcome(&engine, "let f = os::getpid; f.call()"),
        std::process::id().to_string()
    );
    assert_eq!(outcome(&engine, "os::cpu_count()"), cpu_count().to_string());
    check(
        &engine,
        &[
            ("os::kill(os::getpid(), 0)", ""),
            (
                "os::kill(2147483646, 0)",
                "ProcessLookupError: No such process: '2147483646'",
            ),
            (
                "os::kill(os::getpid(), 999)",
                "OSError: kill: Invalid argument",
            ),
            (
                "os::kill(99999999999, 0)",
                "OverflowError: kill(): 99999999999 is no process number",
            ),
            (
                "os::kill(\"x\", 0)",
                "TypeError: kill(): 'pid' must be a whole number, not string",
            ),
            ("os::kill(1)", "TypeError: kill(): 'sig' is missing"),
            (
                "os::getpid(1)",
                "TypeError: getpid() takes at most 0 arguments, 1 were given: getpid()",
            ),
            (
                "os::urandom(4) != os::urandom(4) || os::urandom(4) != os::urandom(4)",
                "true",
            ),
            (
                "os::urandom(-1)",
                "ValueError: negative argument not allowed",
            ),
            ("os::sep + os::devnull", "//dev/null"),
        ],
    );
}

#[test]
fn directories_and_files() {
    let engine = room();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = directory.path().to_str().expect("its path is text");
    for (script, expected) in [
        ("os::mkdir(\"D/a\"); os::path::isdir(\"D/a\")", "true"),
        ("os::mkdir(\"D/a\")", "FileExistsError: File exists: 'D/a'"),
        (
            "os::mkdir(\"D/x/y\")",
            "FileNotFoundError: No such file or directory: 'D/x/y'",
        ),
        (
            "os::makedirs(\"D/x/y\"); os::path::exists(\"D/x/y\")",
            "true",
        ),
        (
            "os::makedirs(\"D/x/y\")",
            "FileExistsError: File exists: 'D/x/y'",
        ),
        ("os::makedirs(\"D/x/y\", #{exist_ok: true})", ""),
        (
            "let f = open(\"D/f\", \"w\"); f.write(\"12345\"); [os::path::getsize(\"D/f\"), os::path::isfile(\"D/f\")]",
            "[5, true]",
        ),
        (
            "let l = os::listdir(\"D\"); l.sort(); l",
            "[\"a\", \"f\", \"x\"]",
        ),
        (
            "os::listdir(\"D/f\")",
            "NotADirectoryError: Not a directory: 'D/f'",
        ),
        (
            "os::remove(\"D/no\")",
            "FileNotFoundError: No such file or directory: 'D/no'",
        ),
        (
            "os::remove(\"D/a\")",
            "IsADirectoryError: Is a directory: 'D/a'",
        ),
        ("os::rmdir(\"D/x\")", "OSError: Directory not empty: 'D/x'"),
        (
            "os::rename(\"D/f\", \"D/g\"); os::path::exists(\"D/g\") && !os::path::exists(\"D/f\")",
            "true",
        ),
        (
            "os::rename(\"D/f\", \"D/h\")",
            "FileNotFoundError: No such file or directory: 'D/f' -> 'D/h'",
        ),
        (
            "os::remove(\"D/g\"); os::rmdir(\"D/a\"); os::listdir(\"D\")",
            "[\"x\"]",
        ),
        (
            "os::chdir(\"D/no\")",
            "FileNotFoundError: No such file or directory: 'D/no'",
        ),
        (
            "os::path::getsize(\"D/no\")",
            "FileNotFoundError: No such file or directory: 'D/no'",
        ),
    ] {
        let script = script
            .replace("D/", &format!("{dir}/"))
            .replace("\"D\"", &format!("\"{dir}\""));
        assert_eq!(
            outcome(&engine, &script),
            expected.replace("D/", &format!("{dir}/")),
            "{script}"
        );
    }
    let here = std::env::current_dir().expect("there is a current directory");
    assert_eq!(outcome(&engine, "os::getcwd()"), here.to_string_lossy());
    assert_eq!(
        outcome(&engine, "os::path::abspath(\"x/../y\")"),
        here.join("y").to_string_lossy()
    );
}

#[test]
fn paths_are_taken_apart_as_by_posixpath() {
    // What CPython's posixpath gives.
    let engine = room();
    for (path, dirname, basename, normal, ext) in [
        ("/a/b.txt", "/a", "b.txt", "/a/b.txt", ".txt"),
        ("a", "", "a", "a", ""),
        ("a/", "a", "", "a", ""),
        ("/", "/", "", "/", ""),
        ("//a//b", "//a", "b", "/a/b", ""),
        ("a/./b/../c", "a/./b/..", "c", "a/c", ""),
        ("../../x", "../..", "x", "../../x", ""),
        ("/..", "/", "..", "/", ""),
        (".bashrc", "", ".bashrc", ".bashrc", ""),
        ("a.b/c", "a.b", "c", "a.b/c", ""),
        ("x.tar.gz", "", "x.tar.gz", "x.tar.gz", ".gz"),
        ("", "", "", ".", ""),
    ] {
        let script = format!(
            "[os::path::dirname(\"{path}\"), os::path::basename(\"{path}\"), os::path::normpath(\"{path}\"), os::path::splitext(\"{path}\")[1]]"
        );
        assert_eq!(
            outcome(&engine, &script),
            format!("{:?}", [dirname, basename, normal, ext]),
            "{path}"
        );
    }
    check(
        &engine,
        &[
            ("os::path::join(\"a\", \"b\", \"c.txt\")", "a/b/c.txt"),
            ("os::path::join(\"a/\", \"b\")", "a/b"),
            ("os::path::join(\"a\", \"/b\", \"c\")", "/b/c"),
            ("os::path::join(\"a\", \"\")", "a/"),
            ("os::path::join(\"\", \"a\")", "a"),
            (
                "os::path::join(\"a\", 5)",
                "TypeError: join(): 'a' must be a string, not int",
            ),
            ("os::path::isabs(\"a\")", "false"),
        ],
    );
}

#[test]
fn the_environment() {
    set_environment([("HOME".to_owned(), "/home/me".to_owned())].into());
    let engine = room();
    check(
        &engine,
        &[
            ("os::getenv(\"HOME\")", "/home/me"),
            ("os::getenv(\"NOPE\") == ()", "true"),
            ("os::getenv(\"NOPE\", \"d\")", "d"),
            ("os::environ[\"HOME\"]", "/home/me"),
            ("os::environ[\"NOPE\"]", "KeyError: 'NOPE'"),
            ("os::environ.get(\"NOPE\", 7)", "7"),
            (
                "let e = os::environ; e[\"X\"] = \"1\"; [os::getenv(\"X\"), \"X\" in os::environ, e.keys(), e.len()]",
                "[\"1\", true, [\"HOME\", \"X\"], 2]",
            ),
            (
                "let e = os::environ; e[\"X\"] = 1",
                "TypeError: str expected: a variable is a text",
            ),
            (
                "let e = os::environ; e[\"a=b\"] = \"1\"",
                "ValueError: illegal environment variable name or value: 'a=b'",
            ),
            (
                "let e = os::environ; [e.pop(\"X\"), e.pop(\"X\", 0), \"X\" in e]",
                "[\"1\", 0, false]",
            ),
            (
                "let n = []; for k in os::environ { n.push(k); } n",
                "[\"HOME\"]",
            ),
            ("os::environ.copy()", "#{\"HOME\": \"/home/me\"}"),
            ("os::environ.items()", "[[\"HOME\", \"/home/me\"]]"),
        ],
    );
    assert_eq!(environment().len(), 1);
}

#[test]
fn the_examples_run() {
    run_examples(
        &[crate::builtins::register, crate::errors::register],
        super::register,
    );
}
