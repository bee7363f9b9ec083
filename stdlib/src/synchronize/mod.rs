//! Python's `multiprocessing.synchronize`: locks, semaphores, events, conditions and barriers.
//!
//! The core has the primitives; here are Python's names, arguments, texts and errors. What a handle carries besides its object (a
//! condition's lock, a barrier's action) travels with it as attributes.
//!
//! - `permits`: Lock, RLock, Semaphore, BoundedSemaphore, and [`Guard`], any one of them.
//! - `event`, `condition`, `barrier`: what processes meet at.

mod barrier;
mod condition;
mod event;
mod permits;

pub use barrier::Barrier;
pub use condition::Condition;
pub use event::Event;
pub use permits::{BoundedSemaphore, Guard, Lock, RLock, Semaphore};

use crate::api::Registry;

/// Registers all of them.
pub fn register(registry: &mut Registry) {
    permits::register(registry);
    event::register(registry);
    condition::register(registry);
    barrier::register(registry);
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
