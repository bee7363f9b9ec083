//! All that there is to call, whether or not the program at hand can call it: what messages, help and the reference look things up in.
//!
//! Problem: most programs never need it, and it takes as long to write down as a small program runs. So where a program was given only the
//! calls that it names, the list is made when somebody first asks.

use super::entry::{Entry, EntryKind};
use super::registry::Registry;
use super::signature::Signature;
use super::vocabulary::Vocabulary;
use std::any::TypeId;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What there is to call. Clones are the same list.
#[derive(Clone, Default)]
pub struct Catalogue(Rc<OnceCell<Known>>);

struct Known {
    entries: Vec<Entry>,
    unlisted: Vec<Entry>,
    by_name: OnceCell<ByName>,
}

/// What a name means.
#[derive(Default)]
pub(super) struct ByName {
    pub(super) methods: HashMap<(TypeId, &'static str), Rc<Signature>>,
    pub(super) functions: HashMap<&'static str, Rc<Signature>>,
}

impl Catalogue {
    /// One that is known already: the reference's entries, and the same calls in their other places.
    pub(super) fn new(entries: Vec<Entry>, unlisted: Vec<Entry>) -> Self {
        Self(Rc::new(OnceCell::from(Known {
            entries,
            unlisted,
            by_name: OnceCell::new(),
        })))
    }

    /// The reference's entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.known().entries
    }

    pub(super) fn by_name(&self) -> &ByName {
        let known = self.known();
        known.by_name.get_or_init(|| {
            let mut names = ByName::default();
            for entry in known.entries.iter().chain(&known.unlisted) {
                let name = entry.signature.name();
                let signature = || entry.signature.shared().clone();
                match (entry.kind, entry.of) {
                    (EntryKind::Method, Some(of)) => {
                        names.methods.insert((of, name), signature());
                    }
                    (EntryKind::Function, _) if entry.module.is_empty() => {
                        names.functions.insert(name, signature());
                    }
                    _ => {}
                }
            }
            names
        })
    }

    fn known(&self) -> &Known {
        self.0.get_or_init(|| {
            let mut registry = Registry::new(false, Vocabulary::Everything);
            crate::register_all(&mut registry);
            crate::runtime::register_identity(&mut registry, "__main__", "");
            let (entries, unlisted) = registry.into_parts();
            Known {
                entries,
                unlisted,
                by_name: OnceCell::new(),
            }
        })
    }
}
