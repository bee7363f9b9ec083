//! Rhai's own library of functions, as far as a program can call it.
//!
//! Problem: the library has 1,500 functions, most of them the same for each of ten types of numbers, and a process that is executed anew
//! registers them all before it does anything else. Programs call a handful, and make numbers of two types.
//!
//! Rhai keeps tables of its library from which functions are registered one by one, and gives everybody a way to leave some out:
//! copying the functions of an [`AST`] with a filter.
//!
//! Invariants: whatever the program's text names is there, and so are all operators, indexers and iterators of types that a script can have
//! values of. A function that isn't named and is called all the same, because its name came from elsewhere, is looked for in the whole
//! library when it is missed.

use crate::api::Vocabulary;
use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicBlobPackage, BasicFnPackage, BasicIteratorPackage,
    BasicMapPackage, BasicMathPackage, BasicStringPackage, BasicTimePackage, BitFieldPackage,
    LanguageCorePackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{AST, Engine, EvalAltResult, Module, Position, Shared};

/// How many strings Rhai keeps of which there may be several: its own default.
const STRINGS_INTERNED: usize = 256;

/// The names in the packages of numbers, without which only their operators matter: those with one operand, since those between two
/// numbers of a script (i64, f64) are part of the interpreter.
const OF_NUMBERS: &[&str] = &["abs", "sign", "is_zero", "is_odd", "is_even", "max", "min"];

/// The names in the package of mathematics, which has no operators.
const OF_MATHEMATICS: &[&str] = &[
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
    "atanh",
    "hypot",
    "E",
    "PI",
    "to_radians",
    "to_degrees",
    "sqrt",
    "exp",
    "ln",
    "log",
    "floor",
    "ceiling",
    "round",
    "int",
    "fraction",
    "is_nan",
    "is_finite",
    "is_infinite",
    "to_int",
    "to_float",
    "parse_int",
    "parse_float",
];

/// The names in the package of bit fields, which has no operators.
const OF_BITS: &[&str] = &["get_bit", "set_bit", "get_bits", "set_bits"];

/// A new engine with those functions of Rhai's own that `vocabulary` can call.
pub(crate) fn engine(vocabulary: &Vocabulary) -> Engine {
    if matches!(vocabulary, Vocabulary::Everything) {
        return Engine::new();
    }
    let mut engine = Engine::new_raw();
    engine.set_max_strings_interned(STRINGS_INTERNED);
    let any = |names: &[&str]| names.iter().any(|name| vocabulary.has(name));
    let named = |name: &str, _: usize| is_named(vocabulary, name);
    let mut all = Module::new();
    LanguageCorePackage::init(&mut all);
    BasicStringPackage::init(&mut all);
    MoreStringPackage::init(&mut all);
    BasicIteratorPackage::init(&mut all);
    BasicFnPackage::init(&mut all);
    BasicArrayPackage::init(&mut all);
    BasicBlobPackage::init(&mut all);
    BasicMapPackage::init(&mut all);
    BasicTimePackage::init(&mut all);
    if any(OF_BITS) {
        BitFieldPackage::init(&mut all);
    }
    if any(OF_MATHEMATICS) {
        BasicMathPackage::init(&mut all);
    }
    engine.register_global_module(filtered(all, named));
    let numbers = if any(OF_NUMBERS) {
        let mut numbers = Module::new();
        ArithmeticPackage::init(&mut numbers);
        LogicPackage::init(&mut numbers);
        filtered(numbers, |name, parameters| {
            named(name, parameters) && (is_word(name) || parameters == 1)
        })
    } else {
        Shared::new(signs())
    };
    engine.register_global_module(numbers);
    engine
}

/// The operators with one operand, of the types that a script has.
fn signs() -> Module {
    let mut module = Module::new();
    module.set_native_fn("+", |x: i64| Ok(x));
    module.set_native_fn("+", |x: f64| Ok(x));
    module.set_native_fn("-", |x: f64| Ok(-x));
    module.set_native_fn("!", |x: bool| Ok(!x));
    module.set_native_fn("-", |x: i64| {
        let overflow =
            || EvalAltResult::ErrorArithmetic(format!("Negation overflow: -{x}"), Position::NONE);
        x.checked_neg().ok_or_else(|| Box::new(overflow()))
    });
    module
}

/// Those functions of a module that pass.
fn filtered(module: Module, passes: impl Fn(&str, usize) -> bool) -> Shared<Module> {
    AST::new(Vec::new(), module)
        .clone_functions_only_filtered(|_, _, _, name, parameters| passes(name, parameters))
        .shared_lib()
        .clone()
}

