//! What the reference, the REPL's help and the errors know of each call.

use super::signature::{Param, Signature, Type};
use std::any::TypeId;
use std::cell::OnceCell;
use std::ops::Deref;
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
    pub signature: LazySignature,
    /// What it does, in Markdown; a first sentence that stands alone, then the rest. Code blocks are examples that the tests run.
    pub doc: &'static str,
    /// The type that `class` names.
    pub(super) of: Option<TypeId>,
}

/// A signature that is taken apart when somebody first looks at it: most calls of a program are never made.
#[derive(Clone, Debug)]
pub struct LazySignature {
    text: &'static str,
    parsed: OnceCell<Rc<Signature>>,
}

impl LazySignature {
    /// A signature as it is written, or the bare name of a property or constant.
    pub(super) fn new(text: &'static str) -> Self {
        Self {
            text,
            parsed: OnceCell::new(),
        }
    }

    /// The signature of a property that is written: one value of any type, under the property's name.
    pub(super) fn setter(name: &'static str) -> Self {
        let value = Param {
            name: "value",
            ty: Type::Any,
            default: None,
        };
        Self {
            text: name,
            parsed: OnceCell::from(Rc::new(Signature::bare(name, vec![value]))),
        }
    }

    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &'static str {
        // Asked for every call in every process: a search for a byte is all that it takes.
        match self.text.bytes().position(|byte| byte == b'(') {
            Some(end) => &self.text[..end],
            None => self.text,
        }
    }

    pub(super) fn shared(&self) -> &Rc<Signature> {
        self.parsed.get_or_init(|| {
            Rc::new(if self.text.contains('(') {
                Signature::parse(self.text)
            } else {
                Signature::bare(self.text, vec![])
            })
        })
    }
}

impl Deref for LazySignature {
    type Target = Signature;

    fn deref(&self) -> &Signature {
        self.shared()
    }
}
