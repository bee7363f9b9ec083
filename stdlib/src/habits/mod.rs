//! What to say to those who come from Python, or who mistyped: one line of advice where one is known.
//!
//! Rhai's own messages say what the interpreter looked for. What was probably meant can be told from names: those that are registered,
//! those that the program defines, and those that Python has and Rhai spells differently. Messages begin as Rhai's do, so that what is
//! looked up elsewhere is found; the advice comes behind.
//!
//! Invariants: only the text of a message changes, never whether something is an error; Rust's names of types don't reach a script.

mod syntax;

pub(crate) use syntax::advice as syntax_advice;

use crate::api::{Entry, EntryKind, suggest};
use crate::runtime;

/// A message of the interpreter as it is shown: with advice, and in the words of scripts.
pub(crate) fn improved(text: String) -> String {
    if let Some(name) = text.strip_prefix("Variable not found: ") {
        let advice = about_variable(name);
        return format!("{text}{advice}");
    }
    if let Some(call) = text.strip_prefix("Function not found: ") {
        return about_function(call).unwrap_or(text);
    }
    if let Some(name) = text.strip_prefix("Module not found: ") {
        let advice = about_module(name);
        return format!("{text}{advice}");
    }
    if text.starts_with("Unknown property '") || text.starts_with("No writable property '") {
        return about_property(&text).unwrap_or(text);
    }
    if let Some(rest) = text.strip_prefix("Non-pure method '") {
        let name = rest.split('\'').next().unwrap_or_default();
        return format!("{text}; '{name}' would change it: declare it by let");
    }
    if text.starts_with("Data type incorrect") && text.ends_with("(expecting bool)") {
        let text = in_script_words(&text);
        return format!(
            "{text}; a condition is true or false, as x != 0 and !items.is_empty() are"
        );
    }
    if text.starts_with("Data race detected on argument") {
        return format!(
            "{text}; a method's arguments, and closures in them, can't hold the object that it is called on: \
             let same = object; does, and they use that"
        );
    }
    const OF_TYPES: [&str; 4] = [
        "Data type incorrect",
        "Output type incorrect",
        "Indexer unavailable",
        "For loop expects",
    ];
    if OF_TYPES.iter().any(|prefix| text.starts_with(prefix)) {
        return in_script_words(&text);
    }
    text
}

fn with_entries<R>(read: impl FnOnce(&[Entry]) -> R) -> R {
    match runtime::try_runtime() {
        Some(runtime) => read(runtime.entries()),
        None => read(&[]),
    }
}

/// Whether a class has a method of that name.
pub(crate) fn is_method(class: &str, name: &str) -> bool {
    with_entries(|entries| {
        entries.iter().any(|entry| {
            entry.kind == EntryKind::Method
                && entry.class == Some(class)
                && entry.signature.name() == name
        })
    })
}

/// What is wrong with `object.name`, where there is no such property: `known` are those that there are.
pub(crate) fn no_attribute<'n>(
    class: &str,
    name: &str,
    known: impl Iterator<Item = &'n str>,
) -> String {
    if is_method(class, name) {
        return format!(
            "'{name}' of '{class}' is a method: a call of it has parentheses, .{name}()"
        );
    }
    let hint = match suggest(name, known) {
        hint if hint.is_empty() => method_of_python(name, class).unwrap_or_default(),
        hint => hint,
    };
    format!("'{class}' object has no attribute '{name}'{hint}")
}

