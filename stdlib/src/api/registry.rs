//! What the rooms of this crate register, on its way into an engine.

use super::Call;
use super::catalogue::Catalogue;
use super::class::Class;
use super::entry::{Entry, EntryKind, LazySignature};
use super::function::{Body, Function};
use super::missing::{self, Index};
use super::vocabulary::Vocabulary;
use crate::context::Context;
use crate::error::Result;
use rhai::{Dynamic, Engine, Module, Shared};
use std::any::TypeId;
use std::collections::BTreeMap;

/// Collects what the rooms register, then hands it to an engine.
///
/// What the program at hand can't call is passed over; see [`Vocabulary`].
pub struct Registry {
    pub(super) global: Module,
    /// The names of those types that the program's text names. Rhai looks a type's name up at each call of a method, in one module after the
    /// other, by comparing texts: the few that matter are found first.
    named: Module,
    modules: BTreeMap<&'static str, Module>,
    entries: Vec<Entry>,
    /// The same calls in their other places: constructors in `mp::` and of contexts.
    unlisted: Vec<Entry>,
    pub(super) index: Index,
    /// Whether texts go into Rhai's own metadata as well (they cost time at each start).
    with_docs: bool,
    vocabulary: Vocabulary,
}

impl Registry {
    /// An empty registry. `with_docs` also fills in Rhai's own metadata, for definition files.
    #[must_use]
    pub fn new(with_docs: bool, vocabulary: Vocabulary) -> Self {
        Self {
            global: Module::new(),
            named: Module::new(),
            modules: BTreeMap::new(),
            entries: Vec::new(),
            unlisted: Vec::new(),
            index: Index::default(),
            with_docs,
            vocabulary,
        }
    }

    /// Whether every call gets its entry: a list of those that one program names would be of no use.
    fn is_complete(&self) -> bool {
        matches!(self.vocabulary, Vocabulary::Everything)
    }

    /// Writes an entry down.
    pub(super) fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if self.is_complete() {
            self.entries.push(entry());
        }
    }

    /// Gives a Rust type its name in scripts.
    pub fn class<T: Clone + 'static>(&mut self, name: &'static str) -> Class<'_, T> {
        if self.index.classes.insert(TypeId::of::<T>(), name).is_none() {
            let types = if self.wants(name) {
                &mut self.named
            } else {
                &mut self.global
            };
            types.set_custom_type::<T>(name);
        }
        Class::new(self, name)
    }

    /// A function of a module (`os`, `time`, `mp::connection` …); `""` is the global name space.
    ///
    /// It is also a value of the same name (`let f = os::getpid;`), as long as it isn't global.
    pub fn function(
        &mut self,
        module: &'static str,
        signature: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) {
        // What is generic is little: there are several hundred calls, and most of their code would run for nothing. (A closure that
        // captures nothing is boxed without an allocation.)
        self.add_function(module, signature, doc, Box::new(body));
    }

    fn add_function(
        &mut self,
        module: &'static str,
        signature: &'static str,
        doc: &'static str,
        body: Body,
    ) {
        let signature = LazySignature::new(signature);
        let name = signature.name();
        if self.wants(name) {
            let function = Function::new(signature.clone(), None, body);
            let doc = self.metadata(doc);
            let target = self.module(module);
            function.add_all(target, module.is_empty(), doc);
            if !module.is_empty() {
                target.set_var(name, function.pointer(module));
                crate::convert::native_function(module, name, move || function.pointer(module));
            }
        } else if self.wants(module.rsplit("::").next().unwrap_or(module)) {
            // A name that it doesn't have is missing in a module that is there.
            self.module(module);
        }
        self.record(|| Entry {
            kind: EntryKind::Function,
            module,
            class: None,
            signature,
            doc,
            of: None,
        });
    }

    /// The same function in another module, with no entry of its own in the reference.
    pub fn also(
        &mut self,
        module: &'static str,
        signature: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) {
        let entries = self.entries.len();
        self.function(module, signature, "", body);
        self.unlisted.extend(self.entries.drain(entries..));
    }

    /// A constructor: global, in `mp::`, and a method of every context.
    pub fn constructor(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + Clone + 'static,
    ) {
        self.function("", signature, doc, body.clone());
        let entries = self.entries.len();
        self.function("mp", signature, doc, body.clone());
        self.class::<Context>("Context")
            .method(signature, doc, move |call| {
                let context = call.this::<Context>();
                context.scope(|| body(call))
            });
        // One entry in the reference is enough; messages know all three.
        self.unlisted.extend(self.entries.drain(entries..));
    }

    /// A constant of a module.
    pub fn constant(
        &mut self,
        module: &'static str,
        name: &'static str,
        value: impl Into<Dynamic>,
        doc: &'static str,
    ) {
        if self.wants(name) {
            let value = value.into();
            self.module(module).set_var(name, value);
        }
        self.record(|| Entry {
            kind: EntryKind::Constant,
            module,
            class: None,
            signature: LazySignature::new(name),
            doc,
            of: None,
        });
    }

    /// The reference's entry for a function that is registered by [`Registry::module`] itself.
    pub fn document(&mut self, module: &'static str, signature: &'static str, doc: &'static str) {
        self.record(|| Entry {
            kind: EntryKind::Function,
            module,
            class: None,
            signature: LazySignature::new(signature),
            doc,
            of: None,
        });
    }

    /// The module of that name, for what the other calls don't cover (operators, iterators).
    pub fn module(&mut self, module: &'static str) -> &mut Module {
        if module.is_empty() {
            &mut self.global
        } else {
            self.modules.entry(module).or_default()
        }
    }

    /// Whether the program at hand can call that name: what it can't needn't be registered.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.vocabulary.has(name)
    }

    /// Whether anything is to be done about a call of that name: it is registered, or at least written down.
    #[must_use]
    pub fn needs(&self, name: &str) -> bool {
        self.is_complete() || self.wants(name)
    }

    /// The text for Rhai's own metadata, where it is asked for.
    pub(super) fn metadata(&self, doc: &'static str) -> Option<&'static str> {
        self.with_docs.then_some(doc)
    }

    /// The reference's entries alone, in the order of registration.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entries, and those that the reference doesn't list.
    pub(super) fn into_parts(self) -> (Vec<Entry>, Vec<Entry>) {
        (self.entries, self.unlisted)
    }

    /// Puts everything into an engine, and gives the list of all that there is to call.
    pub fn install(mut self, engine: &mut Engine) -> Catalogue {
        engine.register_global_module(Shared::new(self.global));
        // The last one is searched first.
        engine.register_global_module(Shared::new(self.named));
        // `mp::connection` is a module in the module `mp`.
        let mut top: BTreeMap<&str, Module> = BTreeMap::new();
        for (path, module) in self.modules {
            match path.split_once("::") {
                None => {
                    top.insert(path, module);
                }
                Some((outer, inner)) => {
                    top.entry(outer)
                        .or_default()
                        .set_sub_module(inner, Shared::new(module));
                }
            }
        }
        for (name, mut module) in top {
            module.build_index();
            engine.register_static_module(name, Shared::new(module));
        }
        let catalogue = match self.vocabulary {
            Vocabulary::Everything => Catalogue::new(self.entries, self.unlisted),
            Vocabulary::Words(_) => Catalogue::default(),
        };
        self.index.catalogue = catalogue.clone();
        self.index.vocabulary = self.vocabulary;
        missing::install(engine, self.index);
        catalogue
    }
}
