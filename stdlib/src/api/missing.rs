//! Calls that nothing matched: methods known only at run time, and errors that teach for all others.
//!
//! Rhai asks this hook after every native call that failed, also after one that was found and then threw, so the first
//! thing it does is to find out whether the call had existed: then the error stays as it was. Of a call that doesn't exist Rhai
//! itself knows the place, so its error goes on; what was wrong is noted beside it (`crate::error::teach`).

use super::catalogue::{ByName, Catalogue};
use super::signature::Signature;
use super::vocabulary::Vocabulary;
use super::{suggest, type_name};
use crate::error::{Kind, Result, teach};
use crate::standard;
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, FuncInfo, NativeCallContext, Position};
use std::any::TypeId;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;

const KEYWORD_PRINT: &str = "print";

/// How Rhai's names of closures begin.
const ANONYMOUS: &str = "anon$";

/// Calls a method that is not known before the script runs: `m.get_task_queue()`. `None`: there is no such method.
pub type DynamicMethods =
    Rc<dyn Fn(&NativeCallContext<'_>, &str, &mut [&mut Dynamic]) -> Result<Option<Dynamic>>>;

/// What the hook for unmatched calls looks things up in.
#[derive(Default)]
pub(super) struct Index {
    pub(super) catalogue: Catalogue,
    pub(super) vocabulary: Vocabulary,
    pub(super) classes: HashMap<TypeId, &'static str>,
    pub(super) dynamic: HashMap<TypeId, DynamicMethods>,
    /// All of Rhai's own functions, where the program at hand has only those that it names.
    standard: OnceCell<Option<Engine>>,
}

impl Index {
    fn by_name(&self) -> &ByName {
        self.catalogue.by_name()
    }

    /// See [`Index::standard`].
    fn standard(&self) -> Option<&Engine> {
        let make = || match self.vocabulary {
            Vocabulary::Everything => None,
            Vocabulary::Words(_) => Some(Engine::new()),
        };
        self.standard.get_or_init(make).as_ref()
    }

    /// Everything that is registered by something else than a script, whether or not the program at hand names it.
    fn native<T>(
        &self,
        engine: &Engine,
        pick: impl Fn(FuncInfo<'_>) -> Option<T> + Copy,
    ) -> Vec<T> {
        let mut all = engine.collect_fn_metadata(None, pick, true);
        if let Some(standard) = self.standard() {
            all.extend(standard.collect_fn_metadata(None, pick, true));
        }
        all
    }
}

pub(super) fn install(engine: &mut Engine, index: Index) {
    #[expect(
        deprecated,
        reason = "Rhai marks its volatile calls so; the version is pinned"
    )]
    engine.on_missing_function(move |name, args, is_method, context| {
        look(&index, name, args, is_method, &context).map_err(|error| {
            error.into_rhai(context.global_runtime_state().source(), Position::NONE)
        })
    });
}