fn about_variable(name: &str) -> String {
    let python = match name {
        "None" => Some("Python's None is () in Rhai"),
        "True" => Some("it is written true"),
        "False" => Some("it is written false"),
        "self" => Some("the object that a method is called on is `this`"),
        "pass" => Some("a block may be empty: { }"),
        "multiprocessing" => Some(
            "nothing has to be imported: Process, Queue, Pool and the like are always there, and mp:: holds everything",
        ),
        "lambda" => Some("a function without a name is written |x| x * 2"),
        "elif" => Some("it is written else if"),
        "move" => Some("a closure takes along what it names: || …"),
        _ => None,
    };
    if let Some(python) = python {
        return format!("; {python}");
    }
    let module = name == "mp"
        || with_entries(|entries| {
            entries
                .iter()
                .any(|entry| entry.module.split("::").next() == Some(name))
        });
    if module {
        return format!(
            "; '{name}' is a module, which needs no import: what it holds is written {name}::NAME"
        );
    }
    let Some(runtime) = runtime::try_runtime() else {
        return String::new();
    };
    let program = runtime.program();
    let declared = syntax::declared(&program.source);
    if let Some((_, constant)) = declared.iter().find(|(known, _)| known == name) {
        return match constant {
            true => format!("; a function sees the script's constants as global::{name}"),
            false => format!(
                "; a function sees none of the script's variables: give it '{name}' as an argument, or make it a constant \
                 (`const`), which is global::NAME"
            ),
        };
    }
    if runtime
        .ast()
        .iter_functions()
        .any(|function| function.name == name)
    {
        return format!(
            "; a closure knows the functions above it by their bare names: move '{name}' up, or write Fn(\"{name}\")"
        );
    }
    if syntax::assigned(&program.source, name) {
        return format!("; a variable is declared before it is used: let {name} = …");
    }
    with_entries(|entries| {
        let globals = entries
            .iter()
            .filter(|entry| entry.module.is_empty() && entry.class.is_none())
            .map(|entry| entry.signature.name());
        if globals.clone().any(|global| global == name) {
            return format!(
                "; '{name}' is a function: {name}(…) calls it, Fn(\"{name}\") is its value"
            );
        }
        let ast = runtime.ast();
        let functions = ast.iter_functions().map(|function| function.name);
        suggest(
            name,
            declared
                .iter()
                .map(|(known, _)| known.as_str())
                .chain(functions)
                .chain(globals),
        )
    })
}

/// For the call of a function that there isn't, where there is a variable of that name.
pub(crate) fn held_function(name: &str) -> Option<String> {
    let program = runtime::try_runtime()?.program();
    let declared = syntax::declared(&program.source);
    declared
        .iter()
        .any(|(known, _)| known == name)
        .then(|| format!("; '{name}' is a variable: a function in it is called by {name}.call(…)"))
}

/// `time::slep (i64)`: a module's function that there isn't.
fn about_function(call: &str) -> Option<String> {
    let path = call.split(" (").next()?.trim();
    let (module, name) = path.rsplit_once("::")?;
    let message = with_entries(|entries| {
        let of_module: Vec<&str> = entries
            .iter()
            .filter(|entry| {
                entry.class.is_none()
                    && (entry.module == module || module == "mp" && entry.module.is_empty())
            })
            .map(|entry| entry.signature.name())
            .collect();
        if of_module.is_empty() {
            return None;
        }
        if of_module.contains(&name) {
            // It is there: then the arguments are at fault.
            return None;
        }
        let hint = suggest(name, of_module.into_iter());
        Some(format!("module '{module}' has no function '{name}'{hint}"))
    });
    message.or_else(|| {
        let (_, types) = call.split_once(" (")?;
        let types: Vec<String> = types
            .trim_end_matches(')')
            .split(", ")
            .map(in_script_words)
            .collect();
        Some(format!("Function not found: {path} ({})", types.join(", ")))
    })
}

fn about_module(name: &str) -> String {
    if matches!(name, "multiprocessing" | "threading" | "concurrent") {
        return about_variable("multiprocessing");
    }
    with_entries(|entries| {
        let mut modules: Vec<&str> = entries
            .iter()
            .filter_map(|entry| entry.module.split("::").next())
            .filter(|module| !module.is_empty())
            .collect();
        modules.sort_unstable();
        modules.dedup();
        if modules.contains(&name) {
            return format!(
                "; '{name}' is always there and needs no import: what it holds is written {name}::NAME"
            );
        }
        match suggest(name, modules.into_iter()) {
            hint if hint.is_empty() => {
                format!("; there is no file '{name}.rhai' beside the script that imports it")
            }
            hint => hint,
        }
    })
}

/// `Unknown property 'y' - a getter is not registered for type 'i64'`.
fn about_property(text: &str) -> Option<String> {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let name = quoted.next()?;
    let class = in_script_words(quoted.next()?);
    if class == "()" {
        return Some(format!(
            "() has no property '{name}': what comes before it has no value (a key that isn't there gives ())"
        ));
    }
    let known: Vec<&'static str> = with_entries(|entries| {
        entries
            .iter()
            .filter(|entry| {
                entry.kind == EntryKind::Property && entry.class == Some(class.as_str())
            })
            .map(|entry| entry.signature.name())
            .collect()
    });
    if text.starts_with("No writable") {
        if known.contains(&name) {
            return Some(format!("'{name}' of '{class}' can only be read"));
        }
        return Some(format!(
            "'{class}' object has no attribute '{name}' that could be set{}",
            suggest(name, known.into_iter())
        ));
    }
    Some(no_attribute(&class, name, known.into_iter()))
}

