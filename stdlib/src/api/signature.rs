//! Signatures: one line of text that is a call's documentation and its check at once.
//!
//! `put(item: any, block: bool = true, timeout: seconds = ())` names each parameter, its type and its default.
//! Parameters behind a lone `*` are given by name only; `**name` at the end collects unknown names. From it come the
//! arities that are registered with Rhai, the check of every argument, the `TypeError`s, and the reference.

use crate::error::{Kind, Result, raise};
use rhai::{Dynamic, FnPtr, ImmutableString};

/// What a parameter accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any value.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A whole or a decimal number.
    Number,
    /// A duration in seconds, or `()` for ever.
    Seconds,
    /// A text.
    Str,
    /// A text or a blob.
    Bytes,
    /// A blob.
    Blob,
    /// An array.
    Array,
    /// An object map.
    Map,
    /// A function: its bare name, a closure, or `Fn("name")`.
    Callable,
    /// Something that a `for` loop can run over.
    Items,
    /// Any value but a map: where a map is the options.
    Plain,
}

impl Type {
    fn parse(text: &str) -> Type {
        match text {
            "any" => Type::Any,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "number" => Type::Number,
            "seconds" => Type::Seconds,
            "string" => Type::Str,
            "bytes" => Type::Bytes,
            "blob" => Type::Blob,
            "array" => Type::Array,
            "map" => Type::Map,
            "callable" => Type::Callable,
            "items" => Type::Items,
            "plain" => Type::Plain,
            other => unreachable!("unknown type `{other}` in a signature"),
        }
    }

    /// The type in words, for messages.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Type::Any => "any value",
            Type::Bool => "true or false",
            Type::Int => "a whole number",
            Type::Number => "a number",
            Type::Seconds => "a number of seconds, or () for ever",
            Type::Str => "a string",
            Type::Bytes => "a string or a blob",
            Type::Blob => "a blob",
            Type::Array => "an array",
            Type::Map => "an object map",
            Type::Callable => "a function",
            Type::Items => "an array, a range or something else that iterates",
            Type::Plain => "any value but a map",
        }
    }

    /// A value that is accepted, as the call gets it.
    pub(super) fn fitted(self, value: Dynamic) -> Dynamic {
        if self != Type::Str {
            return value;
        }
        match value.as_char() {
            Ok(letter) => Dynamic::from(letter.to_string()),
            Err(_) => value,
        }
    }

    fn accepts(self, value: &Dynamic) -> bool {
        match self {
            Type::Any | Type::Items => true,
            Type::Plain => !value.is::<rhai::Map>(),
            Type::Bool => value.is::<bool>(),
            Type::Int => value.is::<i64>(),
            Type::Number => value.is::<i64>() || value.is::<f64>(),
            Type::Seconds => value.is::<i64>() || value.is::<f64>() || value.is_unit(),
            // Rhai writes a text of one character in either kind of quotes, and Python does so.
            Type::Str => value.is::<ImmutableString>() || value.is::<char>(),
            Type::Bytes => value.is::<ImmutableString>() || value.is::<rhai::Blob>(),
            Type::Blob => value.is::<rhai::Blob>(),
            Type::Array => value.is::<rhai::Array>(),
            Type::Map => value.is::<rhai::Map>(),
            Type::Callable => value.is::<FnPtr>(),
        }
    }
}

/// One parameter of a call.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name, Python's.
    pub name: &'static str,
    /// What it accepts.
    pub ty: Type,
    /// Its default as the reference shows it; `None` where it must be given.
    pub default: Option<&'static str>,
}

impl Param {
    /// Checks one argument; `call` is the function's name for the message.
    ///
    /// # Errors
    /// `TypeError` that names the parameter, what it takes and what it got.
    pub fn check(&self, call: &str, value: &Dynamic) -> Result<()> {
        // Leaving out and () are the same wherever () is the default.
        if self.ty.accepts(value) || (value.is_unit() && self.default.is_some()) {
            return Ok(());
        }
        Err(raise(
            Kind::TypeError,
            format!(
                "{call}(): '{}' must be {}, not {}",
                self.name,
                self.ty.describe(),
                type_name(value)
            ),
        ))
    }
}

/// A parsed signature.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The call's name.
    pub name: &'static str,
    /// As written, for the reference.
    pub text: &'static str,
    /// All parameters; the keyword-only ones come last.
    pub params: Vec<Param>,
    /// How many may be given by position.
    pub positional: usize,
    /// How many must be given.
    pub required: usize,
    /// Whether unknown option names are collected instead of refused.
    pub collects: bool,
}

