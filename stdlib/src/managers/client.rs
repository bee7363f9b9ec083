//! The client's side: this process's connections to servers, and one request at a time on each.
//!
//! A process has one [`Client`] for each server, found by the server's address, with one connection as a rule: a second one is
//! made where a request is under way already, which happens when a callback runs while the process waits for an answer. They are made
//! when they are first needed, and never shared with a forked child, which makes its own.
//!
//! Lifetimes: the server counts, for each client, which objects it holds. A proxy that comes out of an answer is counted by the
//! server before it sends; one that comes by another road (an argument, a queue) was lent by its sender ([`Op::Lend`]) and is
//! claimed here ([`Op::Hold`]). What is held, and what is dropped, is said with the next request, so that it costs nothing of its
//! own.
//!
//! Invariants:
//! - A connection is used again only if its last answer was read: one that was left inside of an exchange is closed.
//! - A request that is interrupted is cancelled, and the server's word on it is awaited, so that nothing is granted to nobody.

use super::authkeys;
use super::protocol::{MESSAGE_LIMIT, Op, Status};
use super::proxy::Inner;
use crate::convert::{Decoder, Encoder, References};
use crate::error::{Error, Kind, Result, ScriptError, raise};
use crate::message;
use mphost_core::authentication::{self, Challenge};
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::position::Position;
use mphost_core::session::session;
use mphost_core::transport::{self, Address, Fill, Frame, Link, wait_one};
use nix::libc;
use rhai::{Dynamic, EvalAltResult};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::{Rc, Weak};

/// So many notes (held, dropped) wait for the next request; one more, and they are sent by themselves.
const NOTES: usize = 64;

/// This process's access to one server.
pub(super) struct Client {
    address: Address,
    /// By this number the server knows all connections of this process as one client's.
    number: Cell<(i64, i64)>,
    idle: RefCell<Vec<Channel>>,
    /// The objects that this process has proxies of.
    held: RefCell<HashMap<u64, Weak<Inner>>>,
    notes: RefCell<Vec<(Op, u64)>>,
}

/// One connection whose other end has authenticated itself.
struct Channel {
    link: Link,
    /// Whether the server belongs to this program: then session objects mean the same at both ends.
    same_session: bool,
    /// Whether descriptors can travel.
    local: bool,
}

thread_local! {
    static CLIENTS: RefCell<HashMap<Address, Rc<Client>>> = RefCell::default();
    /// The client whose request is being written, or whose answer is being read.
    static EXCHANGE: RefCell<Option<Rc<Client>>> = const { RefCell::new(None) };
}

/// In a forked child: the connections are the parent's, the proxies in memory are this process's from now on.
pub(super) fn forget_parent() {
    CLIENTS.with_borrow(|clients| {
        for client in clients.values() {
            // Their descriptors are closed already, and their numbers may have other owners: no destructor may run.
            client.idle.take().into_iter().for_each(std::mem::forget);
            client.notes.borrow_mut().clear();
            client.number.set(random_number());
        }
    });
    EXCHANGE.with_borrow_mut(|exchange| std::mem::forget(exchange.take()));
}

/// Says what there is left to say, before this process ends.
pub(super) fn flush_all() {
    let clients: Vec<Rc<Client>> =
        CLIENTS.with_borrow(|clients| clients.values().cloned().collect());
    for client in clients {
        if !client.notes.borrow().is_empty() && !client.idle.borrow().is_empty() {
            client.send_notes();
        }
    }
}

/// Says to all servers that this process ends well: what it hasn't given back it just keeps.
pub(super) fn take_leave() {
    CLIENTS.with_borrow(|clients| {
        for client in clients.values() {
            if let Some(channel) = client.idle.borrow_mut().first_mut() {
                message::with_encoder(|encoder| {
                    head(encoder, Op::Leave, 0);
                    channel.link.enqueue(encoder.bytes());
                });
                // A server that doesn't listen isn't waited for.
                let _ = channel.link.flush();
            }
        }
    });
}

/// The client whose request is being written, or whose answer is being read.
pub(super) fn in_exchange() -> Option<Rc<Client>> {
    EXCHANGE.with_borrow(Option::clone)
}

fn exchange<T>(client: &Rc<Client>, work: impl FnOnce() -> T) -> T {
    let outer = EXCHANGE.replace(Some(client.clone()));
    let result = work();
    EXCHANGE.replace(outer);
    result
}

fn random_number() -> (i64, i64) {
    let mut bytes = [0; 16];
    // Without randomness the pid still tells the clients of one machine apart.
    let _ = mphost_core::random::fill(&mut bytes);
    let number = u128::from_le_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "two halves of one number")]
    let halves = (
        number as i64 ^ i64::from(std::process::id()),
        (number >> 64) as i64,
    );
    halves
}

