//! What calls raise, where the registrations' own texts don't say it: `errors.txt`.
//!
//! One line there may serve many calls, of several classes: what a closed connection says is the same for all its methods.
//!
//! Invariant, kept by tests: every call names its errors, here or in its own text, or is said to raise none; no line speaks of a call that
//! doesn't exist.

use super::full_name;
use crate::api::Entry;
use crate::error::Kind;

const FILE: &str = include_str!("errors.txt");

/// A line: whom it speaks of, and what it says.
struct Line {
    names: Vec<&'static str>,
    text: &'static str,
}

fn lines() -> impl Iterator<Item = Line> {
    FILE.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let (names, text) = line.split_once(": ")?;
            Some(Line {
                names: names.split(' ').collect(),
                text,
            })
        })
}

/// What says that there is nothing to say.
const SILENT: [&str; 2] = ["none", "nothing more."];

/// What a call raises, as sentences; empty where its own text says all.
#[must_use]
pub fn of(entry: &Entry) -> Vec<&'static str> {
    let name = full_name(entry);
    lines()
        .filter(|line| !SILENT.contains(&line.text) && line.names.contains(&name.as_str()))
        .map(|line| line.text)
        .collect()
}

/// What every call on an object of a class raises.
#[must_use]
pub fn of_class(class: &str) -> Vec<&'static str> {
    lines()
        .filter(|line| {
            line.names
                .iter()
                .any(|name| name.strip_suffix(".*") == Some(class))
        })
        .map(|line| line.text)
        .collect()
}

/// The names of error classes in a text, as they are written there: `ValueError`.
pub fn named(text: &str) -> impl Iterator<Item = Kind> + '_ {
    text.split('`').filter_map(Kind::from_name)
}

/// Whether it is known what a call raises: its text names a class, or a line does, or a line says that it raises none.
#[must_use]
pub fn is_told(entry: &Entry) -> bool {
    let name = full_name(entry);
    named(entry.doc).next().is_some() || lines().any(|line| line.names.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::entries;
    use std::collections::BTreeSet;

    #[test]
    fn every_line_speaks_of_calls_that_exist() {
        let all = entries();
        let names: BTreeSet<String> = all.iter().map(full_name).collect();
        let classes: BTreeSet<&str> = all.iter().filter_map(|entry| entry.class).collect();
        let mut wrong = Vec::new();
        for line in FILE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            assert!(line.contains(": "), "{line}");
        }
        for line in lines() {
            for name in &line.names {
                let known = match name.strip_suffix(".*") {
                    Some(class) => classes.contains(class),
                    None => names.contains(*name),
                };
                if !known {
                    wrong.push(*name);
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:?} aren't registered");
    }

    #[test]
    fn a_call_that_is_said_to_raise_none_names_none() {
        for line in lines().filter(|line| line.text == "none") {
            for entry in entries() {
                if line.names.contains(&full_name(&entry).as_str()) {
                    let kinds: Vec<Kind> = named(entry.doc).collect();
                    assert!(kinds.is_empty(), "{}: {kinds:?}", full_name(&entry));
                    assert!(of(&entry).is_empty(), "{}", full_name(&entry));
                }
            }
        }
    }

    #[test]
    fn lines_name_classes_that_exist() {
        for line in lines() {
            for word in line.text.split('`').skip(1).step_by(2) {
                let class = word.ends_with("Error") || word.ends_with("Interrupt");
                assert!(!class || Kind::from_name(word).is_some(), "{word}");
            }
        }
    }
}