impl Signature {
    /// The signature of something that isn't called with parentheses.
    #[must_use]
    pub fn bare(name: &'static str, params: Vec<Param>) -> Signature {
        Signature {
            name,
            text: name,
            positional: params.len(),
            required: required(&params),
            params,
            collects: false,
        }
    }

    /// Parses a signature. Signatures are constants of this crate: a wrong one panics in the first test that registers it.
    #[must_use]
    pub fn parse(text: &'static str) -> Signature {
        let open = text.find('(').expect("a signature has parentheses");
        let name = text[..open].trim();
        let inner = text[open + 1..]
            .trim_end()
            .strip_suffix(')')
            .expect("a signature ends with a parenthesis");
        let mut params = Vec::new();
        let mut positional = None;
        let mut collects = false;
        for part in split(inner) {
            if part == "*" {
                positional = Some(params.len());
            } else if part.starts_with("**") {
                collects = true;
                positional.get_or_insert(params.len());
            } else {
                let (head, default) = match part.split_once('=') {
                    Some((head, default)) => (head.trim(), Some(default.trim())),
                    None => (part, None),
                };
                let (name, ty) = head.split_once(':').unwrap_or((head, "any"));
                params.push(Param {
                    name: name.trim(),
                    ty: Type::parse(ty.trim()),
                    default,
                });
            }
        }
        let positional = positional.unwrap_or(params.len());
        Signature {
            name,
            text,
            required: required(&params[..positional]),
            params,
            positional,
            collects,
        }
    }

    /// The largest number of arguments: all positional ones, and one map where options exist behind them.
    #[must_use]
    pub fn most(&self) -> usize {
        self.positional + usize::from(self.takes_only_named() || self.collects)
    }

    fn takes_only_named(&self) -> bool {
        self.params.len() > self.positional
    }

    /// Whether a map given as argument number `index` (from 0) is the options rather than a value.
    #[must_use]
    pub fn map_is_options(&self, index: usize) -> bool {
        match self.params.get(index).filter(|_| index < self.positional) {
            // What must be given may be given by name where no map could be meant: `pool.apply(#{func: f, args: [1]})`.
            Some(param) => match param.ty {
                Type::Any | Type::Map => false,
                Type::Items => param.default.is_some(),
                _ => true,
            },
            None => true,
        }
    }

    /// The position of a parameter by its name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|p| p.name == name)
    }

    /// The names that the options map may hold, for messages.
    #[must_use]
    pub fn option_names(&self) -> String {
        let names: Vec<_> = self.params.iter().map(|p| p.name).collect();
        names.join(", ")
    }
}

/// How many parameters have no default; they come first.
fn required(positional: &[Param]) -> usize {
    positional
        .iter()
        .take_while(|p| p.default.is_none())
        .count()
}

fn split(inner: &'static str) -> impl Iterator<Item = &'static str> {
    // Defaults such as `[]`, `#{}` or `()` hold no commas, so a plain split does.
    inner
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// The type of a value as messages call it: Python's words where it has them.
#[must_use]
pub fn type_name(value: &Dynamic) -> String {
    if value.is_unit() {
        return "()".into();
    }
    match value.type_name() {
        "i64" => "int",
        "f64" => "float",
        "char" => "char",
        "bool" => "bool",
        "string" => "string",
        "array" => "array",
        "map" => "object map",
        "blob" => "blob",
        "Fn" => "function",
        "timestamp" => "timestamp",
        other if other.contains("::Range") => "range",
        other => other.rsplit("::").next().unwrap_or(other),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_apart() {
        let sig = Signature::parse(
            "Process(target: callable = (), args: array = [], *, name: string = (), **fields)",
        );
        assert_eq!(sig.name, "Process");
        assert_eq!(
            (sig.required, sig.positional, sig.most(), sig.collects),
            (0, 2, 3, true)
        );
        assert_eq!(sig.params[1].ty, Type::Array);
        assert!(sig.map_is_options(0) && sig.map_is_options(2));
        let put = Signature::parse("put(item: any, block: bool = true, timeout: seconds = ())");
        assert_eq!((put.required, put.most()), (1, 3));
        assert!(!put.map_is_options(0) && put.map_is_options(1));
        let dict = Signature::parse("dict(init: any = #{})");
        assert!(!dict.map_is_options(0), "dict takes a map as a value");
    }

    #[test]
    fn a_wrong_argument_is_named() {
        let put = Signature::parse("put(item: any, block: bool = true, timeout: seconds = ())");
        let error = put.params[2]
            .check("put", &Dynamic::from("x"))
            .expect_err("a text is no duration");
        assert_eq!(
            error.to_string(),
            "TypeError: put(): 'timeout' must be a number of seconds, or () for ever, not string"
        );
        put.params[1]
            .check("put", &Dynamic::UNIT)
            .expect("() stands for the default");
    }
}
