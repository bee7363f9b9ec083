//! Managed objects: one state machine for each kind.
//!
//! An object gets operations one at a time and never waits. An operation that can't be done yet gives [`Outcome::Wait`], and the object
//! keeps its [`Ticket`]; whatever makes it possible later answers that ticket through [`Turn::answer`]. [`Object::expire`] takes a
//! waiting operation back: at its deadline, when its client has gone, or when the client has changed its mind.
//!
//! Invariant: every ticket that an object keeps is answered once, or taken back by `expire`; never both.

mod barrier;
mod condition;
mod dict;
mod event;
mod list;
mod lock;
mod namespace;
pub(super) mod pool;
mod queue;
mod semaphore;
mod set;
#[cfg(test)]
mod testing;
mod values;

use super::protocol::{Op, Status, Tag};
use super::server::{Args, ClientId, Grip, Server};
use crate::convert::Encoder;
use crate::error::{Error, Kind, Result, ScriptError, raise};
use crate::queue::{Discipline, LocalQueue};
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use rhai::{Array, Dynamic, NativeCallContext};
use std::cell::RefCell;
use std::rc::Rc;

/// What names a waiting operation: a connection, and which of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) peer: usize,
    pub(super) request: u64,
}

impl Ticket {
    /// For operations of the server's own process.
    pub(super) const HERE: Ticket = Ticket {
        peer: usize::MAX,
        request: 0,
    };
}

/// How a waiting operation ends.
#[derive(Debug)]
pub(super) enum Verdict {
    Done(Dynamic),
    Thrown(Error),
    Cancelled,
}

/// How an operation begins.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Done; the result is to be sent.
    Value(Dynamic),
    /// Done; the result is written already.
    Written,
    /// It waits until somebody answers its ticket.
    Wait(Deadline),
}

/// Why a wait ends without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Timeout,
    /// The client is gone: nobody to answer.
    Gone,
    Cancelled,
}

impl Why {
    /// The answer, where there is somebody to answer.
    pub(super) fn verdict(self, timeout: impl FnOnce() -> Verdict) -> Option<Verdict> {
        match self {
            Why::Timeout => Some(timeout()),
            Why::Cancelled => Some(Verdict::Cancelled),
            Why::Gone => None,
        }
    }
}

/// One operation's surroundings.
pub(super) struct Turn<'t> {
    /// Who asks.
    pub(super) client: ClientId,
    /// What is asked, if it has to wait.
    pub(super) ticket: Ticket,
    /// Where the answer goes, if it is wanted as bytes.
    pub(super) out: Option<&'t mut Encoder>,
    pub(super) answers: &'t mut Vec<(Ticket, Verdict)>,
    pub(super) server: &'t Rc<Server>,
    /// For calling the script's functions.
    pub(super) script: &'t NativeCallContext<'t>,
}

impl Turn<'_> {
    /// The operation's result, written at once where that saves a copy.
    ///
    /// # Errors
    /// Where the value can't travel.
    pub(super) fn give(&mut self, value: &Dynamic) -> Result<Outcome> {
        match &mut self.out {
            None => Ok(Outcome::Value(value.clone())),
            Some(out) => self
                .server
                .answering(|| write_done(out, value))
                .map(|()| Outcome::Written),
        }
    }

    /// The operation's result is an array of these values.
    ///
    /// # Errors
    /// Where one of them can't travel.
    pub(super) fn give_all<'v, V: AsValue + 'v>(
        &mut self,
        values: impl ExactSizeIterator<Item = V>,
    ) -> Result<Outcome> {
        let Some(out) = &mut self.out else {
            return Ok(Outcome::Value(Dynamic::from_array(
                values.map(|value| value.with(Dynamic::clone)).collect(),
            )));
        };
        self.server.answering(|| {
            out.writer().int(Status::Done as i64);
            out.writer()
                .begin_array(values.len())
                .map_err(|error| crate::core_error::from_wire(&error))?;
            for value in values {
                value.with(|value| {
                    out.value_at("result", value)?;
                    out.keep(value);
                    Ok::<_, Error>(())
                })?;
            }
            out.writer().end();
            Ok(Outcome::Written)
        })
    }

    /// A proxy of a new object of the same server.
    pub(super) fn adopt(&self, object: SharedObject, tag: Tag) -> Dynamic {
        self.server
            .adopt(object, tag, tag.typeid().into(), None)
            .value()
    }

    /// What the client has in its hand if it gets it now: an `acquire`'s third argument says where it was asked for.
    pub(super) fn grip(&self, args: &Args) -> Grip {
        let place = int(args, 2).unwrap_or(0).cast_unsigned();
        Grip::new(self.server.holder(self.client), Position::from_bits(place))
    }

    /// Ends another operation's wait.
    pub(super) fn answer(&mut self, ticket: Ticket, verdict: Verdict) {
        self.answers.push((ticket, verdict));
    }
}

