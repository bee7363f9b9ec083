//! A managed dict: values by hashable keys, in the order in which the keys came.
//!
//! Source: CPython's Library Reference, Mapping Types.

use super::{Args, Object, Outcome, Turn, array, length, malformed, take, unsupported};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::keys::Key;
use crate::managers::protocol::Op;
use crate::spelling;
use hashlink::LinkedHashMap;
use rhai::{Dynamic, NativeCallContext};

/// See the module.
pub(super) struct Dict {
    entries: LinkedHashMap<Key, Dynamic>,
}

impl Dict {
    /// A dict of one array of keys and values, alternating.
    pub(super) fn new(args: &mut Args) -> Result<Dict> {
        let mut dict = Dict {
            entries: LinkedHashMap::new(),
        };
        if !args.is_empty() {
            dict.update(args)?;
        }
        Ok(dict)
    }

    fn update(&mut self, args: &mut Args) -> Result<()> {
        let items = array(args, 0)?;
        if items.len() % 2 != 0 {
            return Err(malformed());
        }
        // All keys are checked before anything is changed.
        let mut pairs = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((Key::new(&key)?, value));
        }
        for (key, value) in pairs {
            self.set(key, value);
        }
        Ok(())
    }

    fn set(&mut self, key: Key, value: Dynamic) {
        match self.entries.get_mut(&key) {
            // Its place stays, and so does the key itself.
            Some(place) => *place = value,
            None => {
                self.entries.insert(key, value);
            }
        }
    }
}

/// `KeyError`: its message is the key, as in Python.
pub(super) fn missing(key: &Dynamic, script: &NativeCallContext<'_>) -> Error {
    raise(Kind::KeyError, spelling::repr(script, key))
}

