//! One call from a script: its arguments, checked and put in the order of the signature.

use super::signature::{Signature, type_name};
use crate::error::{Kind, Result, raise};
use rhai::{Array, Blob, Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use smallvec::SmallVec;

/// One call from a script.
///
/// Arguments are numbered as in the signature; those left out, and those given as `()` where `()` is allowed, read as missing.
pub struct Call<'a> {
    /// Rhai's side of the call: the engine, the position, the functions in reach.
    pub ctx: &'a NativeCallContext<'a>,
    signature: &'a Signature,
    this: Option<&'a mut Dynamic>,
    args: SmallVec<[Dynamic; 4]>,
    /// Bit n says that argument n was given, if only as ().
    given: u64,
    /// Options that the signature doesn't name, where it collects them. Most calls have none.
    extra: Option<Box<Map>>,
}

impl<'a> Call<'a> {
    /// A call whose arguments are still to come ([`Call::read`]): made where it stays, since moving it costs as much as checking it.
    #[must_use]
    pub fn new(
        ctx: &'a NativeCallContext<'a>,
        signature: &'a Signature,
        this: Option<&'a mut Dynamic>,
    ) -> Call<'a> {
        Call {
            ctx,
            signature,
            this,
            args: SmallVec::new(),
            given: 0,
            extra: None,
        }
    }

    /// Checks `rest`, all arguments but the object, against the signature and takes them.
    ///
    /// # Errors
    /// `TypeError` that names the argument that is wrong, unknown, missing or given twice.
    pub fn read(&mut self, rest: &mut [&mut Dynamic]) -> Result<()> {
        let signature = self.signature;
        let mut given = rest.len();
        let options = match given.checked_sub(1) {
            Some(last) if rest[last].is_map() && signature.map_is_options(last) => {
                given = last;
                Some(rest[last].take())
            }
            _ => None,
        };
        if given > signature.positional {
            let message = if rest.len() > signature.most() {
                format!(
                    "{}() takes at most {} arguments, {} were given",
                    signature.name,
                    signature.most(),
                    rest.len()
                )
            } else {
                format!(
                    "{}(): what follows the first {} arguments is given by name, in an object map: #{{…}}",
                    signature.name, signature.positional
                )
            };
            return Err(raise(
                Kind::TypeError,
                format!("{message}: {}", signature.text),
            ));
        }
        for (value, param) in rest[..given].iter_mut().zip(&signature.params) {
            param.check(signature.name, value)?;
            self.args.push(param.ty.fitted(value.take()));
        }
        self.given = (1 << self.args.len()) - 1;
        if let Some(options) = options {
            self.read_options(options.cast::<Map>())?;
        }
        if let Some(missing) = (0..signature.required).find(|i| self.given & (1 << i) == 0) {
            let missing = signature.params[missing].name;
            return Err(raise(
                Kind::TypeError,
                format!("{}(): '{missing}' is missing", signature.name),
            ));
        }
        Ok(())
    }

    /// The options that the signature doesn't name, where it collects them.
    pub fn take_extra(&mut self) -> Map {
        self.extra.take().map(|all| *all).unwrap_or_default()
    }

    fn read_options(&mut self, options: Map) -> Result<()> {
        let positional = self.args.len();
        for (name, value) in options {
            match self.signature.index_of(&name) {
                Some(index) => {
                    if index < positional {
                        return Err(raise(
                            Kind::TypeError,
                            format!("{}(): '{name}' is given twice", self.signature.name),
                        ));
                    }
                    let param = &self.signature.params[index];
                    param.check(self.signature.name, &value)?;
                    let value = param.ty.fitted(value);
                    while self.args.len() <= index {
                        self.args.push(Dynamic::UNIT);
                    }
                    self.args[index] = value;
                    self.given |= 1 << index;
                }
                None if self.signature.collects => {
                    self.extra.get_or_insert_default().insert(name, value);
                }
                None => return Err(self.unknown_option(&name)),
            }
        }
        Ok(())
    }

    /// The `TypeError` for an option that doesn't exist.
    #[must_use]
    pub fn unknown_option(&self, name: &str) -> crate::error::Error {
        let known: Vec<&str> = self.signature.params.iter().map(|p| p.name).collect();
        let takes = match self.signature.option_names() {
            names if names.is_empty() => "it takes none".to_owned(),
            names => format!("it takes: {names}"),
        };
        raise(
            Kind::TypeError,
            format!(
                "{}() has no option '{name}'{}; {takes}",
                self.signature.name,
                super::suggest(name, known.iter().copied()),
            ),
        )
    }

    /// A copy of the object that the method is called on; for handles a copy is a reference.
    #[must_use]
    pub fn this<T: Clone + 'static>(&self) -> T {
        let this = self.this.as_deref().expect("a method has its object");
        this.read_lock::<T>()
            .expect("Rhai matched the type of the object")
            .clone()
    }

    /// The object itself, for methods that change it in place.
    pub fn this_mut(&mut self) -> &mut Dynamic {
        self.this.as_deref_mut().expect("a method has its object")
    }

    /// Whether argument `index` was given, and isn't `()`.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.args.get(index).is_some_and(|v| !v.is_unit())
    }

    /// Whether argument `index` was given, even if as `()`: where leaving out and `()` differ.
    #[must_use]
    pub fn given(&self, index: usize) -> bool {
        self.given & (1 << index) != 0
    }

    /// How many arguments were given; the last of them may be `()`.
    #[must_use]
    pub fn count(&self) -> usize {
        self.args.len()
    }

    /// Argument `index`, or `()`; it can be taken once.
    pub fn take(&mut self, index: usize) -> Dynamic {
        self.args
            .get_mut(index)
            .map(Dynamic::take)
            .unwrap_or_default()
    }

    /// A look at argument `index`.
    #[must_use]
    pub fn peek(&self, index: usize) -> Option<&Dynamic> {
        self.args.get(index).filter(|v| !v.is_unit())
    }

    /// A boolean argument.
    #[must_use]
    pub fn bool(&self, index: usize, default: bool) -> bool {
        self.args
            .get(index)
            .and_then(|v| v.as_bool().ok())
            .unwrap_or(default)
    }

    /// A whole number.
    #[must_use]
    pub fn int(&self, index: usize) -> Option<i64> {
        self.args.get(index).and_then(|v| v.as_int().ok())
    }

    /// A number as a float.
    #[must_use]
    pub fn number(&self, index: usize) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "durations and ratios need no more than 53 bits"
        )]
        self.args.get(index).and_then(|v| {
            v.as_float()
                .ok()
                .or_else(|| v.as_int().ok().map(|i| i as f64))
        })
    }

    /// A duration in seconds; `None` is for ever. A negative one means 0, as in Python.
    #[must_use]
    pub fn seconds(&self, index: usize) -> Option<f64> {
        self.number(index)
            .map(|s| if s.is_nan() { 0.0 } else { s.max(0.0) })
    }

    /// A text.
    #[must_use]
    pub fn string(&self, index: usize) -> Option<ImmutableString> {
        self.args
            .get(index)
            .and_then(|v| v.read_lock::<ImmutableString>().map(|s| s.clone()))
    }

    /// The bytes of a blob or of a text.
    #[must_use]
    pub fn bytes(&self, index: usize) -> Option<Vec<u8>> {
        let value = self.args.get(index)?;
        if let Some(text) = value.read_lock::<ImmutableString>() {
            return Some(text.as_bytes().to_vec());
        }
        value.read_lock::<Blob>().map(|b| b.clone())
    }

    /// An array; an empty one if it was left out.
    pub fn array(&mut self, index: usize) -> Array {
        self.take(index).try_cast::<Array>().unwrap_or_default()
    }

    /// A map; an empty one if it was left out.
    pub fn map(&mut self, index: usize) -> Map {
        self.take(index).try_cast::<Map>().unwrap_or_default()
    }

    /// A function.
    pub fn callable(&mut self, index: usize) -> Option<FnPtr> {
        self.take(index).try_cast::<FnPtr>()
    }

    /// An argument of one of this crate's own types, such as a lock.
    ///
    /// # Errors
    /// `TypeError` that says what was expected.
    pub fn object<T: Clone + 'static>(&mut self, index: usize, what: &str) -> Result<T> {
        let value = self.take(index);
        let got = type_name(&value);
        value.try_cast::<T>().ok_or_else(|| {
            let name = self.signature.params[index].name;
            raise(
                Kind::TypeError,
                format!(
                    "{}(): '{name}' must be {what}, not {got}",
                    self.signature.name
                ),
            )
        })
    }
}
