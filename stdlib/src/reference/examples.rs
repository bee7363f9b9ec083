//! Examples for the reference: those that stand in the registrations' own texts, and those in `examples/`, of which one may serve
//! several methods.
//!
//! In those files a line `//: Class Class: method method` or `//: function function` says what the lines behind it, up to the next such
//! line, are an example of.

use super::full_name;
use crate::api::Entry;

const FILES: &[&str] = &[
    include_str!("examples/processes.rhai"),
    include_str!("examples/queues.rhai"),
    include_str!("examples/connections.rhai"),
    include_str!("examples/synchronisation.rhai"),
    include_str!("examples/memory.rhai"),
    include_str!("examples/managers.rhai"),
    include_str!("examples/pools.rhai"),
    include_str!("examples/files.rhai"),
];

/// An example of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The full names of what it shows.
    pub names: Vec<String>,
    /// A script.
    pub code: String,
}

/// All examples of the files.
#[must_use]
pub fn all() -> Vec<Example> {
    FILES.iter().flat_map(|file| read(file)).collect()
}

fn read(file: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in file.lines() {
        if let Some(head) = line.strip_prefix("//: ") {
            let names = names(head);
            match examples.last_mut() {
                // Several heads before one example.
                Some(last) if last.code.is_empty() => last.names.extend(names),
                _ => examples.push(Example {
                    names,
                    code: String::new(),
                }),
            }
        } else if let Some(last) = examples.last_mut() {
            last.code.push_str(line);
            last.code.push('\n');
        }
    }
    for example in &mut examples {
        example.code.truncate(example.code.trim_end().len());
        example.code.push('\n');
    }
    examples
}

fn names(head: &str) -> Vec<String> {
    match head.split_once(": ") {
        Some((classes, methods)) => classes
            .split(' ')
            .flat_map(|class| {
                methods
                    .split(' ')
                    .map(move |method| format!("{class}.{method}"))
            })
            .collect(),
        None => head.split(' ').map(str::to_owned).collect(),
    }
}

/// The example of an entry, if there is one: its own, or the files'.
#[must_use]
pub fn of(entry: &Entry, files: &[Example]) -> Option<String> {
    if let Some((_, code)) = entry.doc.split_once("```rhai\n") {
        return code.split_once("```").map(|(code, _)| code.to_owned());
    }
    let name = full_name(entry);
    files
        .iter()
        .find(|example| example.names.contains(&name))
        .map(|example| example.code.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_name_methods_and_functions() {
        let examples =
            read("// A comment.\n\n//: A B: x y\n//: f m::g\ncode();\n\n//: C: z\nmore();\n");
        assert_eq!(examples[0].names, ["A.x", "A.y", "B.x", "B.y", "f", "m::g"]);
        assert_eq!(examples[0].code, "code();\n");
        assert_eq!(examples[1].code, "more();\n");
    }

    #[test]
    fn every_example_is_of_something() {
        let known: Vec<String> = crate::reference::entries().iter().map(full_name).collect();
        for example in all() {
            for name in example.names {
                assert!(known.contains(&name), "there is no {name}");
            }
        }
    }
}