fn is_named(vocabulary: &Vocabulary, name: &str) -> bool {
    let property = name
        .strip_prefix("get$")
        .or_else(|| name.strip_prefix("set$"));
    let name = property.unwrap_or(name);
    !is_word(name) || vocabulary.has(name)
}

/// Whether that is a name that a script writes, rather than an operator or an indexer.
pub(crate) fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_') && !name.contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::FuncInfo;
    use std::any::TypeId;
    use std::collections::BTreeSet;

    type Function = (String, Vec<TypeId>);

    /// Rhai's own functions in an engine.
    fn functions(engine: &Engine) -> BTreeSet<Function> {
        let one = |info: FuncInfo<'_>| {
            let metadata = info.metadata;
            Some((metadata.name.to_string(), metadata.param_types.to_vec()))
        };
        engine
            .collect_fn_metadata(None, one, true)
            .into_iter()
            .collect()
    }

    fn lean(source: &str) -> BTreeSet<Function> {
        functions(&engine(&Vocabulary::of(source)))
    }

    /// Numbers that no script can make.
    fn foreign() -> Vec<TypeId> {
        vec![
            TypeId::of::<i8>(),
            TypeId::of::<u8>(),
            TypeId::of::<i16>(),
            TypeId::of::<u16>(),
            TypeId::of::<i32>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<i128>(),
            TypeId::of::<u128>(),
            TypeId::of::<f32>(),
        ]
    }

    #[test]
    fn a_name_brings_all_functions_of_that_name() {
        let all = functions(&Engine::new());
        let word = |name: &str| {
            let property = name
                .strip_prefix("get$")
                .or_else(|| name.strip_prefix("set$"));
            property.unwrap_or(name).to_owned()
        };
        let words: BTreeSet<String> = all.iter().map(|(name, _)| word(name)).collect();
        let words: Vec<_> = words.iter().filter(|name| is_word(name)).collect();
        assert!(words.len() > 100, "{} names", words.len());
        for named in words {
            let there = lean(named);
            let lost = all
                .difference(&there)
                .find(|(name, _)| word(name) == **named);
            assert_eq!(lost, None);
        }
    }

    #[test]
    fn operators_and_indexers_need_no_name() {
        let all = functions(&Engine::new());
        let there = lean("");
        let lost: Vec<_> = all
            .difference(&there)
            .filter(|(name, types)| {
                !is_word(name.trim_start_matches("get$").trim_start_matches("set$"))
                    && !types.iter().any(|of| foreign().contains(of))
            })
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(
            there.len() < all.len() / 5,
            "{} of {}",
            there.len(),
            all.len()
        );
    }

    #[test]
    fn a_lean_engine_computes_what_rhai_computes() {
        let scripts = [
            "let a = -7; let b = 2.5; [-a, +b, a % 3, a ** 2, 7 / 2, b * a, a == -7.0, b != 2, !(a > b), 5 & 3 | 8 ^ 1, 1 << 4]",
            "let s = \"ab\"; s += 'c'; s += 1; `${s} ${[1, 2.0]} ${#{x: ()}}` + 'd' + 1.5 + true",
            "let n = 0; for i in 0..4 { n += i; } for i in 0..=4 { n += i; } for c in \"ab\" { n += 1; } for x in [1, 2] { n += x; } n",
            "let a = [1, [2, 3]]; a += 4; a == [1, [2, 3], 4] && 4 in a && [1] + [2] == [1, 2] && [1] != [2]",
            "let m = #{a: 1}; m += #{b: 2}; m == #{a: 1, b: 2} && \"b\" in m && m.a + m[\"b\"] == 3",
            "let b = blob(2, 65); b += 66; b[0] = 67; [b == blob(3, 1), b[1], b.len, b.len()]",
            "let t = timestamp(); t - t >= 0.0 && t == t && t <= t + 1",
            "let f = |x| x + 1; [1, 2].map(f).reduce(|sum, x| sum + x, 0)",
            "switch 3 { 1..4 => \"few\", _ => \"many\" }",
            "let x = [3, 1, 2]; x.sort(); x.push(9); x.insert(0, 5); x.extract(1, 2)",
            "[\"b\".to_upper(), max(1, 2.5), PI() > 3.0, parse_int(\"12\"), 12.to_hex(), 3.0.to_int(), 7.is_odd, E() < 3]",
        ];
        for script in scripts {
            let run = |engine: Engine| match engine.eval::<rhai::Dynamic>(script) {
                Ok(value) => format!("{value:?}"),
                Err(error) => panic!("{script}: {error}"),
            };
            assert_eq!(run(engine(&Vocabulary::of(script))), run(Engine::new()));
        }
    }
}