impl Object for Dict {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let given = take(&mut args, 0);
        let value = |value: Dynamic| Ok(Outcome::Value(value));
        match op {
            Op::GetItem => match self.entries.get(&Key::new(&given)?) {
                Some(item) => turn.give(item),
                None => Err(missing(&given, turn.script)),
            },
            Op::SetItem => {
                self.set(Key::new(&given)?, take(&mut args, 1));
                value(Dynamic::UNIT)
            }
            Op::Get => match self.entries.get(&Key::new(&given)?) {
                Some(item) => turn.give(item),
                None => value(take(&mut args, 1)),
            },
            Op::DelItem => match self.entries.remove(&Key::new(&given)?) {
                Some(_) => value(Dynamic::UNIT),
                None => Err(missing(&given, turn.script)),
            },
            Op::Pop => match self.entries.remove(&Key::new(&given)?) {
                Some(item) => value(item),
                None if args.len() > 1 => value(take(&mut args, 1)),
                None => Err(missing(&given, turn.script)),
            },
            Op::PopItem => match self.entries.pop_back() {
                Some((key, item)) => value(Dynamic::from_array(vec![key.value(), item])),
                None => Err(raise(Kind::KeyError, "'popitem(): dictionary is empty'")),
            },
            Op::SetDefault => {
                let key = Key::new(&given)?;
                if let Some(item) = self.entries.get(&key) {
                    return turn.give(item);
                }
                let item = take(&mut args, 1);
                self.entries.insert(key, item.clone());
                value(item)
            }
            Op::Contains => value(self.entries.contains_key(&Key::new(&given)?).into()),
            Op::Len => value(length(self.entries.len())),
            Op::Keys => turn.give_all(self.entries.keys().map(Key::value)),
            Op::Values => turn.give_all(self.entries.values()),
            Op::Items => {
                let pairs = self
                    .entries
                    .iter()
                    .map(|(key, item)| Dynamic::from_array(vec![key.value(), item.clone()]));
                turn.give_all(pairs)
            }
            Op::Update => {
                let mut args: Args = std::iter::once(given).collect();
                self.update(&mut args)?;
                value(Dynamic::UNIT)
            }
            Op::Clear => {
                self.entries.clear();
                value(Dynamic::UNIT)
            }
            _ => Err(unsupported(op)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(i64, i64),
        Pop(i64),
        PopItem,
        SetDefault(i64, i64),
        Get(i64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_i64..6, any::<i64>()).prop_map(|(k, v)| Step::Set(k, v)),
            2 => (0_i64..6).prop_map(Step::Pop),
            1 => Just(Step::PopItem),
            1 => (0_i64..6, any::<i64>()).prop_map(|(k, v)| Step::SetDefault(k, v)),
            2 => (0_i64..6).prop_map(Step::Get),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_of_pairs_does(steps in prop::collection::vec(step(), 0..60)) {
            let mut bench = Bench::new(Dict::new(&mut Args::new()).unwrap());
            let mut model: Vec<(i64, i64)> = Vec::new();
            let int = |value: Option<Dynamic>| value.map(|value| value.as_int().unwrap());
            for step in steps {
                match step {
                    Step::Set(k, v) => {
                        match model.iter_mut().find(|(key, _)| *key == k) {
                            Some(pair) => pair.1 = v,
                            None => model.push((k, v)),
                        }
                        // The same key by another type.
                        #[expect(clippy::cast_precision_loss, reason = "small")]
                        let key: Dynamic = if v % 2 == 0 { k.into() } else { (k as f64).into() };
                        bench.act(Op::SetItem, vec![key, v.into()]);
                    }
                    Step::Pop(k) => {
                        let at = model.iter().position(|(key, _)| *key == k);
                        let expected = at.map(|at| model.remove(at).1);
                        prop_assert_eq!(int(bench.call(Op::Pop, vec![k.into()]).ok()), expected);
                    }
                    Step::PopItem => {
                        let got = bench.call(Op::PopItem, vec![]).ok();
                        prop_assert_eq!(got.is_some(), model.pop().is_some());
                    }
                    Step::SetDefault(k, v) => {
                        let found = model.iter().find(|(key, _)| *key == k).map(|pair| pair.1);
                        if found.is_none() {
                            model.push((k, v));
                        }
                        let got = int(Some(bench.ok(Op::SetDefault, vec![k.into(), v.into()])));
                        prop_assert_eq!(got, Some(found.unwrap_or(v)));
                    }
                    Step::Get(k) => {
                        let found = model.iter().find(|(key, _)| *key == k).map(|pair| pair.1);
                        prop_assert_eq!(int(bench.call(Op::GetItem, vec![k.into()]).ok()), found);
                        prop_assert_eq!(bench.ok(Op::Contains, vec![k.into()]).as_bool().unwrap(), found.is_some());
                    }
                    Step::Clear => {
                        model.clear();
                        bench.act(Op::Clear, vec![]);
                    }
                }
                let items = bench.ok(Op::Items, vec![]).cast::<rhai::Array>();
                let items: Vec<(i64, i64)> = items
                    .into_iter()
                    .map(|pair| pair.cast::<rhai::Array>())
                    .map(|pair| {
                        let key = crate::managers::comparison::equal(&pair[0], &0_i64.into());
                        let key = if key { 0 } else { pair[0].as_int().unwrap_or_else(|_| pair[0].as_float().unwrap() as i64) };
                        (key, pair[1].as_int().unwrap())
                    })
                    .collect();
                prop_assert_eq!(&items, &model);
                prop_assert_eq!(bench.ok(Op::Len, vec![]).as_int().unwrap(), model.len() as i64);
            }
        }
    }

    #[test]
    fn an_update_with_a_bad_key_changes_nothing() {
        let mut bench = Bench::new(Dict::new(&mut Args::new()).unwrap());
        let pairs: rhai::Array = vec![
            1_i64.into(),
            2_i64.into(),
            Dynamic::from_map(rhai::Map::new()),
            3_i64.into(),
        ];
        assert!(
            bench
                .call(Op::Update, vec![Dynamic::from_array(pairs)])
                .is_err()
        );
        assert_eq!(bench.ok(Op::Len, vec![]).as_int().unwrap(), 0);
    }
}
