//! The server: objects, who holds them, and what clients ask of them.
//!
//! One thread, and nothing in it waits for one client: [`Loop`] reads what has arrived and writes what goes, and an operation that has
//! to wait (a lock, a queue, a barrier) is parked in its object until another client's operation, the deadline or its
//! client's end answers it.
//!
//! Who holds an object is counted in `counts`.
//!
//! Invariant: while an object works it isn't called again; what it answers to others is sent when it has finished.

mod counts;
mod crowd;
mod event_loop;
mod holder;
mod peer;

pub(super) use event_loop::Loop;
pub(super) use holder::{Grip, Holder};

use super::objects::{self, Object, Outcome, Ticket, Turn, Verdict};
use super::protocol::{Op, Tag};
use super::proxy::Proxy;
use crate::convert::Encoder;
use crate::error::{Error, Kind, Result, raise};
use mphost_core::error::CoreError;
use mphost_core::table::SlotId;
use mphost_core::transport::Address;
use nix::sys::eventfd::{EfdFlags, EventFd};
use rhai::{Array, Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};

/// The arguments of an operation.
pub(super) type Args = SmallVec<[Dynamic; 3]>;

/// A connected client, by a number of the server's own.
pub(super) type ClientId = u64;

/// What a manager makes by a name that a script has registered.
#[derive(Clone)]
pub(super) struct Factory {
    /// Makes the object.
    pub(super) callable: FnPtr,
    /// Which of its methods may be called; none given: those that don't begin with `_`.
    pub(super) exposed: Option<Rc<[ImmutableString]>>,
    /// Its methods whose results stay here, as objects of the kind that is named.
    pub(super) proxied: Rc<Map>,
}

/// An object and its counts.
struct Entry {
    object: Rc<RefCell<dyn Object>>,
    tag: Tag,
    typeid: ImmutableString,
    exposed: Option<Rc<[ImmutableString]>>,
    /// Clients that hold it, proxies here, messages under way: may be negative for a moment, when a message arrives before the note of
    /// its sending is read.
    count: i64,
}

/// What the server knows of a client: a process, whatever number of connections it has.
struct ClientState {
    connections: usize,
    held: HashSet<u64>,
    holder: Rc<Holder>,
}

/// A manager's server.
pub(super) struct Server {
    address: Address,
    /// What it makes; `None`: everything that a SyncManager makes, by the built-in names.
    factories: HashMap<ImmutableString, Factory>,
    builtins: bool,
    objects: RefCell<HashMap<u64, Entry>>,
    clients: RefCell<HashMap<ClientId, ClientState>>,
    numbers: RefCell<HashMap<(i64, i64), ClientId>>,
    next_object: Cell<u64>,
    next_client: Cell<ClientId>,
    /// Changes of counts that wait until no object is at work.
    deltas: RefCell<Vec<(u64, i64)>>,
    /// Whether an answer to a client is being written.
    answering: Cell<bool>,
    /// Objects that the answer names.
    grants: RefCell<Vec<u64>>,
    /// Answers to parked operations, to be sent.
    answers: RefCell<Vec<(Ticket, Verdict)>>,
    /// Objects that something outside may move on, and what tells the loop to look after them.
    poked: RefCell<Vec<Weak<RefCell<dyn Object>>>>,
    waker: EventFd,
    /// What objects of a script keep by the identity of what they were made of.
    pub(super) identities: RefCell<HashMap<(ImmutableString, usize), u64>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Server>>> = const { RefCell::new(None) };
}

