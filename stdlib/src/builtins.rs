//! The names that are always there: `print` with several values, `repr`, `sprintf`, `len`, `sum`, `id`, `input`, `str * int`.
//!
//! Where Rhai has the name already (`print` of one value, `len` of a text), its own function stays and this module adds what it
//! can't do. Source: CPython Library Reference, Built-in Functions.

use crate::api::{Registry, type_name};
use crate::error::{Error, Kind, Result, raise};
use crate::{file, formatting, items, output, range, spelling};
use rhai::{
    Array, Blob, Dynamic, FnPtr, FuncRegistration, ImmutableString, Map, NativeCallContext,
    RhaiFunc, Shared,
};
use std::any::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Rhai finds a function whatever the types of its values for so many of them; what has more comes to [`print_many`].
const MOST_FOUND: usize = 16;

/// Registers the names of this module, and those of the rooms that belong to it: files, ranges.
pub fn register(registry: &mut Registry) {
    file::register(registry);
    range::register(registry);
    register_print(registry);
    register_spelling(registry);
    register_numbers(registry);
    register_repetition(registry);
    registry.function(
        "",
        "input(prompt: any = \"\")",
        "Reads one line of standard input, without its end.\n\n\
         - `prompt`: written before, without a line end.\n\nRaises `EOFError` at the end of the input.\n\n\
         ```rhai\nfn ask() { input(\"name? \") }\n```",
        |call| {
            let prompt = call.take(0);
            let ending = || raise(Kind::EOFError, "EOF when reading a line");
            let shown = match prompt.is_unit() {
                true => String::new(),
                false => spelling::shown(call.ctx, &prompt).to_string(),
            };
            if let Some(answer) = crate::interactive::ask(&shown) {
                return answer.map(Dynamic::from).ok_or_else(ending);
            }
            if !prompt.is_unit() {
                output::write_stdout(&shown)?;
            }
            let Some(line) = file::stdin().read_line(crate::places::of_call(call.ctx))? else {
                return Err(ending());
            };
            let line = line.read_lock::<ImmutableString>().map(|line| line.clone()).unwrap_or_default();
            Ok(Dynamic::from(line.strip_suffix('\n').unwrap_or(&line).to_owned()))
        },
    );
}

fn register_print(registry: &mut Registry) {
    registry.document(
        "",
        "print(value: any = \"\")",
        "Prints any number of values, with a space between them and a line end, in one write.\n\n\
         ```rhai\nprint(\"tasks:\", 3, [1, 2]);\n```",
    );
    if !registry.wants("print") {
        return;
    }
    let module = registry.module("");
    for arity in 2..=MOST_FOUND {
        let joined = |ctx: Option<NativeCallContext<'_>>, args: &mut [&mut Dynamic]| {
            let ctx = ctx.expect("registered with a context");
            Ok(Dynamic::from(joined(&ctx, args)))
        };
        FuncRegistration::new("print")
            .in_global_namespace()
            .set_into_module_raw(
                module,
                vec![TypeId::of::<Dynamic>(); arity],
                RhaiFunc::Pure {
                    func: Shared::new(joined),
                    has_context: true,
                    is_pure: true,
                    is_volatile: true,
                },
            );
    }
}

fn joined(ctx: &NativeCallContext<'_>, args: &[&mut Dynamic]) -> String {
    let texts: Vec<String> = args
        .iter()
        .map(|value| spelling::shown(ctx, value))
        .collect();
    texts.join(" ")
}

/// `print` of more values than Rhai finds a function for.
///
/// # Errors
/// What writing throws.
pub(crate) fn print_many(ctx: &NativeCallContext<'_>, args: &[&mut Dynamic]) -> Result<Dynamic> {
    let mut line = Dynamic::from(joined(ctx, args));
    Ok(ctx.call_native_fn_raw("print", false, &mut [&mut line])?)
}

