//! Errors as scripts see them: one value type with Python's class names, and the crate's own error enum.
//!
//! Every error that the host raises reaches a script as a [`ScriptError`]: a value with `type`, `message`,
//! `position`, `traceback` and `cause`, which can be caught, printed, compared by kind and sent to another
//! process whole. Rust code of this crate returns [`Error`]; the registration layer turns it into Rhai's error
//! and fills in where the call stood.
//!
//! Invariant: a kind has one name (Python's) and at most one parent; [`Kind::is_a`] follows the parents.

use mphost_core::error::CoreError;
use rhai::{Dynamic, EvalAltResult, Map, Position};
use std::cell::RefCell;
use std::rc::Rc;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident : $parent:ident),+ $(,)?) => {
        /// Python's class of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is Python's class of the same name")]
        pub enum Kind { Exception, $($(#[$doc])* $name),+ }

        impl Kind {
            /// All kinds, in the order in which the reference lists them.
            pub const ALL: &[Kind] = &[Kind::Exception, $(Kind::$name),+];

            /// The class name as scripts spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { Kind::Exception => "Exception", $(Kind::$name => stringify!($name)),+ }
            }

            /// The class that this one derives from; the root is its own parent.
            #[must_use]
            pub const fn parent(self) -> Kind {
                match self { Kind::Exception => Kind::Exception, $(Kind::$name => Kind::$parent),+ }
            }
        }
    };
}

kinds! {
    ValueError: Exception,
    TypeError: Exception,
    LookupError: Exception,
    KeyError: LookupError,
    IndexError: LookupError,
    AttributeError: Exception,
    RuntimeError: Exception,
    AssertionError: Exception,
    NotImplementedError: RuntimeError,
    ArithmeticError: Exception,
    OverflowError: ArithmeticError,
    ZeroDivisionError: ArithmeticError,
    NameError: Exception,
    SyntaxError: Exception,
    ModuleNotFoundError: Exception,
    RecursionError: RuntimeError,
    MemoryError: Exception,
    OSError: Exception,
    BlockingIOError: OSError,
    FileNotFoundError: OSError,
    FileExistsError: OSError,
    IsADirectoryError: OSError,
    NotADirectoryError: OSError,
    PermissionError: OSError,
    ProcessLookupError: OSError,
    ConnectionError: OSError,
    ConnectionRefusedError: ConnectionError,
    ConnectionResetError: ConnectionError,
    ConnectionAbortedError: ConnectionError,
    BrokenPipeError: ConnectionError,
    EOFError: Exception,
    KeyboardInterrupt: Exception,
    SystemExit: Exception,
    ProcessError: Exception,
    TimeoutError: ProcessError,
    BufferTooShort: ProcessError,
    AuthenticationError: ProcessError,
    BrokenBarrierError: RuntimeError,
    RemoteError: Exception,
    StopIteration: Exception,
    Empty: Exception,
    Full: Exception,
    PicklingError: Exception,
    UnicodeDecodeError: ValueError,
    JSONDecodeError: ValueError,
    CalledProcessError: Exception,
    TimeoutExpired: Exception,
    BrokenProcessPool: RuntimeError,
    CancelledError: Exception,
    WorkerLostError: RuntimeError,
    OwnerDiedError: RuntimeError,
    DeadlockError: RuntimeError,
}

impl Kind {
    /// The kind of that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether this kind is `other` or derives from it.
    #[must_use]
    pub fn is_a(self, other: Kind) -> bool {
        let mut kind = self;
        loop {
            if kind == other {
                return true;
            }
            if kind == kind.parent() {
                return false;
            }
            kind = kind.parent();
        }
    }
}

/// What a [`ScriptError`] holds.
#[derive(Clone, Debug)]
pub struct ErrorDetail {
    /// Python's class.
    pub kind: Kind,
    /// What was wrong, and what to do about it.
    pub message: String,
    /// `file:line:column` where it was raised, empty while unknown.
    pub position: String,
    /// Where it came from another process: that process's name, pid and script stack. Else empty.
    pub traceback: String,
    /// What led to it, or `()`.
    pub cause: Dynamic,
    /// What this kind carries besides (`pid`, `exitcode`, `data` …).
    pub fields: Map,
}

/// An error as a script value; copying it copies the reference.
#[derive(Clone, Debug)]
pub struct ScriptError(Rc<ErrorDetail>);

impl ScriptError {
    /// A new error with nothing but a kind and a message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Rc::new(ErrorDetail {
            kind,
            message: message.into(),
            position: String::new(),
            traceback: String::new(),
            cause: Dynamic::UNIT,
            fields: Map::new(),
        }))
    }

    /// An error from all its parts.
    #[must_use]
    pub fn from_detail(detail: ErrorDetail) -> Self {
        Self(Rc::new(detail))
    }

    /// The same error with one more field.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Into<Dynamic>) -> Self {
        Rc::make_mut(&mut self.0)
            .fields
            .insert(name.into(), value.into());
        self
    }

    /// The same error with what led to it.
    #[must_use]
    pub fn with_cause(mut self, cause: Dynamic) -> Self {
        Rc::make_mut(&mut self.0).cause = cause;
        self
    }

    /// The same error with a traceback of the process that it comes from.
    #[must_use]
    pub fn with_traceback(mut self, traceback: impl Into<String>) -> Self {
        Rc::make_mut(&mut self.0).traceback = traceback.into();
        self
    }

    /// Says where it was raised, unless that is known already.
    #[must_use]
    pub fn at(mut self, source: Option<&str>, position: Position) -> Self {
        if self.0.position.is_empty() && !position.is_none() {
            Rc::make_mut(&mut self.0).position = place(source, position);
        }
        self
    }

    /// Its parts.
    #[must_use]
    pub fn detail(&self) -> &ErrorDetail {
        &self.0
    }

    /// Python's class.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
}

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.message.is_empty() {
            f.write_str(self.0.kind.name())
        } else {
            write!(f, "{}: {}", self.0.kind.name(), self.0.message)
        }
    }
}

