//! `ValueProxy` and `ArrayProxy`.

use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::containers::{items, slice_ends};
use super::{ArrayProxy, ValueProxy, ask, class, forward, in_iterator};
use crate::api::{Call, Registry, type_name};
use crate::error::{Kind, Result, raise};
use crate::{places, spelling};
use rhai::{Array, Dynamic, NativeCallContext};

fn all(proxy: &Proxy, position: mphost_core::position::Position) -> Result<Array> {
    let all = proxy.call(Op::GetSlice, &[&0_i64.into(), &i64::MAX.into()], position)?;
    Ok(all.try_cast::<Array>().unwrap_or_default())
}

/// CPython's text of a managed Value.
pub(super) fn value_text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    let value = proxy.call(Op::Get, &[], places::of_call(ctx))?;
    Ok(format!("Value({})", spelling::repr(ctx, &value)))
}

/// CPython's text of a managed Array: its typecode and its items.
pub(super) fn array_text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    let code = proxy.call(Op::Get, &[], places::of_call(ctx))?;
    let items = all(proxy, places::of_call(ctx))?;
    Ok(format!(
        "array('{code}', {})",
        spelling::repr(ctx, &Dynamic::from_array(items))
    ))
}

fn integer(index: &Dynamic) -> Result<()> {
    if index.is_int() {
        return Ok(());
    }
    Err(raise(
        Kind::TypeError,
        format!(
            "array indices must be integers or ranges, not {}",
            type_name(index)
        ),
    ))
}

fn get(call: &mut Call<'_>) -> Result {
    let index = call.take(0);
    let this = call.this::<ArrayProxy>();
    if let Some((start, end)) = slice_ends(&index) {
        return ask(this.proxy(), Op::GetSlice, &[&start, &end], call);
    }
    integer(&index)?;
    this.proxy().get_place(Op::GetItem, Some(&index), call.ctx)
}

fn set(call: &mut Call<'_>) -> Result {
    let (index, value) = (call.take(0), call.take(1));
    let this = call.this::<ArrayProxy>();
    if let Some((start, end)) = slice_ends(&index) {
        let new = Dynamic::from_array(items(call.ctx, value)?);
        return ask(this.proxy(), Op::SetSlice, &[&start, &end, &new], call);
    }
    integer(&index)?;
    this.proxy()
        .set_place(Op::SetItem, Some(&index), &value, call.ctx)?;
    Ok(Dynamic::UNIT)
}

/// Registers both.
pub(super) fn register(registry: &mut Registry) {
    class::<ValueProxy>(registry, "ValueProxy")
        .getter("value", "The value.", |call| {
            call.this::<ValueProxy>()
                .proxy()
                .get_place(Op::Get, None, call.ctx)
        })
        .setter("value", |call| {
            let value = call.take(0);
            call.this::<ValueProxy>()
                .proxy()
                .set_place(Op::Set, None, &value, call.ctx)?;
            Ok(Dynamic::UNIT)
        })
        .method("get()", "The value.", forward::<ValueProxy>(Op::Get, 0))
        .method(
            "set(value: any)",
            "Changes the value.",
            forward::<ValueProxy>(Op::Set, 1),
        );
    class::<ArrayProxy>(registry, "ArrayProxy")
        .index_getter(
            "An item by its index, from the end if negative; a range gives a slice as an array.",
            get,
        )
        .index_setter(set)
        .method(
            "len()",
            "How many items there are.",
            forward::<ArrayProxy>(Op::Len, 0),
        )
        .method(
            "to_array()",
            "The items, as an array in this process.",
            |call| Ok(all(call.this::<ArrayProxy>().proxy(), places::of_call(call.ctx))?.into()),
        )
        .iterate(|this| {
            let (items, error) = match all(this.proxy(), mphost_core::position::Position::NONE) {
                Ok(items) => (items, None),
                Err(error) => (Array::new(), Some(Err(in_iterator(error)))),
            };
            error.into_iter().chain(items.into_iter().map(Ok))
        });
}
