//! Script positions as the session keeps them: a file by number, a line and a column.
//!
//! The process table and the locks say where something was acquired or waited for. A path doesn't fit there, so the
//! files of a program are numbered in the order in which they are first seen, by all its processes alike; the main script is number 1.

use mphost_core::files;
use mphost_core::position::Position;
use rhai::NativeCallContext;
use std::cell::RefCell;

thread_local! {
    /// The files that this process has asked numbers for, the latest first asked last.
    static KNOWN: RefCell<Vec<(String, u16)>> = const { RefCell::new(Vec::new()) };
}

/// Gives `path` a number: called once in each process, before any script code runs, so that it is number 1.
pub fn set_main_script(path: &str) {
    number_of(path);
}

fn number_of(path: &str) -> u16 {
    let known = KNOWN.with_borrow(|known| {
        let mut known = known.iter();
        known.find(|(name, _)| name == path).map(|known| known.1)
    });
    known.unwrap_or_else(|| ask_for_number(path))
}

#[cold]
fn ask_for_number(path: &str) -> u16 {
    KNOWN.with_borrow_mut(|known| {
        // Without a session (a check of a script) the numbers are this process's own.
        let own = || u16::try_from(known.len() + 1).unwrap_or(u16::MAX);
        let number = files::number_of(path).unwrap_or_else(own);
        known.push((path.to_owned(), number));
        number
    })
}

/// The position of a call, for the core.
#[must_use]
pub fn of_call(ctx: &NativeCallContext<'_>) -> Position {
    let at = ctx.call_position();
    if at.is_none() {
        return crate::with::position();
    }
    of(ctx.call_source(), at)
}

/// A position in a script, for the core. Every call that may wait asks for its own.
#[must_use]
pub fn of(source: Option<&str>, at: rhai::Position) -> Position {
    let at = crate::catches::original(source.unwrap_or_default(), at);
    Position::new(
        source.map_or(1, number_of),
        u32::try_from(at.line().unwrap_or(0)).unwrap_or(u32::MAX),
        u16::try_from(at.position().unwrap_or(0)).unwrap_or(u16::MAX),
    )
}

/// `file:line:column`, or `an unknown place`.
#[must_use]
pub fn describe(position: Position) -> String {
    if !position.is_known() {
        return "an unknown place".into();
    }
    let known = KNOWN.with_borrow(|known| {
        let mut known = known.iter();
        let found = known.find(|(_, number)| *number == position.file());
        found.map(|(path, _)| path.clone())
    });
    let file = known
        .or_else(|| files::name_of(position.file()))
        .unwrap_or_else(|| "<script>".into());
    format!("{file}:{}:{}", position.line(), position.column())
}