fn register_spelling(registry: &mut Registry) {
    registry.function(
        "",
        "repr(value: any)",
        "The value in Python's spelling.\n\n- `value`: anything; a host object is shown as `print` shows it.\n\n\
         ```rhai\nlet text = repr([42, (), \"hello\", true, 1.0, #{count: 0}]);\n\
         if text != \"[42, None, 'hello', True, 1.0, {'count': 0}]\" { throw text; }\n```",
        |call| {
            let value = call.take(0);
            Ok(Dynamic::from(spelling::repr(call.ctx, &value)))
        },
    );
    registry.function(
        "",
        "sprintf(format: string, args: any = [])",
        "Formats values as Python's and C's `%` does.\n\n\
         - `format`: a text with conversions `%s %r %d %i %f %e %g %x %o %c %%`, with flags, width and precision (`%-8s`, `%0.2f`), or \
         with names (`%(name)s`).\n\
         - `args`: an array of the values, one value, or an object map where the format has names.\n\n\
         Raises `TypeError` for too few, too many or unfit values, `ValueError` for a bad format, `KeyError` for a missing name.\n\n\
         ```rhai\nlet text = sprintf(\"%s runs %0.2f seconds\", [\"task\", 1.5]);\n\
         if text != \"task runs 1.50 seconds\" { throw text; }\n```",
        |call| {
            let format = call.string(0).unwrap_or_default();
            let args = if call.count() > 1 { call.take(1) } else { Dynamic::from_array(Array::new()) };
            formatting::sprintf(call.ctx, &format, args.flatten()).map(Dynamic::from)
        },
    );
}

fn register_numbers(registry: &mut Registry) {
    registry.function(
        "",
        "len(value: any)",
        "How many items a value has.\n\n- `value`: a text, an array, a blob, an object map, a range, or a host object with a length.\n\n\
         Raises `TypeError` for what has none.\n\n```rhai\nif len(\"abc\") + len([1, 2]) + len(range(5)) != 10 { throw \"len\"; }\n```",
        |call| {
            let value = call.take(0);
            let length = if let Some(length) = range::length(&value) {
                length
            } else if let Some(map) = value.read_lock::<Map>() {
                map.len() as u64
            } else {
                let name = type_name(&value);
                return Err(raise(Kind::TypeError, format!("object of type '{name}' has no len()")));
            };
            Ok(Dynamic::from(i64::try_from(length).unwrap_or(i64::MAX)))
        },
    );
    registry.function(
        "",
        "sum(items: items, start: number = 0)",
        "The sum of numbers.\n\n- `items`: whatever iterates and gives numbers.\n- `start`: what to add them to.\n\n\
         Raises `TypeError` where an item is no number, `OverflowError` where whole numbers grow too large.\n\n\
         ```rhai\nif sum([1, 2, 3]) != 6 || sum(range(4), 0.5) != 6.5 { throw \"sum\"; }\n```",
        |call| {
            let items = call.take(0);
            let start = if call.has(1) { call.take(1) } else { Dynamic::from(0_i64) };
            sum(items::collect(call.ctx, items)?, &start)
        },
    );
    registry.function(
        "",
        "id(value: any)",
        "A number for the identity of a value.\n\n\
         - `value`: a text, array, blob or object map: where it is in memory, however it changes there; a copy has \
         another. Any other value: a number that equal values share.\n\n\
         ```rhai\nif id(5) != id(5) { throw \"id\"; }\n```",
        |call| {
            let value = call.take(0);
            Ok(Dynamic::from(identity(call.ctx, &value)))
        },
    );
    // The call above gets a copy of a variable. An array's identity is that of the variable itself, empty or grown.
    let module = registry.module("");
    module.set_native_fn("id", |array: &mut Array| {
        Ok(address(std::ptr::from_ref(array)))
    });
    module.set_native_fn("id", |blob: &mut Blob| {
        Ok(address(std::ptr::from_ref(blob)))
    });
    module.set_native_fn("id", |map: &mut Map| Ok(address(std::ptr::from_ref(map))));
    module.set_native_fn("id", |text: &mut ImmutableString| {
        Ok(address(text.as_str().as_ptr()))
    });
}

fn address<T>(pointer: *const T) -> i64 {
    // Only a number: nobody can make a pointer of it again.
    i64::try_from(pointer.addr()).unwrap_or(i64::MAX)
}

