//! The stack: room for Python's recursion depth, and an error rather than a crash where it ends.
//!
//! The interpreter recurses on the machine's stack. How much of it a script's call takes depends on how deep its blocks nest, so counting
//! calls isn't enough: between two steps of the script the distance from where the process began is compared with what there is.
//! The kernel grows a process's stack on demand up to RLIMIT_STACK as it is at that moment (man page setrlimit(2)).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::cell::Cell;

/// How much stack is asked for, in bytes: a thousand calls of 64 KiB.
const WANTED: u64 = 64 << 20;
/// What is left to native functions that are called from the deepest point, in bytes.
const RESERVE: usize = 1 << 20;

thread_local! {
    /// The lowest address that a script may reach: stacks grow downwards on every machine that this host runs on.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
}

/// Asks for more stack and notes where it ends; called near the bottom of the process's stack.
pub fn prepare() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_STACK) else {
        return;
    };
    let wanted = WANTED.max(soft).min(hard);
    let granted = if setrlimit(Resource::RLIMIT_STACK, wanted, hard).is_ok() {
        wanted
    } else {
        soft
    };
    // With no limit at all this is 0, which no address is below.
    let granted = usize::try_from(granted).unwrap_or(usize::MAX);
    FLOOR.set(here().saturating_sub(granted.saturating_sub(RESERVE)));
}

/// Whether the stack is nearly used up. Asked at every step of a script: one comparison.
#[must_use]
#[inline]
pub fn is_exhausted() -> bool {
    here() < FLOOR.get()
}

#[inline(always)]
fn here() -> usize {
    let marker = 0u8;
    std::ptr::from_ref(&marker).addr()
}
