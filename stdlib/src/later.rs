//! A call that is made later: a signal's handler, a function for the process's end.
//!
//! A script function finds other functions, modules and top-level constants through the state of the call that it is made in. What
//! is called between two steps of a script has no such call, so the state of the call that registered it is kept.

use crate::error::Result;
use rhai::{Array, Dynamic, Engine, FnPtr, NativeCallContext};

/// The same function, whose captured host objects are its own references.
///
/// A captured variable is shared with the script, and locked while one of its methods runs: a callback that does `q.put(r)` while the
/// script waits in `q.get()` would be a data race to Rhai. Host objects are references anyway, so the function gets one of its own.
/// Plain values stay shared: `results.push(r)` is to be seen by the script.
#[must_use]
pub fn with_own_handles(mut function: FnPtr) -> FnPtr {
    for captured in function.iter_curry_mut() {
        // Locked is the object whose method is just being called; its value can't be read now.
        if captured.is_shared() && !captured.is_locked() && is_host_object(captured) {
            *captured = captured.clone().flatten();
        }
    }
    function
}

fn is_host_object(value: &Dynamic) -> bool {
    let plain = value.is_unit()
        || value.is_bool()
        || value.is_int()
        || value.is_float()
        || value.is_char()
        || value.is_string()
        || value.is_array()
        || value.is_blob()
        || value.is_map()
        || value.is_fnptr()
        || value.is_timestamp();
    !plain
}

/// A function with what it has in reach.
#[derive(Clone)]
pub struct Later {
    function: FnPtr,
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile types so; the version is pinned"
    )]
    context: rhai::NativeCallContextStore,
}

impl Later {
    /// Keeps `function` as it would be called at `ctx`.
    #[must_use]
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    pub fn new(ctx: &NativeCallContext<'_>, function: FnPtr) -> Self {
        Self {
            function: with_own_handles(function),
            context: ctx.store_data(),
        }
    }

    /// The function.
    #[must_use]
    pub fn function(&self) -> &FnPtr {
        &self.function
    }

    /// Calls it.
    ///
    /// # Errors
    /// What it throws.
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    pub fn call(&self, engine: &Engine, args: Array) -> Result {
        let ctx = self.context.create_context(engine);
        Ok(self.function.call_raw(&ctx, None, args)?)
    }

    /// Calls it with `first`, or where it has more parameters with `first` and `second`.
    ///
    /// # Errors
    /// What it throws.
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    pub fn call_with_one_or_two(
        &self,
        engine: &Engine,
        caller: &str,
        first: Dynamic,
        second: Dynamic,
    ) -> Result {
        let ctx = self.context.create_context(engine);
        Ok(self
            .function
            .call_raw_with_extra_args(caller, &ctx, None, [first], [second], None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_objects_are_taken_along_and_plain_values_shared() {
        let engine = crate::testing::engine(&[crate::queue::register]);
        let script = "let q = queue::Queue(); let all = []; |x| { q.put(x); all.push(x); }";
        let function = with_own_handles(engine.eval::<FnPtr>(script).unwrap());
        let shared = |value: &Dynamic| (value.is_array(), value.is_shared());
        let mut captured: Vec<_> = function.iter_curry().map(shared).collect();
        captured.sort_unstable();
        assert_eq!(captured, [(false, false), (true, true)]);
    }
}