impl Server {
    /// A server at an address; `builtins`: it makes everything that a SyncManager makes.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub(super) fn new(
        address: Address,
        builtins: bool,
        factories: HashMap<ImmutableString, Factory>,
    ) -> Result<Rc<Server>> {
        // A number that an earlier server at the same address gave out shall name nothing here.
        let mut first = [0; 8];
        mphost_core::random::fill(&mut first[..6])?;
        let server = Rc::new(Server {
            address,
            factories,
            builtins,
            objects: RefCell::default(),
            clients: RefCell::default(),
            numbers: RefCell::default(),
            next_object: Cell::new(u64::from_le_bytes(first)),
            next_client: Cell::new(1),
            deltas: RefCell::default(),
            answering: Cell::new(false),
            grants: RefCell::default(),
            answers: RefCell::default(),
            identities: RefCell::default(),
            poked: RefCell::default(),
            waker: waker()?,
        });
        crate::runtime::add_service(wake);
        CURRENT.set(Some(server.clone()));
        Ok(server)
    }

    /// The server that this process is, if it is one.
    pub(super) fn current() -> Option<Rc<Server>> {
        CURRENT.with_borrow(Option::clone)
    }

    /// In a forked child of a server: it isn't one.
    pub(super) fn forget() {
        CURRENT.with_borrow_mut(|current| std::mem::forget(current.take()));
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    // Clients.

    /// A connection of the client that goes by this number, which may be its first: process `pid`, of this program if it has a slot.
    fn client_came(
        &self,
        number: (i64, i64),
        held: impl Iterator<Item = u64>,
        pid: i32,
        slot: Option<SlotId>,
    ) -> ClientId {
        let id = *self.numbers.borrow_mut().entry(number).or_insert_with(|| {
            let id = self.next_client.get();
            self.next_client.set(id + 1);
            id
        });
        self.introduce(id, pid, slot);
        for object in held {
            self.hold(id, object);
        }
        id
    }

    /// One more connection of a client.
    pub(super) fn introduce(&self, id: ClientId, pid: i32, slot: Option<SlotId>) {
        let mut clients = self.clients.borrow_mut();
        let client = clients.entry(id).or_insert_with(|| ClientState {
            connections: 0,
            held: HashSet::new(),
            holder: Holder::new(id, pid, slot),
        });
        client.connections += 1;
    }

    /// The client, for what keeps a grip of it.
    pub(super) fn holder(&self, id: ClientId) -> Rc<Holder> {
        let known = self.clients.borrow();
        match known.get(&id) {
            Some(client) => client.holder.clone(),
            // Code of this very process.
            None => Rc::default(),
        }
    }

    /// A connection has ended; with its last one a client gives back the objects that it had. Where it has locks in its hand, it is to be
    /// found out what became of it; then this is its holder.
    fn client_left(&self, id: ClientId) -> Option<Rc<Holder>> {
        let mut clients = self.clients.borrow_mut();
        let client = clients.get_mut(&id)?;
        client.connections -= 1;
        if client.connections > 0 {
            return None;
        }
        let held = std::mem::take(&mut client.held);
        let holder = client.holder.clone();
        drop(clients);
        self.deltas
            .borrow_mut()
            .extend(held.into_iter().map(|object| (object, -1)));
        self.settle();
        // One of these is the table's, one is here.
        if Rc::strong_count(&holder) > 2 {
            return Some(holder);
        }
        self.forget_client(id);
        None
    }

    /// A client that had locks in its hand has ended.
    fn client_ended(&self, holder: &Holder) {
        holder.write_end();
        let gone = |client: &ClientState| client.connections == 0;
        let is_gone = self.clients.borrow().get(&holder.id()).is_some_and(gone);
        if is_gone {
            self.forget_client(holder.id());
        }
    }

    fn forget_client(&self, id: ClientId) {
        self.clients.borrow_mut().remove(&id);
        self.numbers.borrow_mut().retain(|_, client| *client != id);
    }

    // Objects.

    /// Takes an object in; the proxy that comes back holds it.
    pub(super) fn adopt(
        self: &Rc<Self>,
        object: Rc<RefCell<dyn Object>>,
        tag: Tag,
        typeid: ImmutableString,
        exposed: Option<Rc<[ImmutableString]>>,
    ) -> Proxy {
        if object.borrow().is_poked() {
            let mut poked = self.poked.borrow_mut();
            poked.retain(|object| object.strong_count() > 0);
            poked.push(Rc::downgrade(&object));
        }
        let id = self.next_object.get();
        self.next_object.set(id + 1);
        let entry = Entry {
            object,
            tag,
            typeid: typeid.clone(),
            exposed: exposed.clone(),
            count: 0,
        };
        self.objects.borrow_mut().insert(id, entry);
        Proxy::local(self, id, tag, typeid, exposed)
    }

    /// A proxy of an object that is here already.
    pub(super) fn proxy_of(self: &Rc<Self>, id: u64) -> Option<Proxy> {
        let objects = self.objects.borrow();
        let entry = objects.get(&id)?;
        Some(Proxy::local(
            self,
            id,
            entry.tag,
            entry.typeid.clone(),
            entry.exposed.clone(),
        ))
    }

    /// The object of that number.
    ///
    /// # Errors
    /// `KeyError` where it is gone.
    pub(super) fn object(&self, id: u64) -> Result<Rc<RefCell<dyn Object>>> {
        self.objects
            .borrow()
            .get(&id)
            .map(|entry| entry.object.clone())
            .ok_or_else(|| {
                raise(
                    Kind::KeyError,
                    "the object behind this proxy is gone: no process held it any more",
                )
            })
    }

    /// Makes an object by its name; the result is a proxy of it, as a rule.
    pub(super) fn create(
        self: &Rc<Self>,
        typeid: &ImmutableString,
        args: Array,
        script: &NativeCallContext<'_>,
    ) -> Result {
        if let Some(factory) = self.factories.get(typeid) {
            return super::registered::create(self, typeid, factory, args, script);
        }
        match Tag::from_typeid(typeid).filter(|_| self.builtins) {
            Some(tag) => {
                let object = objects::create(self, tag, args, script)?;
                Ok(self.adopt(object, tag, typeid.clone(), None).value())
            }
            None => Err(raise(
                Kind::AttributeError,
                format!("this manager makes no '{typeid}': it wasn't registered"),
            )),
        }
    }

    /// Does what a client asks; the answer, if there is one at once, is in `out`.
    fn serve(
        self: &Rc<Self>,
        request: Request,
        ticket: Ticket,
        client: ClientId,
        out: &mut Encoder,
        script: &NativeCallContext<'_>,
    ) -> Served {
        out.clear();
        self.grants.take();
        let served = match self.work(request, ticket, client, out, script) {
            Ok(Outcome::Written) => Ok(Served::Answered),
            Ok(Outcome::Value(value)) => self
                .answering(|| objects::write_done(out, &value))
                .map(|()| Served::Answered),
            Ok(Outcome::Wait(deadline)) => Ok(Served::Waits(deadline)),
            Err(error) => Err(error),
        };
        let served = served.unwrap_or_else(|error| {
            self.answering(|| objects::write_thrown(out, error, script));
            Served::Answered
        });
        for object in self.grants.take() {
            self.hold(client, object);
        }
        self.settle();
        served
    }

    fn work(
        self: &Rc<Self>,
        request: Request,
        ticket: Ticket,
        client: ClientId,
        out: &mut Encoder,
        script: &NativeCallContext<'_>,
    ) -> Result<Outcome> {
        let Request {
            op,
            object,
            mut args,
        } = request;
        match op {
            Op::Create => {
                let typeid = args.first_mut().map(Dynamic::take).unwrap_or_default();
                let typeid = typeid
                    .into_immutable_string()
                    .map_err(|_| objects::malformed())?;
                let rest: Array = args.drain(1..).collect();
                Ok(Outcome::Value(self.create(&typeid, rest, script)?))
            }
            Op::Count => {
                let count = self.objects.borrow().len();
                Ok(Outcome::Value(
                    i64::try_from(count).unwrap_or(i64::MAX).into(),
                ))
            }
            _ => {
                let object = self.object(object)?;
                let mut object = object.try_borrow_mut().map_err(|_| busy())?;
                let mut answers = Vec::new();
                let mut turn = Turn {
                    server: self,
                    client,
                    ticket,
                    out: Some(out),
                    answers: &mut answers,
                    script,
                };
                let outcome = object.call(op, args, &mut turn);
                self.answers.borrow_mut().extend(answers);
                outcome
            }
        }
    }

    /// Writes the answer to an operation that was parked.
    fn answer(
        self: &Rc<Self>,
        client: ClientId,
        verdict: Verdict,
        out: &mut Encoder,
        script: &NativeCallContext<'_>,
    ) {
        out.clear();
        self.grants.take();
        let written = match verdict {
            Verdict::Done(value) => self.answering(|| objects::write_done(out, &value)),
            Verdict::Thrown(error) => Err(error),
            Verdict::Cancelled => {
                objects::write_cancelled(out);
                Ok(())
            }
        };
        if let Err(error) = written {
            self.answering(|| objects::write_thrown(out, error, script));
        }
        for object in self.grants.take() {
            self.hold(client, object);
        }
        self.settle();
    }

    /// Lets objects move on that wait for something outside.
    fn poke(self: &Rc<Self>, script: &NativeCallContext<'_>) {
        // Nothing was written since: that is as good as read.
        let _ = self.waker.read();
        let poked: Vec<_> = self
            .poked
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for object in poked {
            self.poke_one(&object, script);
        }
    }

    fn poke_one(self: &Rc<Self>, object: &Rc<RefCell<dyn Object>>, script: &NativeCallContext<'_>) {
        let mut answers = Vec::new();
        if let Ok(mut object) = object.try_borrow_mut() {
            object.poke(&mut Turn {
                server: self,
                client: 0,
                ticket: Ticket::HERE,
                out: None,
                answers: &mut answers,
                script,
            });
        }
        self.answers.borrow_mut().extend(answers);
    }

    /// Ends a wait: at its deadline, because its client has gone or has changed its mind.
    fn expire(
        self: &Rc<Self>,
        object: &Rc<RefCell<dyn Object>>,
        ticket: Ticket,
        client: ClientId,
        why: objects::Why,
        script: &NativeCallContext<'_>,
    ) {
        let mut answers = Vec::new();
        let mut turn = Turn {
            server: self,
            client,
            ticket,
            out: None,
            answers: &mut answers,
            script,
        };
        // An object that calls a script while others wait for it is never in the middle of one here: there is one thread.
        if let Ok(mut object) = object.try_borrow_mut() {
            object.expire(ticket, why, &mut turn);
        }
        self.answers.borrow_mut().extend(answers);
    }

    /// An operation that code of this very process asks for: a registered callable that uses a proxy of its own server.
    ///
    /// # Errors
    /// What the object throws; `RuntimeError` where it would have to wait.
    pub(super) fn call_here(self: &Rc<Self>, id: u64, op: Op, args: Args) -> Result<Dynamic> {
        let object = self.object(id)?;
        super::with_context(|script| {
            let mut answers = Vec::new();
            let ticket = Ticket::HERE;
            let outcome = {
                let mut object = object.try_borrow_mut().map_err(|_| busy())?;
                let mut turn = Turn {
                    server: self,
                    client: 0,
                    ticket,
                    out: None,
                    answers: &mut answers,
                    script,
                };
                let outcome = object.call(op, args, &mut turn);
                if matches!(outcome, Ok(Outcome::Wait(_))) {
                    object.expire(ticket, objects::Why::Gone, &mut turn);
                }
                outcome
            };
            self.answers.borrow_mut().extend(answers);
            match outcome? {
                Outcome::Value(value) => Ok(value),
                Outcome::Written => Err(raise(
                    Kind::RuntimeError,
                    "an answer was written where nobody reads it",
                )),
                Outcome::Wait(_) => Err(raise(
                    Kind::RuntimeError,
                    format!(
                        "'{}' would have to wait, inside of the manager's server: nobody else could be served",
                        op.name()
                    ),
                )),
            }
        })
    }
}

fn waker() -> Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_flags(flags).map_err(|errno| CoreError::os("eventfd", errno as i32).into())
}

/// A service of the process: its pools have just been looked after.
fn wake() -> Result<()> {
    if let Some(server) = Server::current()
        && !server.poked.borrow().is_empty()
    {
        // It can't be full: it counts to 2^64.
        let _ = server.waker.write(1);
    }
    Ok(())
}

fn busy() -> Error {
    raise(
        Kind::RuntimeError,
        "the object is in the middle of another call, which has led to this one",
    )
}

/// What a client asks for.
pub(super) struct Request {
    op: Op,
    object: u64,
    args: Args,
}

/// What became of a request.
enum Served {
    /// The answer is written.
    Answered,
    /// It waits in its object.
    Waits(mphost_core::clock::Deadline),
}
