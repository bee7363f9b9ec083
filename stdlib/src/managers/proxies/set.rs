//! `SetProxy`.

use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::containers::items;
use super::{Fallible, SetProxy, ask, class, forward, in_iterator, placed};
use crate::api::{Call, Registry};
use crate::error::Result;
use crate::{places, spelling};
use rhai::{Array, Dynamic, NativeCallContext};

/// Python's spelling of the set.
pub(super) fn text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    let members = proxy
        .call(Op::Items, &[], places::of_call(ctx))?
        .try_cast::<Array>()
        .unwrap_or_default();
    if members.is_empty() {
        return Ok("set()".into());
    }
    let parts: Vec<String> = members
        .iter()
        .map(|member| spelling::repr(ctx, member))
        .collect();
    Ok(format!("{{{}}}", parts.join(", ")))
}

/// A method that relates the set to others: `op` says whether it changes the set, gives a new one or answers a question.
fn relate(op: Op, name: &'static str) -> impl Fn(&mut Call<'_>) -> Result + Clone + 'static {
    move |call| {
        let mut args: Vec<Dynamic> = vec![name.into()];
        for index in 0..call.count() {
            args.push(Dynamic::from_array(items(call.ctx, call.take(index))?));
        }
        let this = call.this::<SetProxy>();
        ask(this.proxy(), op, &args.iter().collect::<Vec<_>>(), call)
    }
}

/// `s | other` and the like give an array, `s |= other` and the like change the set.
fn operators(registry: &mut Registry) {
    for (operator, in_place, name, update) in [
        ("|", "|=", "union", "update"),
        ("&", "&=", "intersection", "intersection_update"),
        ("-", "-=", "difference", "difference_update"),
        (
            "^",
            "^=",
            "symmetric_difference",
            "symmetric_difference_update",
        ),
    ] {
        let module = registry.module("");
        let relate = |op: Op, name: &'static str| {
            move |ctx: NativeCallContext<'_>, set: &mut SetProxy, other: Dynamic| -> Fallible {
                let result = items(&ctx, other).and_then(|other| {
                    let other = Dynamic::from_array(other);
                    set.proxy()
                        .call(op, &[&name.into(), &other], places::of_call(&ctx))
                });
                placed(&ctx, result)
            }
        };
        module.set_native_fn(operator, relate(Op::Relate, name));
        module.set_native_fn(in_place, relate(Op::Assign, update));
    }
    for (operator, name) in [
        ("<=", "issubset"),
        (">=", "issuperset"),
        ("<", "isproper"),
        (">", "contains_properly"),
    ] {
        registry.module("").set_native_fn(
            operator,
            move |ctx: NativeCallContext<'_>, set: &mut SetProxy, other: SetProxy| -> Fallible {
                let result = items(&ctx, Dynamic::from(other)).and_then(|other| {
                    let other = Dynamic::from_array(other);
                    set.proxy()
                        .call(Op::Reduce, &[&name.into(), &other], places::of_call(&ctx))
                });
                placed(&ctx, result)
            },
        );
    }
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    operators(registry);
    class::<SetProxy>(registry, "SetProxy")
        .method(
            "add(member: any)",
            "Takes a member in, unless there is an equal one.",
            forward::<SetProxy>(Op::Add, 1),
        )
        .method(
            "discard(member: any)",
            "Takes a member out, if it is there.",
            forward::<SetProxy>(Op::Discard, 1),
        )
        .method(
            "remove(member: any)",
            "Takes a member out. It isn't there: `KeyError`.",
            forward::<SetProxy>(Op::Remove, 1),
        )
        .method(
            "pop()",
            "Takes some member out. There is none: `KeyError`.",
            forward::<SetProxy>(Op::Pop, 0),
        )
        .method(
            "contains(member: any)",
            "Whether it is a member; the same as `member in s`.",
            forward::<SetProxy>(Op::Contains, 1),
        )
        .method(
            "len()",
            "How many members there are.",
            forward::<SetProxy>(Op::Len, 0),
        )
        .method(
            "clear()",
            "Takes everything out.",
            forward::<SetProxy>(Op::Clear, 0),
        )
        .method(
            "copy()",
            "The members, as an array in this process.",
            forward::<SetProxy>(Op::Items, 0),
        )
        .method(
            "union(other: items = (), a: items = (), b: items = (), c: items = ())",
            "The members of either, as an array.",
            relate(Op::Relate, "union"),
        )
        .method(
            "intersection(other: items = (), a: items = (), b: items = (), c: items = ())",
            "The members of both, as an array.",
            relate(Op::Relate, "intersection"),
        )
        .method(
            "difference(other: items = (), a: items = (), b: items = (), c: items = ())",
            "The members that `other` doesn't have, as an array.",
            relate(Op::Relate, "difference"),
        )
        .method(
            "symmetric_difference(other: items)",
            "The members of one alone, as an array.",
            relate(Op::Relate, "symmetric_difference"),
        )
        .method(
            "update(other: items = (), a: items = (), b: items = (), c: items = ())",
            "Takes all of `other` in.",
            relate(Op::Assign, "update"),
        )
        .method(
            "intersection_update(other: items = (), a: items = (), b: items = (), c: items = ())",
            "Keeps what `other` has too.",
            relate(Op::Assign, "intersection_update"),
        )
        .method(
            "difference_update(other: items = (), a: items = (), b: items = (), c: items = ())",
            "Takes out what `other` has.",
            relate(Op::Assign, "difference_update"),
        )
        .method(
            "symmetric_difference_update(other: items)",
            "Keeps what only one of the two has.",
            relate(Op::Assign, "symmetric_difference_update"),
        )
        .method(
            "issubset(other: items)",
            "Whether `other` has all members.",
            relate(Op::Reduce, "issubset"),
        )
        .method(
            "issuperset(other: items)",
            "Whether all of `other` are members.",
            relate(Op::Reduce, "issuperset"),
        )
        .method(
            "isdisjoint(other: items)",
            "Whether none of `other` is a member.",
            relate(Op::Reduce, "isdisjoint"),
        )
        .iterate(|this| {
            // The members as they are when the loop begins.
            let members = this
                .proxy()
                .call(Op::Items, &[], mphost_core::position::Position::NONE);
            let members = members.map(|members| members.try_cast::<Array>().unwrap_or_default());
            let (members, error) = match members {
                Ok(members) => (members, None),
                Err(error) => (Array::new(), Some(Err(in_iterator(error)))),
            };
            error.into_iter().chain(members.into_iter().map(Ok))
        });
}
