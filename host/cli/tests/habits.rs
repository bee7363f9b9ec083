//! What is said to those who come from Python, or who mistype: the last lines of the report.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Read;
use std::process::Command;

fn report(code: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["-e", code])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{code} is no mistake");
    String::from_utf8(output.stderr).unwrap()
}

/// Each script ends with a report that holds the text.
fn check(cases: &[(&str, &str)]) {
    for (code, expected) in cases {
        let report = report(code);
        assert!(report.contains(expected), "{code}\n{report}");
        for rust in [
            "alloc::",
            "rhai::",
            "mphost_stdlib::",
            "i64",
            "f64",
            "ImmutableString",
        ] {
            assert!(!report.contains(rust), "{code} shows {rust}\n{report}");
        }
    }
}

#[test]
fn pythons_words_are_translated() {
    check(&[
        (
            "let x = None;",
            "NameError: Variable not found: None; Python's None is () in Rhai",
        ),
        (
            "let x = True;",
            "Variable not found: True; it is written true",
        ),
        (
            "let x = False;",
            "Variable not found: False; it is written false",
        ),
        (
            "print(self.name);",
            "self; the object that a method is called on is `this`",
        ),
        ("import multiprocessing", "nothing has to be imported"),
        (
            "import multiprocessing as mp;",
            "nothing has to be imported",
        ),
        (
            "from multiprocessing import Process",
            "Hint: nothing has to be imported",
        ),
        ("import os", "'os' is a module, which needs no import"),
        (
            "let f = lambda x: x * 2;",
            "Hint: a function without a name is written |x| x * 2",
        ),
        (
            "def f(x):\n    return x",
            "Hint: a function is written fn name(a, b) { … }",
        ),
        (
            "if 1 > 2 { } elif 2 > 1 { }",
            "Hint: elif is written else if",
        ),
        ("if true and false { }", "Hint: and is written &&"),
        ("if true or false { }", "Hint: or is written ||"),
        ("if not true { }", "Hint: not is written !"),
        ("print 'x'", "Hint: "),
        ("print \"x\"", "Hint: print is a function: print(\"x\")"),
        ("print('abc');", "Hint: a text is written in double quotes"),
        (
            "print(f\"hello {1}\");",
            "Hint: a text with values in it is written in back-ticks",
        ),
        (
            "if __name__ == \"__main__\":\n    print(1)",
            "this guard isn't needed",
        ),
        (
            "for i in range(3):\n    print(i)",
            "Hint: a block is written in braces",
        ),
        (
            "while true:\n    print(1)",
            "Hint: a block is written in braces",
        ),
        (
            "try:\n    x()\nexcept ValueError:\n    pass",
            "Hint: a block is written in braces: try { … }",
        ),
        ("try { 1 / 0 } except e { }", "try { … } catch (e) { … }"),
        (
            "raise ValueError(\"x\")",
            "Hint: an error is thrown: throw ValueError",
        ),
        (
            "class Worker(Process):\n    pass",
            "Hint: there are no classes",
        ),
        ("let x = 5; x++;", "Hint: it is written x += 1"),
        (
            "let x = [1, 2]; print(x[0:1]);",
            "Hint: a range is written with dots",
        ),
        (
            "let d = {\"a\": 1};",
            "Hint: an object map begins with a number sign",
        ),
        (
            "[x * x for x in range(10)]",
            "Hint: there are no comprehensions",
        ),
        ("print(1 if true else 2);", "if condition { a } else { b }"),
        ("let a, b = Pipe();", "Hint: one name is declared at a time"),
        ("# a comment", "Hint: a comment begins with //"),
        ("let x = null;", "Hint: Rhai's null is ()"),
        ("assert 1 == 1", "Hint: assert is a function"),
        ("let text = \"%s\" % \"a\";", "sprintf(format, [values])"),
        (
            "count = 5;",
            "a variable is declared before it is used: let count = …",
        ),
        (
            "let go = 1;",
            "Hint: 'go' is a word that Rhai keeps for itself",
        ),
        ("[1].append(2)", "an item is added with push(item)"),
        ("\"a\".upper()", "it is to_upper()"),
        ("str(5)", "a value's text is `${value}`"),
    ]);
}

