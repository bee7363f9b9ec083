//! The reference's pages in the book, a page for each room: Markdown, from the entries alone.

use super::examples::{self, Example};
use super::{full_name, raises, summary};
use crate::api::signature::Type;
use crate::api::{Entry, EntryKind, Registry, Vocabulary};
use crate::error::Kind;
use crate::{
    assertions, atexit, builtins, connection, context, errors, json, logging, managers, os, pool,
    process, queue, queues, random, shared_memory, sharedctypes, signal, socket, subprocess,
    synchronize, sys, time,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A page.
pub struct Page {
    /// The file's name, without its ending.
    pub file: &'static str,
    /// The page's title.
    pub title: &'static str,
    /// What is on it.
    pub entries: Vec<Entry>,
}

type Rooms = &'static [fn(&mut Registry)];

const PAGES: &[(&str, &str, Rooms)] = &[
    (
        "processes",
        "Processes",
        &[process::register, context::register],
    ),
    ("queues", "Queues", &[queues::register]),
    (
        "connections",
        "Pipes and connections",
        &[connection::register],
    ),
    (
        "synchronisation",
        "Locks, semaphores, events, conditions, barriers",
        &[synchronize::register],
    ),
    (
        "values-and-arrays",
        "Shared values and arrays",
        &[sharedctypes::register],
    ),
    (
        "shared-memory",
        "Shared memory by name",
        &[shared_memory::register],
    ),
    ("managers", "Managers", &[managers::register]),
    ("pools", "Pools", &[pool::register]),
    ("errors", "Errors", &[errors::register]),
    (
        "builtins",
        "Functions that are always there",
        &[builtins::register, identity],
    ),
    ("assertions", "Assertions", &[assertions::register]),
    ("os", "The module os", &[os::register]),
    ("sys", "The module sys", &[sys::register]),
    ("time", "The module time", &[time::register]),
    ("signal", "The module signal", &[signal::register]),
    (
        "subprocess",
        "The module subprocess",
        &[subprocess::register],
    ),
    ("socket", "The module socket", &[socket::register]),
    ("random", "The module random", &[random::register]),
    ("json", "The module json", &[json::register]),
    ("queue", "The module queue", &[queue::register]),
    ("atexit", "The module atexit", &[atexit::register]),
    ("logging", "Logging", &[logging::register]),
];

/// All pages, in the order in which the book has them.
#[must_use]
pub fn pages() -> Vec<Page> {
    PAGES
        .iter()
        .map(|(file, title, rooms)| {
            let mut registry = Registry::new(false, Vocabulary::Everything);
            for room in *rooms {
                room(&mut registry);
            }
            Page {
                file,
                title,
                entries: super::public(registry),
            }
        })
        .collect()
}

fn identity(registry: &mut Registry) {
    crate::runtime::register_identity(registry, "__main__", "");
}

impl Page {
    /// The page as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "<!-- Made from the registrations by `MPHOST_BLESS=1 cargo test -p mphost --test reference`. -->\n\n# {}\n",
            self.title
        );
        let constants: Vec<&Entry> = self.of_kind(None, EntryKind::Constant).collect();
        let functions: Vec<&Entry> = self.of_kind(None, EntryKind::Function).collect();
        let mut examples = Shown {
            files: examples::all(),
            places: BTreeMap::new(),
        };
        let (errors, others): (Vec<&Entry>, Vec<&Entry>) = functions
            .into_iter()
            .partition(|entry| Kind::from_name(entry.signature.name()).is_some());
        for entry in others {
            describe(&mut text, entry, &mut examples, "##");
        }
        if !errors.is_empty() {
            describe_errors(&mut text, &errors);
        }
        if !constants.is_empty() {
            text.push_str("\n## Constants\n\n| name | what it is |\n|---|---|\n");
            for entry in constants {
                let _ = writeln!(text, "| `{}` | {} |", full_name(entry), one_line(entry.doc));
            }
        }
        for class in self.classes() {
            self.class(&mut text, class, &mut examples);
        }
        text
    }

    fn of_kind(&self, class: Option<&str>, kind: EntryKind) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.class == class && entry.kind == kind)
    }

    /// The classes in the order in which their first entries come.
    fn classes(&self) -> Vec<&'static str> {
        let mut seen = BTreeSet::new();
        self.entries
            .iter()
            .filter_map(|entry| entry.class)
            .filter(|class| seen.insert(*class))
            .collect()
    }

    fn class(&self, text: &mut String, class: &str, examples: &mut Shown) {
        let _ = write!(text, "\n## Objects of class {class}\n");
        for line in raises::of_class(class) {
            let _ = write!(text, "\nEvery call raises {line}\n");
        }
        let properties: Vec<&Entry> = self.of_kind(Some(class), EntryKind::Property).collect();
        if !properties.is_empty() {
            text.push_str("\n| property | what it is |\n|---|---|\n");
            for entry in properties {
                let _ = writeln!(
                    text,
                    "| `{}` | {} |",
                    entry.signature.name(),
                    one_line(entry.doc)
                );
            }
        }
        for entry in self.of_kind(Some(class), EntryKind::Method) {
            describe(text, entry, examples, "###");
        }
    }
}

