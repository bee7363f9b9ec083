//! Registration: how a Rust closure becomes a call that scripts can make, with its check and its documentation.
//!
//! A room of this crate (`queues.rs`, `os.rs` …) registers its calls with one line of signature and a few lines of text.
//! From that one place come the functions in Rhai, the errors for wrong arguments ("did you mean"), the definition files, the
//! reference and the REPL's help, so that they can't differ.
//!
//! Invariants: a call's arguments are checked before its closure runs; an error that leaves a closure has a place.

pub mod call;
mod catalogue;
mod class;
mod entry;
mod function;
pub mod missing;
mod registry;
pub mod signature;
pub mod vocabulary;

pub use call::Call;
pub use catalogue::Catalogue;
pub use class::{Class, Iterate, iterator};
pub use entry::{Entry, EntryKind, LazySignature};
pub use missing::DynamicMethods;
pub use registry::Registry;
pub use signature::{Signature, type_name};
pub use vocabulary::Vocabulary;

use crate::error::place;
use rhai::NativeCallContext;

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
            // Of one or two letters anything is close to anything.
            *distance <= (candidate.len().max(name.len()) / 3).min(3)
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
