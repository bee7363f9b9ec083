//! The module `time`.
//!
//! `monotonic` and `perf_counter` are one clock, the same in every process of the machine, so their values can be compared across
//! processes. `sleep` is one of the core's waits: signals and callbacks are looked after meanwhile.
//!
//! Source: CPython Library Reference, `time`; strftime(3).

use crate::api::{Call, Registry};
use crate::error::{Error, Kind, Result, raise};
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use mphost_core::clock;
use mphost_core::wait;
use rhai::{Dynamic, Map, NativeCallContext};
use std::time::Duration;

const ASCTIME: &str = "%a %b %e %H:%M:%S %Y";

fn wrong(error: &jiff::Error) -> Error {
    raise(Kind::ValueError, error.to_string())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a float of seconds is what Python gives, too"
)]
fn seconds(nanoseconds: i128) -> Dynamic {
    Dynamic::from(nanoseconds as f64 / 1e9)
}

fn whole(nanoseconds: i128) -> Dynamic {
    Dynamic::from(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}

/// The point in time of an optional argument: seconds since 1970, or now.
fn instant(call: &Call<'_>, index: usize) -> Result<Timestamp> {
    let Some(seconds) = call.number(index) else {
        return Ok(Timestamp::now());
    };
    if !seconds.is_finite() {
        return Err(raise(
            Kind::ValueError,
            format!("{}: {seconds:?} is no point in time", call.ctx.fn_name()),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what doesn't fit saturates, and is out of range below"
    )]
    let micros = (seconds * 1e6).floor() as i64;
    Timestamp::from_microsecond(micros).map_err(|_| {
        raise(
            Kind::OverflowError,
            format!("{}: {seconds:?} is out of range", call.ctx.fn_name()),
        )
    })
}

/// What `localtime` gives, as Python's `struct_time` names it.
fn taken_apart(time: &Zoned) -> Map {
    let mut map = Map::new();
    let mut field = |name: &str, value: i64| {
        map.insert(name.into(), Dynamic::from(value));
    };
    field("tm_year", time.year().into());
    field("tm_mon", time.month().into());
    field("tm_mday", time.day().into());
    field("tm_hour", time.hour().into());
    field("tm_min", time.minute().into());
    field("tm_sec", time.second().into());
    field("tm_wday", time.weekday().to_monday_zero_offset().into());
    field("tm_yday", time.day_of_year().into());
    let summer = time
        .time_zone()
        .to_offset_info(time.timestamp())
        .dst()
        .is_dst();
    field("tm_isdst", summer.into());
    map
}

/// The inverse of [`taken_apart`], in the local time zone.
fn put_together(map: &Map) -> Result<Zoned> {
    let field = |name: &str, least: i64| -> Result<i64> {
        match map.get(name) {
            None => Ok(least),
            Some(value) => value
                .as_int()
                .map_err(|_| raise(Kind::TypeError, format!("'{name}' must be a whole number"))),
        }
    };
    let small = |name: &str, least: i64| -> Result<i8> {
        i8::try_from(field(name, least)?)
            .map_err(|_| raise(Kind::ValueError, format!("'{name}' is out of range")))
    };
    let year = i16::try_from(field("tm_year", 1970)?)
        .map_err(|_| raise(Kind::ValueError, "year out of range"))?;
    DateTime::new(
        year,
        small("tm_mon", 1)?,
        small("tm_mday", 1)?,
        small("tm_hour", 0)?,
        small("tm_min", 0)?,
        // A leap second reads as the one before it.
        small("tm_sec", 0)?.min(59),
        0,
    )
    .and_then(|time| time.to_zoned(TimeZone::system()))
    .map_err(|error| wrong(&error))
}

/// An optional argument: an object map as `localtime` gives it, seconds since 1970, or now.
fn moment(call: &Call<'_>, index: usize) -> Result<Zoned> {
    match call.peek(index) {
        Some(value) if value.is_map() => {
            put_together(&value.read_lock::<Map>().expect("it is a map"))
        }
        Some(value) if !value.is_int() && !value.is_float() => {
            let got = crate::api::type_name(value);
            Err(raise(
                Kind::TypeError,
                format!("a time is an object map or a number of seconds, not {got}"),
            ))
        }
        _ => Ok(instant(call, index)?.to_zoned(TimeZone::system())),
    }
}

fn formatted(format: &str, time: &Zoned) -> Result {
    BrokenDownTime::from(time)
        .to_string(format)
        .map(Dynamic::from)
        .map_err(|error| wrong(&error))
}

fn sleep(ctx: &NativeCallContext<'_>, seconds: f64) -> Result<()> {
    // Longer than this is for ever.
    let duration =
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
    Ok(wait::sleep(duration, crate::places::of_call(ctx))?)
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    register_clocks(registry);
    registry.function(
        "time",
        "sleep(seconds: number)",
        "Waits. Signals' handlers and pools' callbacks run meanwhile. Rhai's own `sleep(seconds)` is the same.\n\n- `seconds`: how long; a negative number is 0.\n\n\
         ```rhai\ntime::sleep(0);\n```",
        |call| {
            sleep(call.ctx, call.seconds(0).unwrap_or(0.0))?;
            Ok(Dynamic::UNIT)
        },
    );
    // Rhai's own call of that name sleeps whatever happens.
    registry
        .module("")
        .set_native_fn("sleep", |ctx: NativeCallContext<'_>, seconds: i64| {
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds need no more than 53 bits"
            )]
            let seconds = seconds as f64;
            sleep(&ctx, seconds.max(0.0))
                .map_err(|e| e.into_rhai(ctx.call_source(), ctx.call_position()))
        });
    registry
        .module("")
        .set_native_fn("sleep", |ctx: NativeCallContext<'_>, seconds: f64| {
            sleep(&ctx, seconds.max(0.0))
                .map_err(|e| e.into_rhai(ctx.call_source(), ctx.call_position()))
        });
    registry.function(
        "time",
        "strftime(format: string, time: any = ())",
        "A point in time as text, in the local time zone.\n\n- `format`: `%Y-%m-%d %H:%M:%S` and the other conversions of C.\n\
         - `time`: an object map as `time::localtime` gives it, or seconds since 1970; now if left out.\n\n\
         Raises `ValueError` for a bad format or time.\n\n```rhai\nif time::strftime(\"%Y\").len() != 4 { throw \"year\"; }\n```",
        |call| {
            let format = call.string(0).unwrap_or_default();
            formatted(&format, &moment(call, 1)?)
        },
    );
    registry.function(
        "time",
        "asctime(time: any = ())",
        "A point in time as `Sun Jun 20 23:21:05 1993`, in the local time zone.\n\n- `time`: as for `strftime`; now if left out.\n\n\
         ```rhai\nif time::asctime().len() != 24 { throw time::asctime(); }\n```",
        |call| formatted(ASCTIME, &moment(call, 0)?),
    );
    registry.function(
        "time",
        "ctime(seconds: number = ())",
        "The same for seconds since 1970; now if left out.\n\n- `seconds`: the point in time.\n\n\
         ```rhai\nif time::ctime(0).len() != 24 { throw time::ctime(0); }\n```",
        |call| formatted(ASCTIME, &instant(call, 0)?.to_zoned(TimeZone::system())),
    );
    registry.function(
        "time",
        "localtime(seconds: number = ())",
        "A point in time taken apart, in the local time zone: an object map of `tm_year`, `tm_mon`, `tm_mday`, `tm_hour`, `tm_min`, \
         `tm_sec`, `tm_wday` (Monday is 0), `tm_yday`, `tm_isdst`.\n\n- `seconds`: since 1970; now if left out.\n\n\
         ```rhai\nif time::localtime().tm_year < 2000 { throw \"year\"; }\n```",
        |call| Ok(Dynamic::from_map(taken_apart(&instant(call, 0)?.to_zoned(TimeZone::system())))),
    );
    registry.function(
        "time",
        "gmtime(seconds: number = ())",
        "The same in universal time.\n\n- `seconds`: since 1970; now if left out.\n\n\
         ```rhai\nif time::gmtime(0).tm_year != 1970 { throw \"year\"; }\n```",
        |call| {
            Ok(Dynamic::from_map(taken_apart(
                &instant(call, 0)?.to_zoned(TimeZone::UTC),
            )))
        },
    );
    registry.function(
        "time",
        "mktime(time: map)",
        "The seconds since 1970 of a point in time that is taken apart.\n\n- `time`: as `time::localtime` gives it.\n\n\
         ```rhai\nif time::mktime(time::localtime(86400)) != 86400.0 { throw \"mktime\"; }\n```",
        |call| {
            let map = call.map(0);
            Ok(seconds(put_together(&map)?.timestamp().as_nanosecond()))
        },
    );
}