/// A text with Rust's names of types replaced by those that scripts know.
fn in_script_words(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '&')))
            .unwrap_or(rest.len());
        if length == 0 {
            result.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(length);
        result.push_str(match word {
            "i64" => "int",
            "f64" => "float",
            "&str" | "String" | "ImmutableString" => "string",
            "map" => "object map",
            "Fn" => "function",
            _ if word.contains("::") && !word.ends_with(':') => {
                match word.rsplit("::").next().unwrap_or(word) {
                    "ImmutableString" | "String" | "str" => "string",
                    last => last,
                }
            }
            _ => word,
        });
        rest = behind;
    }
    // Rhai shows all the types that a text may have in Rust.
    result.replace("string | string | string", "string")
}

/// What of Rhai's is meant by a method that Python has: for a call that wasn't found.
pub(crate) fn method_of_python(name: &str, class: &str) -> Option<String> {
    let meant = match (class, name) {
        ("array" | "string" | "blob" | "object map", "length" | "size") => "it is len()",
        ("array", "send" | "recv" | "poll") => {
            "Pipe() gives an array of two ends: let ends = Pipe(); ends[0].send(1); ends[1].recv()"
        }
        (_, "Some" | "Ok" | "Err") => {
            "there is no Option and no Result: a value that is missing is (), an error is thrown"
        }
        ("array", "append") => "an item is added with push(item)",
        ("array", "extend") => "another array is added with append(array), or +=",
        ("array", "index") | ("string", "find" | "index") => "it is index_of(item)",
        ("array", "count") => "it is filter(|x| x == item).len()",
        ("array" | "string", "join") => {
            "an array's texts are joined by a loop, or text by text: a + \", \" + b"
        }
        ("string", "upper") => "it is to_upper()",
        ("string", "lower") => "it is to_lower()",
        ("string", "strip") => "it is trim(), which changes the text in place",
        ("string", "startswith") => "it is starts_with(text)",
        ("string", "endswith") => "it is ends_with(text)",
        ("string", "format") => {
            "a text with values in it is written `a is ${a}`, or sprintf(\"%s\", [a])"
        }
        ("object map", "items") => "its keys are keys(), its values values()",
        ("object map", "update") => "another map is mixed in with mixin(map), or +=",
        ("object map", "get") => "m[key] gives () for a key that isn't there; m[key] ?? other",
        ("object map", "pop") => "it is remove(key)",
        (_, "str") => "a value's text is `${value}`, or value.to_string()",
        ("string", "int") => "it is parse_int(text)",
        ("string", "float") => "it is parse_float(text)",
        (_, "bool") => "there is no truth of values: compare, as in x != 0",
        (_, "list") => "an array is written [a, b]; of anything that iterates a for loop makes one",
        (_, "dict") => "an object map is written #{a: 1}",
        (_, "set") => "sets are a manager's: Manager().set()",
        (_, "isinstance") => "a value's type is type_of(value)",
        (_, "sorted") => "an array sorts itself: items.sort()",
        (_, "reversed") => "an array turns itself round: items.reverse()",
        (_, "enumerate") => "it is for (item, index) in items",
        (_, "zip") => "it is for (item, index) in a, with b[index]",
        (_, "any") => "it is items.some(|x| …)",
        (_, "exit" | "quit") => "it is sys::exit(code)",
        (_, "raise") => "it is throw",
        _ => return None,
    };
    Some(format!("; {meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rusts_types_are_named_as_scripts_do() {
        assert_eq!(
            in_script_words("Data type incorrect: alloc::string::String (expecting i64)"),
            "Data type incorrect: string (expecting int)"
        );
        assert_eq!(
            in_script_words("Indexer unavailable: mphost_stdlib::queues::Queue [f64]"),
            "Indexer unavailable: Queue [float]"
        );
        assert_eq!(in_script_words("&str | ImmutableString | String"), "string");
        assert_eq!(in_script_words("a: b"), "a: b");
    }
}