/// A value, or something that is quickly made one.
pub(super) trait AsValue {
    /// Looks at the value.
    fn with<R>(self, look: impl FnOnce(&Dynamic) -> R) -> R;
}

impl AsValue for &Dynamic {
    fn with<R>(self, look: impl FnOnce(&Dynamic) -> R) -> R {
        look(self)
    }
}

impl AsValue for Dynamic {
    fn with<R>(self, look: impl FnOnce(&Dynamic) -> R) -> R {
        look(&self)
    }
}

/// A managed object.
pub(super) trait Object {
    /// Begins an operation.
    ///
    /// # Errors
    /// What the operation throws.
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome>;

    /// Takes a waiting operation back.
    fn expire(&mut self, _ticket: Ticket, _why: Why, _turn: &mut Turn<'_>) {}

    /// Something outside may have made waiting operations possible, or vain: a pool has finished a task, a holder of locks is dead.
    fn poke(&mut self, _turn: &mut Turn<'_>) {}

    /// Whether it is to be poked.
    fn is_poked(&self) -> bool {
        false
    }

    /// The lock behind a managed lock: a managed condition may use it.
    fn lock(&self) -> Option<lock::SharedLock> {
        None
    }
}

/// An object that the server and whoever calls it share.
pub(super) type SharedObject = Rc<RefCell<dyn Object>>;

/// Makes an object of a kind that managers know by themselves.
///
/// # Errors
/// What Python's constructor throws for such arguments.
pub(super) fn create(
    server: &Rc<Server>,
    tag: Tag,
    args: Array,
    script: &NativeCallContext<'_>,
) -> Result<Rc<RefCell<dyn Object>>> {
    let mut args: Args = args.into_iter().collect();
    Ok(match tag {
        Tag::Dict => Rc::new(RefCell::new(dict::Dict::new(&mut args)?)),
        Tag::List => Rc::new(RefCell::new(list::List::new(take(&mut args, 0))?)),
        Tag::Set => Rc::new(RefCell::new(set::Set::new(take(&mut args, 0))?)),
        Tag::Namespace => Rc::new(RefCell::new(namespace::Namespace::new(take(&mut args, 0)))),
        Tag::Value => Rc::new(RefCell::new(values::Value::new(take(&mut args, 1)))),
        Tag::Array => Rc::new(RefCell::new(values::TypedArray::new(&mut args)?)),
        Tag::Lock => Rc::new(RefCell::new(lock::Lock::new(false))),
        Tag::RLock => Rc::new(RefCell::new(lock::Lock::new(true))),
        Tag::Semaphore => Rc::new(RefCell::new(semaphore::Semaphore::new(&args, false)?)),
        Tag::BoundedSemaphore => Rc::new(RefCell::new(semaphore::Semaphore::new(&args, true)?)),
        Tag::Condition => Rc::new(RefCell::new(condition::Condition::new(
            server,
            &take(&mut args, 0),
        )?)),
        Tag::Event => Rc::new(RefCell::new(event::Event::default())),
        Tag::Barrier => Rc::new(RefCell::new(barrier::Barrier::new(&mut args)?)),
        Tag::Queue | Tag::JoinableQueue => Rc::new(RefCell::new(queue::Queue::of(
            LocalQueue::new(Discipline::Fifo, int(&args, 0).unwrap_or(0)),
        ))),
        Tag::Pool => return pool::create(args, script),
        Tag::AsyncResult | Tag::Iterator | Tag::Object => {
            return Err(raise(
                Kind::AttributeError,
                format!("this manager makes no '{}'", tag.typeid()),
            ));
        }
    })
}

/// A managed object with the contents of a value that a script's callable has returned, if there is a kind for it.
///
/// # Errors
/// `TypeError` for a key that can't be one.
pub(super) fn wrap(value: &Dynamic) -> Result<Option<(Tag, SharedObject)>> {
    if let Some(queue) = value.read_lock::<LocalQueue>() {
        let queue = queue::Queue::of(queue.clone());
        return Ok(Some((Tag::Queue, Rc::new(RefCell::new(queue)))));
    }
    if let Some(array) = value.read_lock::<Array>() {
        let list = list::List::new(Dynamic::from_array(array.clone()))?;
        return Ok(Some((Tag::List, Rc::new(RefCell::new(list)))));
    }
    if let Some(map) = value.read_lock::<rhai::Map>() {
        let flat: Array = map
            .iter()
            .flat_map(|(key, value)| [key.as_str().into(), value.clone()])
            .collect();
        let mut args: Args = std::iter::once(Dynamic::from_array(flat)).collect();
        return Ok(Some((
            Tag::Dict,
            Rc::new(RefCell::new(dict::Dict::new(&mut args)?)),
        )));
    }
    Ok(None)
}

/// Argument `index`, or `()`; it can be taken once.
pub(super) fn take(args: &mut Args, index: usize) -> Dynamic {
    args.get_mut(index).map(Dynamic::take).unwrap_or_default()
}

/// A whole number that was given.
pub(super) fn int(args: &Args, index: usize) -> Option<i64> {
    args.get(index).and_then(|arg| arg.as_int().ok())
}

/// A truth that was given, else `default`.
pub(super) fn truth(args: &Args, index: usize, default: bool) -> bool {
    args.get(index)
        .and_then(|arg| arg.as_bool().ok())
        .unwrap_or(default)
}

/// A number of seconds that was given.
#[expect(
    clippy::cast_precision_loss,
    reason = "durations need no more than 53 bits"
)]
pub(super) fn seconds(args: &Args, index: usize) -> Option<f64> {
    let arg = args.get(index)?;
    arg.as_float()
        .ok()
        .or_else(|| arg.as_int().ok().map(|int| int as f64))
}

