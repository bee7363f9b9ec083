//! `DictProxy`.

use super::super::comparison::equal;
use super::super::protocol::Op;
use super::super::proxy::{Proxy, Typed};
use super::containers::{items, pairs};
use super::{DictProxy, Fallible, ask, class, forward, forward_change, in_iterator, placed};
use crate::api::{Call, Registry};
use crate::error::{Kind, Result, raise};
use crate::{places, spelling};
use rhai::{Array, Dynamic, EvalAltResult, Map, NativeCallContext};

/// The pairs of keys and values.
fn pairs_of(proxy: &Proxy, position: mphost_core::position::Position) -> Result<Array> {
    Ok(proxy
        .call(Op::Items, &[], position)?
        .try_cast::<Array>()
        .unwrap_or_default())
}

/// Python's spelling of the dict.
pub(super) fn text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    let parts: Vec<String> = pairs_of(proxy, places::of_call(ctx))?
        .into_iter()
        .filter_map(|pair| pair.try_cast::<Array>())
        .filter_map(|pair| {
            let [key, value] = pair.as_slice() else {
                return None;
            };
            Some(format!(
                "{}: {}",
                spelling::repr(ctx, key),
                spelling::repr(ctx, value)
            ))
        })
        .collect();
    Ok(format!("{{{}}}", parts.join(", ")))
}

/// A map where all keys are texts, else the pairs.
fn copy(pairs: Array) -> Dynamic {
    let mut map = Map::new();
    for pair in &pairs {
        let Some(parts) = pair.read_lock::<Array>() else {
            continue;
        };
        let [key, value] = parts.as_slice() else {
            continue;
        };
        let Some(key) = key.read_lock::<rhai::ImmutableString>() else {
            drop(parts);
            return Dynamic::from_array(pairs);
        };
        map.insert(key.as_str().into(), value.clone());
    }
    Dynamic::from_map(map)
}

/// A copy in this process.
pub(super) fn plain(proxy: &Proxy, ctx: &NativeCallContext<'_>) -> Result {
    Ok(copy(pairs_of(proxy, places::of_call(ctx))?))
}

/// The keys, one after the other, as they were at the beginning. Like Python it notices when its own process changes their number on
/// the way.
struct Keys {
    proxy: Proxy,
    state: State,
}

enum State {
    Before,
    Within {
        keys: std::vec::IntoIter<Dynamic>,
        /// How many there were.
        size: usize,
        /// What this process had done to the dict when its size was last known.
        changes: u64,
    },
    Over,
}

impl Iterator for Keys {
    type Item = std::result::Result<Dynamic, Box<EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let State::Before = self.state {
            match self
                .proxy
                .call(Op::Keys, &[], mphost_core::position::Position::NONE)
            {
                Ok(keys) => {
                    let keys = keys.try_cast::<Array>().unwrap_or_default();
                    self.state = State::Within {
                        size: keys.len(),
                        keys: keys.into_iter(),
                        changes: self.proxy.changes(),
                    };
                }
                Err(error) => {
                    self.state = State::Over;
                    return Some(Err(in_iterator(error)));
                }
            }
        }
        let State::Within {
            keys,
            size,
            changes,
        } = &mut self.state
        else {
            return None;
        };
        // Only what has changed since may have changed the size.
        if *changes != self.proxy.changes() {
            *changes = self.proxy.changes();
            if let Err(error) = same_size(&self.proxy, *size) {
                self.state = State::Over;
                return Some(Err(in_iterator(error)));
            }
        }
        keys.next().map(Ok)
    }
}

fn same_size(proxy: &Proxy, size: usize) -> Result<()> {
    let now = proxy.call(Op::Len, &[], mphost_core::position::Position::NONE)?;
    if now.as_int().ok().and_then(|now| usize::try_from(now).ok()) == Some(size) {
        return Ok(());
    }
    Err(raise(
        Kind::RuntimeError,
        "dictionary changed size during iteration",
    ))
}

fn update(call: &mut Call<'_>) -> Result {
    let pairs = pairs(call.ctx, call.take(0))?;
    let proxy = call.this::<DictProxy>().proxy().clone();
    proxy.changed();
    ask(&proxy, Op::Update, &[&pairs], call)
}

/// `d | other` gives a copy, `d |= other` changes the dict.
fn operators(registry: &mut Registry) {
    let module = registry.module("");
    module.set_native_fn(
        "|=",
        |ctx: NativeCallContext<'_>, dict: &mut DictProxy, other: Dynamic| -> Fallible<()> {
            dict.proxy().changed();
            let result = pairs(&ctx, other).and_then(|pairs| {
                let position = places::of_call(&ctx);
                dict.proxy().call(Op::Update, &[&pairs], position).map(drop)
            });
            placed(&ctx, result)
        },
    );
    module.set_native_fn(
        "|",
        |ctx: NativeCallContext<'_>, dict: &mut DictProxy, other: Dynamic| -> Fallible {
            placed(&ctx, merged(&ctx, Dynamic::from(dict.clone()), other))
        },
    );
    module.set_native_fn(
        "|",
        |ctx: NativeCallContext<'_>, map: Map, dict: DictProxy| -> Fallible {
            placed(
                &ctx,
                merged(&ctx, Dynamic::from_map(map), Dynamic::from(dict)),
            )
        },
    );
}

