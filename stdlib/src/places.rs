//! Script positions as the session keeps them: a file by number, a line and a column.
//!
//! The process table and the locks say where something was acquired or waited for. A path doesn't fit there, so the
//! files of a program are numbered in the order in which they are first seen; the main script is number 1 in every process.

use mphost_core::position::Position;
use rhai::NativeCallContext;
use std::cell::RefCell;

thread_local! {
    static FILES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Makes `path` file number 1: called once in each process, before any script code runs.
pub fn set_main_script(path: &str) {
    FILES.with_borrow_mut(|files| {
        if files.is_empty() {
            files.push(path.to_owned());
        } else {
            files[0] = path.to_owned();
        }
    });
}

/// The position of a call, for the core.
#[must_use]
pub fn of_call(ctx: &NativeCallContext<'_>) -> Position {
    let at = crate::catches::original(ctx.call_source().unwrap_or_default(), ctx.call_position());
    let Some(line) = at.line() else {
        return crate::with::position();
    };
    let file = FILES.with_borrow_mut(|files| {
        let Some(source) = ctx.call_source() else {
            return 1;
        };
        // Nearly always the main script: compare with it first.
        match files.iter().position(|known| known == source) {
            Some(index) => index + 1,
            None => {
                files.push(source.to_owned());
                files.len()
            }
        }
    });
    Position::new(
        u16::try_from(file).unwrap_or(u16::MAX),
        u32::try_from(line).unwrap_or(u32::MAX),
        u16::try_from(at.position().unwrap_or(0)).unwrap_or(u16::MAX),
    )
}

/// `file:line:column`, or `an unknown place`.
#[must_use]
pub fn describe(position: Position) -> String {
    if !position.is_known() {
        return "an unknown place".into();
    }
    let file = FILES.with_borrow(|files| {
        files
            .get(usize::from(position.file()).saturating_sub(1))
            .cloned()
            .unwrap_or_else(|| "<script>".into())
    });
    format!("{file}:{}:{}", position.line(), position.column())
}
