//! The values that travel between processes.
//!
//! A script's own values (of whatever interpreter) are full of things that mean something in one process alone: shared cells, native
//! function pointers, open files. [`Value`] is the closed set of what can be said to another process, and the only type that the
//! [wire format](crate::wire) knows. A sender that can't express something as a `Value` finds that out before anything is sent.
//!
//! Invariants:
//! - A `Value` owns all it needs and refers to no process, but through a [`Handle`], which names a shared object by number.
//! - The order of a map's entries is kept. Duplicate keys are possible here (the wire doesn't forbid them); who builds a real map from
//!   the entries lets the last one win.
//!
//! The converters on the hot path (queues, pipes) skip this tree and use [`Writer`](crate::wire::Writer) and
//! [`Reader`](crate::wire::Reader) directly.

pub use crate::session::RawHandle;

/// A value that can travel between processes.
///
/// Equality is structural; floats compare as IEEE 754 says, so that a NaN differs from itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing: Rhai's `()`, Python's `None`.
    #[default]
    Unit,
    /// A truth value.
    Bool(bool),
    /// A signed integer of 64 bits.
    Int(i64),
    /// A floating point number of 64 bits; every bit pattern, NaN payloads included, arrives as it was sent.
    Float(f64),
    /// One character.
    Char(char),
    /// A text.
    Str(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A sequence of values.
    Array(Vec<Value>),
    /// Values by name, in the sender's order.
    Map(Vec<(String, Value)>),
    /// A range of integers: `start..end`, or `start..=end`.
    Range {
        /// The first integer.
        start: i64,
        /// The last integer, or the one after it.
        end: i64,
        /// Whether `end` belongs to the range.
        inclusive: bool,
    },
    /// Something that can be called.
    Callable(Box<Callable>),
    /// An error, raised or not.
    Error(Box<ErrorValue>),
    /// A shared object, a connection or a proxy.
    Handle(Box<Handle>),
}

/// A function by its name, with the values that it has captured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Callable {
    /// The function's name, as the interpreter of the receiving process knows it.
    pub name: String,
    /// Whether the host offers it (as `os::getpid`), rather than the script.
    pub native: bool,
    /// The module it is in, for instance `os`; none for the script's own functions.
    pub module: Option<String>,
    /// The leading arguments, already bound: what a closure has captured.
    pub curry: Vec<Value>,
}

/// An error with everything that its receiver can show of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorValue {
    /// Python's name of the error's class: `ValueError`.
    pub class: String,
    /// What was wrong.
    pub message: String,
    /// Where it was raised.
    pub position: Option<SourcePosition>,
    /// The script's stack in the process that raised it, as text; empty if it hasn't left that process.
    pub traceback: String,
    /// What led to it: another error as a rule, but any thrown value.
    pub cause: Option<Value>,
    /// What this class of error carries besides: `pid`, `exitcode` and the like.
    pub fields: Vec<(String, Value)>,
}

/// A place in a script.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SourcePosition {
    /// The script's path, or what it is called where it has none.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// The column, from 1; 0 if unknown.
    pub column: u32,
}

/// What names something that several processes use together.
#[derive(Debug, Clone, PartialEq)]
pub struct Handle {
    /// What it is a handle of.
    pub kind: HandleKind,
    /// The object in the session's shared memory; none for what lives elsewhere, as sockets and remote proxies do.
    pub object: Option<RawHandle>,
    /// Where the handle carries a file descriptor: its index in the list that travels beside the message. The list's length isn't
    /// known to the decoder, so the receiver looks before it takes.
    pub fd: Option<u32>,
    /// What else makes the handle usable, in an order that its kind determines: a Value's typecode, a Condition's lock (a handle
    /// itself), a Proxy's address.
    pub attributes: Vec<Value>,
}

/// Declares [`HandleKind`] and the way back from its number, so that the two can't disagree.
macro_rules! handle_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        /// What a [`Handle`] is a handle of. The numbers are part of the wire format: a new kind gets a new one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum HandleKind {
            $($(#[$doc])* $name = $number,)+
        }

        impl HandleKind {
            /// Every kind there is.
            pub const ALL: &[HandleKind] = &[$(HandleKind::$name,)+];

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(HandleKind::$name),)+
                    _ => None,
                }
            }
        }
    };
}

handle_kinds! {
    /// A queue.
    Queue = 1,
    /// A queue that counts unfinished tasks.
    JoinableQueue = 2,
    /// A queue without time limits.
    SimpleQueue = 3,
    /// A lock.
    Lock = 16,
    /// A lock that its owner may take again.
    RLock = 17,
    /// A counter of permits.
    Semaphore = 18,
    /// A counter of permits with an upper bound.
    BoundedSemaphore = 19,
    /// A flag to wait for.
    Event = 20,
    /// A condition variable.
    Condition = 21,
    /// A meeting point of a fixed number of parties.
    Barrier = 22,
    /// A shared number with a lock.
    Value = 32,
    /// A shared array with a lock.
    Array = 33,
    /// A shared number without a lock.
    RawValue = 34,
    /// A shared array without a lock.
    RawArray = 35,
    /// A block of shared memory.
    SharedMemory = 36,
    /// A list of fixed length in shared memory.
    ShareableList = 37,
    /// An end of a pipe or a client's or listener's connection.
    Connection = 48,
    /// A socket.
    Socket = 49,
    /// A listener for connections.
    Listener = 50,
    /// An object that a manager's server keeps.
    Proxy = 64,
    /// A manager.
    Manager = 65,
    /// The listening socket of a manager's server, on its way there.
    ManagerSocket = 66,
    /// A process.
    Process = 80,
    /// What a pool gives its workers: its queues and its record.
    PoolLink = 81,
    /// A kind of the embedding program's own; its attributes say which.
    Other = 255,
}

impl From<HandleKind> for u8 {
    fn from(kind: HandleKind) -> Self {
        kind as u8
    }
}

impl Value {
    /// What the value is, in the words of a script: for messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Unit => "()",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Char(_) => "char",
            Value::Str(_) => "string",
            Value::Blob(_) => "blob",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
            Value::Range { .. } => "range",
            Value::Callable(_) => "callable",
            Value::Error(_) => "error",
            Value::Handle(_) => "handle",
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<char> for Value {
    fn from(value: char) -> Self {
        Value::Char(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Str(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Value::Array(value)
    }
}

impl From<Callable> for Value {
    fn from(value: Callable) -> Self {
        Value::Callable(Box::new(value))
    }
}

impl From<ErrorValue> for Value {
    fn from(value: ErrorValue) -> Self {
        Value::Error(Box::new(value))
    }
}

impl From<Handle> for Value {
    fn from(value: Handle) -> Self {
        Value::Handle(Box::new(value))
    }
}
