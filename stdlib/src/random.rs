//! The module `random`.
//!
//! The numbers are good enough for simulations and jitter, not for secrets (`os::urandom` is). Each process has a generator of its
//! own, seeded by the system; a forked child must call [`reseed`], or it would repeat its parent's numbers. `seed(n)` gives the
//! same numbers in every run of this version, but not Python's.
//!
//! Source: CPython Library Reference, `random`.

use crate::api::{Call, Registry};
use crate::error::{Error, Kind, raise};
use crate::{items, spelling};
use rhai::{Array, Dynamic, FuncRegistration, NativeCallContext, RhaiFunc, Shared};
use std::any::TypeId;
use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

thread_local! {
    static GENERATOR: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(system_seed()));
}

fn system_seed() -> u64 {
    // Where the system gives none (it always does on Linux) the crate's own source, time and addresses, must do.
    let mut bytes = [0; 8];
    match mphost_core::random::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => fastrand::Rng::new().u64(..),
    }
}

/// Seeds this process's generator anew: first thing in a child.
pub fn reseed() {
    with(|generator| generator.seed(system_seed()));
}

fn with<R>(use_it: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
    GENERATOR.with_borrow_mut(use_it)
}

fn empty(what: &str) -> Error {
    raise(
        Kind::IndexError,
        format!("{what}: cannot choose from an empty sequence"),
    )
}

fn normal(mu: f64, sigma: f64) -> f64 {
    // Box and Muller; 1 - x keeps the logarithm's argument above 0.
    with(|g| {
        mu + sigma * (-2.0 * (1.0 - g.f64()).ln()).sqrt() * (std::f64::consts::TAU * g.f64()).cos()
    })
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    register_numbers(registry);
    register_choices(registry);
    registry.function(
        "random",
        "seed(value: any = ())",
        "Starts the numbers of this process anew.\n\n- `value`: the same one gives the same numbers; without one the system chooses.\n\n\
         ```rhai\nrandom::seed(5);\nlet a = random::random();\nrandom::seed(5);\nif a != random::random() { throw \"seed\"; }\n```",
        |call| {
            match call.peek(0) {
                None => reseed(),
                Some(value) => {
                    let mut hasher = DefaultHasher::new();
                    match value.as_int() {
                        Ok(int) => int.hash(&mut hasher),
                        Err(_) => spelling::repr(call.ctx, value).hash(&mut hasher),
                    }
                    with(|generator| generator.seed(hasher.finish()));
                }
            }
            Ok(Dynamic::UNIT)
        },
    );
}

fn register_numbers(registry: &mut Registry) {
    registry.function(
        "random",
        "random()",
        "A number from 0.0 to before 1.0.\n\n```rhai\nlet x = random::random();\nif x < 0.0 || x >= 1.0 { throw x; }\n```",
        |_| Ok(Dynamic::from(with(fastrand::Rng::f64))),
    );
    registry.function(
        "random",
        "randint(a: int, b: int)",
        "A whole number from `a` to `b`, both included.\n\n- `a`, `b`: the bounds.\n\nRaises `ValueError` where `b` is less than `a`.\n\n\
         ```rhai\nlet x = random::randint(1, 6);\nif x < 1 || x > 6 { throw x; }\n```",
        |call| {
            let (a, b) = bounds(call);
            if a > b {
                return Err(raise(Kind::ValueError, format!("empty range in randint({a}, {b})")));
            }
            Ok(Dynamic::from(with(|g| g.i64(a..=b))))
        },
    );
    registry.function(
        "random",
        "randrange(start: int, stop: int = (), step: int = 1)",
        "A number of `range(start, stop, step)`, without making it.\n\n- `start`, `stop`, `step`: as `range` takes them.\n\n\
         Raises `ValueError` where the range is empty.\n\n```rhai\nif random::randrange(3) > 2 { throw \"randrange\"; }\n```",
        |call| {
            let (start, stop) = if call.has(1) { bounds(call) } else { (0, call.int(0).unwrap_or(0)) };
            let step = call.int(2).unwrap_or(1);
            if step == 0 {
                return Err(raise(Kind::ValueError, "zero step for randrange()"));
            }
            let range = crate::range::SteppedRange { start, stop, step };
            if range.is_empty() {
                return Err(raise(Kind::ValueError, format!("empty range in randrange({start}, {stop}, {step})")));
            }
            let index = with(|g| g.u64(0..range.len()));
            Ok(range.get(index).map(Dynamic::from).unwrap_or_default())
        },
    );
    registry.function(
        "random",
        "uniform(a: number, b: number)",
        "A number between `a` and `b`.\n\n- `a`, `b`: the bounds, in either order.\n\n\
         ```rhai\nlet x = random::uniform(1, 2.5);\nif x < 1 || x > 2.5 { throw x; }\n```",
        |call| {
            let (a, b) = (call.number(0).unwrap_or(0.0), call.number(1).unwrap_or(0.0));
            Ok(Dynamic::from(a + (b - a) * with(fastrand::Rng::f64)))
        },
    );
    registry.function(
        "random",
        "gauss(mu: number = 0.0, sigma: number = 1.0)",
        "A normally distributed number.\n\n- `mu`: the mean.\n- `sigma`: the standard deviation.\n\n\
         ```rhai\nrandom::gauss(10, 0.5);\n```",
        |call| Ok(Dynamic::from(normal(call.number(0).unwrap_or(0.0), call.number(1).unwrap_or(1.0)))),
    );
    registry.function(
        "random",
        "expovariate(lambd: number = 1.0)",
        "An exponentially distributed number: the time to the next event.\n\n- `lambd`: events in a unit of time, not 0.\n\n\
         ```rhai\nif random::expovariate(2.0) < 0.0 { throw \"expovariate\"; }\n```",
        |call| {
            let rate = call.number(0).unwrap_or(1.0);
            if rate == 0.0 {
                return Err(raise(Kind::ZeroDivisionError, "float division by zero"));
            }
            Ok(Dynamic::from(-(1.0 - with(fastrand::Rng::f64)).ln() / rate))
        },
    );
}

