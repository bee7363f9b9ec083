//! Registration: how a Rust closure becomes a call that scripts can make, with its check and its documentation.
//!
//! A room of this crate (`queues.rs`, `os.rs` …) registers its calls with one line of signature and a few lines of text.
//! From that one place come the functions in Rhai, the errors for wrong arguments ("did you mean"), the definition files, the
//! reference and the REPL's help, so that they can't differ.
//!
//! Invariants: a call's arguments are checked before its closure runs; an error that leaves a closure has a place.

pub mod call;
pub mod missing;
pub mod signature;

pub use call::Call;
pub use signature::{Signature, type_name};

use crate::context::Context;
use crate::error::{Result, place};
use rhai::{
    Dynamic, Engine, FnPtr, FuncRegistration, ImmutableString, Module, NativeCallContext, RhaiFunc,
    Shared,
};
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What an entry of the reference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A free function, or a constructor.
    Function,
    /// A method of a type.
    Method,
    /// A property of a type that can be read, and perhaps written.
    Property,
    /// A constant of a module.
    Constant,
}

/// One entry of the reference.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The module it is in: `""` for global ones, else `os`, `mp` …
    pub module: &'static str,
    /// The type that it belongs to, for methods and properties.
    pub class: Option<&'static str>,
    /// Its signature; a property's or constant's has no parameters.
    pub signature: Rc<Signature>,
    /// What it does, in Markdown; a first sentence that stands alone, then the rest. Code blocks are examples that the tests run.
    pub doc: &'static str,
}

/// So many arguments too many are still matched, so that the `TypeError` can say where the call stands.
const SURPLUS: usize = 1;

