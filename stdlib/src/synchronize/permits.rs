//! Lock, RLock, Semaphore and BoundedSemaphore.
//!
//! All four have `acquire`, `release`, `locked` and `recover`, and are entered and left by `with`. An `acquire` that would wait for a
//! dead process raises `OwnerDiedError` instead; `release` or `recover` make the permit free again.

use crate::api::{Class, Registry};
use crate::convert::{Decoder, Encoder};
use crate::error::{Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::{places, with};
use mphost_core::clock::Deadline;
use mphost_core::permit;
use mphost_core::position::Position;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::Dynamic;

/// What the four types have in common.
trait Permit: Handle {
    fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool>;
    fn release(&self) -> Result<()>;
    fn recover(&self) -> Result<bool>;
    fn locked(&self) -> Result<bool>;
    fn get_value(&self) -> Result<i64>;
    fn show(&self) -> String;
}

macro_rules! permits {
    ($($(#[$doc:meta])* $name:ident $show:expr;)+) => { $(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(permit::$name);

        impl $name {
            /// The primitive of the session behind it.
            #[must_use]
            pub fn core(&self) -> &permit::$name {
                &self.0
            }
        }

        impl Handle for $name {
            const KIND: HandleKind = HandleKind::$name;

            fn object(&self) -> &ObjRef {
                self.0.obj()
            }

            fn rebuild(object: ObjRef, _decoder: &mut Decoder<'_>) -> Result<Self> {
                Ok(Self(permit::$name::from_ref(object)?))
            }
        }

        impl Permit for $name {
            fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
                Ok(self.0.acquire(deadline, position)?)
            }

            fn release(&self) -> Result<()> {
                Ok(self.0.release()?)
            }

            fn recover(&self) -> Result<bool> {
                Ok(self.0.recover()?)
            }

            fn locked(&self) -> Result<bool> {
                Ok(self.0.locked()?)
            }

            fn get_value(&self) -> Result<i64> {
                Ok(i64::try_from(self.0.get_value()?).unwrap_or(i64::MAX))
            }

            fn show(&self) -> String {
                ($show)(&self.0)
            }
        }
    )+ };
}

permits! {
    /// A lock that any process may release.
    Lock |lock: &permit::Lock| format!("<Lock(owner={})>", owner(lock.owner()).0);
    /// A lock that its owner may take several times, and that only its owner releases.
    RLock |lock: &permit::RLock| {
        let (owner, mine) = owner(lock.owner());
        match owner.as_str() {
            _ if mine => format!("<RLock({owner}, {})>", lock.count().unwrap_or(0)),
            "None" => "<RLock(None, 0)>".to_owned(),
            _ => format!("<RLock({owner}, nonzero)>"),
        }
    };
    /// A counter that `acquire` lowers and `release` raises.
    Semaphore |semaphore: &permit::Semaphore| format!("<Semaphore(value={})>", count(semaphore.get_value()));
    /// A semaphore that can't be released more often than it was acquired.
    BoundedSemaphore |semaphore: &permit::BoundedSemaphore| {
        format!("<BoundedSemaphore(value={}, maxvalue={})>", count(semaphore.get_value()), count(semaphore.limit()))
    };
}

/// Python's words for the owner of a lock, and whether that is this process.
fn owner(owner: mphost_core::error::Result<Option<permit::Owner>>) -> (String, bool) {
    match owner {
        Ok(Some(owner)) if owner.mine => (owner.name, true),
        Ok(Some(_)) => ("SomeOtherProcess".into(), false),
        Ok(None) => ("None".into(), false),
        Err(_) => ("unknown".into(), false),
    }
}

fn count(value: mphost_core::error::Result<u64>) -> String {
    value.map_or_else(|_| "unknown".into(), |value| value.to_string())
}

/// Registers the four types.
pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Lock()",
        "A lock: one process holds it at a time. Any process may release it.\n\n\
         ```rhai\nlet lock = Lock();\nwith lock {\n    print(lock.locked());\n}\n```",
        |call| made(permit::Lock::create(places::of_call(call.ctx)).map(Lock)),
    );
    registry.constructor(
        "RLock()",
        "A lock that its owner may acquire several times; it is free after as many releases. Only the owner releases it.\n\n```rhai\nlet lock = RLock();\nwith lock {\n    with lock { print(lock); }\n}\n```",
        |call| made(permit::RLock::create(places::of_call(call.ctx)).map(RLock)),
    );
    registry.constructor(
        "Semaphore(value: int = 1)",
        "A counter that `acquire` lowers, waiting while it is 0, and `release` raises.\n\n```rhai\nlet rooms = Semaphore(2);\nwith rooms {\n    print(rooms.get_value());\n}\n```",
        |call| {
            made(
                permit::Semaphore::create(call.int(0).unwrap_or(1), places::of_call(call.ctx))
                    .map(Semaphore),
            )
        },
    );
    registry.constructor(
        "BoundedSemaphore(value: int = 1)",
        "A semaphore that can't be released above its first value, and whose holders are known.\n\n```rhai\nlet rooms = BoundedSemaphore(2);\nrooms.acquire();\nrooms.release();\n```",
        |call| {
            let value = call.int(0).unwrap_or(1);
            made(
                permit::BoundedSemaphore::create(value, places::of_call(call.ctx))
                    .map(BoundedSemaphore),
            )
        },
    );
    methods(&mut registry.class::<Lock>("Lock"));
    methods(&mut registry.class::<RLock>("RLock"));
    for_semaphores(methods(&mut registry.class::<Semaphore>("Semaphore")));
    for_semaphores(methods(
        &mut registry.class::<BoundedSemaphore>("BoundedSemaphore"),
    ));
}

