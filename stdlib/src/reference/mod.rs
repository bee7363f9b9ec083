//! The reference: what is registered, as data that can be looked things up in.
//!
//! Definition files, the book's pages, the help and the completion of a prompt are all made from the registrations' own
//! entries, so that none of them can say what isn't so.

pub mod definitions;
pub mod examples;
pub mod pages;
pub mod raises;

use crate::api::{Entry, EntryKind, Registry, Vocabulary};

/// Everything that scripts can call, in the order of registration: what [`crate::runtime::Runtime::entries`] gives, without a runtime.
#[must_use]
pub fn entries() -> Vec<Entry> {
    let mut registry = Registry::new(false, Vocabulary::Everything);
    crate::register_all(&mut registry);
    crate::runtime::register_identity(&mut registry, "__main__", "");
    public(registry)
}

/// What scripts are meant to call: what begins with a line below is the host's own, but for the constants.
fn public(registry: Registry) -> Vec<Entry> {
    let mut entries = registry.into_entries();
    entries.retain(|entry| {
        entry.kind == EntryKind::Constant || !entry.signature.name().starts_with('_')
    });
    entries
}

/// What an entry is called in full: `Queue`, `os::getpid`, `Queue.put`.
///
/// ```
/// use mphost_stdlib::reference::{entries, full_name, summary};
///
/// let all = entries();
/// let put = all.iter().find(|entry| full_name(entry) == "Queue.put").expect("queues have it");
/// assert_eq!(put.signature.text, "put(item: any, block: bool = true, timeout: seconds = ())");
/// assert!(summary(put).starts_with("Puts an item."));
/// ```
#[must_use]
pub fn full_name(entry: &Entry) -> String {
    let name = entry.signature.name;
    match entry.class {
        Some(class) if entry.signature.name.starts_with('[') => format!("{class}{name}"),
        Some(class) => format!("{class}.{name}"),
        None if entry.module.is_empty() => name.to_owned(),
        None => format!("{}::{name}", entry.module),
    }
}

/// The first sentence of an entry's text.
#[must_use]
pub fn summary(entry: &Entry) -> &'static str {
    let paragraph = entry.doc.split("\n\n").next().unwrap_or_default().trim();
    match paragraph.find(". ") {
        Some(end) => &paragraph[..=end],
        None => paragraph,
    }
}

/// Whether an entry makes an object of a class with methods: `Queue(maxsize)`.
#[must_use]
pub fn is_constructor(entry: &Entry, all: &[Entry]) -> bool {
    entry.kind == EntryKind::Function
        && all
            .iter()
            .any(|other| other.class == Some(entry.signature.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_full_names_and_a_first_sentence() {
        let all = entries();
        let find = |name: &str| {
            all.iter()
                .find(|entry| full_name(entry) == name)
                .unwrap_or_else(|| panic!("there is no entry {name}"))
        };
        assert_eq!(
            summary(find("Queue")),
            "A queue that any process may put items into and take items from."
        );
        assert_eq!(find("Queue.put").class, Some("Queue"));
        assert_eq!(find("os::getpid").module, "os");
        assert!(is_constructor(find("Queue"), &all));
        assert!(!is_constructor(find("len"), &all));
        assert_eq!(find("__name__").kind, EntryKind::Constant);
    }
}