impl Client {
    /// The client of the server at an address.
    pub(super) fn at(address: &Address) -> Rc<Client> {
        CLIENTS.with_borrow_mut(|clients| {
            if let Some(client) = clients.get(address) {
                return client.clone();
            }
            let client = Rc::new(Client {
                address: address.clone(),
                number: Cell::new(random_number()),
                idle: RefCell::default(),
                held: RefCell::default(),
                notes: RefCell::default(),
            });
            clients.insert(address.clone(), client.clone());
            client
        })
    }

    /// Where the server is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Forgets the connections: the server has ended.
    pub(super) fn disconnect(&self) {
        self.idle.borrow_mut().clear();
        self.notes.borrow_mut().clear();
    }

    /// The proxy state of an object that this process has already.
    pub(super) fn held(&self, id: u64) -> Option<Rc<Inner>> {
        self.held.borrow().get(&id).and_then(Weak::upgrade)
    }

    /// Notes that this process has proxies of an object now. `counted`: the server counts it already.
    pub(super) fn hold(&self, id: u64, inner: &Rc<Inner>, counted: bool) {
        self.held.borrow_mut().insert(id, Rc::downgrade(inner));
        if counted {
            // It may be about to be dropped, by a note that hasn't been sent: not any more.
            self.notes
                .borrow_mut()
                .retain(|note| *note != (Op::Drop, id));
        } else {
            self.note(Op::Hold, id);
        }
    }

    /// One more message with the object has come by a road that doesn't end at its server, and this process holds it already.
    pub(super) fn returned(&self, id: u64) {
        self.note(Op::Hold, id);
    }

    /// The last proxy of an object is gone.
    pub(super) fn dropped(&self, id: u64) {
        if self.held.borrow_mut().remove(&id).is_some() {
            self.note(Op::Drop, id);
        }
    }

    fn note(&self, op: Op, id: u64) {
        self.notes.borrow_mut().push((op, id));
        if self.notes.borrow().len() > NOTES && !self.idle.borrow().is_empty() {
            self.send_notes();
        }
    }

    /// Says that a message holds the object from now on: before the message leaves.
    pub(super) fn lend(&self, id: u64) {
        self.notes.borrow_mut().push((Op::Lend, id));
        self.send_notes();
    }

    /// Sends the notes now. A server that is gone needs none: whoever uses the proxy gets the error.
    fn send_notes(&self) {
        let Ok(mut channel) = self.checkout(Position::NONE) else {
            return;
        };
        self.write_notes(&mut channel.link);
        let sent = flush(&mut channel.link);
        if sent.is_ok() {
            self.idle.borrow_mut().push(channel);
        }
    }

    fn write_notes(&self, link: &mut Link) {
        let mut notes = self.notes.borrow_mut();
        if notes.is_empty() {
            return;
        }
        message::with_encoder(|encoder| {
            for (op, id) in notes.drain(..) {
                encoder.clear();
                head(encoder, op, id);
                link.enqueue(encoder.bytes());
            }
        });
    }

    fn checkout(&self, position: Position) -> Result<Channel> {
        if let Some(channel) = self.idle.borrow_mut().pop() {
            return Ok(channel);
        }
        self.connect(position)
    }

    /// Connects and authenticates. Python: `BaseManager.connect()`.
    ///
    /// # Errors
    /// ConnectionRefusedError and its kin, AuthenticationError.
    pub(super) fn try_connect(&self, position: Position) -> Result<()> {
        let channel = self.connect(position)?;
        self.idle.borrow_mut().push(channel);
        Ok(())
    }

    fn connect(&self, position: Position) -> Result<Channel> {
        let socket = transport::connect(&self.address, Deadline::NEVER, position)
            .map_err(|error| self.unreachable(error))?;
        let local = transport::is_local(&socket);
        let mut link = Link::to_stranger(socket);
        let key = authkeys::key_of(&self.address);
        let theirs = self.receive(&mut link, position)?;
        let answer = authentication::answer(&key, link.body(&theirs))?;
        send(&mut link, &answer)?;
        let verdict = self.receive(&mut link, position)?;
        authentication::check_welcome(link.body(&verdict))?;
        let ours = Challenge::new()?;
        send(&mut link, ours.message())?;
        let answer = self.receive(&mut link, position)?;
        let checked = ours.check(&key, link.body(&answer));
        let verdict = if checked.is_ok() {
            authentication::WELCOME
        } else {
            authentication::FAILURE
        };
        send(&mut link, verdict)?;
        checked?;
        link.set_limit(MESSAGE_LIMIT);
        let same_session = self.greet(&mut link, position)?;
        Ok(Channel {
            link,
            same_session,
            local,
        })
    }