/// The error classes: their constructors are all alike.
fn describe_errors(text: &mut String, classes: &[&Entry]) {
    text.push_str(
        "\n## The classes\n\nEach class has a constructor of its own name:\n\n```text\nValueError(message: any = \"\", **fields)\n```\n\n\
         - `message`: what was wrong.\n- `fields`: an object map of what the error carries besides; `cause` is what led to it.\n\n\
         ```rhai\ntry {\n    throw ValueError(\"bad\", #{value: 7});\n} catch (e) {\n    \
         assert_eq([e.type, e.message, e.value], [\"ValueError\", \"bad\", 7]);\n}\n```\n\n| class | derives from | an error for |\n|---|---|---|\n",
    );
    for entry in classes {
        let name = entry.signature.name();
        let parent = Kind::from_name(name).map_or("", |kind| kind.parent().name());
        let meaning = summary(entry);
        let meaning = meaning.strip_prefix("An error for ").unwrap_or(meaning);
        let _ = writeln!(
            text,
            "| `{name}` | `{parent}` | {} |",
            one_line(meaning.trim_end_matches('.'))
        );
    }
}

fn one_line(doc: &str) -> String {
    doc.split("\n\n```")
        .next()
        .unwrap_or_default()
        .replace('|', "\\|")
        .replace('\n', " ")
}

fn describe(text: &mut String, entry: &Entry, examples: &mut Shown, level: &str) {
    let signature = &entry.signature;
    let written = match (entry.class, entry.module) {
        (Some(class), _) if signature.name().starts_with('[') => {
            format!("{}[index]", class.to_lowercase())
        }
        (Some(_), _) | (None, "") => signature.text.to_owned(),
        (None, module) => format!("{module}::{}", signature.text),
    };
    let _ = write!(
        text,
        "\n{level} {}\n\n```text\n{written}\n```\n",
        full_name(entry)
    );
    let prose = entry.doc.split("```rhai").next().unwrap_or_default();
    let _ = write!(text, "\n{}\n", prose.trim());
    // What the text doesn't say of an argument its signature does.
    let unsaid: Vec<String> = signature
        .params
        .iter()
        .filter(|param| !prose.contains(&format!("`{}`", param.name)))
        .map(|param| {
            let default = match param.default {
                Some(default) => format!(", `{default}` if left out"),
                None => String::new(),
            };
            format!("- `{}`: {}{default}.\n", param.name, in_words(param.ty))
        })
        .collect();
    if !unsaid.is_empty() {
        text.push('\n');
        text.push_str(&unsaid.concat());
    }
    let raised = raises::of(entry);
    if !raised.is_empty() {
        let _ = write!(text, "\nRaises {}\n", raised.join(" "));
    }
    let Some(example) = examples::of(entry, &examples.files) else {
        return;
    };
    let name = full_name(entry);
    match examples.places.get(&example) {
        Some(place) => {
            let _ = write!(text, "\nExample: see [{place}](#{}).\n", anchor(place));
        }
        None => {
            let _ = write!(text, "\n```rhai\n{}\n```\n", example.trim());
            examples.places.insert(example, name);
        }
    }
}

/// The examples of the files, and where on the page each one stands already.
struct Shown {
    files: Vec<Example>,
    places: BTreeMap<String, String>,
}

/// What mdBook makes of a heading, to point there.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn in_words(ty: Type) -> &'static str {
    ty.describe()
}

/// The line of the book's table of contents that each page has.
#[must_use]
pub fn contents() -> String {
    pages()
        .iter()
        .map(|page| format!("- [{}](reference/{}.md)\n", page.title, page.file))
        .collect()
}

/// The overview: every page, with its entries in one line each.
#[must_use]
pub fn overview() -> String {
    let mut text = String::from(
        "<!-- Made from the registrations by `MPHOST_BLESS=1 cargo test -p mphost --test reference`. -->\n\n# Reference\n\n\
         Everything that a script can call. These pages are made from the texts by which the calls are registered, the same that\n\
         `:help` shows at the prompt and that `mphost definitions` writes for editors; each example is run by the tests.\n\n\
         A signature such as `put(item: any, block: bool = true, timeout: seconds = ())` names each argument, its type and its\n\
         default. Every argument that has a default can also be given by name, in one object map in the place of them all:\n\
         `q.put(1, #{timeout: 3})`; those behind a lone `*` only so. `seconds` is a number, `()` means for ever.\n\n\
         An argument of a wrong type, one too many or too few, an unknown name: that is a `TypeError` of any call, and isn't repeated\n\
         there. A call that waits may also raise `KeyboardInterrupt` (Ctrl-C), or what a signal's handler or a pool's callback throws.\n",
    );
    for page in pages() {
        let _ = write!(
            text,
            "\n## [{}]({}.md)\n\n| | |\n|---|---|\n",
            page.title, page.file
        );
        for entry in page
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Function)
        {
            let _ = writeln!(
                text,
                "| `{}` | {} |",
                full_name(entry),
                one_line(summary(entry))
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_its_page() {
        let on_pages: BTreeSet<String> = pages()
            .iter()
            .flat_map(|page| page.entries.iter().map(full_name))
            .collect();
        let all: BTreeSet<String> = crate::reference::entries().iter().map(full_name).collect();
        let missing: Vec<&String> = all.difference(&on_pages).collect();
        assert!(missing.is_empty(), "{missing:?} are on no page: see PAGES");
    }

    #[test]
    fn every_call_has_an_example() {
        let examples = examples::all();
        let missing: Vec<String> = pages()
            .iter()
            .flat_map(|page| &page.entries)
            .filter(|entry| matches!(entry.kind, EntryKind::Function | EntryKind::Method))
            .filter(|entry| entry.signature.name().starts_with(char::is_alphabetic))
            .filter(|entry| examples::of(entry, &examples).is_none())
            .map(full_name)
            .collect();
        assert!(
            missing.is_empty(),
            "{} have no example: {missing:#?}",
            missing.len()
        );
    }
}
