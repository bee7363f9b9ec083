//! The atomics that the crate's code is compiled with in its own tests.
//!
//! Each is the standard library's word, laid out as that is; outside of a model it behaves as that does. Inside of one, what
//! several processes use becomes a step of the model: see `machine`.

use super::machine::{Access, Route, route};
use std::sync::atomic::Ordering;

/// A fence, [`std::sync::atomic::fence`].
#[inline]
pub(crate) fn fence(order: Ordering) {
    if !super::machine::fence(order) {
        std::sync::atomic::fence(order);
    }
}

macro_rules! atomics {
    ($($name:ident, $int:ty, $uint:ty;)*) => {$(
        /// An atomic integer, as the standard library's.
        #[derive(Default)]
        #[repr(transparent)]
        pub(crate) struct $name(std::sync::atomic::$name);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        #[allow(dead_code, reason = "each of them has all that any of them needs")]
        impl $name {
            pub(crate) const fn new(value: $int) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            pub(crate) const fn as_ptr(&self) -> *mut $int {
                self.0.as_ptr()
            }

            pub(super) fn raw(&self) -> $int {
                self.0.load(Ordering::Relaxed)
            }

            fn bits(value: $int) -> u64 {
                value as $uint as u64
            }

            fn int(bits: u64) -> $int {
                bits as $uint as $int
            }

            fn route(&self, access: Access) -> Route {
                route(self.0.as_ptr() as usize, Self::bits(self.raw()), size_of::<$int>(), access)
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $int {
                match self.route(Access::Load) {
                    Route::Plain => self.0.load(order),
                    Route::Dead => self.raw(),
                    Route::Step(word) => Self::int(word.load(order)),
                }
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $int, order: Ordering) {
                match self.route(Access::Store) {
                    Route::Plain => self.0.store(value, order),
                    Route::Dead => {}
                    Route::Step(word) => word.store(Self::bits(value), order),
                }
            }

            /// The dead change nothing, and are told that they did.
            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                match self.route(Access::Modify) {
                    Route::Plain => self.0.compare_exchange(current, new, success, failure),
                    Route::Dead => Ok(current),
                    Route::Step(word) => word
                        .compare_exchange(Self::bits(current), Self::bits(new), success, failure)
                        .map(Self::int)
                        .map_err(Self::int),
                }
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut f: impl FnMut($int) -> Option<$int>,
            ) -> Result<$int, $int> {
                let mut seen = self.load(failure);
                while let Some(next) = f(seen) {
                    match self.compare_exchange(seen, next, success, failure) {
                        Ok(before) => return Ok(before),
                        Err(now) => seen = now,
                    }
                }
                Err(seen)
            }
        }

        atomics!(@rmw $name, $int:
            swap |_, new| new;
            fetch_add |old, by| <$int>::wrapping_add(old, by);
            fetch_sub |old, by| <$int>::wrapping_sub(old, by);
            fetch_and |old, with| old & with;
            fetch_or |old, with| old | with;
            fetch_max |old, other| <$int>::max(old, other);
        );
    )*};
    (@rmw $name:ident, $int:ty: $($op:ident |$old:pat_param, $arg:pat_param| $new:expr;)*) => {
        #[allow(dead_code, reason = "each of them has all that any of them needs")]
        impl $name {$(
            #[track_caller]
            pub(crate) fn $op(&self, value: $int, order: Ordering) -> $int {
                match self.route(Access::Modify) {
                    Route::Plain => self.0.$op(value, order),
                    Route::Dead => self.raw(),
                    Route::Step(word) => {
                        let new = |$old: $int, $arg: $int| $new;
                        Self::int(word.modify(
                            order,
                            |atom, order| atom.$op(Self::bits(value), order),
                            |old| Self::bits(new(Self::int(old), value)),
                        ))
                    }
                }
            }
        )*}
    };
}

atomics! {
    AtomicU8, u8, u8;
    AtomicU32, u32, u32;
    AtomicI32, i32, u32;
    AtomicU64, u64, u64;
}