fn identity(ctx: &NativeCallContext<'_>, value: &Dynamic) -> i64 {
    if let Ok(int) = value.as_int() {
        return int;
    }
    let mut hasher = DefaultHasher::new();
    if let Some(pointer) = value.read_lock::<FnPtr>() {
        pointer.fn_name().hash(&mut hasher);
    } else {
        value.type_name().hash(&mut hasher);
        spelling::repr(ctx, value).hash(&mut hasher);
    }
    i64::try_from(hasher.finish() >> 1).unwrap_or(0)
}

fn sum(items: Array, start: &Dynamic) -> Result {
    let mut total = start.clone();
    for item in items {
        let next = match (total.as_int(), number(&item)) {
            (Ok(a), Some(Number::Int(b))) => match a.checked_add(b) {
                Some(sum) => Dynamic::from(sum),
                None => {
                    return Err(raise(
                        Kind::OverflowError,
                        format!("sum(): {a} + {b} is out of range"),
                    ));
                }
            },
            (_, Some(b)) => match number(&total) {
                Some(a) => Dynamic::from(a.float() + b.float()),
                None => return Err(unfit(&total, &item)),
            },
            _ => return Err(unfit(&total, &item)),
        };
        total = next;
    }
    Ok(total)
}

fn unfit(total: &Dynamic, item: &Dynamic) -> Error {
    let (a, b) = (type_name(total), type_name(item));
    raise(
        Kind::TypeError,
        format!("unsupported operand type(s) for +: '{a}' and '{b}'"),
    )
}

enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn float(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "as Python's int + float does")]
            Number::Int(int) => *int as f64,
            Number::Float(float) => *float,
        }
    }
}

fn number(value: &Dynamic) -> Option<Number> {
    let int = value
        .as_int()
        .or_else(|_| value.as_bool().map(i64::from))
        .map(Number::Int);
    int.or_else(|_| value.as_float().map(Number::Float)).ok()
}