fn register_clocks(registry: &mut Registry) {
    registry.function(
        "time",
        "time()",
        "The seconds since 1970 began, universal time.\n\n```rhai\nif time::time() < 1e9 { throw \"time\"; }\n```",
        |_| Ok(seconds(Timestamp::now().as_nanosecond())),
    );
    registry.function(
        "time",
        "time_ns()",
        "The same in nanoseconds, a whole number.\n\n```rhai\nif time::time_ns() < 1 { throw \"time\"; }\n```",
        |_| Ok(whole(Timestamp::now().as_nanosecond())),
    );
    for (float, nanoseconds) in [
        ("monotonic()", "monotonic_ns()"),
        ("perf_counter()", "perf_counter_ns()"),
    ] {
        registry.function(
            "time",
            float,
            "The seconds on a clock that never goes back and that all processes share. Only differences mean something.\n\n\
             ```rhai\nlet from = time::monotonic();\nif time::perf_counter() < from { throw \"clock\"; }\n```",
            |_| Ok(seconds(clock::now().into())),
        );
        registry.function(
            "time",
            nanoseconds,
            "The nanoseconds on that clock, a whole number.\n\n```rhai\nif time::monotonic_ns() < 1 { throw \"clock\"; }\n```",
            |_| Ok(whole(clock::now().into())),
        );
    }
    registry.function(
        "time",
        "process_time()",
        "The seconds of processor time that this process has used.\n\n```rhai\nif time::process_time() < 0.0 { throw \"clock\"; }\n```",
        |_| {
            let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
                .map_err(|errno| crate::core_error::os("clock_gettime", errno as i32, None))?;
            Ok(seconds(i128::from(used.tv_sec()) * 1_000_000_000 + i128::from(used.tv_nsec())))
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, engine, outcome, run_examples};

    #[test]
    fn times_in_scripts() {
        let engine = engine(&[crate::builtins::register, crate::errors::register, register]);
        check(
            &engine,
            &[
                (
                    "let t = time::gmtime(1000000000); [t.tm_year, t.tm_mon, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, t.tm_wday, t.tm_yday, t.tm_isdst]",
                    "[2001, 9, 9, 1, 46, 40, 6, 252, 0]",
                ),
                (
                    "time::asctime(#{tm_year: 1993, tm_mon: 6, tm_mday: 5, tm_hour: 23, tm_min: 21, tm_sec: 5})",
                    "Sat Jun  5 23:21:05 1993",
                ),
                (
                    "time::strftime(\"%Y-%m-%d %H:%M:%S %j %a %A %b %B %p %I %%\", #{tm_year: 2024, tm_mon: 2, tm_mday: 29, tm_hour: 13, tm_min: 5, tm_sec: 9})",
                    "2024-02-29 13:05:09 060 Thu Thursday Feb February PM 01 %",
                ),
                ("time::mktime(time::localtime(1234567890))", "1234567890.0"),
                (
                    "time::ctime(1234567890) == time::asctime(time::localtime(1234567890))",
                    "true",
                ),
                ("time::strftime(\"%s\", 5)", "5"),
                (
                    "time::strftime(\"%\")",
                    "ValueError: strftime formatting failed: invalid format string, expected byte after `%`, but found end of format string",
                ),
                (
                    "time::strftime(\"%Y\", \"now\")",
                    "TypeError: a time is an object map or a number of seconds, not string",
                ),
                (
                    "time::mktime(#{tm_mon: 13})",
                    "ValueError: parameter 'month' is not in the required range of 1..=12",
                ),
                (
                    "time::ctime(1e300)",
                    "OverflowError: ctime: 1e300 is out of range",
                ),
                (
                    "let a = time::monotonic(); let b = time::perf_counter(); b >= a && b - a < 100.0",
                    "true",
                ),
                (
                    "let a = time::time_ns(); let b = time::time(); b - a / 1000000000 < 100.0",
                    "true",
                ),
                (
                    "time::sleep(\"x\")",
                    "TypeError: sleep(): 'seconds' must be a number, not string",
                ),
                ("time::sleep()", "TypeError: sleep(): 'seconds' is missing"),
            ],
        );
    }

    #[test]
    fn sleeping_takes_its_time() {
        let engine = engine(&[register]);
        let script = "let from = time::monotonic(); time::sleep(0.05); time::sleep(-5); time::monotonic() - from >= 0.05";
        assert_eq!(outcome(&engine, script), "true");
    }

    #[test]
    fn the_examples_run() {
        run_examples(&[crate::builtins::register, crate::os::register], register);
    }
}
