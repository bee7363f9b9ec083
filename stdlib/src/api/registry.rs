//! What the rooms of this crate register, on its way into an engine.

use super::Call;
use super::class::Class;
use super::entry::{Entry, EntryKind, LazySignature};
use super::function::Function;
use super::missing::{self, Index};
use super::vocabulary::Vocabulary;
use crate::context::Context;
use crate::error::Result;
use rhai::{Dynamic, Engine, Module, Shared};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Collects what the rooms register, then hands it to an engine.
///
/// Every call gets its entry, whether or not the program at hand can make it; see [`Vocabulary`].
pub struct Registry {
    pub(super) global: Module,
    /// The names of those types that the program's text names. Rhai looks a type's name up at each call of a method, in one module after the
    /// other, by comparing texts: the few that matter are found first.
    named: Module,
    modules: BTreeMap<&'static str, Module>,
    pub(super) entries: Vec<Entry>,
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
            index: Index::default(),
            with_docs,
            vocabulary,
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
        let entry = Entry {
            kind: EntryKind::Function,
            module,
            class: None,
            signature: LazySignature::new(signature),
            doc,
            of: None,
        };
        let name = entry.signature.name();
        let wanted = self.wants(name);
        // Values of functions may come from programs that name more than this one.
        if wanted || !module.is_empty() {
            let function = Function::new(entry.signature.clone(), None, body);
            if !module.is_empty() {
                let made = function.clone();
                crate::convert::native_function(module, name, move || made.pointer(module));
            }
            let of = module.rsplit("::").next().unwrap_or(module);
            if !wanted && self.wants(of) {
                // A name that it doesn't have is missing in a module that is there.
                self.module(module);
            }
            if wanted {
                let doc = self.metadata(doc);
                let target = self.module(module);
                function.add_all(target, module.is_empty(), doc);
                if !module.is_empty() {
                    target.set_var(name, function.pointer(module));
                }
            }
        }
        self.entries.push(entry);
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
        self.index.unlisted.extend(self.entries.drain(entries..));
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
        self.index.unlisted.extend(self.entries.drain(entries..));
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
        self.entries.push(Entry {
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
        self.entries.push(Entry {
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

    /// The text for Rhai's own metadata, where it is asked for.
    pub(super) fn metadata(&self, doc: &'static str) -> Option<&'static str> {
        self.with_docs.then_some(doc)
    }

    /// The reference's entries alone, in the order of registration.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Puts everything into an engine and returns the reference's entries.
    pub fn install(mut self, engine: &mut Engine) -> Rc<[Entry]> {
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
        let entries: Rc<[Entry]> = self.entries.into();
        self.index.entries = entries.clone();
        missing::install(engine, self.index);
        entries
    }
}