#[test]
fn keyword_arguments_become_options() {
    check(&[
        (
            "let q = Queue(); q.get(timeout=3)",
            "the last argument: get(#{timeout: 3})",
        ),
        (
            "let q = Queue(); q.put(1, timeout: 3)",
            "the last argument: put(…, #{timeout: 3})",
        ),
        ("fn f(a) {} f({a: 1})", "begins with a number sign"),
        (
            "let q = Queue(); q.put(1, block=True)",
            "put(…, #{block: true})",
        ),
        ("Queue(maxsize=5)", "Queue(#{maxsize: 5})"),
        (
            "fn f(a) {} Process(target=f, args=[1, (2)])",
            "Process(#{target: f})",
        ),
        (
            "Process(|| 1, args=[1, (2)])",
            "Process(…, #{args: [1,(2)]})",
        ),
    ]);
}

#[test]
fn a_method_without_parentheses_is_told_from_an_unknown_name() {
    check(&[
        (
            "let p = Process(|| 1); p.start; p.join();",
            "'start' of 'Process' is a method: a call of it has parentheses",
        ),
        ("let q = Queue(); q.put", "'put' of 'Queue' is a method"),
        (
            "Process(|| 1).exitcod",
            "'Process' object has no attribute 'exitcod'; did you mean 'exitcode'?",
        ),
        (
            "Process(|| 1).strat()",
            "has no method 'strat'; did you mean 'start'?",
        ),
        ("let x = 5; x.y", "'int' object has no attribute 'y'"),
    ]);
}

#[test]
fn what_was_probably_meant_is_named() {
    check(&[
        (
            "time::slep(1)",
            "module 'time' has no function 'slep'; did you mean 'sleep'?",
        ),
        (
            "os::path::jion(\"a\")",
            "module 'os::path' has no function 'jion'; did you mean 'join'?",
        ),
        (
            "mp::Proces(|| 1)",
            "module 'mp' has no function 'Proces'; did you mean 'Process'?",
        ),
        (
            "tme::sleep(1)",
            "Module not found: tme; did you mean 'time'?",
        ),
        (
            "time.sleep(1)",
            "'time' is a module, which needs no import: what it holds is written time::NAME",
        ),
        (
            "Proces(|| 1)",
            "function 'Proces' is not defined; did you mean 'Process'?",
        ),
        (
            "Queue(#{maxsiz: 1})",
            "Queue() has no option 'maxsiz'; did you mean 'maxsize'?",
        ),
        (
            "let workers = [];\nprint(worker);",
            "Variable not found: worker; did you mean 'workers'?",
        ),
        (
            "let f = |x| x;\nf(1)",
            "'f' is a variable: a function in it is called by f.call(…)",
        ),
        ("throw ValueErro(\"x\")", "did you mean 'ValueError'?"),
    ]);
}

#[test]
fn a_function_that_wants_the_scripts_variables_is_told_how() {
    check(&[
        (
            "let n = 0;\nfn f() { n += 1; }\nf()",
            "give it 'n' as an argument, or make it a constant",
        ),
        (
            "const LIMIT = 3;\nfn f() { LIMIT }\nf()",
            "a function sees the script's constants as global::LIMIT",
        ),
    ]);
}

#[test]
fn types_have_the_names_that_scripts_know() {
    check(&[
        (
            "let x = \"abc\"; x[\"a\"]",
            "Data type incorrect: string (expecting int)",
        ),
        ("Queue()[0]", "Indexer unavailable: Queue [int]"),
        (
            "let x = 1 + ();",
            "unsupported operand type(s) for +: 'int' and '()'",
        ),
        ("let x = Queue() - 1.5;", "'Queue' and 'float'"),
        ("#{a: 1}.b.c", "() has no property 'c'"),
    ]);
}

#[test]
fn what_is_caught_says_the_same() {
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["-e", "try { time::slep(1) } catch (e) { print(e); } try { Process(|| 1).start } catch (e) { print(e.message); }"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("NameError: module 'time' has no function 'slep'; did you mean 'sleep'?"),
        "{text}"
    );
    assert!(text.contains("'start' of 'Process' is a method"), "{text}");
}

