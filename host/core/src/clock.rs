//! The one place where time comes from.
//!
//! Every wait of this crate takes a [`Deadline`], an absolute moment of CLOCK_MONOTONIC, so that
//! a wait that is interrupted and resumed never lasts longer than it was asked to. The clock is
//! the same in all processes of the machine.

use std::time::Duration;

const NANOS: u64 = 1_000_000_000;
/// The latest deadline that the kernel is asked for; what lies beyond counts as never.
const FAR: u64 = i64::MAX as u64 / 2;

/// Nanoseconds of CLOCK_MONOTONIC, the same clock in every process (clock_gettime(2)).
#[must_use]
pub fn now() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid place for the result, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * NANOS + t.tv_nsec as u64
}

/// Until when an operation may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// Wait for ever.
    pub const NEVER: Self = Self(u64::MAX);
    /// Don't wait at all.
    pub const NOW: Self = Self(0);

    /// So long from now. What lies centuries ahead is [`Deadline::NEVER`].
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        if duration.is_zero() {
            return Self::NOW;
        }
        match u64::try_from(duration.as_nanos()) {
            Ok(nanos) if nanos < FAR => Self((now() + nanos).max(1)),
            _ => Self::NEVER,
        }
    }

    /// The moment at which [`now`] gives `nanos`.
    pub(crate) fn at(nanos: u64) -> Self {
        Self(nanos.max(1))
    }

    /// So many seconds from now; negative and NaN are [`Deadline::NOW`].
    #[must_use]
    pub fn after_secs(seconds: f64) -> Self {
        if seconds.is_nan() || seconds <= 0.0 {
            return Self::NOW;
        }
        Duration::try_from_secs_f64(seconds).map_or(Self::NEVER, Self::after)
    }

    /// Python's pair of arguments: not blocking is now, no timeout is never.
    #[must_use]
    pub fn from_timeout(block: bool, timeout: Option<f64>) -> Self {
        match (block, timeout) {
            (false, _) => Self::NOW,
            (true, None) => Self::NEVER,
            (true, Some(seconds)) => Self::after_secs(seconds),
        }
    }

    /// Whether this is [`Deadline::NEVER`].
    #[must_use]
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    /// Whether this is [`Deadline::NOW`].
    #[must_use]
    pub fn is_now(self) -> bool {
        self == Self::NOW
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self == Self::NOW || (self != Self::NEVER && now() >= self.0)
    }

    /// How long it is until then; `None` for never.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        if self.is_never() {
            return None;
        }
        Some(Duration::from_nanos(self.0.saturating_sub(now())))
    }

    /// The moment as the kernel wants it (absolute, CLOCK_MONOTONIC); `None` for never.
    pub(crate) fn to_timespec(self) -> Option<libc::timespec> {
        if self.is_never() {
            return None;
        }
        Some(libc::timespec {
            tv_sec: (self.0 / NANOS) as libc::time_t,
            tv_nsec: (self.0 % NANOS) as libc::c_long,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_now_and_never() {
        assert!(Deadline::after_secs(f64::INFINITY).is_never());
        assert!(Deadline::after_secs(1e300).is_never());
        assert!(Deadline::after_secs(-1.0).has_passed());
        assert!(Deadline::after_secs(f64::NAN).has_passed());
        assert!(Deadline::after(Duration::MAX).is_never());
        assert!(!Deadline::after_secs(1e6).has_passed());
        assert!(Deadline::from_timeout(false, Some(9.0)).is_now());
        assert!(Deadline::from_timeout(true, None).is_never());
    }
}
