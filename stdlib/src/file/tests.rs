//! Files as scripts use them, compared with what CPython does.

use super::Mode;
use crate::testing::{check, engine, outcome};

fn in_directory(test: impl FnOnce(&rhai::Engine, &str)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = engine(&[crate::builtins::register, crate::errors::register]);
    test(
        &engine,
        directory.path().to_str().expect("its path is text"),
    );
}

#[test]
fn what_is_written_can_be_read() {
    in_directory(|engine, dir| {
        for (script, expected) in [
            (
                "let f = open(P, \"w\"); let n = f.write(\"one\\n中文\\n\"); f.close(); [n, f.closed]",
                "[7, true]",
            ),
            ("open(P).read()", "one\n中文\n"),
            (
                "let f = open(P); [f.readline(), f.readline(), f.readline(), f.readline()]",
                "[\"one\\n\", \"中文\\n\", \"\", \"\"]",
            ),
            ("open(P).readlines()", "[\"one\\n\", \"中文\\n\"]"),
            ("open(P).lines()", "[\"one\", \"中文\"]"),
            (
                "let all = []; for line in open(P) { all.push(line); } all",
                "[\"one\\n\", \"中文\\n\"]",
            ),
            (
                "let f = open(P); [f.read(2), f.read(3), f.read(9), f.read(1)]",
                "[\"on\", \"e\\n中\", \"文\\n\", \"\"]",
            ),
            (
                "let f = open(P, \"rb\"); repr([f.read(5), f.tell(), f.read(), f.read()])",
                "[b'one\\n\\xe4', 5, b'\\xb8\\xad\\xe6\\x96\\x87\\n', b'']",
            ),
            (
                "let f = open(P, \"a\"); f.write(\"more\"); f.close(); open(P).lines()",
                "[\"one\", \"中文\", \"more\"]",
            ),
            (
                "let f = open(P, \"r+\"); f.readline(); f.write(\"XY\"); f.seek(0); f.readline() + f.read(2)",
                "one\nXY",
            ),
            (
                "let f = open(P, \"w+\"); f.writelines([\"a\\r\\n\", \"b\"]); f.seek(0); f.lines()",
                "[\"a\", \"b\"]",
            ),
            (
                "let f = open(P, \"rb\"); repr(f.readlines())",
                "[b'a\\r\\n', b'b']",
            ),
            (
                "let f = open(P, \"r+\"); f.truncate(1); [f.read(), f.tell()]",
                "[\"a\", 1]",
            ),
            (
                "let f = open(P, \"r\"); [f.name == P, f.mode, f.closed, f.readable(), f.writable(), f.isatty(), f.fileno() > 2]",
                "[true, \"r\", false, true, false, false, true]",
            ),
            ("let t = with open(P) as f { f.read() }; t", "a"),
            ("let f = open(P); with f { f.read(); } f.closed", "true"),
            (
                "let f = open(P); try { with f { throw \"x\" } } catch {} f.closed",
                "true",
            ),
            ("let f = open(P, #{encoding: \"utf-8\"}); f.read()", "a"),
            (
                "let f = open(P); let g = f; g.close(); f.closed && f == g",
                "true",
            ),
        ] {
            let script = script.replace('P', &format!("\"{dir}/file\""));
            assert_eq!(outcome(engine, &script), expected, "{script}");
        }
    });
}

#[test]
fn errors_are_pythons() {
    in_directory(|engine, dir| {
        std::fs::write(format!("{dir}/there"), b"\xff\xfe").expect("the file can be written");
        for (script, expected) in [
            (
                "open(\"@/no\")",
                "FileNotFoundError: No such file or directory: '@/no'",
            ),
            ("open(\"@\")", "IsADirectoryError: Is a directory: '@'"),
            (
                "open(\"@\", \"w\")",
                "IsADirectoryError: Is a directory: '@'",
            ),
            (
                "open(\"@/there\", \"x\")",
                "FileExistsError: File exists: '@/there'",
            ),
            (
                "open(\"@/there/x\")",
                "NotADirectoryError: Not a directory: '@/there/x'",
            ),
            ("open(\"@/there\", \"q\")", "ValueError: invalid mode: 'q'"),
            (
                "open(\"@/there\", \"rw\")",
                "ValueError: must have exactly one of create/read/write/append mode",
            ),
            (
                "open(\"@/there\", \"rbt\")",
                "ValueError: can't have text and binary mode at once",
            ),
            (
                "open(\"@/there\").read()",
                "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: '@/there' is no UTF-8 text",
            ),
            (
                "open(\"@/there\").write(\"x\")",
                "OSError: not writable: '@/there' was opened for reading",
            ),
            (
                "open(\"@/new\", \"w\").read()",
                "OSError: not readable: '@/new' was opened for writing",
            ),
            (
                "open(\"@/new\", \"w\").write(5)",
                "TypeError: write(): a text file takes a string, not int",
            ),
            (
                "open(\"@/new\", \"wb\").write(\"x\")",
                "TypeError: write(): a file in binary mode takes a blob, not string",
            ),
            (
                "let f = open(\"@/new\"); f.close(); f.close(); f.read()",
                "ValueError: I/O operation on closed file.",
            ),
            (
                "let f = open(\"@/new\", \"w\"); f.close(); f.write(\"x\")",
                "ValueError: I/O operation on closed file.",
            ),
            (
                "let f = open(\"@/new\"); f.seek(-1)",
                "ValueError: negative seek position -1",
            ),
            (
                "open(5)",
                "TypeError: open(): 'path' must be a string, not int",
            ),
            (
                "open(\"@/new\", #{mod: \"r\"})",
                "TypeError: open() has no option 'mod'; did you mean 'mode'?; it takes: path, mode, encoding",
            ),
            (
                "open(\"@/new\", \"r\", #{encoding: \"latin-1\"})",
                "LookupError: unknown encoding: latin-1; texts are UTF-8",
            ),
            ("try { open(\"@/no\"); } catch (e) { return e.errno; }", "2"),
        ] {
            let script = script.replace("@", dir);
            assert_eq!(
                outcome(engine, &script),
                expected.replace("@", dir),
                "{script}"
            );
        }
    });
}

#[test]
fn long_lines_and_files_are_read_whole() {
    in_directory(|engine, dir| {
        let script = format!(
            "let f = open(\"{dir}/long\", \"w\"); for i in 0..5 {{ f.write(\"é\" * 100000 + \"\\n\"); }} f.close();
             let f = open(\"{dir}/long\"); let n = 0; for line in f {{ n += line.len(); }}
             [n, open(\"{dir}/long\").read(150000).len()]"
        );
        assert_eq!(outcome(engine, &script), "[500005, 150000]");
    });
}

#[test]
fn modes() {
    let mode = Mode::parse("r+b").expect("a good mode");
    assert!(mode.read && mode.write && mode.binary && !mode.truncate);
    for bad in ["", "rr", "b", "rwb", "U", "r++"] {
        assert!(Mode::parse(bad).is_err(), "{bad}");
    }
    check(
        &engine(&[crate::builtins::register]),
        &[("sys::stdout.name + sys::stdin.mode", "<stdout>r")],
    );
}
