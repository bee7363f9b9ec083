//! A managed set: hashable members, in the order in which they came.
//!
//! Rhai has no sets: where Python gives a new one, a script gets an array of the members.
//!
//! Source: CPython's Library Reference, Set Types.

use super::dict::missing;
use super::{Args, Object, Outcome, Turn, length, malformed, take, unsupported};
use crate::error::{Kind, Result, raise};
use crate::managers::keys::Key;
use crate::managers::protocol::Op;
use hashlink::LinkedHashSet;
use rhai::{Array, Dynamic};

/// See the module.
pub(super) struct Set {
    members: LinkedHashSet<Key>,
}

type Members = LinkedHashSet<Key>;

impl Set {
    /// A set of the items of an array.
    pub(super) fn new(items: Dynamic) -> Result<Set> {
        if items.is_unit() {
            return Ok(Set {
                members: Members::new(),
            });
        }
        Ok(Set {
            members: members(items)?,
        })
    }

    /// What the operation `name` makes of this set and others: `None` for one that doesn't exist.
    fn combine(&self, name: &str, others: &[Members]) -> Option<Members> {
        let own = &self.members;
        let in_any = |key: &&Key| others.iter().any(|other| other.contains(*key));
        Some(match name {
            "union" | "update" => others.iter().flatten().cloned().fold(own.clone(), with),
            "intersection" | "intersection_update" => own
                .iter()
                .filter(|key| others.iter().all(|other| other.contains(*key)))
                .cloned()
                .collect(),
            "difference" | "difference_update" => {
                own.iter().filter(|key| !in_any(key)).cloned().collect()
            }
            "symmetric_difference" | "symmetric_difference_update" => {
                let other = others.first()?;
                let theirs = other.iter().filter(|key| !own.contains(*key));
                own.iter()
                    .filter(|key| !in_any(key))
                    .chain(theirs)
                    .cloned()
                    .collect()
            }
            _ => return None,
        })
    }

    /// What the question `name` is answered.
    fn compare(&self, name: &str, other: &Members) -> Option<bool> {
        let own = &self.members;
        Some(match name {
            "issubset" => own.iter().all(|key| other.contains(key)),
            "issuperset" => other.iter().all(|key| own.contains(key)),
            "isproper" => own.len() < other.len() && own.iter().all(|key| other.contains(key)),
            "contains_properly" => {
                own.len() > other.len() && other.iter().all(|key| own.contains(key))
            }
            "isdisjoint" => !own.iter().any(|key| other.contains(key)),
            "equals" => own.len() == other.len() && own.iter().all(|key| other.contains(key)),
            _ => return None,
        })
    }
}

fn members(items: Dynamic) -> Result<Members> {
    let items = items.try_cast::<Array>().ok_or_else(malformed)?;
    let keys = items.iter().map(Key::new).collect::<Result<Vec<_>>>()?;
    Ok(keys.into_iter().fold(Members::new(), with))
}

/// One member more, unless there is an equal one, which stays in its place.
fn with(mut members: Members, key: Key) -> Members {
    if !members.contains(&key) {
        members.insert(key);
    }
    members
}

impl Object for Set {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let first = take(&mut args, 0);
        let value = match op {
            Op::Items => return turn.give_all(self.members.iter().map(Key::value)),
            Op::Len => length(self.members.len()),
            Op::Contains => self.members.contains(&Key::new(&first)?).into(),
            Op::Add => {
                let key = Key::new(&first)?;
                self.members = with(std::mem::take(&mut self.members), key);
                Dynamic::UNIT
            }
            Op::Discard => {
                self.members.remove(&Key::new(&first)?);
                Dynamic::UNIT
            }
            Op::Remove => {
                if !self.members.remove(&Key::new(&first)?) {
                    return Err(missing(&first, turn.script));
                }
                Dynamic::UNIT
            }
            Op::Pop => match self.members.pop_front() {
                Some(key) => key.value(),
                None => return Err(raise(Kind::KeyError, "'pop from an empty set'")),
            },
            Op::Clear => {
                self.members.clear();
                Dynamic::UNIT
            }
            Op::Relate | Op::Assign | Op::Reduce => {
                let name = first.into_immutable_string().map_err(|_| malformed())?;
                let others = args.drain(1..).map(members).collect::<Result<Vec<_>>>()?;
                if op == Op::Reduce {
                    let answer = others.first().and_then(|other| self.compare(&name, other));
                    return Ok(Outcome::Value(answer.ok_or_else(malformed)?.into()));
                }
                let combined = self.combine(&name, &others).ok_or_else(malformed)?;
                if op == Op::Relate {
                    return turn
                        .give_all(combined.iter().map(Key::value).collect::<Array>().iter());
                }
                self.members = combined;
                Dynamic::UNIT
            }
            _ => return Err(unsupported(op)),
        };
        Ok(Outcome::Value(value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn ints(values: &[i64]) -> Dynamic {
        Dynamic::from_array(values.iter().copied().map(Dynamic::from).collect())
    }

    #[test]
    fn sets_are_combined_in_the_order_of_coming() {
        let mut bench = Bench::new(Set::new(ints(&[3, 1, 3, 2])).unwrap());
        assert_eq!(bench.says(1, Op::Items, vec![]), "[3, 1, 2]");
        for (name, expected) in [
            ("union", "[3, 1, 2, 4]"),
            ("intersection", "[1]"),
            ("difference", "[3, 2]"),
            ("symmetric_difference", "[3, 2, 4]"),
        ] {
            assert_eq!(
                bench.says(1, Op::Relate, vec![name.into(), ints(&[1, 4])]),
                expected
            );
        }
        assert_eq!(
            bench.says(1, Op::Reduce, vec!["issuperset".into(), ints(&[1, 2])]),
            "true"
        );
        assert_eq!(
            bench.says(1, Op::Assign, vec!["difference_update".into(), ints(&[3])]),
            ""
        );
        assert_eq!(bench.says(1, Op::Items, vec![]), "[1, 2]");
        assert_eq!(bench.says(1, Op::Contains, vec![1.0_f64.into()]), "true");
        assert!(
            bench
                .says(1, Op::Remove, vec![9_i64.into()])
                .starts_with("KeyError")
        );
    }
}