fn look(
    index: &Index,
    name: &str,
    args: &mut [&mut Dynamic],
    is_method: bool,
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
) -> Result<Option<Dynamic>> {
    // What a script's own function gets: the object before the dot is its `this`.
    let given = args.len() - usize::from(is_method && !args.is_empty());
    if name.starts_with(ANONYMOUS) {
        return closure(name, given, context);
    }
    if let Some(this) = args.first() {
        let this_type = this.type_id();
        if let Some(signature) = index.by_name().methods.get(&(this_type, name)) {
            let given = args.len() - 1;
            return if given <= signature.most() {
                Ok(None)
            } else {
                too_many(signature, given)
            };
        }
        if let Some(methods) = index.dynamic.get(&this_type) {
            let engine = context.engine();
            let global = context.global_runtime_state();
            let ctx =
                NativeCallContext::new_with_all_fields(engine, name, None, global, Position::NONE);
            if let Some(value) = methods(&ctx, name, args)? {
                return Ok(Some(value));
            }
        }
    }
    if name == KEYWORD_PRINT && args.len() > 1 {
        let ctx = NativeCallContext::new_with_all_fields(
            context.engine(),
            name,
            None,
            context.global_runtime_state(),
            Position::NONE,
        );
        return crate::builtins::print_many(&ctx, args).map(Some);
    }
    // Operators, properties and indexers keep Rhai's own error.
    if !standard::is_word(name) {
        return Ok(None);
    }
    if !index.vocabulary.has(name)
        && let Some(value) = call_unnamed(index, name, args, context)?
    {
        return Ok(Some(value));
    }
    if let Some(signature) = index.by_name().functions.get(name) {
        let given = args.len();
        return if given <= signature.most() {
            Ok(None)
        } else {
            too_many(signature, given)
        };
    }
    if let Some(class) = args
        .first()
        .and_then(|this| index.classes.get(&this.type_id()))
    {
        let this_type = args[0].type_id();
        if exists(index, context, name, args, this_type) {
            return Ok(None);
        }
        let own = index
            .by_name()
            .methods
            .keys()
            .filter(|(of, _)| *of == this_type)
            .map(|(_, method)| *method);
        let message = format!(
            "'{class}' object has no method '{name}'{}",
            suggest(name, own)
        );
        return wrong(name, Kind::AttributeError, message);
    }
    unknown(index, name, args, given, context)
}

