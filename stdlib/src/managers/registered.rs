//! Objects of a script's own: what a registered callable returns in the server.
//!
//! A list or a map of plain values becomes a managed container; an object map with function members becomes an object whose members are
//! called there, with `this` bound to the map, one at a time. What belongs to the program itself (a Queue, a Lock …) goes to the client
//! as it is.
//!
//! Sharing: a callable that returns what it has captured returns the same thing each time, so every client shall get the same object.
//! Rhai gives a copy of it; which of the captured values it is, the function's last expression tells.

use super::objects::{Object, Outcome, Turn, take};
use super::protocol::{Op, Tag};
use super::proxies::AutoProxy;
use super::proxy::{Proxy, Typed};
use super::server::{Args, Factory, Server};
use crate::api::{Call, Registry, suggest};
use crate::convert;
use crate::error::{Error, Kind, Result, raise};
use crate::queue::LocalQueue;
use crate::{places, spelling};
use rhai::{
    AST, ASTNode, Array, Dynamic, Expr, FnPtr, ImmutableString, Map, Module, NativeCallContext,
    Stmt,
};
use std::cell::RefCell;
use std::rc::Rc;

/// An object map whose members can be called.
struct ScriptObject {
    /// Shared with the callable that returned it, if that has captured it.
    this: Dynamic,
    exposed: Rc<[ImmutableString]>,
    /// Methods whose results stay in the server, and what they become there.
    proxied: Rc<Map>,
}

impl Object for ScriptObject {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        if op != Op::Call {
            return Err(super::objects::unsupported(op));
        }
        let name = take(&mut args, 0)
            .into_immutable_string()
            .map_err(|_| super::objects::malformed())?;
        if !self.exposed.contains(&name) {
            return Err(hidden(&name, &self.exposed));
        }
        let member = self
            .this
            .read_lock::<Map>()
            .and_then(|map| map.get(name.as_str()).cloned());
        let Some(member) = member.and_then(Dynamic::try_cast::<FnPtr>) else {
            return Err(raise(
                Kind::AttributeError,
                format!("the object has no method '{name}'"),
            ));
        };
        let args: Array = args.drain(1..).collect();
        let result = member.call_raw(turn.script, Some(&mut self.this), args)?;
        let result = result.flatten();
        match self.proxied.get(name.as_str()) {
            Some(typeid) => staying(turn, typeid, result).map(Outcome::Value),
            None => Ok(Outcome::Value(result)),
        }
    }
}

/// A proxy of a method's result, which stays in the server as an object of the kind `typeid`.
fn staying(turn: &Turn<'_>, typeid: &Dynamic, result: Dynamic) -> Result {
    let typeid = typeid.clone().into_immutable_string().map_err(|name| {
        raise(
            Kind::TypeError,
            format!("method_to_typeid names kinds of objects by strings, not {name}"),
        )
    })?;
    // A container is what it is; what was registered under that name is made of the result.
    match super::objects::wrap(&result)? {
        Some((tag, object)) if tag.typeid() == typeid => Ok(turn.adopt(object, tag)),
        _ => turn.server.create(&typeid, vec![result], turn.script),
    }
}

fn hidden(name: &str, exposed: &[ImmutableString]) -> Error {
    let names: Vec<String> = exposed.iter().map(|name| format!("'{name}'")).collect();
    raise(
        Kind::RemoteError,
        format!("method '{name}' is not in exposed=({})", names.join(", ")),
    )
}

/// Which of its captured values a callable returns, if its last expression is one.
fn captured_result(callable: &FnPtr, args: usize) -> Option<usize> {
    let captured = callable.curry().len();
    let definition = convert::script_function(callable.fn_name(), captured + args)?;
    // Rhai shows a function's body to nobody, but walks through it.
    let mut module = Module::new();
    module.set_script_fn(definition.clone());
    let mut last = None;
    AST::new_from_module(module).walk(&mut |path: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(statement)] = path {
            last = match statement {
                Stmt::Expr(expression) | Stmt::Return(Some(expression), ..) => {
                    match &**expression {
                        Expr::Variable(variable, ..) => Some(variable.1.clone()),
                        _ => None,
                    }
                }
                _ => None,
            };
        }
        true
    });
    let last = last?;
    definition
        .params
        .iter()
        .take(captured)
        .position(|name| *name == last)
}

