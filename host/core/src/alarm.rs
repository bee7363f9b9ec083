//! One alarm clock a process: attention at a moment, whatever the process does then.
//!
//! A wait has its own deadline. What must happen at a certain time while the script merely computes (a
//! pool's task that takes too long) needs a signal: a POSIX timer sends one, its handler raises
//! attention, and the interrupt hook runs at the script's next step.
//!
//! Invariants: at most one timer a process; a forked child begins without any (timer_create(2)).

use crate::clock::Deadline;
use crate::deadlock;
use crate::error::{CoreError, Result};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use std::cell::RefCell;

thread_local! {
    /// The timer, and the process that made it: a forked child has none.
    static TIMER: RefCell<Option<(u32, Timer)>> = const { RefCell::new(None) };
}

/// Raises attention at `deadline`, instead of what was set before; never means not at all.
///
/// # Errors
/// `Os` from timer_create(2), timer_settime(2).
pub fn set(deadline: Deadline) -> Result<()> {
    TIMER.with_borrow_mut(|slot| {
        let me = std::process::id();
        if slot.as_ref().is_some_and(|(owner, _)| *owner != me)
            && let Some(parents) = slot.take()
        {
            // Its number may be that of nothing, or of a new timer: dropping would delete that.
            std::mem::forget(parents);
        }
        let at = match deadline.remaining() {
            // 0 would stop the timer.
            Some(left) => TimeSpec::from_duration(left.max(std::time::Duration::from_nanos(1))),
            None => TimeSpec::new(0, 0),
        };
        if slot.is_none() {
            if deadline.is_never() {
                return Ok(());
            }
            // The signal of kicks: its handler raises attention and says nothing else.
            let event = SigEvent::new(SigevNotify::SigevSignal {
                signal: Signal::SIGURG,
                si_value: 0,
            });
            let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)
                .map_err(|e| CoreError::os("timer_create", e as i32))?;
            *slot = Some((me, timer));
        }
        match slot {
            Some((_, timer)) => {
                deadlock::expect_timer(deadlock::Timer::Own, deadline);
                timer
                    .set(Expiration::OneShot(at), TimerSetTimeFlags::empty())
                    .map_err(|e| CoreError::os("timer_settime", e as i32))
            }
            None => Ok(()),
        }
    })
}
