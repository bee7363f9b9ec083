//! What the rooms' tests share: a small engine, a script's outcome as text, and the documentation's examples run for real.

use crate::api::{Entry, Registry, Vocabulary};
use crate::error::{ScriptError, thrown_value};
use rhai::{Dynamic, Engine, EvalAltResult};

pub(crate) type Register = fn(&mut Registry);

/// An engine that knows what the given rooms register.
pub(crate) fn engine(rooms: &[Register]) -> Engine {
    engine_and_entries(rooms).0
}

fn engine_and_entries(rooms: &[Register]) -> (Engine, Vec<Entry>) {
    let mut registry = Registry::new(true, Vocabulary::Everything);
    for register in rooms {
        register(&mut registry);
    }
    let mut engine = Engine::new();
    let catalogue = registry.install(&mut engine);
    crate::with::install(&mut engine);
    crate::tries::install(&mut engine);
    crate::spawn_syntax(&mut engine);
    engine.on_print(|_| ());
    engine.set_max_call_levels(48);
    session();
    (engine, catalogue.entries().to_vec())
}

/// What a script comes to: its value as `print` shows it, or `TYPE: message` of what it threw.
pub(crate) fn outcome(engine: &Engine, script: &str) -> String {
    let result = crate::catches::compile(engine, script, "<script>")
        .map_err(|e| e.to_string())
        .map(|ast| engine.eval_ast::<Dynamic>(&ast));
    match result {
        Err(syntax) => format!("SyntaxError: {syntax}"),
        Ok(Ok(value)) => match crate::sys::take_exit() {
            Some(code) => format!("exit {}", show(engine, code)),
            None => show(engine, value),
        },
        Ok(Err(error)) => text_of(&error),
    }
}

/// `TYPE: message` of an error.
pub(crate) fn text_of(error: &EvalAltResult) -> String {
    let value = thrown_value(error, None);
    match value.read_lock::<ScriptError>() {
        Some(error) => error.to_string(),
        None => format!("thrown {value}"),
    }
}

fn show(engine: &Engine, value: Dynamic) -> String {
    let mut scope = rhai::Scope::new();
    scope.push_dynamic("value", value);
    engine
        .eval_with_scope::<String>(&mut scope, "value.to_string()")
        .expect("every value can be shown")
}

/// Asserts what each script comes to.
pub(crate) fn check(engine: &Engine, cases: &[(&str, &str)]) {
    for (script, expected) in cases {
        assert_eq!(outcome(engine, script), *expected, "{script}");
    }
}

/// Runs every ```rhai block of a room's documentation, in an engine that knows other rooms too; each must end without an error.
pub(crate) fn run_examples(others: &[Register], room: Register) {
    let skipped = engine_and_entries(others).1.len();
    let all: Vec<Register> = others.iter().copied().chain([room]).collect();
    let (engine, entries) = engine_and_entries(&all);
    let mut examples = 0;
    for entry in &entries[skipped..] {
        let at = format!(
            "{}::{}.{}",
            entry.module,
            entry.class.unwrap_or(""),
            entry.signature.name
        );
        assert!(
            entry.doc.contains('.'),
            "{at} has no sentence that says what it does"
        );
        for block in entry.doc.split("```rhai").skip(1) {
            let code = block.split("```").next().unwrap_or_default();
            let result = outcome(&engine, code);
            assert!(
                !result.contains("Error") && !result.starts_with("thrown"),
                "the example of {at} ends with {result}:\n{code}"
            );
            examples += 1;
        }
    }
    assert!(examples > 0, "no example was found");
}

/// A session for calls that wait. There is one in the whole test process.
fn session() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if mphost_core::session::try_session().is_none() {
            mphost_core::session::Session::create().expect("a session can be made");
            mphost_core::reap::install().expect("ends of children can be noticed");
        }
    });
}
