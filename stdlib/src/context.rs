//! Start methods and contexts: `set_start_method`, `get_start_method`, `get_all_start_methods`, `get_context`.
//!
//! A context has every constructor as a method, fixed to its start method. The constructors are the same ones: while a
//! context's method runs, [`fixed_method`] tells those that start processes which way to do it.

use crate::api::Registry;
use crate::error::{Kind, Result, raise};
use crate::process;
use mphost_core::process::Method;
use rhai::{Array, Dynamic};
use std::cell::Cell;

/// What `get_context(m)` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    method: Option<Method>,
}

thread_local! {
    static FIXED: Cell<Option<Method>> = const { Cell::new(None) };
}

/// The start method that the running constructor is fixed to, if it was called on a context.
#[must_use]
pub fn fixed_method() -> Option<Method> {
    FIXED.get()
}

impl Context {
    /// Runs a constructor in this context.
    ///
    /// # Errors
    /// The constructor's own.
    pub fn scope(self, construct: impl FnOnce() -> Result) -> Result {
        let outer = FIXED.replace(self.method);
        let result = construct();
        FIXED.set(outer);
        result
    }
}

fn parse(name: &str) -> Result<Method> {
    Method::from_name(name).ok_or_else(|| {
        raise(
            Kind::ValueError,
            format!("cannot find context for '{name}': there are fork, spawn and forkserver"),
        )
    })
}

fn all_methods() -> Array {
    Method::ALL
        .iter()
        .map(|method| method.name().into())
        .collect()
}

/// Registers this room.
pub fn register(registry: &mut Registry) {
    registry.constructor(
        "set_start_method(method: string = (), force: bool = false)",
        "Chooses how processes are started: `fork`, `spawn` or `forkserver`.\n\n\
         A second time is a `RuntimeError`, unless `force` is true; an unknown method is a `ValueError`.",
        |call| {
            if fixed_method().is_some() {
                return Err(raise(Kind::ValueError, "cannot set start method of concrete context"));
            }
            let Some(name) = call.string(0) else {
                return Err(raise(Kind::TypeError, "set_start_method(): 'method' is missing"));
            };
            process::set_method(parse(&name)?, call.bool(1, false))?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.constructor(
        "get_start_method(allow_none: bool = false)",
        "The start method in force; with `allow_none`, `()` while none was chosen.",
        |call| {
            if let Some(method) = fixed_method() {
                return Ok(method.name().into());
            }
            if call.bool(0, false) && !process::method_is_settled() {
                return Ok(Dynamic::UNIT);
            }
            Ok(process::settled_method().name().into())
        },
    );
    registry.constructor(
        "get_all_start_methods()",
        "The start methods, the default first.",
        |_| Ok(all_methods().into()),
    );
    registry.constructor(
        "get_context(method: string = ())",
        "An object with every constructor as a method, fixed to a start method.\n\n\
         ```rhai\nfn f(q) { q.put(1); }\nlet ctx = get_context(\"spawn\");\nlet q = ctx.Queue();\nlet p = ctx.Process(f, [q]);\np.start();\nprint(q.get());\np.join();\n```",
        |call| {
            let method = match call.string(0) {
                Some(name) => Some(parse(&name)?),
                None => fixed_method(),
            };
            Ok(Dynamic::from(Context { method }))
        },
    );
    registry.constructor(
        "cpu_count()",
        "How many processors this process may use.\n\n```rhai\nprint(cpu_count());\n```",
        |_| Ok(crate::os::cpu_count().into()),
    );
    registry.function(
        "mp",
        "freeze_support()",
        "Does nothing; it is here for programs that call it.",
        |_| Ok(Dynamic::UNIT),
    );
    registry
        .class::<Context>("Context")
        .display(|context| {
            format!(
                "<Context {}>",
                context.method.map_or("default", Method::name)
            )
        })
        .method(
            "freeze_support()",
            "Does nothing, as `mp::freeze_support`.",
            |_| Ok(Dynamic::UNIT),
        )
        .equality(|a, b| a == b);
}