fn register_repetition(registry: &mut Registry) {
    registry.document(
        "",
        "repeat(text: any, count: int)",
        "`text * count` and `count * text` repeat a text; the same with a character, an array or a blob.\n\n\
         ```rhai\nif \"ab\" * 3 != \"ababab\" || [0] * 2 != [0, 0] { throw \"repeat\"; }\n```",
    );
    fn both<T: Clone + 'static>(registry: &mut Registry) {
        let repeated = |ctx: &NativeCallContext<'_>, value: T, count: i64| {
            formatting::repeat(&Dynamic::from(value), count)
                .map_err(|e| e.into_rhai(ctx.call_source(), ctx.call_position()))
        };
        let module = registry.module("");
        module.set_native_fn(
            "*",
            move |ctx: NativeCallContext<'_>, value: T, count: i64| repeated(&ctx, value, count),
        );
        module.set_native_fn(
            "*",
            move |ctx: NativeCallContext<'_>, count: i64, value: T| repeated(&ctx, value, count),
        );
    }
    both::<ImmutableString>(registry);
    both::<char>(registry);
    both::<Array>(registry);
    both::<Blob>(registry);
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, outcome, run_examples};
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn print_joins_its_values() {
        let mut engine = engine(&[super::register, crate::errors::register]);
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = lines.clone();
        engine.on_print(move |text| sink.borrow_mut().push(text.to_owned()));
        for script in [
            "print()",
            "print(1)",
            "print(\"a\", 2, true, 1.5, 'c')",
            "let x = [1, \"a\"]; print(x, #{a: 1}, ()); print(x)",
            "print(1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16)",
            "print(1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,'a',\"b\",(),20.5)",
            "print(ValueError(\"bad\"), [ValueError(\"bad\")])",
            "print(range(0, 9, 2), range(3))",
        ] {
            assert_eq!(outcome(&engine, script), "", "{script}");
        }
        let printed = lines.borrow().join("\n");
        assert_eq!(
            printed,
            "\n1\na 2 true 1.5 c\n[1, \"a\"] #{\"a\": 1} \n[1, \"a\"]\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
             1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 a b  20.5\n\
             ValueError: bad [ValueError: bad]\nrange(0, 9, 2) 0..3"
        );
    }

    #[test]
    fn maps_print_as_they_are_written() {
        let engine = engine(&[super::register]);
        let text: String = engine
            .eval("`${#{a: [1, \"x\"]}}`")
            .expect("the script runs");
        assert_eq!(text, "#{\"a\": [1, \"x\"]}");
    }

    #[test]
    fn repr_spells_like_python() {
        let engine = engine(&[super::register, crate::errors::register]);
        check(
            &engine,
            &[
                ("repr([42, (), \"hello\"])", "[42, None, 'hello']"),
                (
                    "repr(#{count: 0, \"it's\": [true, false]})",
                    "{'count': 0, \"it's\": [True, False]}",
                ),
                ("repr(1.0)", "1.0"),
                ("repr(1e16)", "1e+16"),
                ("repr('c')", "'c'"),
                ("repr(blob(2, 0x41))", "b'AA'"),
                ("repr([])", "[]"),
                ("repr(#{})", "{}"),
                ("repr(2..5)", "range(2, 5)"),
                ("repr(2..=5)", "range(2, 6)"),
                ("repr(ValueError(\"it's bad\"))", "ValueError(\"it's bad\")"),
                ("repr(Full())", "Full()"),
                ("repr([range(0, 4, 2)])", "[range(0, 4, 2)]"),
                ("fn f(x) { x } repr(f)", "<function f>"),
                (
                    "let x = [1]; let f = || x; repr(x) + repr(f)",
                    "[1]<function <lambda>>",
                ),
                ("let x = [1, 2]; repr(x); x", "[1, 2]"),
                ("repr()", "TypeError: repr(): 'value' is missing"),
                (
                    "repr(1, 2)",
                    "TypeError: repr() takes at most 1 arguments, 2 were given: repr(value: any)",
                ),
            ],
        );
    }

    #[test]
    fn the_small_ones() {
        let engine = engine(&[super::register, crate::errors::register]);
        check(
            &engine,
            &[
                ("len(\"中文\")", "2"),
                ("len([1, 2])", "2"),
                ("len(#{a: 1})", "1"),
                ("len(5)", "TypeError: object of type 'int' has no len()"),
                ("sum([1, 2, 3])", "6"),
                ("sum([1, 0.5, true])", "2.5"),
                ("sum([])", "0"),
                ("sum([1], 10)", "11"),
                (
                    "sum([\"a\"])",
                    "TypeError: unsupported operand type(s) for +: 'int' and 'string'",
                ),
                ("sum(5)", "TypeError: 'int' object is not iterable"),
                (
                    "sum([9223372036854775807, 1])",
                    "OverflowError: sum(): 9223372036854775807 + 1 is out of range",
                ),
                ("\"ab\" * 3", "ababab"),
                ("3 * \"ab\"", "ababab"),
                ("\"ab\" * -1", ""),
                ("'-' * 5", "-----"),
                ("[0, 1] * 2", "[0, 1, 0, 1]"),
                ("let s = \"ab\"; s *= 2; s", "abab"),
                (
                    "\"ab\" * 9223372036854775807",
                    "OverflowError: 9223372036854775807 times 2 bytes is more than any memory",
                ),
                (
                    "let a = [1, 2]; let x = id(a); let b = 0; x == id(a)",
                    "true",
                ),
                ("let a = [1, 2]; let b = a; id(a) == id(b)", "false"),
                ("let a = []; let b = []; id(a) == id(b)", "false"),
                (
                    "let a = []; let x = id(a); a.push(1); a.push(2); x == id(a)",
                    "true",
                ),
                (
                    "let m = #{}; let x = id(m); m.b = 1; m.a = 2; x == id(m)",
                    "true",
                ),
                (
                    "let a = \"a long enough text\"; let b = a; id(a) == id(b)",
                    "true",
                ),
                ("id(7)", "7"),
                ("id(1.5) == id(1.5) && id(1.5) != id(2.5)", "true"),
            ],
        );
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[crate::os::register, crate::errors::register],
            super::register,
        );
    }
}