fn made<T: Clone + 'static>(object: mphost_core::error::Result<T>) -> Result {
    Ok(Dynamic::from(object?))
}

fn methods<'c, 'r, T: Permit>(class: &'c mut Class<'r, T>) -> &'c mut Class<'r, T> {
    handle::register(class);
    with::guarded(
        |permit: &T, at| permit.acquire(Deadline::NEVER, at),
        T::release,
    );
    class
        .display(T::show)
        .method(
            "acquire(block: bool = true, timeout: seconds = ())",
            "Takes it: `true`, or `false` if it couldn't be had in time (at once with `block` false). If the process that holds it has \
             died, an `OwnerDiedError` (`pid`, `exitcode`, `acquired_at`).",
            |call| {
                let deadline = handle::deadline(call, 0, 1);
                Ok(Dynamic::from(call.this::<T>().acquire(deadline, places::of_call(call.ctx))?))
            },
        )
        .method("release()", "Gives it back. If nobody has it, a `ValueError` (an `AssertionError` for an RLock).", |call| {
            call.this::<T>().release()?;
            Ok(Dynamic::UNIT)
        })
        .method("locked()", "Whether an `acquire` by another process would have to wait.", |call| {
            Ok(Dynamic::from(call.this::<T>().locked()?))
        })
        .method("recover()", "Makes free what a dead process held; says whether there was anything.", |call| {
            Ok(Dynamic::from(call.this::<T>().recover()?))
        })
}

fn for_semaphores<T: Permit>(class: &mut Class<'_, T>) {
    class.method("get_value()", "The present value.", |call| {
        Ok(Dynamic::from(call.this::<T>().get_value()?))
    });
}

/// Any of the four: the lock of a condition or of a shared value.
#[derive(Clone)]
pub enum Guard {
    /// A lock.
    Lock(Lock),
    /// A recursive lock.
    RLock(RLock),
    /// A semaphore.
    Semaphore(Semaphore),
    /// A bounded semaphore.
    BoundedSemaphore(BoundedSemaphore),
}

macro_rules! each {
    ($guard:expr, $it:ident => $body:expr) => {
        match $guard {
            Guard::Lock($it) => $body,
            Guard::RLock($it) => $body,
            Guard::Semaphore($it) => $body,
            Guard::BoundedSemaphore($it) => $body,
        }
    };
}

impl Guard {
    /// A new recursive lock, which conditions and shared values have unless they are given one.
    ///
    /// # Errors
    /// Where the session has no room.
    pub fn own(position: Position) -> Result<Self> {
        Ok(Self::RLock(RLock(permit::RLock::create(position)?)))
    }

    /// The lock that a script gave.
    ///
    /// # Errors
    /// `AttributeError` in Python's words if it is none.
    pub fn from_value(value: &Dynamic) -> Result<Self> {
        if let Some(lock) = value.read_lock::<Lock>() {
            Ok(Self::Lock(lock.clone()))
        } else if let Some(lock) = value.read_lock::<RLock>() {
            Ok(Self::RLock(lock.clone()))
        } else if let Some(lock) = value.read_lock::<Semaphore>() {
            Ok(Self::Semaphore(lock.clone()))
        } else if let Some(lock) = value.read_lock::<BoundedSemaphore>() {
            Ok(Self::BoundedSemaphore(lock.clone()))
        } else {
            let of = crate::api::type_name(value);
            Err(raise(
                Kind::AttributeError,
                format!(
                    "'{of}' object has no method 'acquire' of this program's own: 'lock' is a Lock or an RLock; a Value and an Array take true and false, too"
                ),
            ))
        }
    }

    /// The lock as a script has it.
    pub fn value(&self) -> Dynamic {
        each!(self, it => Dynamic::from(it.clone()))
    }

    /// Writes it into a message.
    ///
    /// # Errors
    /// Where values nest too deep.
    pub fn write(&self, encoder: &mut Encoder) -> Result<()> {
        encoder.value(&self.value())
    }

    /// Takes it.
    ///
    /// # Errors
    /// `OwnerDied`; what the interrupt hook raises.
    pub fn acquire(&self, deadline: Deadline, position: Position) -> Result<bool> {
        each!(self, it => it.acquire(deadline, position))
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Where it isn't held.
    pub fn release(&self) -> Result<()> {
        each!(self, it => it.release())
    }

    /// Makes free what a dead process held.
    ///
    /// # Errors
    /// Where the object is gone.
    pub fn recover(&self) -> Result<bool> {
        each!(self, it => it.recover())
    }

    /// Python's text for it.
    #[must_use]
    pub fn show(&self) -> String {
        each!(self, it => it.show())
    }

    /// Registers `acquire`, `release`, `recover` and `with` for a type that has such a lock inside.
    pub fn methods<T: Clone + 'static>(class: &mut Class<'_, T>, of: fn(&T) -> &Guard) {
        with::guarded(
            move |object: &T, at| of(object).acquire(Deadline::NEVER, at),
            move |object: &T| of(object).release(),
        );
        class
            .method(
                "acquire(block: bool = true, timeout: seconds = ())",
                "Takes the lock inside: `true`, or `false` if it couldn't be had in time.",
                move |call| {
                    let deadline = handle::deadline(call, 0, 1);
                    Ok(Dynamic::from(
                        of(&call.this::<T>()).acquire(deadline, places::of_call(call.ctx))?,
                    ))
                },
            )
            .method("release()", "Gives the lock inside back.", move |call| {
                of(&call.this::<T>()).release()?;
                Ok(Dynamic::UNIT)
            })
            .method(
                "recover()",
                "Makes the lock inside free if the process that held it is dead.",
                move |call| Ok(Dynamic::from(of(&call.this::<T>()).recover()?)),
            );
    }
}
