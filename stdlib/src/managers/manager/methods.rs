//! The calls of managers: how they are made, how they live, what they make.

use super::serving::OwnServer;
use super::{Class, MODULE, Manager, Phase, Registered, ask};
use crate::address::{address_of, address_value};
use crate::api::{Call, Registry};
use crate::error::{Error, Kind, Result, ScriptError, raise};
use crate::managers::protocol::{Op, Tag};
use crate::managers::proxies::{items, pairs};
use crate::{places, with};
use mphost_core::clock::Deadline;
use rhai::{Array, Blob, Dynamic, ImmutableString};
use std::rc::Rc;

fn constructed(call: &mut Call<'_>, class: Class) -> Result {
    let address = call.take(0);
    let address = if address.is_unit() {
        None
    } else {
        Some(address_of(&address)?)
    };
    let key = call.take(1);
    let key = if key.is_unit() {
        None
    } else if let Some(text) = key.read_lock::<ImmutableString>() {
        Some(text.as_bytes().to_vec())
    } else if let Some(blob) = key.read_lock::<Blob>() {
        Some(blob.clone())
    } else {
        let name = crate::api::type_name(&key);
        return Err(raise(
            Kind::TypeError,
            format!("'authkey' must be a string or a blob, not {name}"),
        ));
    };
    Ok(Dynamic::from(Manager::new(class, address, key)))
}

