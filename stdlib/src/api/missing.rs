//! Calls that nothing matched: methods known only at run time, and errors that teach for all others.
//!
//! Rhai asks this hook after every native call that failed, also after one that was found and then threw, so the first
//! thing it does is to find out whether the call had existed: then the error stays as it was. Of a call that doesn't exist Rhai
//! itself knows the place, so its error goes on; what was wrong is noted beside it ([`crate::error::teach`]).

use super::entry::{Entry, EntryKind};
use super::signature::Signature;
use super::{suggest, type_name};
use crate::error::{Kind, Result, teach};
use rhai::{Dynamic, Engine, EvalContext, FuncInfo, NativeCallContext, Position};
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
    /// All that the reference has, called by this program or not.
    pub(super) entries: Rc<[Entry]>,
    /// The same calls in their other places: constructors in `mp::` and of contexts.
    pub(super) unlisted: Vec<Entry>,
    pub(super) classes: HashMap<TypeId, &'static str>,
    pub(super) dynamic: HashMap<TypeId, DynamicMethods>,
    by_name: OnceCell<ByName>,
}

/// What a name means; made when the first call fails.
#[derive(Default)]
struct ByName {
    methods: HashMap<(TypeId, &'static str), Rc<Signature>>,
    functions: HashMap<&'static str, Rc<Signature>>,
}

impl Index {
    fn by_name(&self) -> &ByName {
        self.by_name.get_or_init(|| {
            let mut names = ByName::default();
            for entry in self.entries.iter().chain(&self.unlisted) {
                let name = entry.signature.name();
                match (entry.kind, entry.of) {
                    (EntryKind::Method, Some(of)) => {
                        names
                            .methods
                            .insert((of, name), entry.signature.shared().clone());
                    }
                    (EntryKind::Function, _) if entry.module.is_empty() => {
                        names
                            .functions
                            .insert(name, entry.signature.shared().clone());
                    }
                    _ => {}
                }
            }
            names
        })
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
    if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') || name.contains('$') {
        return Ok(None);
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
        if exists(context, name, args, this_type) {
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
    }) || !context
        .engine()
        .collect_fn_metadata(None, native, true)
        .is_empty()
}

fn native_names(engine: &Engine) -> impl Iterator<Item = String> {
    engine
        .collect_fn_metadata(
            None,
            |info| is_global(&info).then(|| info.metadata.name.to_string()),
            true,
        )
        .into_iter()
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
        let mut entries = index.entries.iter();
        let entry = entries.find(|entry| {
            entry.class.is_none() && !entry.module.is_empty() && entry.signature.name() == name
        })?;
        Some(format!("; it is {}::{name}()", entry.module))
    };
    let natives: Vec<String> = native_names(context.engine()).collect();
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
