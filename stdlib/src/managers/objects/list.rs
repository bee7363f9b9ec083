//! A managed list.
//!
//! Source: CPython's Library Reference, Mutable Sequence Types.

use super::{Args, Object, Outcome, Turn, array, int, length, malformed, take, truth, unsupported};
use crate::error::{Error, Kind, Result, raise};
use crate::managers::comparison::{equal, sorted};
use crate::managers::protocol::Op;
use crate::spelling;
use rhai::{Array, Dynamic};
use std::ops::Range;

/// See the module.
pub(super) struct List {
    items: Vec<Dynamic>,
    /// Grows with every change: a sort whose keys were computed elsewhere checks it.
    version: i64,
}

impl List {
    /// A list of the items of an array.
    pub(super) fn new(items: Dynamic) -> Result<List> {
        let items = if items.is_unit() {
            Array::new()
        } else {
            items.try_cast::<Array>().ok_or_else(malformed)?
        };
        Ok(List { items, version: 0 })
    }

    /// The place of item `index`, from the end if negative.
    fn place(&self, index: i64) -> Option<usize> {
        place(index, self.items.len())
    }

    /// The places that a slice means, as Python cuts them off.
    fn slice(&self, args: &Args) -> Result<Range<usize>> {
        let (Some(start), Some(end)) = (int(args, 0), int(args, 1)) else {
            return Err(malformed());
        };
        Ok(slice(start, end, self.items.len()))
    }

    fn find(&self, item: &Dynamic, range: Range<usize>) -> Option<usize> {
        self.items[range.clone()]
            .iter()
            .position(|known| equal(known, item))
            .map(|at| at + range.start)
    }

    fn reorder(&mut self, order: Vec<usize>) {
        self.items = order.into_iter().map(|at| self.items[at].take()).collect();
    }
}

/// The place of item `index` among `length`, from the end if negative.
pub(super) fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 {
        index.checked_add(length)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|_| index < length)
}

/// The places `start..end` among `length`, cut off as Python does.
pub(super) fn slice(start: i64, end: i64, length: usize) -> Range<usize> {
    let bound = |index: i64| {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let index = if index < 0 {
            index.saturating_add(length)
        } else {
            index
        };
        usize::try_from(index.clamp(0, length)).unwrap_or(length as usize)
    };
    let (start, end) = (bound(start), bound(end));
    start..end.max(start)
}

fn out_of_range(text: &str) -> Error {
    raise(Kind::IndexError, text)
}

