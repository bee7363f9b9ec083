//! The methods and properties of one type.

use super::call::Call;
use super::entry::{Entry, EntryKind, LazySignature};
use super::function::{Body, Function};
use super::missing::DynamicMethods;
use super::registry::Registry;
use crate::error::Result;
use rhai::{Dynamic, FuncRegistration, ImmutableString};
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

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

/// What property and index functions are called in messages: theirs are rarely wrong.
const GET_INDEX: &str = "[](index)";
const SET_INDEX: &str = "[]=(index, value)";

/// The methods and properties of one type.
pub struct Class<'r, T> {
    registry: &'r mut Registry,
    name: &'static str,
    of: std::marker::PhantomData<T>,
}

impl<'r, T: Clone + 'static> Class<'r, T> {
    pub(super) fn new(registry: &'r mut Registry, name: &'static str) -> Self {
        Self {
            registry,
            name,
            of: std::marker::PhantomData,
        }
    }

    /// A method.
    pub fn method(
        &mut self,
        signature: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        self.of().method(signature, doc, Box::new(body));
        self
    }

    /// A property that can be read.
    pub fn getter(
        &mut self,
        name: &'static str,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        self.of().getter(name, doc, Box::new(body));
        self
    }

    /// A property that can be written, on constants too; its type is checked by the body.
    pub fn setter(
        &mut self,
        name: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        self.of().setter(name, Box::new(body));
        self
    }

    /// `object[index]`.
    pub fn index_getter(
        &mut self,
        doc: &'static str,
        body: impl Fn(&mut Call<'_>) -> Result + 'static,
    ) -> &mut Self {
        let signature = LazySignature::new(GET_INDEX);
        let registration = FuncRegistration::new_index_getter();
        let mut of = self.of();
        of.add(registration, signature.clone(), 1, None, Box::new(body));
        of.entry(EntryKind::Method, signature, doc);
        self
    }

    /// `object[index] = value`.
    pub fn index_setter(&mut self, body: impl Fn(&mut Call<'_>) -> Result + 'static) -> &mut Self {
        let registration = FuncRegistration::new("index$set$");
        let signature = LazySignature::new(SET_INDEX);
        self.of()
            .add(registration, signature, 2, None, Box::new(body));
        self
    }

    /// The same, but for the type: what is generic is little, see [`Registry::function`].
    fn of(&mut self) -> OfType<'_> {
        OfType {
            registry: self.registry,
            name: self.name,
            of: TypeId::of::<T>(),
        }
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
}

/// One type, known by its number.
struct OfType<'r> {
    registry: &'r mut Registry,
    name: &'static str,
    of: TypeId,
}

impl OfType<'_> {
    fn method(&mut self, signature: &'static str, doc: &'static str, body: Body) {
        let signature = LazySignature::new(signature);
        if self.registry.wants(signature.name()) {
            let doc = self.registry.metadata(doc);
            Function::new(signature.clone(), Some(self.of), body).add_all(
                &mut self.registry.global,
                true,
                doc,
            );
        }
        self.entry(EntryKind::Method, signature, doc);
    }

    fn getter(&mut self, name: &'static str, doc: &'static str, body: Body) {
        let signature = LazySignature::new(name);
        if self.registry.wants(name) {
            let registration = FuncRegistration::new_getter(name);
            let metadata = self.registry.metadata(doc);
            self.add(registration, signature.clone(), 0, metadata, body);
        }
        self.entry(EntryKind::Property, signature, doc);
    }

    fn setter(&mut self, name: &'static str, body: Body) {
        if self.registry.wants(name) {
            let registration = FuncRegistration::new(format!("set${name}"));
            self.add(registration, LazySignature::setter(name), 1, None, body);
        }
    }

    fn add(
        &mut self,
        registration: FuncRegistration,
        signature: LazySignature,
        arity: usize,
        doc: Option<&str>,
        body: Body,
    ) {
        let module = &mut self.registry.global;
        let registration = registration.in_global_namespace();
        Function::new(signature, Some(self.of), body).add(module, registration, arity, doc);
    }

    fn entry(&mut self, kind: EntryKind, signature: LazySignature, doc: &'static str) {
        let (class, of) = (Some(self.name), Some(self.of));
        self.registry.record(|| Entry {
            kind,
            module: "",
            class,
            signature,
            doc,
            of,
        });
    }
}