fn bounds(call: &Call<'_>) -> (i64, i64) {
    (call.int(0).unwrap_or(0), call.int(1).unwrap_or(0))
}

fn register_choices(registry: &mut Registry) {
    registry.function(
        "random",
        "choice(items: items)",
        "One of several items.\n\n- `items`: an array, a text, a range.\n\nRaises `IndexError` where there are none.\n\n\
         ```rhai\nlet x = random::choice([\"a\", \"b\"]);\nif x != \"a\" && x != \"b\" { throw x; }\n```",
        |call| {
            let items = call.take(0);
            let mut items = items::collect(call.ctx, items)?;
            if items.is_empty() {
                return Err(empty("choice()"));
            }
            let index = with(|g| g.usize(0..items.len()));
            Ok(items.swap_remove(index))
        },
    );
    registry.function(
        "random",
        "choices(items: items, k: int = 1)",
        "Several of several items, each as often as it comes.\n\n- `items`: what to choose from.\n- `k`: how many.\n\n\
         Raises `IndexError` where there are no items.\n\n```rhai\nif random::choices([1], 3) != [1, 1, 1] { throw \"choices\"; }\n```",
        |call| {
            let items = call.take(0);
            let items = items::collect(call.ctx, items)?;
            if items.is_empty() {
                return Err(empty("choices()"));
            }
            let count = usize::try_from(call.int(1).unwrap_or(1)).unwrap_or(0);
            Ok(Dynamic::from_array((0..count).map(|_| items[with(|g| g.usize(0..items.len()))].clone()).collect()))
        },
    );
    registry.function(
        "random",
        "sample(items: items, k: int)",
        "Several different ones of several items, in random order.\n\n- `items`: what to choose from.\n- `k`: how many.\n\n\
         Raises `ValueError` where there aren't so many.\n\n\
         ```rhai\nif random::sample(range(100), 5).len() != 5 { throw \"sample\"; }\n```",
        |call| {
            let items = call.take(0);
            let mut items = items::collect(call.ctx, items)?;
            match usize::try_from(call.int(1).unwrap_or(0)) {
                Ok(count) if count <= items.len() => {
                    with(|g| g.shuffle(&mut items));
                    items.truncate(count);
                    Ok(Dynamic::from_array(items))
                }
                _ => Err(raise(Kind::ValueError, "Sample larger than population or is negative")),
            }
        },
    );
    register_shuffle(registry);
}