/// Calls a registered callable, and makes a managed object of what it returns.
///
/// # Errors
/// What the callable throws; `TypeError` for what can't be managed.
pub(super) fn create(
    server: &Rc<Server>,
    typeid: &ImmutableString,
    factory: &Factory,
    args: Array,
    script: &NativeCallContext<'_>,
) -> Result {
    let captured = captured_result(&factory.callable, args.len());
    let mut value: Dynamic = factory.callable.call_raw(script, None, args)?;
    // A function may return something else after all: then it isn't what it has captured.
    let captured = captured.and_then(|index| Some((index, factory.callable.curry().get(index)?)));
    let captured = captured.filter(|(_, shared)| shared.type_name() == value.type_name());
    let queue = value
        .read_lock::<LocalQueue>()
        .map(|queue| queue.identity());
    let identity = match (queue, captured) {
        (Some(identity), _) => Some(identity),
        (None, Some((index, shared))) => {
            value = shared.clone();
            Some(index)
        }
        (None, None) => None,
    };
    let identity = identity.map(|identity| (typeid.clone(), identity));
    if let Some(identity) = &identity {
        let known = server.identities.borrow().get(identity).copied();
        if let Some(proxy) = known.and_then(|id| server.proxy_of(id)) {
            return Ok(proxy.value());
        }
    }
    let proxy = adopt(server, typeid, factory, value)?;
    if let (Some(identity), Some(proxy)) = (identity, Proxy::of(&proxy)) {
        // The callable may return it again: it stays as long as the server.
        server.keep(proxy.id());
        server.identities.borrow_mut().insert(identity, proxy.id());
    }
    Ok(proxy)
}

fn adopt(
    server: &Rc<Server>,
    typeid: &ImmutableString,
    factory: &Factory,
    value: Dynamic,
) -> Result {
    let functions = value.read_lock::<Map>().map(|map| {
        let callable = map.iter().filter(|(_, member)| member.is::<FnPtr>());
        callable
            .map(|(name, _)| ImmutableString::from(name.as_str()))
            .collect::<Vec<_>>()
    });
    match functions {
        Some(functions) if !functions.is_empty() => {
            let exposed: Rc<[ImmutableString]> = match &factory.exposed {
                Some(exposed) => exposed.clone(),
                None => functions
                    .into_iter()
                    .filter(|name| !name.starts_with('_'))
                    .collect(),
            };
            let object = ScriptObject {
                this: value,
                exposed: exposed.clone(),
                proxied: factory.proxied.clone(),
            };
            let object = Rc::new(RefCell::new(object));
            return Ok(server
                .adopt(object, Tag::Object, typeid.clone(), Some(exposed))
                .value());
        }
        _ => {}
    }
    match super::objects::wrap(&value)? {
        Some((tag, object)) => Ok(server.adopt(object, tag, typeid.clone(), None).value()),
        None => Ok(value),
    }
}

/// `proxy._callmethod(name, args)`.
///
/// # Errors
/// What the method throws; RemoteError for one that isn't exposed.
pub(super) fn call_method(proxy: &Proxy, call: &mut Call<'_>) -> Result {
    let name = call.string(0).unwrap_or_default();
    let args = call.array(1);
    if proxy.tag() == Tag::Object {
        return forward(
            proxy,
            &name,
            &args.iter().collect::<Vec<_>>(),
            places::of_call(call.ctx),
        );
    }
    match Op::from_name(&name) {
        Some(op) => proxy.call(
            op,
            &args.iter().collect::<Vec<_>>(),
            places::of_call(call.ctx),
        ),
        None => Err(hidden(&name, &[])),
    }
}

fn forward(
    proxy: &Proxy,
    name: &str,
    args: &[&Dynamic],
    position: mphost_core::position::Position,
) -> Result {
    let name: Dynamic = name.into();
    let args: Vec<&Dynamic> = std::iter::once(&name).chain(args.iter().copied()).collect();
    proxy.call(Op::Call, &args, position)
}

/// The object's own `__str__`, if it exposes one.
pub(super) fn text(ctx: &NativeCallContext<'_>, proxy: &Proxy) -> Result<String> {
    if !proxy.exposed().iter().any(|name| name == "__str__") {
        return Ok(proxy.describe());
    }
    let text = forward(proxy, "__str__", &[], places::of_call(ctx))?;
    Ok(spelling::text(ctx, &text))
}

/// Registers proxies of such objects.
pub(super) fn register(registry: &mut Registry) {
    registry
        .class::<AutoProxy>("AutoProxy")
        .dynamic_methods(Rc::new(|ctx, name, args| {
            let Some((this, rest)) = args.split_first_mut() else {
                return Ok(None);
            };
            let Some(proxy) = this
                .read_lock::<AutoProxy>()
                .map(|this| this.proxy().clone())
            else {
                return Ok(None);
            };
            if !name.starts_with(|first: char| first.is_alphabetic() || first == '_')
                || name.contains('$')
            {
                return Ok(None);
            }
            let exposed = proxy.exposed();
            if !exposed.iter().any(|known| known == name) {
                let known = exposed.iter().map(ImmutableString::as_str);
                let hint = suggest(name, known);
                return Err(raise(
                    Kind::AttributeError,
                    format!("'AutoProxy' object has no attribute '{name}'{hint}"),
                ));
            }
            let args: Vec<&Dynamic> = rest.iter().map(|arg| &**arg).collect();
            forward(&proxy, name, &args, places::of_call(ctx)).map(Some)
        }));
}
