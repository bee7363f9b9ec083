//! What it costs to move memory that processes share: a mebibyte from one to another, a million numbers into this one.
//!
//! Invariant: who waits for the other side gives up its CPU after a while ([`until`]), so that both can share one.

use super::children::{Child, Line, Shareable, shared, until};
use super::handoffs::MEBIBYTE;
use super::{Figure, mean};
use std::hint::black_box;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

/// The mebibytes that fit into the ring.
const SLOTS: u32 = 8;

/// How many numbers an array has.
const NUMBERS: usize = 1_000_000;

/// The other process copies into the next free slot of a ring, this one copies out of it. The two count the slots that they are through
/// with; the counters may overflow.
pub(super) fn shared_mebibyte() -> Figure {
    let lines = shared::<Line>(2)?;
    let (filled, emptied) = (&lines[0].0, &lines[1].0);
    let memory = shared::<AtomicU8>(SLOTS as usize * MEBIBYTE)?;
    let slot = |number: u32| {
        let start = (number % SLOTS) as usize * MEBIBYTE;
        &memory[start..start + MEBIBYTE]
    };
    let ahead = |of: &AtomicU32, number: u32| of.load(Ordering::Acquire).wrapping_sub(number);
    let _other = Child::start(|| {
        let message = vec![7; MEBIBYTE];
        for number in (0..=u32::MAX).cycle() {
            until(|| number.wrapping_sub(emptied.load(Ordering::Acquire)) < SLOTS);
            // SAFETY: the slot is free: the other side has released this counter after its last use of it.
            unsafe { copy_in(slot(number), &message) };
            filled.store(number.wrapping_add(1), Ordering::Release);
        }
        Ok(())
    })?;
    let (mut number, mut room) = (0_u32, vec![0; MEBIBYTE]);
    let figure = mean(1, || {
        until(|| ahead(filled, number) > 0);
        // SAFETY: the slot is full: the other side has released its counter after it filled it, and doesn't touch it before this side
        // counts on.
        unsafe { copy_out(slot(number), &mut room) };
        number = number.wrapping_add(1);
        emptied.store(number, Ordering::Release);
        Ok(())
    })?;
    if black_box(room).iter().all(|byte| *byte == 7) {
        Ok(figure)
    } else {
        Err("what came isn't what was sent".to_owned())
    }
}

/// The numbers from 0, in shared memory.
fn numbers() -> Result<&'static [AtomicI32], String> {
    let numbers = shared::<AtomicI32>(NUMBERS)?;
    for (number, place) in (0..).zip(numbers) {
        place.store(number, Ordering::Relaxed);
    }
    Ok(numbers)
}

/// Each number is read by itself, as who indexes does: the compiler joins no atomic reads, not even relaxed ones, which cost no more than
/// others.
pub(super) fn array_sum() -> Figure {
    let numbers = numbers()?;
    mean(1, || {
        let read = |place: &AtomicI32| i64::from(place.load(Ordering::Relaxed));
        let sum: i64 = numbers.iter().map(read).sum();
        if sum == NUMBERS as i64 * (NUMBERS as i64 - 1) / 2 {
            Ok(())
        } else {
            Err(format!("the sum is {sum}"))
        }
    })
}

pub(super) fn array_copy() -> Figure {
    let numbers = numbers()?;
    let mut room = vec![0; NUMBERS];
    mean(1, || {
        // SAFETY: no other process has this memory.
        unsafe { copy_out(numbers, black_box(&mut room)) };
        Ok(())
    })
}

/// An atomic cell of a plain number.
///
/// # Safety
/// The cell must have the layout of `Plain`, every value of which is valid for it and the other way round.
unsafe trait Atomic: Shareable {
    type Plain: Copy;
}

// SAFETY: the standard library promises the same representation.
unsafe impl Atomic for AtomicU8 {
    type Plain = u8;
}
// SAFETY: as above.
unsafe impl Atomic for AtomicI32 {
    type Plain = i32;
}

/// Copies into shared memory.
///
/// # Safety
/// No other process may look at it meanwhile.
unsafe fn copy_in<A: Atomic>(to: &[A], from: &[A::Plain]) {
    assert_eq!(to.len(), from.len());
    let start = to.as_ptr().cast::<A::Plain>().cast_mut();
    // SAFETY: both are that long and laid out alike (`Atomic`). The cells may be changed through a shared reference (`Shareable`), so they
    // don't overlap `from`, which nobody may change. That nobody else uses them is the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), start, from.len()) }
}

/// Copies out of shared memory.
///
/// # Safety
/// No other process may change it meanwhile.
unsafe fn copy_out<A: Atomic>(from: &[A], to: &mut [A::Plain]) {
    assert_eq!(from.len(), to.len());
    let start = from.as_ptr().cast::<A::Plain>();
    // SAFETY: both are that long and laid out alike (`Atomic`), and `to` is exclusive, so they don't overlap. That nobody writes is the
    // caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(start, to.as_mut_ptr(), to.len()) }
}
