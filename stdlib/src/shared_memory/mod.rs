//! Python's `multiprocessing.shared_memory`: blocks of bytes that processes find by name.
//!
//! A name is known to the processes of one program only, and its memory ends with the program at the latest: nothing lies in
//! the file system, so nothing can be left behind by a program that forgets to `unlink`.
//!
//! - `block`: SharedMemory and its `buf`.
//! - `list`: ShareableList.
//! - `manager`: SharedMemoryManager, which unlinks what it made.
//!
//! As in Python these objects travel as their names: a name that is gone when the object arrives is a FileNotFoundError there.

mod block;
mod list;
mod manager;

pub use block::{MemoryView, SharedMemory};
pub use list::ShareableList;
pub use manager::SharedMemoryManager;

use crate::api::Registry;
use mphost_core::shared::Block;
use rhai::Dynamic;

/// Registers the module.
pub fn register(registry: &mut Registry) {
    block::register(registry);
    list::register(registry);
    manager::register(registry);
}

/// The memory of a `buf`, if that is what this value is: to read bytes into.
#[must_use]
pub fn memory(value: &Dynamic) -> Option<Block> {
    value
        .read_lock::<MemoryView>()
        .and_then(|view| view.memory())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] =
            &[crate::builtins::register, crate::errors::register];
        crate::testing::run_examples(others, super::register);
    }
}
