//! `NamespaceProxy`: `ns.x` is a value in the server, but a name that begins with `_` belongs to this process alone.

use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::{NamespaceProxy, class};
use crate::api::{Call, Registry, type_name};
use crate::error::{Kind, Result, raise};
use crate::{places, spelling};
use rhai::{Dynamic, ImmutableString, Map, NativeCallContext};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// What belongs to a process alone, by the object and the name.
    static HIDDEN: RefCell<HashMap<(u64, ImmutableString), Dynamic>> = RefCell::default();
}

/// In a forked child: what belonged to the parent alone.
pub(in super::super) fn forget_parent() {
    // Descriptors among it are closed already: no destructor may run.
    HIDDEN.with_borrow_mut(|hidden| std::mem::forget(std::mem::take(hidden)));
}

/// Python's spelling of the namespace.
pub(super) fn text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    let names = proxy
        .call(Op::Items, &[], places::of_call(ctx))?
        .try_cast::<Map>()
        .unwrap_or_default();
    let parts: Vec<String> = names
        .iter()
        .filter(|(name, _)| !name.starts_with('_'))
        .map(|(name, value)| format!("{name}={}", spelling::repr(ctx, value)))
        .collect();
    Ok(format!("Namespace({})", parts.join(", ")))
}

fn name(value: &Dynamic) -> Result<ImmutableString> {
    value
        .read_lock::<ImmutableString>()
        .map(|name| name.clone())
        .ok_or_else(|| {
            raise(
                Kind::TypeError,
                format!(
                    "a namespace is indexed by a name, a string, not {}",
                    type_name(value)
                ),
            )
        })
}

fn missing(name: &str) -> crate::error::Error {
    raise(
        Kind::AttributeError,
        format!("'NamespaceProxy' object has no attribute '{name}'"),
    )
}

fn get(call: &mut Call<'_>) -> Result {
    let key = call.take(0);
    let name = name(&key)?;
    let this = call.this::<NamespaceProxy>();
    if name.starts_with('_') {
        let hidden =
            HIDDEN.with_borrow(|hidden| hidden.get(&(this.proxy().id(), name.clone())).cloned());
        return hidden.ok_or_else(|| missing(&name));
    }
    this.proxy().get_place(Op::GetAttr, Some(&key), call.ctx)
}

fn set(call: &mut Call<'_>) -> Result {
    let (key, value) = (call.take(0), call.take(1));
    let name = name(&key)?;
    let this = call.this::<NamespaceProxy>();
    if name.starts_with('_') {
        HIDDEN.with_borrow_mut(|hidden| hidden.insert((this.proxy().id(), name), value));
        return Ok(Dynamic::UNIT);
    }
    this.proxy()
        .set_place(Op::SetAttr, Some(&key), &value, call.ctx)?;
    Ok(Dynamic::UNIT)
}

fn remove(call: &mut Call<'_>) -> Result {
    let key = call.take(0);
    let name = name(&key)?;
    let this = call.this::<NamespaceProxy>();
    if name.starts_with('_') {
        let hidden =
            HIDDEN.with_borrow_mut(|hidden| hidden.remove(&(this.proxy().id(), name.clone())));
        return hidden.map(|_| Dynamic::UNIT).ok_or_else(|| missing(&name));
    }
    this.proxy()
        .call(Op::DelAttr, &[&key], places::of_call(call.ctx))
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    class::<NamespaceProxy>(registry, "NamespaceProxy")
        .index_getter("A value by its name; `ns.x` is the same as `ns[\"x\"]`. There is none: `AttributeError`.", get)
        .index_setter(set)
        .method("remove(name: string)", "Takes a name out, as Python's `del ns.name`.", remove)
        .method("contains(name: string)", "Whether there is such a name; the same as `name in ns`.", |call| {
            let key = call.string(0).unwrap_or_default();
            let this = call.this::<NamespaceProxy>();
            let names = this.proxy().call(Op::Items, &[], places::of_call(call.ctx))?;
            Ok(names.try_cast::<Map>().is_some_and(|names| names.contains_key(key.as_str())).into())
        });
}