impl Object for List {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let value = |value: Dynamic| Ok(Outcome::Value(value));
        // What changes the list is told apart from what looks at it.
        match op {
            Op::GetItem => {
                let index = int(&args, 0).ok_or_else(malformed)?;
                return match self.place(index) {
                    Some(at) => turn.give(&self.items[at]),
                    None => Err(out_of_range("list index out of range")),
                };
            }
            Op::Len => return value(length(self.items.len())),
            Op::GetSlice => {
                let range = self.slice(&args)?;
                return turn.give_all(self.items[range].iter());
            }
            Op::Contains => {
                return value(
                    self.find(&take(&mut args, 0), 0..self.items.len())
                        .is_some()
                        .into(),
                );
            }
            Op::Count2 => {
                let item = take(&mut args, 0);
                return value(length(
                    self.items
                        .iter()
                        .filter(|known| equal(known, &item))
                        .count(),
                ));
            }
            Op::Index => {
                let item = take(&mut args, 0);
                let range = slice(
                    int(&args, 1).unwrap_or(0),
                    int(&args, 2).unwrap_or(i64::MAX),
                    self.items.len(),
                );
                return match self.find(&item, range) {
                    Some(at) => value(length(at)),
                    None => {
                        let item = spelling::repr(turn.script, &item);
                        Err(raise(Kind::ValueError, format!("{item} is not in list")))
                    }
                };
            }
            Op::Snapshot => {
                let all = Dynamic::from_array(self.items.clone());
                return value(Dynamic::from_array(vec![self.version.into(), all]));
            }
            _ => {}
        }
        self.version += 1;
        let mut result = Dynamic::UNIT;
        match op {
            Op::SetItem => {
                let index = int(&args, 0).ok_or_else(malformed)?;
                let at = self
                    .place(index)
                    .ok_or_else(|| out_of_range("list assignment index out of range"))?;
                self.items[at] = take(&mut args, 1);
            }
            Op::SetSlice => {
                let range = self.slice(&args)?;
                self.items.splice(range, array(&mut args, 2)?);
            }
            Op::DelItem => {
                let index = int(&args, 0).ok_or_else(malformed)?;
                let at = self
                    .place(index)
                    .ok_or_else(|| out_of_range("list assignment index out of range"))?;
                drop(self.items.remove(at));
            }
            Op::Append => self.items.push(take(&mut args, 0)),
            Op::Extend => self.items.extend(array(&mut args, 0)?),
            Op::Insert => {
                let index = int(&args, 0).ok_or_else(malformed)?;
                let at = slice(index, i64::MAX, self.items.len()).start;
                self.items.insert(at, take(&mut args, 1));
            }
            Op::Pop => {
                if self.items.is_empty() {
                    return Err(out_of_range("pop from empty list"));
                }
                let at = self
                    .place(int(&args, 0).unwrap_or(-1))
                    .ok_or_else(|| out_of_range("pop index out of range"))?;
                result = self.items.remove(at);
            }
            Op::Remove => {
                let at = self.find(&take(&mut args, 0), 0..self.items.len());
                let at =
                    at.ok_or_else(|| raise(Kind::ValueError, "list.remove(x): x not in list"))?;
                drop(self.items.remove(at));
            }
            Op::Reverse => self.items.reverse(),
            Op::Sort => self.reorder(sorted(&self.items, truth(&args, 0, false))?),
            Op::SortBy => {
                // Somebody has changed the list since its keys were computed: the client begins again.
                let current = int(&args, 0) == Some(self.version - 1);
                if current {
                    let keys = array(&mut args, 1)?;
                    if keys.len() != self.items.len() {
                        return Err(malformed());
                    }
                    self.reorder(sorted(&keys, truth(&args, 2, false))?);
                } else {
                    self.version -= 1;
                }
                result = current.into();
            }
            Op::Clear => self.items.clear(),
            Op::Repeat => {
                let times = usize::try_from(int(&args, 0).ok_or_else(malformed)?).unwrap_or(0);
                let once = self.items.clone();
                let total = once.len().saturating_mul(times);
                crate::room::ensure(total, size_of::<Dynamic>())?;
                // Nothing as often as can be is nothing.
                let times = if total == 0 { 0 } else { times };
                self.items.clear();
                for _ in 0..times {
                    self.items.extend(once.iter().cloned());
                }
            }
            _ => {
                self.version -= 1;
                return Err(unsupported(op));
            }
        }
        value(result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(i64),
        Insert(i64, i64),
        Pop(i64),
        Remove(i64),
        SetSlice(i64, i64, Vec<i64>),
        Reverse,
        Sort(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_i64..5).prop_map(Step::Append),
            2 => (-6_i64..6, 0_i64..5).prop_map(|(i, v)| Step::Insert(i, v)),
            2 => (-6_i64..6).prop_map(Step::Pop),
            1 => (0_i64..5).prop_map(Step::Remove),
            1 => (-6_i64..6, -6_i64..6, prop::collection::vec(0_i64..5, 0..3)).prop_map(|(a, b, v)| Step::SetSlice(a, b, v)),
            1 => Just(Step::Reverse),
            1 => any::<bool>().prop_map(Step::Sort),
        ]
    }

    fn items(values: &[i64]) -> Dynamic {
        Dynamic::from_array(values.iter().copied().map(Dynamic::from).collect())
    }

    proptest! {
        #[test]
        fn it_does_what_a_vector_does(steps in prop::collection::vec(step(), 0..50)) {
            let mut bench = Bench::new(List::new(Dynamic::UNIT).unwrap());
            let mut model: Vec<i64> = Vec::new();
            for step in steps {
                let len = model.len() as i64;
                let clamp = |i: i64| (if i < 0 { i + len } else { i }).clamp(0, len) as usize;
                match step {
                    Step::Append(v) => {
                        model.push(v);
                        bench.act(Op::Append, vec![v.into()]);
                    }
                    Step::Insert(i, v) => {
                        model.insert(clamp(i), v);
                        bench.act(Op::Insert, vec![i.into(), v.into()]);
                    }
                    Step::Pop(i) => {
                        let valid = (-len..len).contains(&i);
                        let expected = valid.then(|| model.remove(if i < 0 { i + len } else { i } as usize));
                        let got = bench.call(Op::Pop, vec![i.into()]).ok().map(|v| v.as_int().unwrap());
                        prop_assert_eq!(got, expected);
                    }
                    Step::Remove(v) => {
                        let at = model.iter().position(|known| *known == v);
                        if let Some(at) = at {
                            model.remove(at);
                        }
                        prop_assert_eq!(bench.call(Op::Remove, vec![v.into()]).is_ok(), at.is_some());
                    }
                    Step::SetSlice(a, b, v) => {
                        let (start, end) = (clamp(a), clamp(b));
                        model.splice(start..end.max(start), v.iter().copied());
                        bench.act(Op::SetSlice, vec![a.into(), b.into(), items(&v)]);
                    }
                    Step::Reverse => {
                        model.reverse();
                        bench.act(Op::Reverse, vec![]);
                    }
                    Step::Sort(reverse) => {
                        model.sort_unstable();
                        if reverse {
                            model.reverse();
                        }
                        bench.act(Op::Sort, vec![reverse.into()]);
                    }
                }
                let all = bench.ok(Op::GetSlice, vec![0_i64.into(), i64::MAX.into()]).cast::<Array>();
                let all: Vec<i64> = all.into_iter().map(|v| v.as_int().unwrap()).collect();
                prop_assert_eq!(&all, &model);
            }
        }
    }

    #[test]
    fn a_sort_by_keys_of_an_older_list_is_refused() {
        let mut bench = Bench::new(List::new(items(&[3, 1, 2])).unwrap());
        let snapshot = bench.ok(Op::Snapshot, vec![]).cast::<Array>();
        bench.act(Op::Append, vec![0_i64.into()]);
        let by = |bench: &mut Bench<List>, version: &Dynamic, keys: &[i64]| {
            bench
                .ok(Op::SortBy, vec![version.clone(), items(keys), false.into()])
                .as_bool()
                .unwrap()
        };
        assert!(!by(&mut bench, &snapshot[0], &[-3, -1, -2]));
        let snapshot = bench.ok(Op::Snapshot, vec![]).cast::<Array>();
        assert!(by(&mut bench, &snapshot[0], &[-3, -1, -2, 0]));
        assert_eq!(
            bench.ok(Op::GetItem, vec![0_i64.into()]).as_int().unwrap(),
            3
        );
        assert_eq!(
            bench
                .ok(Op::GetItem, vec![(-1_i64).into()])
                .as_int()
                .unwrap(),
            0
        );
    }

    #[test]
    fn slices_are_cut_off_as_in_python() {
        for (start, end, expected) in [
            (0, 9, 0..3),
            (-2, 9, 1..3),
            (-9, -1, 0..2),
            (2, 1, 2..2),
            (5, 9, 3..3),
            (0, i64::MIN, 0..0),
        ] {
            assert_eq!(slice(start, end, 3), expected);
        }
        assert_eq!(
            (place(-1, 3), place(3, 3), place(-4, 3), place(i64::MIN, 3)),
            (Some(2), None, None, None)
        );
    }
}