/// A method that makes an object of a built-in kind; `prepare` makes the server's arguments of the script's.
fn maker(
    tag: Tag,
    prepare: impl Fn(&mut Call<'_>) -> Result<Vec<Dynamic>> + 'static,
) -> impl Fn(&mut Call<'_>) -> Result + 'static {
    move |call| {
        let manager = call.this::<Manager>();
        if !manager.has(tag.typeid()) {
            let class = manager.0.class.name();
            return Err(raise(
                Kind::AttributeError,
                format!(
                    "'{class}' object has no attribute '{}': register() it, or use a SyncManager",
                    tag.typeid()
                ),
            ));
        }
        let own = manager.0.registered.borrow().contains_key(tag.typeid());
        let args = if own {
            vec![call.take(0), call.take(1)]
        } else {
            prepare(call)?
        };
        manager.create(tag.typeid(), &args, places::of_call(call.ctx))
    }
}

/// The maker of a container. Python makes those in the server, whose errors while it makes something are RemoteErrors.
fn container(
    tag: Tag,
    prepare: impl Fn(&mut Call<'_>) -> Result<Vec<Dynamic>> + 'static,
) -> impl Fn(&mut Call<'_>) -> Result + 'static {
    let make = maker(tag, prepare);
    move |call| match make(call) {
        Err(Error::Script(error)) if matches!(error.kind(), Kind::TypeError | Kind::ValueError) => {
            let message = format!("{}() can't be made of that: {error}", tag.typeid());
            let remote = ScriptError::new(Kind::RemoteError, message);
            Err(remote.with_cause(Dynamic::from(error)).into())
        }
        result => result,
    }
}

fn as_given(arguments: usize) -> impl Fn(&mut Call<'_>) -> Result<Vec<Dynamic>> + 'static {
    move |call| {
        let mut args: Vec<Dynamic> = (0..arguments).map(|index| call.take(index)).collect();
        while args.last().is_some_and(Dynamic::is_unit) {
            args.pop();
        }
        Ok(args)
    }
}

/// Items of whatever was given, if anything was.
fn given_items(call: &mut Call<'_>) -> Result<Vec<Dynamic>> {
    let given = call.take(0);
    if given.is_unit() {
        Ok(Vec::new())
    } else {
        Ok(vec![Dynamic::from_array(items(call.ctx, given)?)])
    }
}

fn given_pairs(call: &mut Call<'_>) -> Result<Vec<Dynamic>> {
    let given = call.take(0);
    if given.is_unit() {
        Ok(Vec::new())
    } else {
        Ok(vec![pairs(call.ctx, given)?])
    }
}

/// Registers managers.
pub(in super::super) fn register(registry: &mut Registry) {
    with::context::<Manager>(Some("__enter__"), "shutdown");
    super::serving::register(registry);
    super::travel::register();
    constructors(registry);
    life(registry);
    makers(registry);
}

fn constructors(registry: &mut Registry) {
    registry.constructor(
        "Manager()",
        "Starts a server process for objects that many processes use, and gives its manager.\n\n\
         ```rhai\nfn f(d) { d[\"seen\"] = true; }\n\
         with Manager() as m {\n    let d = m.dict(#{});\n    let p = spawn(f, [d]);\n    p.join();\n    print(d);\n}\n```",
        |call| {
            let manager = Manager::new(Class::Sync, None, None);
            manager.start(Dynamic::UNIT, Array::new(), call.ctx)?;
            Ok(Dynamic::from(manager))
        },
    );
    for (name, class) in [
        (
            "SyncManager(address: plain = (), authkey: plain = ())",
            Class::Sync,
        ),
        (
            "BaseManager(address: plain = (), authkey: plain = ())",
            Class::Base,
        ),
    ] {
        let doc = match class {
            Class::Sync => {
                "What `Manager()` gives, not yet started: `with`, `start()` or `connect()` does that."
            }
            Class::Base => {
                "A manager of a script's own objects: `register` says what it makes, `start()`, `connect()` or `get_server()` what it is.\n\n\
                 - `address`: `[\"host\", port]` or the path of a local socket; left out: a local one.\n\
                 - `authkey`: a string or a blob that clients must have; left out: this process's own."
            }
        };
        registry.function(MODULE, name, doc, move |call| constructed(call, class));
        if class == Class::Base {
            registry.constructor(name, doc, move |call| constructed(call, class));
        }
    }
}

fn life(registry: &mut Registry) {
    registry
        .class::<Manager>("Manager")
        .method(
            "start(initializer: plain = (), initargs: array = [])",
            "Starts the server process; there it calls `initializer(initargs…)` first. Again: `ProcessError`.",
            |call| {
                let (initializer, initargs) = (call.take(0), call.array(1));
                call.this::<Manager>().start(initializer, initargs, call.ctx)?;
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "connect()",
            "Uses the server that listens at the manager's address already, in whatever program. A wrong key: `AuthenticationError`.",
            |call| {
                call.this::<Manager>().connect(places::of_call(call.ctx))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("__enter__()", "What `with` does first: starts the server, if it isn't.", |call| {
            let manager = call.this::<Manager>();
            if matches!(*manager.0.phase.borrow(), Phase::Initial) {
                manager.start(Dynamic::UNIT, Array::new(), call.ctx)?;
            }
            Ok(Dynamic::UNIT)
        })
        .method("shutdown()", "Ends the server that this manager has started. Again is fine.", |call| {
            call.this::<Manager>().shutdown()?;
            Ok(Dynamic::UNIT)
        })
        .method("join(timeout: seconds = ())", "Waits until the server has ended, at most `timeout` seconds.", |call| {
            let manager = call.this::<Manager>();
            let process = match &*manager.0.phase.borrow() {
                Phase::Started { process, .. } | Phase::Ended { process: Some(process) } => process.clone(),
                _ => return Ok(Dynamic::UNIT),
            };
            process.wait(Deadline::from_timeout(true, call.seconds(0)))?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "register(typeid: string, callable: callable = (), *, exposed: array = (), create_method: bool = true, method_to_typeid: map = ())",
            "Says what the manager makes under a name: what `callable` returns there, in the server. A client gives the name alone. \
             `m.typeid(args…)` then gives a proxy.\n\n\
             - `exposed`: the names of the methods that may be called; left out: those that don't begin with `_`.\n\
             - `create_method`: false for what only other objects' methods give.\n\
             - `method_to_typeid`: the methods whose results stay in the server, with what they are there (`#{items: \"list\"}`): the caller \
             gets a proxy.",
            |call| {
                let manager = call.this::<Manager>();
                let name = call.string(0).unwrap_or_default();
                let entry = Registered {
                    callable: call.callable(1),
                    exposed: call.has(2).then(|| call.array(2)),
                    method: call.bool(3, true),
                    proxied: call.map(4),
                };
                manager.0.registered.borrow_mut().insert(name, entry);
                Ok(Dynamic::UNIT)
            },
        )
        .method(
            "get_server()",
            "A server in this process, for `serve_forever()`.",
            |call| Ok(Dynamic::from(OwnServer::new(call.this())?)),
        )
        .method("_number_of_objects()", "How many objects the server keeps.", |call| {
            let client = call.this::<Manager>().client()?;
            ask(&client, Op::Count, "", &[], places::of_call(call.ctx))
        })
        .getter("address", "Where the server listens; `()` before that is known.", |call| {
            let manager = call.this::<Manager>();
            let address = manager.0.address.borrow();
            Ok(address.as_ref().map_or(Dynamic::UNIT, address_value))
        })
        .display(|manager| {
            let address = manager.0.address.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
            format!("<{} at '{address}'>", manager.0.class.name())
        })
        .equality(super::travel::same)
        .dynamic_methods(Rc::new(|ctx, name, args| {
            let Some((this, rest)) = args.split_first_mut() else { return Ok(None) };
            let Some(manager) = this.read_lock::<Manager>().map(|manager| manager.clone()) else { return Ok(None) };
            if !manager.0.registered.borrow().get(name).is_some_and(|entry| entry.method) {
                return Ok(None);
            }
            let args: Vec<Dynamic> = rest.iter().map(|arg| (**arg).clone()).collect();
            manager.create(name, &args, places::of_call(ctx)).map(Some)
        }));
}

fn makers(registry: &mut Registry) {
    registry
        .class::<Manager>("Manager")
        .method(
            "dict(init: any = ())",
            "A dict in the server, with the pairs of an object map, a DictProxy or an array of `[key, value]`.",
            container(Tag::Dict, given_pairs),
        )
        .method("list(init: items = ())", "A list in the server, with the items of whatever iterates.", container(Tag::List, given_items))
        .method("set(init: items = ())", "A set in the server, with the items of whatever iterates.", container(Tag::Set, given_items))
        .method("Namespace(init: map = ())", "A namespace in the server: `ns.x` for all processes.", |call| {
            let prepare = |call: &mut Call<'_>| Ok(vec![Dynamic::from_map(call.map(0))]);
            maker(Tag::Namespace, prepare)(call)
        })
        .method("Lock()", "A lock in the server, by the rules of Python's threading.Lock.", maker(Tag::Lock, as_given(0)))
        .method("RLock()", "A lock in the server that its holder may take again.", maker(Tag::RLock, as_given(0)))
        .method("Semaphore(value: int = 1)", "A semaphore in the server.", maker(Tag::Semaphore, as_given(1)))
        .method(
            "BoundedSemaphore(value: int = 1)",
            "A semaphore in the server that can't be released too often.",
            maker(Tag::BoundedSemaphore, as_given(1)),
        )
        .method(
            "Condition(lock: plain = ())",
            "A condition in the server, with a lock of the same manager or one of its own.",
            maker(Tag::Condition, as_given(1)),
        )
        .method("Event()", "A flag in the server to wait for.", maker(Tag::Event, as_given(0)))
        .method(
            "Barrier(parties: int, action: callable = (), timeout: seconds = ())",
            "A barrier in the server; the action runs there.",
            maker(Tag::Barrier, as_given(3)),
        )
        .method(
            "Pool(processes: plain = (), initializer: plain = (), initargs: array = [], maxtasksperchild: plain = ())",
            "A pool whose workers are the server's children.",
            maker(Tag::Pool, as_given(4)),
        )
        .method("Queue(maxsize: int = 0)", "A queue in the server.", maker(Tag::Queue, as_given(1)))
        .method("JoinableQueue(maxsize: int = 0)", "A queue in the server; in a manager the same as Queue.", maker(Tag::JoinableQueue, as_given(1)))
        .method("Value(typecode: string, value: any)", "A value of any type in the server.", maker(Tag::Value, as_given(2)))
        .method(
            "Array(typecode: string, sequence: items)",
            "An array of numbers in the server, each kept in the range of its type.",
            |call| {
                let prepare = |call: &mut Call<'_>| {
                    let (code, given) = (call.take(0), call.take(1));
                    Ok(vec![code, Dynamic::from_array(items(call.ctx, given)?)])
                };
                maker(Tag::Array, prepare)(call)
            },
        );
}