/// The pairs of both, those of the second one for keys that both have.
fn merged(ctx: &NativeCallContext<'_>, first: Dynamic, second: Dynamic) -> Result {
    let mut all: Vec<(Dynamic, Dynamic)> = Vec::new();
    for flat in [pairs(ctx, first)?, pairs(ctx, second)?] {
        let mut flat = flat.try_cast::<Array>().unwrap_or_default().into_iter();
        while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
            match all.iter_mut().find(|(known, _)| equal(known, &key)) {
                Some(pair) => pair.1 = value,
                None => all.push((key, value)),
            }
        }
    }
    let pairs = all
        .into_iter()
        .map(|(key, value)| Dynamic::from_array(vec![key, value]));
    Ok(copy(pairs.collect()))
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    operators(registry);
    class::<DictProxy>(registry, "DictProxy")
        .index_getter("The value of a key: any number, string, char, bool, `()`, or an array of those. A missing one: `KeyError`.", |call| {
            let key = call.take(0);
            call.this::<DictProxy>().proxy().get_place(Op::GetItem, Some(&key), call.ctx)
        })
        .index_setter(|call| {
            let (key, value) = (call.take(0), call.take(1));
            let this = call.this::<DictProxy>();
            this.proxy().changed();
            this.proxy().set_place(Op::SetItem, Some(&key), &value, call.ctx)?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "get(key: any, default: any = ())",
            "The value of a key, or `default` where there is none.\n\n\
             ```rhai\nwith Manager() as m {\n    let d = m.dict(#{a: 1});\n    print(d.get(\"b\", 2));\n}\n```",
            forward::<DictProxy>(Op::Get, 2),
        )
        .method("set(key: any, value: any)", "The same as `d[key] = value`.", forward_change::<DictProxy>(Op::SetItem, 2))
        .method(
            "pop(key: any, default: any = ())",
            "Takes a key out and gives its value. A missing one: `default` if it is given, else `KeyError`.",
            forward_change::<DictProxy>(Op::Pop, 2),
        )
        .method("popitem()", "Takes out the pair that came last: `[key, value]`.", forward_change::<DictProxy>(Op::PopItem, 0))
        .method(
            "setdefault(key: any, default: any = ())",
            "The value of a key, which becomes `default` where there is none.",
            forward_change::<DictProxy>(Op::SetDefault, 2),
        )
        .method("remove(key: any)", "Takes a key out. A missing one: `KeyError`.", forward_change::<DictProxy>(Op::DelItem, 1))
        .method("contains(key: any)", "Whether there is such a key; the same as `key in d`.", forward::<DictProxy>(Op::Contains, 1))
        .method("len()", "How many keys there are.", forward::<DictProxy>(Op::Len, 0))
        .method("keys()", "The keys, in the order in which they came.", forward::<DictProxy>(Op::Keys, 0))
        .method("values()", "The values, in the order in which their keys came.", forward::<DictProxy>(Op::Values, 0))
        .method("items()", "The pairs `[key, value]`, in the order in which the keys came.", forward::<DictProxy>(Op::Items, 0))
        .method("clear()", "Takes everything out.", forward_change::<DictProxy>(Op::Clear, 0))
        .method(
            "copy()",
            "A copy in this process: an object map; where not all keys are strings, an array of pairs.",
            |call| plain(call.this::<DictProxy>().proxy(), call.ctx),
        )
        .method(
            "update(other: any)",
            "Takes all pairs of an object map, a DictProxy or an array of `[key, value]` in, in one step.",
            update,
        )
        .method(
            "fromkeys(keys: items, value: any = ())",
            "A dict of these keys, all with one value, in this process; the proxy stays as it is.\n\n\
             ```rhai\nwith Manager() as m {\n    print(m.dict().fromkeys([\"a\", \"b\"], 0));\n}\n```",
            |call| {
                let (keys, value) = (items(call.ctx, call.take(0))?, call.take(1));
                let pairs = keys.into_iter().map(|key| Dynamic::from_array(vec![key, value.clone()]));
                Ok(copy(pairs.collect()))
            },
        )
        .method("reversed()", "The keys, the last one first.", |call| {
            let mut keys = ask(call.this::<DictProxy>().proxy(), Op::Keys, &[], call)?
                .try_cast::<Array>()
                .unwrap_or_default();
            keys.reverse();
            Ok(keys.into())
        })
        .iterate(|this| Keys { proxy: this.proxy().clone(), state: State::Before });
}