/// What a report looks like on a terminal.
fn on_a_terminal(no_colour: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .args(["-e", "1 / 0"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    if let Some(value) = no_colour {
        command.env("NO_COLOR", value);
    }
    let process = rexpect::process::PtyProcess::new(command).unwrap();
    let mut terminal = process.get_file_handle().unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
    // A terminal whose last process has ended can't be read.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    process.wait().unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn reports_have_colours_on_a_terminal_only() {
    assert!(on_a_terminal(None).contains("\x1b[1;31mZeroDivisionError\x1b[0m: Division"));
    assert!(on_a_terminal(Some("")).contains("\x1b["));
    assert!(!on_a_terminal(Some("1")).contains('\x1b'));
    assert!(!report("1 / 0").contains('\x1b'));
}

#[test]
fn what_a_line_lacks_is_named() {
    check(&[
        (
            "let x = 5\nprint(x)",
            "Hint: the ; is missing at the end of line 1: let x = 5;",
        ),
        (
            "let x = 7 // 2;\nprint(x);",
            "Hint: // begins a comment, and whole numbers are divided by /; the ; is missing at the end of line 1: let x = 7;",
        ),
        (
            "let x = 7 // seven of them\nprint(x);",
            "Hint: the ; is missing at the end of line 1: let x = 7;",
        ),
        (
            "fn f() {\n  print(1);\nprint(2);\n",
            "Hint: the { of line 1 isn't closed: fn f() {",
        ),
        (
            "fn f() {\n  print(1);\nprint(2);",
            "Hint: the { of line 1 isn't closed: fn f() {",
        ),
        (
            "print(\"x\"\nprint(\"y\");",
            "the ( of line 1 isn't closed, or a comma is missing at the end of line 1: print(\"x\"",
        ),
        (
            "import multiprocessing\nprint(1)",
            "nothing has to be imported",
        ),
        ("import time\ntime.sleep(1)", "time::NAME is all"),
        ("let s = \"\"\"a\nb\"\"\";", "back-ticks"),
    ]);
}

#[test]
fn words_of_other_languages_are_translated() {
    check(&[
        ("let x = 1 if true else 2;", "if condition { a } else { b }"),
        ("let x = 5;\nif x == 5: print(x)", "braces: if … { … }"),
        ("for k, v in #{a: 1} { }", "for (item, index) in items"),
        ("let t = (1, 2);", "there are no tuples"),
        ("fn f(a, b=1) { a }", "no defaults"),
        ("fn f(x: int) { x }", "have no types"),
        ("fn f(x) -> int { x }", "have no types"),
        ("let s: string = \"a\";", "have no types"),
        ("fn f(*args) { }", "no *args"),
        ("let mut x = 5;", "no mut is needed"),
        ("let v = vec![1, 2];", "an array is written [a, b]"),
        ("use std::thread;", "nothing has to be imported"),
        ("thread::spawn(|| 1);", "spawn(f, [arguments])"),
        ("let x = Some(3);", "there is no Option"),
        ("fn f() { } let r = f()?;", "no ? is needed"),
        ("spawn(move || 1);", "a closure takes along what it names"),
        ("let x = 5 as float;", "x.to_float()"),
        ("let f = |_| 1;", "has a name: |x|"),
        ("while (x = 1) { }", "values are compared with =="),
        ("switch 3 { case 1: print(1); }", "switch value { 1 => …"),
        ("print(\"a\", end=\"\");", "sys::write(text) doesn't"),
        (
            "Pool(1).map(f, [1], chunksize=1);",
            "map(…, #{chunksize: 1})",
        ),
        (
            "spawn(print, [1]);",
            "a closure that calls it can: |x| print(x)",
        ),
        ("let a = [1]; print(a.length);", "it is len()"),
        ("let c = Pipe(); c.send(1);", "an array of two ends"),
        (
            "let v = Value(\"i\", 0); v += 1;",
            "the number in it is .value",
        ),
        (
            "const L = [1]; L.push(2);",
            "'push' would change it: declare it by let",
        ),
        (
            "let a = [1]; if a { print(1); }",
            "a condition is true or false",
        ),
        ("import \"nosuch\" as m;", "there is no file 'nosuch.rhai'"),
    ]);
}

#[test]
fn a_modules_function_is_called_with_the_modules_name() {
    check(&[
        (
            "getpid();",
            "NameError: function 'getpid' is not defined; it is os::getpid()",
        ),
        ("\"notes.txt\".unlink();", "it is os::unlink()"),
        (
            "let all = [\"a\"]; print(\", \".join(all));",
            "an array's texts are joined by a loop",
        ),
    ]);
}

#[test]
fn what_eval_runs_has_no_line_of_the_script() {
    let code = "// first\nfn h(n) { n / 0 }\nlet x = eval(\"// one\\nh(3)\");";
    let report = report(code);
    for line in [
        "File \"<command line>\", line 3, column 14, in <script>\n    let x = eval",
        "File \"<eval>\", line 2, column 1, in eval\n  File",
        "File \"<command line>\", line 2, column 13, in h\n    fn h(n) { n / 0 }",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    check(&[
        (
            "try { eval(\"let a = 1;\\na / 0\") } catch (e) { throw e.position; }",
            "<eval>:2:3",
        ),
        (
            "eval(\"1 +\")",
            "File \"<eval>\", line 1, column 4, in eval\nSyntaxError",
        ),
    ]);
}
