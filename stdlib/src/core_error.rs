//! The core's errors in Python's classes: the one table of which becomes which.

use crate::error::{Kind, ScriptError};
use mphost_core::connection::ConnectionError;
use mphost_core::error::CoreError;
use mphost_core::wire::WireError;

/// The error as a script sees it.
#[must_use]
pub fn to_script(error: CoreError) -> ScriptError {
    let text = error.to_string();
    match error {
        CoreError::Value(message) => ScriptError::new(Kind::ValueError, message),
        CoreError::Assertion(message) => ScriptError::new(Kind::AssertionError, message),
        CoreError::Type(message) => ScriptError::new(Kind::TypeError, message),
        CoreError::Runtime(message) => ScriptError::new(Kind::RuntimeError, message),
        CoreError::Overflow(message) => ScriptError::new(Kind::OverflowError, message),
        CoreError::Closed(message) => ScriptError::new(Kind::OSError, message),
        CoreError::Empty => ScriptError::new(Kind::Empty, ""),
        CoreError::Full => ScriptError::new(Kind::Full, ""),
        CoreError::Timeout => ScriptError::new(Kind::TimeoutError, text),
        CoreError::BrokenBarrier => ScriptError::new(Kind::BrokenBarrierError, ""),
        CoreError::OutOfMemory => ScriptError::new(Kind::MemoryError, text),
        CoreError::ProcessTableFull => ScriptError::new(Kind::OSError, text),
        CoreError::OwnerDied {
            pid,
            exitcode,
            acquired_at,
        } => {
            let place = crate::places::describe(acquired_at);
            ScriptError::new(Kind::OwnerDiedError, text)
                .with_field("pid", i64::from(pid))
                .with_field("exitcode", i64::from(exitcode))
                .with_field("acquired_at", place)
        }
        CoreError::Deadlock(message) => ScriptError::new(Kind::DeadlockError, message),
        CoreError::Authentication(message) => ScriptError::new(Kind::AuthenticationError, message),
        CoreError::UnknownHost { .. } => ScriptError::new(Kind::OSError, text),
        CoreError::Os { call, errno } => os(call, errno, None),
        CoreError::Connection(error) => ScriptError::new(
            match error {
                ConnectionError::EndOfFile => Kind::EOFError,
                ConnectionError::BrokenPipe => Kind::BrokenPipeError,
                _ => Kind::OSError,
            },
            text,
        ),
        _ => ScriptError::new(Kind::RuntimeError, text),
    }
}

/// An error of the operating system: the kind by its number, the message in words with what it was about.
#[must_use]
pub fn os(what: &str, errno: i32, subject: Option<&str>) -> ScriptError {
    let error = std::io::Error::from_raw_os_error(errno);
    from_io(&error, what, subject)
}

/// An error of a file or network call; `subject` is the path or address that it was about.
#[must_use]
pub fn from_io(error: &std::io::Error, what: &str, subject: Option<&str>) -> ScriptError {
    use std::io::ErrorKind as E;
    let kind = match error.kind() {
        E::NotFound => Kind::FileNotFoundError,
        E::AlreadyExists => Kind::FileExistsError,
        E::PermissionDenied => Kind::PermissionError,
        E::IsADirectory => Kind::IsADirectoryError,
        E::NotADirectory => Kind::NotADirectoryError,
        E::ConnectionRefused => Kind::ConnectionRefusedError,
        E::ConnectionReset => Kind::ConnectionResetError,
        E::ConnectionAborted => Kind::ConnectionAbortedError,
        E::BrokenPipe => Kind::BrokenPipeError,
        E::TimedOut => Kind::TimeoutError,
        E::WouldBlock => Kind::BlockingIOError,
        E::OutOfMemory => Kind::MemoryError,
        _ if error.raw_os_error() == Some(3) => Kind::ProcessLookupError,
        _ => Kind::OSError,
    };
    // std's text ends in " (os error N)": the number is a field of its own.
    let mut reason = error.to_string();
    if let Some(at) = reason.find(" (os error") {
        reason.truncate(at);
    }
    let message = match subject {
        Some(subject) => format!("{reason}: '{subject}'"),
        None if what.is_empty() => reason,
        None => format!("{what}: {reason}"),
    };
    let script = ScriptError::new(kind, message);
    match error.raw_os_error() {
        Some(number) => script.with_field("errno", i64::from(number)),
        None => script,
    }
}

/// A message that can't be made or read.
#[must_use]
pub fn from_wire(error: &WireError) -> ScriptError {
    match error {
        WireError::TooDeep => ScriptError::new(Kind::PicklingError, error.to_string()),
        _ => ScriptError::new(Kind::RuntimeError, error.to_string()),
    }
}