/// `file:line:column`, with what is unknown left out.
#[must_use]
pub fn place(source: Option<&str>, position: Position) -> String {
    let source = source.filter(|s| !s.is_empty()).unwrap_or("<script>");
    let position = crate::catches::original(source, position);
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{source}:{line}:{column}"),
        (Some(line), None) => format!("{source}:{line}"),
        _ => source.to_owned(),
    }
}

/// What the functions of this crate return when they fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error to be raised in the script.
    #[error("{0}")]
    Script(ScriptError),
    /// The core failed; mapped to Python's class when it reaches the script.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Rhai's own error, passed through: what a callback threw, `return`, `break`.
    #[error("{0}")]
    Rhai(Box<EvalAltResult>),
}

impl From<Box<EvalAltResult>> for Error {
    fn from(error: Box<EvalAltResult>) -> Self {
        Self::Rhai(error)
    }
}

impl From<ScriptError> for Error {
    fn from(error: ScriptError) -> Self {
        Self::Script(error)
    }
}

/// What the functions of this crate return.
pub type Result<T = Dynamic> = std::result::Result<T, Error>;

/// An error of `kind`, ready for `return Err(…)` or `?`.
pub fn raise(kind: Kind, message: impl Into<String>) -> Error {
    Error::Script(ScriptError::new(kind, message))
}

impl Error {
    /// As Rhai wants it, with the place of the failing call where the error has none of its own.
    #[must_use]
    pub fn into_rhai(self, source: Option<&str>, position: Position) -> Box<EvalAltResult> {
        match self {
            Error::Rhai(error) => error,
            Error::Script(error) => Box::new(EvalAltResult::ErrorRuntime(
                Dynamic::from(error.at(source, position)),
                position,
            )),
            // What a signal or its handler raised waits where the hook left it.
            Error::Core(CoreError::Interrupted(_)) => {
                crate::runtime::take_raised().into_rhai(source, position)
            }
            Error::Core(error) => {
                let error = crate::core_error::to_script(error).at(source, position);
                Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(error), position))
            }
        }
    }
}

/// The error as a script would catch it: a [`ScriptError`] for what the host or the interpreter raised, else the thrown value.
///
/// `source` is the script's path, for the place of interpreter errors.
pub fn thrown_value(error: &EvalAltResult, source: Option<&str>) -> Dynamic {
    match error.unwrap_inner() {
        EvalAltResult::ErrorRuntime(value, _) => value.clone(),
        // What the check for interrupts between two steps of a script raised.
        EvalAltResult::ErrorTerminated(value, _) if !value.is_unit() => value.clone(),
        inner => {
            let (kind, message) = interpreter_error(inner);
            Dynamic::from(ScriptError::new(kind, message).at(source, inner.position()))
        }
    }
}

