//! A library to preload (ld.so(8)) into a program for which the system's clock jumps forth and back by two days ten times a second; every other
//! clock is as it is. Built by `tests/clock.rs`, with nothing but rustc.

use std::ffi::{c_int, c_long, c_void};

#[repr(C)]
pub struct Time {
    seconds: i64,
    /// Nanoseconds, or microseconds for gettimeofday(2).
    fraction: i64,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const REALTIME: c_int = 0;
const MONOTONIC: c_int = 1;
const REALTIME_COARSE: c_int = 5;
const DAY: i64 = 86_400;

fn true_time(clock: c_int) -> Time {
    let mut time = Time {
        seconds: 0,
        fraction: 0,
    };
    // SAFETY: clock_gettime(2) writes a time to a valid place.
    unsafe { syscall(CLOCK_GETTIME, c_long::from(clock), &raw mut time) };
    time
}

fn time_of(clock: c_int) -> Time {
    let mut time = true_time(clock);
    if clock == REALTIME || clock == REALTIME_COARSE {
        let forth = true_time(MONOTONIC).fraction / 100_000_000 % 2 == 0;
        time.seconds += if forth { DAY } else { -DAY };
    }
    time
}

/// # Safety
/// As clock_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { time.write(time_of(clock)) };
    0
}

/// # Safety
/// As gettimeofday(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Time, _zone: *mut c_void) -> c_int {
    let mut now = time_of(REALTIME);
    now.fraction /= 1000;
    // SAFETY: the caller's promise.
    unsafe { time.write(now) };
    0
}

/// # Safety
/// As time(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(place: *mut i64) -> i64 {
    let now = time_of(REALTIME).seconds;
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(now) };
    }
    now
}