    /// Says who this process is and what it holds; whether the server is of the same program.
    fn greet(&self, link: &mut Link, position: Position) -> Result<bool> {
        let held: Vec<u64> = self
            .held
            .borrow()
            .iter()
            .filter(|(_, inner)| inner.strong_count() > 0)
            .map(|(id, _)| *id)
            .collect();
        let (first, second) = self.number.get();
        let (system, inode) = session_identity();
        message::with_encoder(|encoder| {
            let writer = encoder.writer();
            writer.int(Op::Hello as i64);
            writer.int(0);
            let nested = "two levels are never too deep";
            writer.begin_array(7).expect(nested);
            let slot = session().me().to_u64().cast_signed();
            let pid = i64::from(std::process::id());
            for number in [first, second, system, inode, slot, pid] {
                writer.int(number);
            }
            writer.begin_array(held.len()).expect(nested);
            for id in &held {
                writer.int(id.cast_signed());
            }
            writer.end();
            writer.end();
            send(link, encoder.bytes())
        })?;
        let frame = self.receive(link, position)?;
        let mut decoder = Decoder::new(link.body(&frame), frame.fds, References::Foreign)?;
        let same = decoder.value()?;
        Ok(same.as_bool().unwrap_or(false))
    }

    /// Runs what writes values for this client's server.
    pub(super) fn writing<T>(self: &Rc<Self>, work: impl FnOnce() -> T) -> T {
        exchange(self, work)
    }

    fn unreachable(&self, error: CoreError) -> Error {
        match error {
            CoreError::Os { errno, .. } => {
                let error = std::io::Error::from_raw_os_error(errno);
                let kind = match errno {
                    libc::ENOENT | libc::ECONNREFUSED => Kind::ConnectionRefusedError,
                    _ => {
                        return crate::core_error::from_io(
                            &error,
                            "connect",
                            Some(&self.address.to_string()),
                        )
                        .into();
                    }
                };
                raise(
                    kind,
                    format!(
                        "no manager listens at {}: it has ended, or wasn't started",
                        self.address
                    ),
                )
            }
            other => other.into(),
        }
    }

    fn gone(&self) -> Error {
        raise(
            Kind::ConnectionResetError,
            format!(
                "the connection to the manager at {} is closed: its server has ended, or can't be reached any more",
                self.address
            ),
        )
    }

    /// The next frame, awaited.
    fn receive(&self, link: &mut Link, position: Position) -> Result<Frame> {
        loop {
            if let Some(frame) = link.frame().map_err(|_| self.gone())? {
                return Ok(frame);
            }
            if link.fill_awaited(position)? == Fill::End {
                return Err(self.gone());
            }
        }
    }