thread_local! {
    /// What the hook for unmatched calls found out about the last one, by the function's name. Rhai's own error knows where the
    /// call stands, this one what was wrong with it.
    static LESSON: RefCell<Option<(String, Kind, String)>> = const { RefCell::new(None) };
}

/// Notes what was wrong with the call of a function that Rhai is about to report as not found.
pub(crate) fn teach(function: &str, kind: Kind, message: String) {
    LESSON.with_borrow_mut(|lesson| *lesson = Some((function.to_owned(), kind, message)));
}

/// What was noted about the call that Rhai reports as `name (types…)`; for operators, what is wrong with them.
fn lesson(signature: &str) -> Option<(Kind, String)> {
    let name = signature.split([' ', '(']).next().unwrap_or_default();
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') && !name.contains('$') {
        let types = signature[name.len()..].trim();
        let types = types.strip_prefix('(').unwrap_or(types);
        let types = types.strip_suffix(')').unwrap_or(types);
        let types: Vec<String> = types
            .split(", ")
            .map(|name| match name {
                "i64" => "'int'".to_owned(),
                "f64" => "'float'".to_owned(),
                // Rhai shows all the types that a text may have in Rust.
                text if text.contains("ImmutableString") => "'string'".to_owned(),
                other => format!("'{}'", other.rsplit("::").next().unwrap_or(other)),
            })
            .collect();
        let mut message = format!(
            "unsupported operand type(s) for {name}: {}",
            types.join(" and ")
        );
        if name == "%" && types.first().is_some_and(|left| left == "'string'") {
            message.push_str("; values go into a text by sprintf(format, [values])");
        }
        if types
            .iter()
            .any(|class| matches!(class.as_str(), "'Value'" | "'RawValue'" | "'ValueProxy'"))
        {
            message.push_str("; the number in it is .value");
        }
        return Some((Kind::TypeError, message));
    }
    LESSON.with_borrow(|lesson| {
        lesson
            .as_ref()
            .filter(|(function, ..)| function == name)
            .map(|(_, kind, message)| (*kind, message.clone()))
    })
}

/// Python's class and a message for an error of the interpreter itself.
#[must_use]
pub fn interpreter_error(error: &EvalAltResult) -> (Kind, String) {
    use EvalAltResult as E;
    if let E::ErrorFunctionNotFound(signature, _) = error
        && let Some(lesson) = lesson(signature)
    {
        return lesson;
    }
    let kind = match error {
        E::ErrorParsing(..) => Kind::SyntaxError,
        E::ErrorVariableNotFound(..) | E::ErrorFunctionNotFound(..) | E::ErrorUnboundThis(..) => {
            Kind::NameError
        }
        E::ErrorModuleNotFound(..) => Kind::ModuleNotFoundError,
        E::ErrorPropertyNotFound(..) | E::ErrorDotExpr(..) => Kind::AttributeError,
        E::ErrorIndexNotFound(..) => Kind::KeyError,
        E::ErrorArrayBounds(..) | E::ErrorStringBounds(..) | E::ErrorBitFieldBounds(..) => {
            Kind::IndexError
        }
        E::ErrorMismatchDataType(..)
        | E::ErrorMismatchOutputType(..)
        | E::ErrorIndexingType(..)
        | E::ErrorFor(..)
        | E::ErrorNonPureMethodCallOnConstant(..)
        | E::ErrorAssignmentToConstant(..) => Kind::TypeError,
        E::ErrorArithmetic(message, _) => {
            let lower = message.to_lowercase();
            if lower.contains("zero") {
                Kind::ZeroDivisionError
            } else if lower.starts_with("error parsing ") {
                // `parse_int("abc")`.
                Kind::ValueError
            } else {
                Kind::OverflowError
            }
        }
        E::ErrorStackOverflow(..) => Kind::RecursionError,
        E::ErrorDataTooLarge(..) => Kind::OverflowError,
        E::ErrorTerminated(..) => Kind::KeyboardInterrupt,
        _ => Kind::RuntimeError,
    };
    // The message without its position, which the error carries on its own.
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" (line ") {
        text.truncate(at);
    }
    (kind, crate::habits::improved(text))
}