type Body = Rc<dyn Fn(&mut Call<'_>) -> Result>;
/// Calls a method that is not known before the script runs: `m.get_task_queue()`. `None`: there is no such method.
pub type DynamicMethods =
    Rc<dyn Fn(&NativeCallContext<'_>, &str, &mut [&mut Dynamic]) -> Result<Option<Dynamic>>>;

/// What makes an iterator of a value.
pub type Iterate = Rc<
    dyn Fn(
        Dynamic,
    ) -> Box<dyn Iterator<Item = std::result::Result<Dynamic, Box<rhai::EvalAltResult>>>>,
>;

thread_local! {
    /// Rhai keeps its iterators to itself; these are those of this crate's types.
    static ITERATORS: RefCell<HashMap<TypeId, Iterate>> = RefCell::new(HashMap::new());
}

/// What iterates over values of one of this crate's types, for calls that take "items".
#[must_use]
pub fn iterator(of: TypeId) -> Option<Iterate> {
    ITERATORS.with_borrow(|all| all.get(&of).cloned())
}

/// Collects what the rooms register, then hands it to an engine.
pub struct Registry {
    global: Module,
    modules: BTreeMap<&'static str, Module>,
    entries: Vec<Entry>,
    index: Index,
    /// Whether texts go into Rhai's own metadata as well (they cost time at each start).
    with_docs: bool,
}

/// What the hook for unmatched calls looks things up in.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) methods: HashMap<(TypeId, &'static str), Rc<Signature>>,
    pub(crate) functions: HashMap<&'static str, Rc<Signature>>,
    pub(crate) classes: HashMap<TypeId, &'static str>,
    pub(crate) dynamic: HashMap<TypeId, DynamicMethods>,
}

impl Registry {
    /// An empty registry. `with_docs` also fills in Rhai's own metadata, for definition files.
    #[must_use]
    pub fn new(with_docs: bool) -> Self {
        Self {
            global: Module::new(),
            modules: BTreeMap::new(),
            entries: Vec::new(),
            index: Index::default(),
            with_docs,
        }
    }

    /// All entries so far, in the order of registration.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives a Rust type its name in scripts.
    pub fn class<T: Clone + 'static>(&mut self, name: &'static str) -> Class<'_, T> {
        if self.index.classes.insert(TypeId::of::<T>(), name).is_none() {
            self.global.set_custom_type::<T>(name);
        }
        Class {
            registry: self,
            name,
            of: std::marker::PhantomData,
        }
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
        let signature = Rc::new(Signature::parse(signature));
        let body: Body = Rc::new(body);
        let with_docs = self.with_docs;
        let name = signature.name;
        if module.is_empty() {
            self.index.functions.insert(name, signature.clone());
        }
        let target = if module.is_empty() {
            &mut self.global
        } else {
            self.modules.entry(module).or_default()
        };
        for arity in 0..=signature.most() + SURPLUS {
            add(
                target,
                FuncRegistration::new(name),
                &[],
                arity,
                &signature,
                &body,
                doc,
                with_docs,
            );
        }
        if !module.is_empty() {
            let (full, pointer) = native_pointer(module, name, signature.clone(), body);
            crate::convert::native_function(full, pointer.clone());
            target.set_var(name, pointer);
        }
        self.entries.push(Entry {
            kind: EntryKind::Function,
            module,
            class: None,
            signature,
            doc,
        });
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
        // One entry in the reference is enough.
        self.entries.truncate(entries);
    }

    /// A constant of a module.
    pub fn constant(
        &mut self,
        module: &'static str,
        name: &'static str,
        value: impl Into<Dynamic>,
        doc: &'static str,
    ) {
        let value = value.into();
        let target = if module.is_empty() {
            &mut self.global
        } else {
            self.modules.entry(module).or_default()
        };
        target.set_var(name, value);
        let signature = Rc::new(Signature {
            name,
            text: name,
            params: vec![],
            positional: 0,
            collects: false,
        });
        self.entries.push(Entry {
            kind: EntryKind::Constant,
            module,
            class: None,
            signature,
            doc,
        });
    }

    /// The reference's entry for a function that is registered by [`Registry::module`] itself.
    pub fn document(&mut self, module: &'static str, signature: &'static str, doc: &'static str) {
        let signature = Rc::new(Signature::parse(signature));
        self.entries.push(Entry {
            kind: EntryKind::Function,
            module,
            class: None,
            signature,
            doc,
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

    /// Puts everything into an engine and returns the reference's entries.
    pub fn install(self, engine: &mut Engine) -> Vec<Entry> {
        engine.register_global_module(Shared::new(self.global));
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
        missing::install(engine, self.index);
        self.entries
    }
}

/// The methods and properties of one type.
pub struct Class<'r, T> {
    registry: &'r mut Registry,
    name: &'static str,
    of: std::marker::PhantomData<T>,
}

impl<T: Clone + 'static> Class<'_, T> {
    /// A method.
    pub fn method(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        let signature = Rc::new(Signature::parse(signature));
        let body: Body = Rc::new(body);
        for arity in 0..=signature.most() + SURPLUS {
            add(
                &mut self.registry.global,
                FuncRegistration::new(signature.name),
                &[TypeId::of::<T>()],
                arity,
                &signature,
                &body,
                doc,
                self.registry.with_docs,
            );
        }
        self.registry
            .index
            .methods
            .insert((TypeId::of::<T>(), signature.name), signature.clone());
        self.entry(EntryKind::Method, signature, doc);
        self
    }

    /// A property that can be read.
    pub fn getter(
        &mut self,
        name: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        let signature = property(name, vec![]);
        let body: Body = Rc::new(body);
        let registration = FuncRegistration::new_getter(name);
        let docs = self.registry.with_docs;
        add(
            &mut self.registry.global,
            registration,
            &[TypeId::of::<T>()],
            0,
            &signature,
            &body,
            doc,
            docs,
        );
        self.entry(EntryKind::Property, signature, doc);
        self
    }

    /// A property that can be written, on constants too; its type is checked by the body.
    pub fn setter(
        &mut self,
        name: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        let value = signature::Param {
            name: "value",
            ty: signature::Type::Any,
            default: None,
        };
        let signature = property(name, vec![value]);
        let body: Body = Rc::new(body);
        let registration = FuncRegistration::new(format!("set${name}"));
        add(
            &mut self.registry.global,
            registration,
            &[TypeId::of::<T>()],
            1,
            &signature,
            &body,
            "",
            false,
        );
        self
    }

    /// `object[index]`.
    pub fn index_getter(
        &mut self,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        let index = signature::Param {
            name: "index",
            ty: signature::Type::Any,
            default: None,
        };
        let signature = property("[]", vec![index]);
        let body: Body = Rc::new(body);
        let registration = FuncRegistration::new_index_getter();
        add(
            &mut self.registry.global,
            registration,
            &[TypeId::of::<T>()],
            1,
            &signature,
            &body,
            doc,
            false,
        );
        self.entry(EntryKind::Method, signature, doc);
        self
    }

    /// `object[index] = value`.
    pub fn index_setter(&mut self, body: impl Fn(&mut Call<'_>) -> Result + 'static) -> &mut Self {
        let any = |name| signature::Param {
            name,
            ty: signature::Type::Any,
            default: None,
        };
        let signature = property("[]=", vec![any("index"), any("value")]);
        let body: Body = Rc::new(body);
        let registration = FuncRegistration::new("index$set$");
        add(
            &mut self.registry.global,
            registration,
            &[TypeId::of::<T>()],
            2,
            &signature,
            &body,
            "",
            false,
        );
        self
    }

    /// What `for x in object` runs over; `items` makes the iterator from a copy of the object.
    pub fn iterate<I>(&mut self, items: impl Fn(T) -> I + 'static) -> &mut Self
    where
        I: Iterator<Item = std::result::Result<Dynamic, Box<rhai::EvalAltResult>>> + 'static,
    {
        let items: Iterate = Rc::new(move |value| Box::new(items(value.cast::<T>())));
        ITERATORS.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), items.clone()));
        self.registry
            .global
            .set_iter_result(TypeId::of::<T>(), move |value| items(value));
        self
    }

    /// Methods that are known only at run time.
    pub fn dynamic_methods(&mut self, methods: DynamicMethods) -> &mut Self {
        self.registry
            .index
            .dynamic
            .insert(TypeId::of::<T>(), methods);
        self
    }

    /// What `print`, `${}` and `to_string` show.
    pub fn display(&mut self, show: impl Fn(&T) -> String + Clone + 'static) -> &mut Self {
        let debug = show.clone();
        self.registry
            .global
            .set_native_fn("to_string", move |value: &mut T| {
                Ok(ImmutableString::from(show(value)))
            });
        self.registry
            .global
            .set_native_fn("to_debug", move |value: &mut T| {
                Ok(ImmutableString::from(debug(value)))
            });
        self
    }

    /// `==` and `!=`, for handles: true for the same object.
    pub fn equality(&mut self, same: impl Fn(&T, &T) -> bool + Clone + 'static) -> &mut Self {
        let differ = same.clone();
        self.registry
            .global
            .set_native_fn("==", move |a: &mut T, b: T| Ok(same(a, &b)));
        self.registry
            .global
            .set_native_fn("!=", move |a: &mut T, b: T| Ok(!differ(a, &b)));
        self
    }

    fn entry(&mut self, kind: EntryKind, signature: Rc<Signature>, doc: &'static str) {
        self.registry.entries.push(Entry {
            kind,
            module: "",
            class: Some(self.name),
            signature,
            doc,
        });
    }
}