fn register_shuffle(registry: &mut Registry) {
    registry.document(
        "random",
        "shuffle(items: array)",
        "Puts the items of an array in random order, in place; the array is also the call's value.\n\n\
         - `items`: a variable that holds an array. What is no variable itself (a constant, a property, an item of another array) is \
         passed as a copy: use the value there.\n\nRaises `TypeError` for what is no array.\n\n\
         ```rhai\nlet cards = [1, 2, 3];\nrandom::shuffle(cards);\nif sum(cards) != 6 { throw cards; }\n```",
    );
    // A method in Rhai's terms: only those get the variable itself.
    let shuffle = |ctx: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| {
        let ctx = ctx.expect("registered with a context");
        let got = crate::api::type_name(args[0]);
        let shuffled = match args[0].write_lock::<Array>() {
            Some(mut array) => {
                with(|g| g.shuffle(&mut array));
                Ok(Dynamic::from_array(array.clone()))
            }
            None => Err(raise(
                Kind::TypeError,
                format!("shuffle(): 'items' must be an array, not {got}"),
            )),
        };
        shuffled.map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
    };
    FuncRegistration::new("shuffle").set_into_module_raw(
        registry.module("random"),
        [TypeId::of::<Dynamic>()],
        RhaiFunc::Method {
            func: Shared::new(shuffle),
            has_context: true,
            is_pure: true,
            is_volatile: true,
        },
    );
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, outcome, run_examples};

    #[test]
    fn random_numbers_in_scripts() {
        let engine = engine(&[
            crate::builtins::register,
            crate::errors::register,
            super::register,
        ]);
        check(
            &engine,
            &[
                (
                    "for i in 0..1000 { let x = random::randint(-2, 2); if x < -2 || x > 2 { throw x; } }",
                    "",
                ),
                (
                    "let seen = []; for i in 0..200 { let x = random::randint(1, 3); if x !in seen { seen.push(x); } } seen.len()",
                    "3",
                ),
                (
                    "random::randint(3, 2)",
                    "ValueError: empty range in randint(3, 2)",
                ),
                (
                    "random::randint(1.5, 2)",
                    "TypeError: randint(): 'a' must be a whole number, not float",
                ),
                ("random::randint(1)", "TypeError: randint(): 'b' is missing"),
                (
                    "random::randint(1, 2, 3)",
                    "TypeError: randint() takes at most 2 arguments, 3 were given: randint(a: int, b: int)",
                ),
                ("random::randint()", "TypeError: randint(): 'a' is missing"),
                (
                    "random::randrange(0)",
                    "ValueError: empty range in randrange(0, 0, 1)",
                ),
                ("random::randrange(7, 8, 5)", "7"),
                (
                    "random::choice([])",
                    "IndexError: choice(): cannot choose from an empty sequence",
                ),
                ("random::choice([5])", "5"),
                ("random::choice(range(3, 4))", "3"),
                (
                    "let a = [1, 2, 3, 4]; random::shuffle(a); a.sort(); a",
                    "[1, 2, 3, 4]",
                ),
                (
                    "random::seed(1); let a = []; for i in 0..50 { a.push(i); } let b = a; random::shuffle(a); a != b && a.len() == 50",
                    "true",
                ),
                ("let a = [1, 2]; let b = random::shuffle(a); a == b", "true"),
                ("let a = #{b: [1, 2]}; random::shuffle(a.b).len()", "2"),
                ("const A = [1, 2]; random::shuffle(A).len() + A[0]", "3"),
                (
                    "random::shuffle(5)",
                    "TypeError: shuffle(): 'items' must be an array, not int",
                ),
                (
                    "let s = random::sample([1, 2, 3], 3); s.sort(); s",
                    "[1, 2, 3]",
                ),
                (
                    "random::sample([1], 2)",
                    "ValueError: Sample larger than population or is negative",
                ),
                (
                    "random::seed(7); let a = random::random(); random::seed(7); a == random::random()",
                    "true",
                ),
                (
                    "random::seed(\"x\"); let a = random::random(); random::seed(\"x\"); a == random::random()",
                    "true",
                ),
                (
                    "let f = random::random; let x = f.call(); x >= 0.0 && x < 1.0",
                    "true",
                ),
            ],
        );
    }

    #[test]
    fn reseeding_makes_other_numbers() {
        let engine = engine(&[super::register]);
        let numbers = |engine| {
            outcome(engine, "random::seed(1)");
            super::reseed();
            outcome(engine, "[random::random(), random::random()]")
        };
        assert_ne!(numbers(&engine), numbers(&engine));
    }

    #[test]
    fn the_mean_is_about_right() {
        let engine = engine(&[super::register]);
        let script = "random::seed(3); let n = 0.0; for i in 0..2000 { n += random::gauss(5, 1); } n / 2000 > 4.5 && n / 2000 < 5.5";
        assert_eq!(outcome(&engine, script), "true");
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[crate::builtins::register, crate::os::register],
            super::register,
        );
    }
}
