//! Rhai definition files (`.d.rhai`), by which editors know what a script can call.
//!
//! Rhai can write such files itself, from what its engine has registered. But a call with optional arguments is registered
//! once for each number of them, with nothing known of their types; here are the signatures as they were written, a
//! definition for each form in which a call can be made. What Rhai itself brings is taken from Rhai.
//!
//! Source: The Rhai Book, "Generate definition files".

use super::{full_name, is_constructor, raises};
use crate::api::signature::Type;
use crate::api::{Entry, EntryKind};
use rhai::Engine;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The files as pairs of name and content.
#[must_use]
pub fn files(entries: &[Entry]) -> Vec<(String, String)> {
    let engine = Engine::new();
    let rhai = engine.definitions().with_headers(true);
    let mut global = rhai.static_module();
    let mut modules: BTreeMap<&str, String> = BTreeMap::new();
    for entry in entries {
        let target = match entry.module.split_once("::") {
            None if entry.module.is_empty() => &mut global,
            // A module in a module is a block of the outer one's file: see below.
            _ => modules.entry(entry.module).or_default(),
        };
        define(target, entry, entries);
    }
    let mut files = vec![
        ("__builtin__.d.rhai".to_owned(), rhai.builtin_functions()),
        (
            "__builtin-operators__.d.rhai".to_owned(),
            rhai.builtin_functions_operators(),
        ),
        ("__static__.d.rhai".to_owned(), global),
    ];
    let tops: std::collections::BTreeSet<&str> = modules
        .keys()
        .map(|path| path.split("::").next().unwrap_or(path))
        .collect();
    for top in tops {
        let mut text = format!("module {top};\n");
        for (path, inner) in modules.range(top..) {
            match path.strip_prefix(top).map(|rest| rest.strip_prefix("::")) {
                Some(None) if *path == top => text.push_str(inner),
                Some(Some(name)) => {
                    let _ = write!(text, "\nmodule {name} {{{inner}}}\n");
                }
                _ => break,
            }
        }
        files.push((format!("{top}.d.rhai"), text));
    }
    files
}

fn define(text: &mut String, entry: &Entry, all: &[Entry]) {
    let name = entry.signature.name;
    // Operators and indexers have no name that a definition could give.
    if !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return;
    }
    let result = if is_constructor(entry, all) {
        name
    } else {
        "?"
    };
    let this = entry.class.map(|class| format!("this: {class}"));
    match entry.kind {
        EntryKind::Constant => {
            document(text, entry);
            let _ = writeln!(text, "const {name}: ?;");
        }
        EntryKind::Property => {
            document(text, entry);
            let this = this.unwrap_or_default();
            let _ = writeln!(text, "fn get {name}({this}) -> ?;");
        }
        EntryKind::Function | EntryKind::Method => {
            for params in forms(entry) {
                let params: Vec<String> = this.iter().cloned().chain(params).collect();
                document(text, entry);
                let _ = writeln!(text, "fn {name}({}) -> {result};", params.join(", "));
            }
        }
    }
}

/// The parameter lists with which a call can be made: each number of arguments, then with options by name.
fn forms(entry: &Entry) -> Vec<Vec<String>> {
    let signature = &entry.signature;
    let positional: Vec<String> = signature.params[..signature.positional]
        .iter()
        .map(|param| format!("{}: {}", param.name, type_of(param.ty)))
        .collect();
    let required = signature.required;
    let mut forms: Vec<Vec<String>> = (required..=positional.len())
        .map(|count| positional[..count].to_vec())
        .collect();
    if signature.most() > signature.positional || signature.map_is_options(required) {
        let optional = signature.params.len() > required || signature.collects;
        if optional {
            let mut by_name = positional[..required].to_vec();
            by_name.push("options: Map".into());
            forms.push(by_name);
        }
    }
    forms
}

fn document(text: &mut String, entry: &Entry) {
    text.push('\n');
    if matches!(entry.kind, EntryKind::Function | EntryKind::Method) {
        let _ = writeln!(text, "/// `{}`\n///", entry.signature.text);
    } else {
        let _ = writeln!(text, "/// `{}`\n///", full_name(entry));
    }
    for line in entry.doc.lines() {
        let _ = writeln!(text, "/// {line}");
    }
    let of_class = entry.class.map(raises::of_class).unwrap_or_default();
    for line in raises::of(entry).into_iter().chain(of_class) {
        let _ = writeln!(text, "///\n/// Raises {line}");
    }
}

/// A type in the words of definition files; `?` where several will do.
fn type_of(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Int => "int",
        Type::Str => "String",
        Type::Blob => "Blob",
        Type::Array => "Array",
        Type::Map => "Map",
        Type::Callable => "FnPtr",
        Type::Any | Type::Number | Type::Seconds | Type::Bytes | Type::Items | Type::Plain => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_call_is_defined_in_its_module() {
        let all = files(&crate::reference::entries());
        let file = |name: &str| {
            all.iter()
                .find(|(file, _)| file == name)
                .map(|(_, text)| text.as_str())
                .unwrap_or_else(|| panic!("there is no file {name}"))
        };
        let global = file("__static__.d.rhai");
        assert!(global.starts_with("module static;\n"));
        for line in [
            "fn put(this: Queue, item: ?) -> ?;",
            "fn put(this: Queue, item: ?, block: bool) -> ?;",
            "fn put(this: Queue, item: ?, block: bool, timeout: ?) -> ?;",
            "fn put(this: Queue, item: ?, options: Map) -> ?;",
            "fn Queue(maxsize: int) -> Queue;",
            "fn get exitcode(this: Process) -> ?;",
            "const __name__: ?;",
        ] {
            assert!(global.contains(&format!("\n{line}\n")), "no line {line}");
        }
        assert!(!global.contains("fn put(this: Queue) "));
        // Rhai's own functions are there too.
        assert!(global.contains("fn to_upper("));
        let os = file("os.d.rhai");
        assert!(os.starts_with("module os;\n"));
        assert!(os.contains("\nfn getpid() -> ?;\n"));
        assert!(os.contains("\nmodule path {"));
        assert!(file("__builtin__.d.rhai").contains("fn type_of("));
        // Texts are comments, every line of them.
        for (name, text) in &all {
            for line in text.lines().filter(|line| !line.is_empty()) {
                let known = ["///", "//", "fn ", "op ", "const ", "let ", "module ", "}"];
                assert!(
                    known
                        .iter()
                        .any(|start| line.trim_start().starts_with(start)),
                    "{name}: {line}"
                );
            }
        }
    }
}