fn property(name: &'static str, params: Vec<signature::Param>) -> Rc<Signature> {
    let positional = params.len();
    Rc::new(Signature {
        name,
        text: name,
        params,
        positional,
        collects: false,
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "one private function that all registrations go through"
)]
fn add(
    module: &mut Module,
    registration: FuncRegistration,
    this: &[TypeId],
    arity: usize,
    signature: &Rc<Signature>,
    body: &Body,
    doc: &'static str,
    with_docs: bool,
) {
    let types: Vec<TypeId> = this
        .iter()
        .copied()
        .chain(std::iter::repeat_n(TypeId::of::<Dynamic>(), arity))
        .collect();
    let has_this = !this.is_empty();
    let (signature, body) = (signature.clone(), body.clone());
    let mut registration = registration.in_global_namespace();
    if with_docs {
        let mut params: Vec<String> = this.iter().map(|_| "this".to_owned()).collect();
        params.extend(
            signature
                .params
                .iter()
                .take(arity)
                .map(|p| p.name.to_owned()),
        );
        params.push("Dynamic".into());
        registration = registration.with_params_info(params).with_comments(
            doc.lines()
                .map(|line| format!("/// {line}"))
                .collect::<Vec<_>>(),
        );
    }
    let function = move |ctx: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| {
        let ctx = ctx.expect("registered with a context");
        run(&ctx, &signature, &body, has_this, args)
    };
    let func = Shared::new(function);
    // A method works on the object itself. A function gets values of its own: what it takes is no variable of the script.
    let function = if has_this {
        RhaiFunc::Method {
            func,
            has_context: true,
            is_pure: true,
            is_volatile: true,
        }
    } else {
        RhaiFunc::Pure {
            func,
            has_context: true,
            is_pure: true,
            is_volatile: true,
        }
    };
    registration.set_into_module_raw(module, types, function);
}

fn run(
    ctx: &NativeCallContext<'_>,
    signature: &Signature,
    body: &Body,
    has_this: bool,
    args: &mut [&mut Dynamic],
) -> std::result::Result<Dynamic, Box<rhai::EvalAltResult>> {
    Call::new(ctx, signature, has_this, args)
        .and_then(|mut call| body(&mut call))
        .map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
}

/// A function of a module as a value: it keeps its full name, by which another process finds it again.
fn native_pointer(
    module: &str,
    name: &'static str,
    signature: Rc<Signature>,
    body: Body,
) -> (String, FnPtr) {
    let full = native_name(module, name);
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    let pointer = FnPtr::from_fn(full.as_str(), move |ctx, args: &mut [&mut Dynamic]| {
        run(&ctx, &signature, &body, false, args)
    })
    .expect("the name of a registered function is a valid identifier");
    (full, pointer)
}

/// The name that a native function has as a value: Rhai wants an identifier, so `os::path::join` is `os__path__join`.
#[must_use]
pub fn native_name(module: &str, name: &str) -> String {
    format!("{}__{name}", module.replace("::", "__"))
}

/// `; did you mean 'x'?`, or nothing where nothing is close.
#[must_use]
pub fn suggest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let lower = name.to_lowercase();
    known
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (candidate.len().max(name.len()) / 3).clamp(1, 3)
        })
        .min()
        .map(|(_, candidate)| format!("; did you mean '{candidate}'?"))
        .unwrap_or_default()
}

/// Where a call stands, as `file:line:column`.
#[must_use]
pub fn call_place(ctx: &NativeCallContext<'_>) -> String {
    place(ctx.call_source(), ctx.call_position())
}