    /// One request and its answer: `write` writes the request behind an empty message, `read` gets the decoder at the result, and
    /// the bytes of the result.
    ///
    /// # Errors
    /// What the server threw, ConnectionError's kin where it is gone, PicklingError for what can't travel to it.
    pub(super) fn request<T>(
        self: &Rc<Self>,
        position: Position,
        write: impl FnOnce(&mut Encoder) -> Result<()>,
        read: impl FnOnce(&mut Decoder<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let mut channel = self.checkout(position)?;
        let written = message::with_encoder(|encoder| {
            encoder.set_foreign(!channel.same_session);
            let written =
                exchange(self, || write(encoder)).and_then(|()| channel.check_travel(encoder));
            if let Err(error) = written {
                return Ok(Err(error));
            }
            self.write_notes(&mut channel.link);
            let handles = encoder.seal();
            let sent = message::send(&mut channel.link, encoder);
            sent.map(Ok).map_err(|_| {
                handles
                    .into_iter()
                    .for_each(|handle| session().release(handle));
                self.gone()
            })
        })?;
        if let Err(error) = written {
            // Nothing of it was sent: the connection is as good as before.
            self.idle.borrow_mut().push(channel);
            return Err(error);
        }
        let frame = match self.receive(&mut channel.link, position) {
            Ok(frame) => frame,
            Err(Error::Core(error)) => return self.interrupted(channel, error, read),
            Err(error) => return Err(error),
        };
        self.finish(channel, frame, read)
            .map_err(|cancelled| cancelled.unwrap_or_else(|| self.gone()))
    }

    /// The wait was left by an error: takes the request back, unless its answer comes first.
    fn interrupted<T>(
        self: &Rc<Self>,
        mut channel: Channel,
        error: CoreError,
        read: impl FnOnce(&mut Decoder<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        message::with_encoder(|encoder| {
            head(encoder, Op::Cancel, 0);
            channel.link.enqueue(encoder.bytes());
        });
        if flush(&mut channel.link).is_err() {
            return Err(error.into());
        }
        // A second interrupt closes the connection: then the server forgets the request by itself.
        let Ok(frame) = self.receive(&mut channel.link, Position::NONE) else {
            return Err(error.into());
        };
        match self.finish(channel, frame, read) {
            Ok(value) => {
                // It was done after all; the interrupt comes next.
                mphost_core::signals::request_attention();
                Ok(value)
            }
            Err(Some(thrown)) => Err(thrown),
            Err(None) => Err(error.into()),
        }
    }

    /// Reads an answer; `None` as the error: the request was cancelled.
    fn finish<T>(
        self: &Rc<Self>,
        channel: Channel,
        frame: Frame,
        read: impl FnOnce(&mut Decoder<'_>, &[u8]) -> Result<T>,
    ) -> std::result::Result<T, Option<Error>> {
        let result = self.read_answer(&channel, frame, read);
        self.idle.borrow_mut().push(channel);
        result
    }

    fn read_answer<T>(
        self: &Rc<Self>,
        channel: &Channel,
        mut frame: Frame,
        read: impl FnOnce(&mut Decoder<'_>, &[u8]) -> Result<T>,
    ) -> std::result::Result<T, Option<Error>> {
        let fds = std::mem::take(&mut frame.fds);
        let body = channel.link.body(&frame);
        let references = if channel.same_session {
            References::Adopt
        } else {
            References::Foreign
        };
        exchange(self, || {
            let mut decoder = Decoder::new(body, fds, references).map_err(Some)?;
            let status = decoder
                .value()
                .map_err(Some)?
                .as_int()
                .ok()
                .and_then(Status::from_number);
            match status {
                Some(Status::Done) => {
                    let rest = &body[body.len() - decoder.reader().remaining()..];
                    read(&mut decoder, rest).map_err(Some)
                }
                Some(Status::Thrown) => Err(Some(thrown(decoder.value().map_err(Some)?))),
                Some(Status::Cancelled) => Err(None),
                None => Err(Some(raise(
                    Kind::RuntimeError,
                    "a malformed answer from a manager",
                ))),
            }
        })
    }
}

impl Channel {
    /// Whether everything in the message means something at the other end.
    fn check_travel(&self, encoder: &Encoder) -> Result<()> {
        if !self.same_session && !encoder.handles().is_empty() {
            return Err(raise(
                Kind::PicklingError,
                "queues, locks and shared values belong to their program: a manager of another program can't keep them",
            ));
        }
        if !self.local && !encoder.fds().is_empty() {
            return Err(raise(
                Kind::PicklingError,
                "connections and sockets can't travel over a network",
            ));
        }
        encoder.depart()
    }
}

/// The head of a request without arguments.
fn head(encoder: &mut Encoder, op: Op, id: u64) {
    let writer = encoder.writer();
    writer.int(op as i64);
    writer.int(id.cast_signed());
    writer.begin_array(0).expect("one level is never too deep");
    writer.end();
}

fn send(link: &mut Link, bytes: &[u8]) -> Result<()> {
    link.send(bytes, &[])?;
    flush(link)
}

/// Sends all that is unsent, waiting for room.
fn flush(link: &mut Link) -> Result<()> {
    while !link.flush()? {
        wait_one(
            link.as_raw_fd(),
            libc::POLLOUT,
            Deadline::NEVER,
            Position::NONE,
        )?;
    }
    Ok(())
}

/// What a server threw, as an error of this process.
pub(super) fn thrown(value: Dynamic) -> Error {
    match value.try_cast_result::<ScriptError>() {
        Ok(error) => Error::Script(error),
        Err(value) => Error::Rhai(Box::new(EvalAltResult::ErrorRuntime(
            value,
            rhai::Position::NONE,
        ))),
    }
}

/// What tells this program's session from any other, on this machine and on others that a manager is reached from: the file of its
/// memory, and since when the system that has it runs.
pub(super) fn session_identity() -> (i64, i64) {
    thread_local! {
        static SYSTEM: i64 = {
            let mut hasher = DefaultHasher::new();
            let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            boot.hash(&mut hasher);
            hasher.finish().cast_signed()
        };
    }
    match nix::sys::stat::fstat(session().fd()) {
        Ok(status) => (
            SYSTEM.with(|system| system ^ status.st_dev.cast_signed()),
            status.st_ino.cast_signed(),
        ),
        Err(_) => (0, 0),
    }
}
