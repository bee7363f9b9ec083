//! What `register(&mut Engine)` gives an embedding program, and what it says where something is missing. A test without the usual harness:
//! a process that runs scripts has one thread, and each case is a program of its own.

use mphost_stdlib::embed::{compile, finish, message, register, set_start_method, traceback};
use mphost_stdlib::host::child_entry_with;
use mphost_stdlib::process::Method;
use mphost_stdlib::runtime::Program;
use rhai::{Array, Engine, EvalAltResult, Scope};
use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Case = fn() -> Outcome;

/// Each runs in a process of its own, which has this program's name of the case as its argument.
const CASES: &[(&str, Case)] = &[
    (
        "processes_queues_and_pools_work_in_an_engine_of_ones_own",
        everything,
    ),
    (
        "what_the_program_registers_itself_is_there_in_all_processes",
        own_functions,
    ),
    (
        "two_scripts_take_turns_under_every_start_method",
        two_scripts,
    ),
    ("callbacks_and_exit_handlers_run", callbacks),
    ("finish_joins_what_a_script_left_running", left_running),
    (
        "an_uncaught_error_of_a_child_has_its_source_line",
        child_errors,
    ),
    ("a_script_of_engine_compile_runs_under_fork", plain_compile),
    ("spawn_says_that_the_text_is_not_known", unknown_text),
    ("spawn_says_that_child_entry_was_not_called", no_child_entry),
    (
        "spawn_says_that_child_entry_came_too_late",
        late_child_entry,
    ),
    (
        "register_says_that_the_engine_is_older_than_child_entry",
        old_engine,
    ),
    ("register_says_that_another_thread_was_first", other_thread),
    (
        "engines_of_other_threads_keep_their_call_levels",
        call_levels,
    ),
];

fn own(engine: &mut Engine) {
    engine.register_fn("twice", |n: i64| 2 * n);
}

fn main() {
    let chosen = std::env::var("MPHOST_CASE").ok();
    // These are about programs that don't begin as they should.
    let begins = !matches!(
        chosen.as_deref(),
        Some(
            "spawn_says_that_child_entry_was_not_called"
                | "spawn_says_that_child_entry_came_too_late"
                | "register_says_that_the_engine_is_older_than_child_entry"
        )
    );
    if begins {
        child_entry_with(own);
    }
    if let Some(name) = chosen {
        let (_, case) = CASES
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a case");
        if let Err(error) = case() {
            eprintln!("{error}");
            std::process::exit(1);
        }
        return;
    }
    let filter = std::env::args()
        .nth(1)
        .filter(|arg| !arg.starts_with('-'))
        .unwrap_or_default();
    let mut failed = 0;
    for (name, _) in CASES.iter().filter(|(name, _)| name.contains(&filter)) {
        let program = std::env::current_exe().expect("a program has a path");
        let output = Command::new("timeout")
            .arg("60")
            .arg(program)
            .env("MPHOST_CASE", name)
            .output()
            .expect("a case can be started");
        let well = output.status.success();
        println!("{} {name}", if well { "ok    " } else { "FAILED" });
        if !well {
            failed += 1;
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!(
                "{}{}",
                String::from_utf8_lossy(&output.stderr),
                output.status
            );
        }
    }
    assert_eq!(failed, 0, "{failed} cases failed");
}

fn engine() -> Result<Engine, Box<dyn std::error::Error>> {
    let mut engine = Engine::new();
    register(&mut engine)?;
    Ok(engine)
}

fn under_all(script: &str, mut check: impl FnMut(&Engine, &rhai::AST) -> Outcome) -> Outcome {
    let engine = engine()?;
    for method in Method::ALL {
        set_start_method(method);
        let ast = compile(&engine, Program::new("script", script))?;
        check(&engine, &ast).map_err(|error| format!("{}: {error}", method.name()))?;
        finish(&engine)?;
    }
    Ok(())
}

