//! What a forked child needn't be told, since it has it in memory.
//!
//! Problem: a forked child's arguments are written into its bootstrap message and read from it, as any child's. Of a mebibyte that is two copies,
//! and a page fault for every 4 KiB of each. The kernel gives the child all of its parent's memory anyway, and copies what one of
//! the two changes.
//!
//! Invariant: what is left out of the message is plain data, of which a copy in memory can't be told from one that has travelled.

use mphost_core::wire::DEPTH_LIMIT;
use rhai::{Array, Blob, Dynamic, ImmutableString, Map};

/// Arguments of fewer bytes, about, aren't worth it.
const LARGE: usize = 16 << 10;

/// Arguments that aren't in a message, each with its place among them all.
#[derive(Default)]
pub(super) struct InMemory(Vec<(usize, Dynamic)>);

impl InMemory {
    /// Takes the large ones out of `args`, as far as they are plain data.
    pub(super) fn take(args: &mut [Dynamic]) -> Self {
        let is_large = |value: &Dynamic| size(value, 1).is_some_and(|size| size >= LARGE);
        let places = args.iter_mut().enumerate();
        Self(
            places
                .filter(|(_, value)| is_large(value))
                .map(|(place, value)| (place, value.take()))
                .collect(),
        )
    }

    /// Puts them where they were, and has none of them any more.
    pub(super) fn put_back(&mut self, args: &mut [Dynamic]) {
        for (place, value) in self.0.drain(..) {
            if let Some(room) = args.get_mut(place) {
                *room = value;
            }
        }
    }
}

/// Whether a value is plain data that can travel: no objects, functions or descriptors in it.
pub(super) fn is_plain(value: &Dynamic) -> bool {
    size(value, 0).is_some()
}

/// How much memory a value takes, about, if it is plain data and no deeper than what can travel; it stands in so many containers.
fn size(value: &Dynamic, depth: u32) -> Option<usize> {
    // Two that are shared would still be one.
    if value.is_shared() || depth > DEPTH_LIMIT {
        return None;
    }
    let inner = if let Some(blob) = value.read_lock::<Blob>() {
        blob.len()
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        text.len()
    } else if let Some(array) = value.read_lock::<Array>() {
        sum(array.iter(), depth)?
    } else if let Some(map) = value.read_lock::<Map>() {
        sum(map.values(), depth)?
    } else if value.is_unit()
        || value.is_int()
        || value.is_float()
        || value.is_bool()
        || value.is_char()
    {
        0
    } else {
        return None;
    };
    Some(inner + size_of::<Dynamic>())
}

fn sum<'a>(mut values: impl Iterator<Item = &'a Dynamic>, depth: u32) -> Option<usize> {
    values.try_fold(0, |sum, value| Some(sum + size(value, depth + 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Encoder;
    use rhai::FnPtr;

    #[test]
    fn large_plain_data_stays_in_memory() {
        let large = || Dynamic::from_array(vec![Dynamic::from(1_i64); 2000]);
        let with = |value: Dynamic| Dynamic::from_array(vec![large(), value]);
        let function = Dynamic::from(FnPtr::new("f").unwrap());
        let shared = large().into_shared();
        let before = [
            Dynamic::from_blob(vec![7; LARGE]),
            Dynamic::from_blob(vec![7; 100]),
            Dynamic::from("x".repeat(LARGE)),
            large(),
            with(Dynamic::from(2.5)),
            with(function),
            with(shared.clone()),
            shared,
        ];
        let mut args = before.to_vec();
        let mut kept = InMemory::take(&mut args);
        let places: Vec<usize> = kept.0.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 2, 3, 4]);
        assert!(args[3].is_unit() && args[6].is_array());
        kept.put_back(&mut args);
        assert!(kept.0.is_empty());
        for (now, before) in args.iter().zip(&before) {
            assert_eq!(format!("{now:?}"), format!("{before:?}"));
        }
    }

    #[test]
    fn what_nests_too_deeply_is_left_to_be_refused() {
        let nested = |levels| {
            (0..levels).fold(Dynamic::from_blob(vec![7; LARGE]), |inner, _| {
                Dynamic::from_array(vec![inner])
            })
        };
        for levels in [0, 10, DEPTH_LIMIT - 1, DEPTH_LIMIT, DEPTH_LIMIT + 1] {
            let travels = |value: &Dynamic| Encoder::new().value_at("value", value).is_ok();
            let value = nested(levels);
            assert_eq!(is_plain(&value), travels(&value), "{levels}");
            let args = Dynamic::from_array(vec![value.clone()]);
            let kept = InMemory::take(&mut [value]);
            assert_eq!(kept.0.len() == 1, travels(&args), "{levels}");
        }
    }
}
