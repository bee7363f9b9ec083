//! The module `atexit`: what a process does when it ends by itself.
//!
//! Functions run in the reverse order of their registration. A forked child starts with none. Who ends the process calls
//! [`run_all`]; a process that is killed runs nothing.
//!
//! Source: CPython Library Reference, `atexit`.

use crate::api::Registry;
use crate::error::{Error, Kind, raise};
use crate::later::Later;
use rhai::{Array, Dynamic, Engine};
use std::cell::RefCell;

thread_local! {
    static REGISTERED: RefCell<Vec<(Later, Array)>> = const { RefCell::new(Vec::new()) };
}

/// Runs what is registered, the last first, each once.
///
/// What they register meanwhile runs too. An error doesn't stop the others: all of them are returned, in the order in which they came.
pub fn run_all(engine: &Engine) -> Vec<Error> {
    let mut errors = Vec::new();
    while let Some((function, args)) = REGISTERED.with_borrow_mut(Vec::pop) {
        if let Err(error) = function.call(engine, args) {
            errors.push(error);
        }
    }
    errors
}

/// Forgets everything: first thing in a forked child, whose parent will run them.
pub fn clear() {
    REGISTERED.with_borrow_mut(Vec::clear);
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    registry.function(
        "atexit",
        "register(function: callable, a: any = (), b: any = (), c: any = (), d: any = (), e: any = (), f: any = ())",
        "Has a function called when this process ends by itself; the last registered is called first.\n\n\
         - `function`: what to call.\n- `a` … `f`: its arguments.\n\nGives the function back.\n\n\
         ```rhai\nfn goodbye(name) { print(\"goodbye\", name); }\natexit::register(goodbye, \"world\");\n```",
        |call| {
            let args: Array = (1..call.count()).map(|index| call.take(index)).collect();
            let Some(function) = call.callable(0) else {
                return Err(raise(Kind::TypeError, "register(): 'function' must be a function"));
            };
            REGISTERED.with_borrow_mut(|all| all.push((Later::new(call.ctx, function.clone()), args)));
            Ok(Dynamic::from(function))
        },
    );
    registry.function(
        "atexit",
        "unregister(function: callable)",
        "Forgets a function that was registered, however often it was.\n\n- `function`: which.\n\n\
         ```rhai\nfn goodbye() { print(\"goodbye\"); }\natexit::register(goodbye);\natexit::unregister(goodbye);\n```",
        |call| {
            if let Some(function) = call.callable(0) {
                REGISTERED.with_borrow_mut(|all| all.retain(|(known, _)| known.function().fn_name() != function.fn_name()));
            }
            Ok(Dynamic::UNIT)
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{engine, outcome, run_examples};
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn the_last_is_the_first() {
        let mut engine = engine(&[
            super::register,
            crate::builtins::register,
            crate::errors::register,
        ]);
        let printed = Rc::new(RefCell::new(Vec::new()));
        let sink = printed.clone();
        engine.on_print(move |text| sink.borrow_mut().push(text.to_owned()));
        let run = |script: &str| {
            let result = outcome(&engine, script);
            let errors: Vec<String> = run_all(&engine).iter().map(ToString::to_string).collect();
            assert!(run_all(&engine).is_empty());
            (
                result,
                std::mem::take(&mut *printed.borrow_mut()),
                errors.len(),
            )
        };
        let script = "const N = 5; fn g() { global::N } fn f(x, y) { print(x, y, g()); } fn bad() { throw ValueError(\"bad\"); }
            atexit::register(f, 1, ()); atexit::register(bad); atexit::register(|| print(\"first\")); print(\"end\");";
        assert_eq!(
            run(script),
            (
                String::new(),
                vec!["end".into(), "first".into(), "1  5".into()],
                1
            )
        );
        let script = "fn f() { print(1); } fn g() { print(2); } atexit::register(f); atexit::register(g); atexit::unregister(f);";
        assert_eq!(run(script).1, ["2"]);
        assert_eq!(
            run("fn f() { atexit::register(g); } fn g() { print(3); } atexit::register(f);").1,
            ["3"]
        );
        outcome(&engine, "fn f() { print(4); } atexit::register(f);");
        clear();
        assert_eq!(run("").1, [""; 0]);
        assert_eq!(
            run("atexit::register(5)").0,
            "TypeError: register(): 'function' must be a function, not int"
        );
        run_examples(&[], super::register);
        clear();
    }
}