fn everything() -> Outcome {
    let script = r#"
        const FACTOR = 10;
        fn child(q, lock, total, n) {
            with lock { total.value += n; }
            q.put([current_process().name, n * global::FACTOR]);
        }
        fn square(n) { n * n }
        fn all() {
            let q = Queue();
            let lock = Lock();
            let total = Value("i", 0);
            let ps = [];
            for n in 1..4 { ps.push(spawn(child, [q, lock, total, n])); }
            for p in ps { p.join(); assert_eq(p.exitcode, 0); }
            let got = [q.get()[1], q.get()[1], q.get()[1]];
            got.sort();
            let offset = 100;
            let pool = Pool(2);
            let squares = pool.map(square, 0..4);
            let closures = pool.map(|n| n + offset, 0..2);
            pool.close();
            pool.join();
            let m = Manager();
            let d = m.dict();
            spawn(|| d["x"] = 5).join();
            [got, squares, closures, total.value, d["x"]]
        }
        all()
    "#;
    under_all(script, |engine, ast| {
        let result: Array = engine.eval_ast(ast).map_err(|error| traceback(&error))?;
        let text = format!("{result:?}");
        if text == "[[10, 20, 30], [0, 1, 4, 9], [100, 101], 6, 5]" {
            Ok(())
        } else {
            Err(text.into())
        }
    })
}

fn own_functions() -> Outcome {
    let script = "fn ask(pool) { pool.map(|n| twice(n), [1, 2]) } let pool = Pool(1); let all = ask(pool); pool.terminate(); all";
    under_all(script, |engine, ast| {
        let result: Array = engine.eval_ast(ast)?;
        expect(&format!("{result:?}"), "[2, 4]")
    })
}

fn two_scripts() -> Outcome {
    let engine = engine()?;
    let text = |n: i64| {
        format!(
            "const N = {n}; fn f(q) {{ q.put(global::N); }} let q = Queue(); spawn(f, [q]).join(); q.get()"
        )
    };
    let one = compile(&engine, Program::new("one", text(1)))?;
    let two = compile(&engine, Program::new("two", text(2)))?;
    for method in Method::ALL {
        set_start_method(method);
        for (ast, expected) in [(&one, 1_i64), (&two, 2), (&one, 1)] {
            let got: i64 = engine.eval_ast(ast)?;
            expect(&got.to_string(), &expected.to_string())?;
            finish(&engine)?;
        }
    }
    Ok(())
}

