//! `ListProxy`.

use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::containers::{items, slice_ends};
use super::{Fallible, ListProxy, ask, class, forward, forward_change, in_iterator, placed};
use crate::api::{Call, Registry, type_name};
use crate::error::{Kind, Result, raise};
use crate::{places, spelling};
use mphost_core::position::Position;
use rhai::{Array, Dynamic, EvalAltResult, NativeCallContext};

/// So many items are fetched at a time by a `for` loop.
const CHUNK: i64 = 64;

fn all(proxy: &Proxy, position: Position) -> Result<Dynamic> {
    proxy.call(Op::GetSlice, &[&0_i64.into(), &i64::MAX.into()], position)
}

/// Python's spelling of the list.
pub(super) fn text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    Ok(spelling::repr(ctx, &all(proxy, places::of_call(ctx))?))
}

/// The items by their index. What this process changes on the way is seen at once, what others change some items later.
struct Items {
    proxy: Proxy,
    index: i64,
    ahead: std::vec::IntoIter<Dynamic>,
    changes: u64,
    over: bool,
}

impl Items {
    fn new(proxy: Proxy) -> Items {
        Items {
            changes: proxy.changes(),
            proxy,
            index: 0,
            ahead: Vec::new().into_iter(),
            over: false,
        }
    }

    fn fetch(&mut self) -> Result<()> {
        self.changes = self.proxy.changes();
        let ends: [Dynamic; 2] = [self.index.into(), (self.index + CHUNK).into()];
        let items = self
            .proxy
            .call(Op::GetSlice, &[&ends[0], &ends[1]], Position::NONE)?;
        self.ahead = items.try_cast::<Array>().unwrap_or_default().into_iter();
        Ok(())
    }
}

impl Iterator for Items {
    type Item = std::result::Result<Dynamic, Box<EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        if (self.ahead.len() == 0 || self.changes != self.proxy.changes())
            && let Err(error) = self.fetch()
        {
            self.over = true;
            return Some(Err(in_iterator(error)));
        }
        let item = self.ahead.next();
        self.over = item.is_none();
        self.index += 1;
        item.map(Ok)
    }
}

fn integer(index: &Dynamic) -> Result<()> {
    if index.is_int() {
        return Ok(());
    }
    Err(raise(
        Kind::TypeError,
        format!(
            "list indices must be integers or ranges, not {}",
            type_name(index)
        ),
    ))
}

fn get(call: &mut Call<'_>) -> Result {
    let index = call.take(0);
    let this = call.this::<ListProxy>();
    if let Some((start, end)) = slice_ends(&index) {
        return ask(this.proxy(), Op::GetSlice, &[&start, &end], call);
    }
    integer(&index)?;
    this.proxy().get_place(Op::GetItem, Some(&index), call.ctx)
}

fn set(call: &mut Call<'_>) -> Result {
    let (index, value) = (call.take(0), call.take(1));
    let this = call.this::<ListProxy>();
    this.proxy().changed();
    if let Some((start, end)) = slice_ends(&index) {
        let new = Dynamic::from_array(items(call.ctx, value)?);
        return ask(this.proxy(), Op::SetSlice, &[&start, &end, &new], call);
    }
    integer(&index)?;
    this.proxy()
        .set_place(Op::SetItem, Some(&index), &value, call.ctx)?;
    Ok(Dynamic::UNIT)
}

fn sort(call: &mut Call<'_>) -> Result {
    let this = call.this::<ListProxy>();
    let key = call.callable(0);
    let reverse: Dynamic = call.bool(1, false).into();
    this.proxy().changed();
    let Some(key) = key else {
        return ask(this.proxy(), Op::Sort, &[&reverse], call);
    };
    // The key function runs here, in the client; if the list has changed meanwhile, on the changed list again.
    loop {
        let snapshot = ask(this.proxy(), Op::Snapshot, &[], call)?
            .try_cast::<Array>()
            .unwrap_or_default();
        let Ok([version, current]) = <[Dynamic; 2]>::try_from(snapshot) else {
            return Err(raise(
                Kind::RuntimeError,
                "a malformed answer from a manager",
            ));
        };
        let mut keys = Array::new();
        for item in current.try_cast::<Array>().unwrap_or_default() {
            keys.push(key.call_raw(call.ctx, None, vec![item])?);
        }
        let keys = Dynamic::from_array(keys);
        let done = ask(this.proxy(), Op::SortBy, &[&version, &keys, &reverse], call)?;
        if done.as_bool().unwrap_or(true) {
            return Ok(Dynamic::UNIT);
        }
    }
}

fn extend(call: &mut Call<'_>) -> Result {
    let more = Dynamic::from_array(items(call.ctx, call.take(0))?);
    let this = call.this::<ListProxy>();
    this.proxy().changed();
    ask(this.proxy(), Op::Extend, &[&more], call)
}

fn plus(ctx: &NativeCallContext<'_>, list: &ListProxy, other: Dynamic, list_first: bool) -> Result {
    let mut own = items(ctx, Dynamic::from(list.clone()))?;
    let mut other = items(ctx, other)?;
    if list_first {
        own.append(&mut other);
        Ok(own.into())
    } else {
        other.append(&mut own);
        Ok(other.into())
    }
}