/// Calls a function of Rhai's own that the program's text doesn't name: its name came from elsewhere. Nothing else of that name can be
/// there, so it wasn't found and then threw.
fn call_unnamed(
    index: &Index,
    name: &str,
    args: &mut [&mut Dynamic],
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
) -> Result<Option<Dynamic>> {
    let Some(standard) = index.standard() else {
        return Ok(None);
    };
    let global = context.global_runtime_state();
    let ctx = NativeCallContext::new_with_all_fields(standard, name, None, global, Position::NONE);
    match ctx.call_native_fn_raw(name, true, args) {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_unknown(&error, name) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_unknown(error: &EvalAltResult, name: &str) -> bool {
    matches!(error, EvalAltResult::ErrorFunctionNotFound(call, _) if call.split(' ').next() == Some(name))
}

fn too_many(signature: &Signature, given: usize) -> Result<Option<Dynamic>> {
    let message = format!(
        "{}() takes at most {} arguments, {given} were given: {}",
        signature.name,
        signature.most(),
        signature.text
    );
    wrong(signature.name, Kind::TypeError, message)
}

fn wrong(name: &str, kind: Kind, message: String) -> Result<Option<Dynamic>> {
    teach(name, kind, message);
    Ok(None)
}

/// Whether any function in reach has this name and takes such an object: then Rhai's error about types or a thrown one is the right one.
fn exists(
    index: &Index,
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
    name: &str,
    args: &[&mut Dynamic],
    this_type: TypeId,
) -> bool {
    let takes = |types: &[TypeId]| {
        types
            .first()
            .is_none_or(|first| *first == this_type || *first == TypeId::of::<Dynamic>())
    };
    let native = |info: FuncInfo<'_>| {
        let it_is = info.metadata.name == name && takes(&info.metadata.param_types);
        (it_is && is_global(&info)).then_some(())
    };
    context.iter_namespaces().any(|module| {
        module
            .iter_script_fn_info()
            .any(|(.., n, params, _)| n == name && params == args.len())
    }) || !index.native(context.engine(), native).is_empty()
}

/// Whether a function is called without the name of a module.
fn is_global(info: &FuncInfo<'_>) -> bool {
    info.namespace.is_empty() || info.metadata.namespace.is_global_namespace()
}

/// A closure that was called with more or fewer arguments than it has. How many of its parameters are what it has captured, and
/// not the script's to count, nobody knows here.
fn closure(
    name: &str,
    given: usize,
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
) -> Result<Option<Dynamic>> {
    let takes = context.iter_namespaces().find_map(|module| {
        module
            .iter_script_fn_info()
            .find(|(.., known, _, _)| *known == name)
            .map(|(.., params, _)| params)
    });
    let Some(takes) = takes.filter(|takes| *takes != given) else {
        return Ok(None);
    };
    let (difference, which) = (
        takes.abs_diff(given),
        if takes > given { "few" } else { "many" },
    );
    let plural = if difference == 1 { "" } else { "s" };
    let message = format!("a closure was called with {difference} argument{plural} too {which}");
    wrong(name, Kind::TypeError, message)
}

fn unknown(
    index: &Index,
    name: &str,
    args: &[&mut Dynamic],
    given: usize,
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
) -> Result<Option<Dynamic>> {
    let mut same_name: Vec<usize> = Vec::new();
    let mut script_names: Vec<String> = Vec::new();
    for module in context.iter_namespaces() {
        for (.., fn_name, params, _) in module.iter_script_fn_info() {
            if fn_name == name {
                if params == given {
                    return Ok(None);
                }
                same_name.push(params);
            }
            script_names.push(fn_name.to_owned());
        }
    }
    if let Some(params) = same_name.first() {
        let plural = if *params == 1 { "" } else { "s" };
        let message = format!("{name}() takes {params} argument{plural}, {given} were given");
        return wrong(name, Kind::TypeError, message);
    }
    let of_module = || {
        let mut entries = index.catalogue.entries().iter();
        let entry = entries.find(|entry| {
            entry.class.is_none() && !entry.module.is_empty() && entry.signature.name() == name
        })?;
        Some(format!("; it is {}::{name}()", entry.module))
    };
    let natives = index.native(context.engine(), |info| {
        is_global(&info).then(|| info.metadata.name.to_string())
    });
    if natives.iter().any(|n| n == name) {
        // It may also have been found and have thrown: then nobody asks for this.
        let types: Vec<String> = args.iter().map(|value| type_name(value)).collect();
        let class = types.first().map_or("", String::as_str);
        let advice = crate::habits::method_of_python(name, class)
            .or_else(of_module)
            .unwrap_or_default();
        let message = format!("{name}() doesn't take ({}){advice}", types.join(", "));
        return wrong(name, Kind::TypeError, message);
    }
    let known = script_names
        .iter()
        .map(String::as_str)
        .chain(index.by_name().functions.keys().copied());
    let natives = natives
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with(char::is_alphabetic));
    let class = args
        .first()
        .map(|value| type_name(value))
        .unwrap_or_default();
    let hint = crate::habits::held_function(name)
        .or_else(|| crate::habits::method_of_python(name, &class))
        .or_else(of_module)
        .unwrap_or_else(|| suggest(name, known.chain(natives)));
    let of = match args.first() {
        Some(this) if hint.is_empty() => format!(" (called with {})", type_name(this)),
        _ => String::new(),
    };
    wrong(
        name,
        Kind::NameError,
        format!("function '{name}' is not defined{of}{hint}"),
    )
}

#[cfg(test)]
mod tests {
    use crate::api::{Registry, Vocabulary};
    use crate::testing::outcome;

    /// What a script comes to in a process that has only what the script names.
    fn lean(script: &str) -> String {
        let mut registry = Registry::new(false, Vocabulary::of(script));
        crate::register_all(&mut registry);
        let mut engine = crate::standard::engine(&Vocabulary::of(script));
        registry.install(&mut engine);
        outcome(&engine, script)
    }

    #[test]
    fn what_a_program_does_not_name_is_still_suggested() {
        assert_eq!(
            lean("\"a\".to_uper()"),
            "NameError: function 'to_uper' is not defined; did you mean 'to_upper'?"
        );
    }

    #[test]
    fn a_name_that_is_put_together_is_found() {
        assert_eq!(lean("[1, 2, 3].filter(\"is_\" + \"odd\").len()"), "2");
        assert_eq!(
            lean("[1, 2, 3].filter(\"is_\" + \"strange\")"),
            "NameError: Function not found: is_strange (i64, i64)"
        );
    }
}