fn callbacks() -> Outcome {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut engine = engine()?;
    let notes = seen.clone();
    engine.register_fn("note", move |n: i64| notes.borrow_mut().push(n));
    let script = "
        fn double(n) { twice(n) }
        let got = [];
        let pool = Pool(1);
        let r = pool.apply_async(double, [4], #{callback: |n| got.push(twice(n))});
        r.wait();
        while got.is_empty() { }
        atexit::register(|| note(7));
        got[0]
    ";
    let ast = compile(&engine, Program::new("callbacks", script))?;
    let got: i64 = engine.eval_ast(&ast)?;
    expect(&got.to_string(), "16")?;
    finish(&engine)?;
    expect(&format!("{:?}", seen.borrow()), "[7]")
}

fn left_running() -> Outcome {
    let script = "let q = Queue(); fn late(q) { time::sleep(0.2); q.put(1); } spawn(late, [q]);";
    under_all(script, |engine, ast| {
        let mut scope = Scope::new();
        engine.run_ast_with_scope(&mut scope, ast)?;
        finish(engine)?;
        let size: i64 = engine.eval_with_scope(&mut scope, "q.qsize()")?;
        expect(&size.to_string(), "1")
    })
}

fn child_errors() -> Outcome {
    let script =
        "fn fail() {\n    throw ValueError(\"bad\");\n}\nlet p = spawn(fail); p.join(); p.exitcode";
    if std::env::var_os("MPHOST_INNER").is_some() {
        return under_all(script, |engine, ast| {
            let code: i64 = engine.eval_ast(ast)?;
            expect(&code.to_string(), "1")
        });
    }
    let output = Command::new(std::env::current_exe()?)
        .env("MPHOST_INNER", "1")
        .output()?;
    let text = String::from_utf8(output.stderr)?;
    let lines = text.matches("    throw ValueError(\"bad\");").count();
    let places = text.matches("File \"script\", line 2").count();
    if output.status.success() && lines == 3 && places == 3 {
        Ok(())
    } else {
        Err(text.into())
    }
}

fn plain_compile() -> Outcome {
    let engine = engine()?;
    let script = "fn f(q, n) { q.put(|x| x * n); } let q = Queue(); spawn(f, [q, 3]).join(); q.get().call(5)";
    expect(&engine.eval::<i64>(script)?.to_string(), "15")?;
    finish(&engine)?;
    Ok(())
}

fn says(result: Result<(), Box<EvalAltResult>>, what: &[&str]) -> Outcome {
    let text = match result {
        Ok(()) => "nothing was wrong".to_owned(),
        Err(error) => message(&error),
    };
    match what.iter().find(|part| !text.contains(**part)) {
        None => Ok(()),
        Some(part) => Err(format!("no {part:?} in: {text}").into()),
    }
}

fn expect(got: &str, expected: &str) -> Outcome {
    if got == expected {
        Ok(())
    } else {
        Err(format!("{got}, not {expected}").into())
    }
}

const PROCESS: &str = "fn f() { } spawn(f).join();";

fn unknown_text() -> Outcome {
    let engine = engine()?;
    for method in [Method::Spawn, Method::Forkserver] {
        set_start_method(method);
        says(
            engine.run(PROCESS),
            &[
                "RuntimeError",
                method.name(),
                "embed::compile(&engine, Program::new(path, text))",
                "'fork'",
            ],
        )?;
    }
    set_start_method(Method::Fork);
    engine.run(PROCESS)?;
    Ok(())
}

fn no_child_entry() -> Outcome {
    let engine = engine()?;
    let ast = compile(&engine, Program::new("script", PROCESS))?;
    for method in [Method::Spawn, Method::Forkserver] {
        set_start_method(method);
        says(
            engine.run_ast(&ast),
            &["RuntimeError", method.name(), "child_entry()", "'fork'"],
        )?;
    }
    set_start_method(Method::Fork);
    engine.run_ast(&ast)?;
    Ok(())
}

fn late_child_entry() -> Outcome {
    let engine = engine()?;
    child_entry_with(own);
    let ast = compile(&engine, Program::new("script", PROCESS))?;
    set_start_method(Method::Spawn);
    says(
        engine.run_ast(&ast),
        &["RuntimeError", "first thing in main()"],
    )?;
    set_start_method(Method::Fork);
    engine.run_ast(&ast)?;
    Ok(())
}

fn old_engine() -> Outcome {
    let mut engine = Engine::new();
    child_entry_with(own);
    match register(&mut engine) {
        Ok(()) => Err("it was taken".into()),
        Err(error) if error.to_string().contains("first thing in main()") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn other_thread() -> Outcome {
    let _engine = engine()?;
    let said =
        std::thread::spawn(|| register(&mut Engine::new()).map_err(|error| error.to_string()))
            .join()
            .expect("the thread ends");
    match said {
        Ok(()) => Err("it was taken".into()),
        Err(text) if text.contains("another one than this has called register()") => Ok(()),
        Err(text) => Err(text.into()),
    }
}

fn call_levels() -> Outcome {
    let levels = std::thread::spawn(|| {
        let mut engine = Engine::new();
        let before = engine.max_call_levels();
        register(&mut engine).map_err(|error| error.to_string())?;
        Ok::<_, String>((before, engine.max_call_levels()))
    })
    .join()
    .expect("the thread ends")?;
    expect(&levels.1.to_string(), &levels.0.to_string())
}