/// An array that must be given.
pub(super) fn array(args: &mut Args, index: usize) -> Result<Array> {
    take(args, index).try_cast::<Array>().ok_or_else(malformed)
}

/// The number of items as a script has it.
pub(super) fn length(length: usize) -> Dynamic {
    i64::try_from(length).unwrap_or(i64::MAX).into()
}

/// The error for an operation that this kind of object doesn't have.
pub(super) fn unsupported(op: Op) -> Error {
    raise(
        Kind::AttributeError,
        format!("the object has no method '{}'", op.name()),
    )
}

/// The error for arguments that no proxy of ours sends.
pub(super) fn malformed() -> Error {
    raise(Kind::RuntimeError, "a malformed request")
}

/// Writes the answer to an operation that was done.
///
/// # Errors
/// Where the value can't travel.
pub(super) fn write_done(out: &mut Encoder, value: &Dynamic) -> Result<()> {
    out.writer().int(Status::Done as i64);
    out.value_at("result", value)?;
    // It may have been taken out of its object.
    out.keep(value);
    Ok(())
}

/// Writes that an operation was taken back.
pub(super) fn write_cancelled(out: &mut Encoder) {
    out.writer().int(Status::Cancelled as i64);
    out.writer().unit();
}

/// Writes what was thrown; what can't travel becomes a RemoteError with its text.
pub(super) fn write_thrown(out: &mut Encoder, error: Error, script: &NativeCallContext<'_>) {
    let error = error.into_rhai(None, rhai::Position::NONE);
    let value = crate::error::thrown_value(&error, script.call_source());
    out.clear();
    out.writer().int(Status::Thrown as i64);
    if out.value(&value).is_err() {
        let remote = ScriptError::new(Kind::RemoteError, error.to_string());
        out.clear();
        out.writer().int(Status::Thrown as i64);
        out.value(&Dynamic::from(remote))
            .expect("an error made of texts can travel");
    }
}