fn times(ctx: &NativeCallContext<'_>, list: &ListProxy, count: i64) -> Result {
    let own = items(ctx, Dynamic::from(list.clone()))?;
    let count = usize::try_from(count).unwrap_or(0);
    Ok(std::iter::repeat_n(own, count)
        .flatten()
        .collect::<Array>()
        .into())
}

fn operators(registry: &mut Registry) {
    let module = registry.module("");
    module.set_native_fn(
        "+=",
        |ctx: NativeCallContext<'_>, list: &mut ListProxy, other: Dynamic| -> Fallible<()> {
            list.proxy().changed();
            let result = items(&ctx, other).and_then(|more| {
                let more = Dynamic::from_array(more);
                list.proxy()
                    .call(Op::Extend, &[&more], places::of_call(&ctx))
                    .map(drop)
            });
            placed(&ctx, result)
        },
    );
    module.set_native_fn(
        "*=",
        |ctx: NativeCallContext<'_>, list: &mut ListProxy, count: i64| -> Fallible<()> {
            list.proxy().changed();
            let result = list
                .proxy()
                .call(Op::Repeat, &[&count.into()], places::of_call(&ctx))
                .map(drop);
            placed(&ctx, result)
        },
    );
    module.set_native_fn(
        "+",
        |ctx: NativeCallContext<'_>, list: &mut ListProxy, other: Dynamic| -> Fallible {
            placed(&ctx, plus(&ctx, list, other, true))
        },
    );
    module.set_native_fn(
        "+",
        |ctx: NativeCallContext<'_>, other: Array, list: ListProxy| -> Fallible {
            placed(&ctx, plus(&ctx, &list, other.into(), false))
        },
    );
    module.set_native_fn(
        "*",
        |ctx: NativeCallContext<'_>, list: &mut ListProxy, count: i64| -> Fallible {
            placed(&ctx, times(&ctx, list, count))
        },
    );
    module.set_native_fn(
        "*",
        |ctx: NativeCallContext<'_>, count: i64, list: ListProxy| -> Fallible {
            placed(&ctx, times(&ctx, &list, count))
        },
    );
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    operators(registry);
    let append = forward_change::<ListProxy>(Op::Append, 1);
    class::<ListProxy>(registry, "ListProxy")
        .index_getter("An item by its index, from the end if negative; a range gives a slice as an array.", get)
        .index_setter(set)
        .method("append(item: any)", "Adds an item at the end.", append.clone())
        .method("push(item: any)", "The same as `append`.", append)
        .method("extend(items: items)", "Adds all items of an array, a range, a proxy, in one step; the same as `+=`.", extend)
        .method("insert(index: int, item: any)", "Puts an item in before `index`.", forward_change::<ListProxy>(Op::Insert, 2))
        .method(
            "pop(index: int = -1)",
            "Takes an item out, the last one if nothing else is said. There is none: `IndexError`.",
            forward_change::<ListProxy>(Op::Pop, 1),
        )
        .method(
            "remove(value: any)",
            "Takes the first item out that equals `value`. There is none: `ValueError`.",
            forward_change::<ListProxy>(Op::Remove, 1),
        )
        .method("delete(index: int)", "Takes an item out, as Python's `del l[index]`.", forward_change::<ListProxy>(Op::DelItem, 1))
        .method(
            "index(value: any, start: int = 0, stop: int = ())",
            "The index of the first item that equals `value`. There is none: `ValueError`.",
            forward::<ListProxy>(Op::Index, 3),
        )
        .method("count(value: any)", "How many items equal `value`.", forward::<ListProxy>(Op::Count2, 1))
        .method("reverse()", "Turns the list around, in place.", forward_change::<ListProxy>(Op::Reverse, 0))
        .method(
            "sort(key: callable = (), reverse: bool = false)",
            "Sorts in place, keeping equal items in order. `key` makes of each item what is compared. What has no order: `TypeError`.\n\n\
             ```rhai\nwith Manager() as m {\n    let l = m.list([3, 1, 2]);\n    l.sort(#{reverse: true});\n    print(l);\n}\n```",
            sort,
        )
        .method("contains(value: any)", "Whether an item equals `value`; the same as `value in l`.", forward::<ListProxy>(Op::Contains, 1))
        .method("len()", "How many items there are.", forward::<ListProxy>(Op::Len, 0))
        .method("clear()", "Takes everything out.", forward_change::<ListProxy>(Op::Clear, 0))
        .method("reversed()", "The items as an array, the last one first.", |call| {
            let all = all(call.this::<ListProxy>().proxy(), places::of_call(call.ctx))?;
            let mut items = all.try_cast::<Array>().unwrap_or_default();
            items.reverse();
            Ok(items.into())
        })
        .method("copy()", "A copy in this process: an array.", |call| {
            all(call.this::<ListProxy>().proxy(), places::of_call(call.ctx))
        })
        .iterate(|this| Items::new(this.proxy().clone()));
}
