//! Python's `multiprocessing.connection`: pipes, their ends, and waiting for several of them.
//!
//! The core sends and receives messages; here values become messages, and errors Python's.
//!
//! What travels: over a pipe everything, since both ends are in one program: references to session objects belong to the message while it
//! is under way, and connections and sockets in it are descriptors beside it. A connection by address may lead to another program, whose
//! objects would mean nothing here: over it they are refused, and over a pipe of which an end went that way.

mod listener;

pub(crate) use listener::{close_all, forget_parent};

use crate::api::{Call, Registry, type_name};
use crate::convert::{self, Decoder, Encoder, References};
use crate::error::{Kind, Result, ScriptError, raise};
use crate::{handle, message, places, shared_memory, sharedctypes, with};
use mphost_core::clock::Deadline;
use mphost_core::connection::{self as core, Framing};
use mphost_core::position::Position;
use mphost_core::process::borrow_fd;
use mphost_core::session::session;
use mphost_core::shared::Block;
use mphost_core::value::HandleKind;
use mphost_core::wait::{PollFd, WaitInfo, WaitKind, wait_fds_or};
use mphost_core::wire::HandleHead;
use rhai::{Array, Blob, Dynamic, ImmutableString};
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::rc::Rc;

/// A buffer that has grown beyond this many bytes isn't kept.
const KEPT: usize = 16 << 20;

/// One end of a pipe, or of a connection by address.
#[derive(Clone)]
pub struct Connection(Rc<core::Connection>);

/// Finds the descriptor of an object that [`wait`] can wait for.
///
/// [`wait`]: self#wait
type Descriptor = fn(&Dynamic) -> Result<RawFd>;

/// Says of an object, whose descriptor can be read or not, whether it is ready; `None`: the descriptor says that.
type Look = fn(&Dynamic, bool) -> Result<Option<bool>>;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WAITABLE: RefCell<HashMap<TypeId, (Descriptor, Option<Look>)>> = RefCell::new(HashMap::new());
}

/// Says that `mp::connection::wait` can wait for values of this type: until the descriptor can be read.
pub fn waitable<T: 'static>(descriptor: Descriptor) {
    WAITABLE.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), (descriptor, None)));
}

/// The same for a type whose descriptor tells only that it is worth a look.
fn waitable_by_look<T: 'static>(descriptor: Descriptor, look: Look) {
    WAITABLE.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), (descriptor, Some(look))));
}

/// Registers pipes and `mp::connection`.
pub fn register(registry: &mut Registry) {
    registry.constructor(
        "Pipe(duplex: bool = true)",
        "Two connected ends, as an array. With `duplex` false the first only receives and the second only sends.\n\n\
         ```rhai\nlet ends = Pipe();\nends[0].send([42, (), \"hello\"]);\nprint(ends[1].recv());\n```",
        |call| {
            let (first, second) = core::Connection::pipe(call.bool(0, true), places::of_call(call.ctx))?;
            Ok(Dynamic::from_array([first, second].map(|end| Connection::new(end).value()).into()))
        },
    );
    registry.function(
        "mp::connection",
        "wait(object_list: array, timeout: seconds = ())",
        "Waits until one of the connections, sockets, listeners or sentinels in the list is ready; gives those that are, in the order of the \
         list. An end whose other side is closed is ready.\n\n```rhai\nlet ends = Pipe(false);\nends[1].send(1);\nfor ready in mp::connection::wait([ends[0]]) {\n    print(ready.recv());\n}\n```",
        wait,
    );
    messages(registry);
    state(registry);
    listener::register(registry);
}

impl Connection {
    /// The handle of an end.
    #[must_use]
    pub fn new(end: core::Connection) -> Self {
        Self(Rc::new(end))
    }

    /// The end behind it.
    #[must_use]
    pub fn core(&self) -> &core::Connection {
        &self.0
    }

    /// As a script has it.
    pub fn value(self) -> Dynamic {
        Dynamic::from(self)
    }

    fn send(&self, value: &Dynamic, position: Position) -> Result<()> {
        if self.0.closed() || !self.0.writable() {
            // The core's own error says why; the value isn't looked at.
            return Ok(self.0.send(&[], &[], position)?);
        }
        if let Some(blob) = message::large(value) {
            return message::with_large(&blob, |message| {
                Ok(self.0.send_with(message, &[], &[], position)?)
            });
        }
        message::with_encoder(|encoder| {
            let foreign = self.0.may_lead_elsewhere();
            encoder.set_foreign(foreign);
            encoder.value_at("object", value)?;
            if foreign && !encoder.handles().is_empty() {
                return Err(raise(
                    Kind::PicklingError,
                    "queues, locks and shared values belong to their program: a connection by address can't carry them, nor a pipe of which an \
                     end was sent by one; any other pipe can",
                ));
            }
            if !self.0.carries_descriptors() && !encoder.fds().is_empty() {
                return Err(raise(
                    Kind::PicklingError,
                    "connections and sockets can't travel over a network: they mean something on this machine alone",
                ));
            }
            encoder.depart()?;
            let handles = encoder.seal();
            let sent = encoder.borrowed_fds().and_then(|fds| {
                Ok(self
                    .0
                    .send_with(&encoder.bytes().into(), &handles, &fds, position)?)
            });
            if sent.is_err() {
                handles
                    .into_iter()
                    .for_each(|handle| session().release(handle));
            }
            sent
        })
    }

    fn recv(&self, position: Position) -> Result {
        let mut buffer = BUFFER.take();
        let received = self.0.recv(&mut buffer, None, position);
        let buffer = match message::into_large(buffer) {
            Ok(blob) => return Ok(Dynamic::from_blob(blob)),
            Err(buffer) => buffer,
        };
        let result = received.map_err(Into::into).and_then(|fds| {
            let references = match self.0.may_lead_elsewhere() {
                false => References::Adopt,
                true => References::Foreign,
            };
            Decoder::new(&buffer, fds, references)?.only_value()
        });
        if buffer.capacity() <= KEPT {
            BUFFER.set(buffer);
        }
        result
    }

    /// Sends `bytes[offset..offset + size]`.
    fn send_bytes(&self, bytes: &[u8], call: &Call<'_>) -> Result {
        let position = places::of_call(call.ctx);
        if self.0.closed() || !self.0.writable() {
            self.0.send(&[], &[], position)?;
        }
        let wrong = |text: &str| raise(Kind::ValueError, text);
        let offset =
            usize::try_from(call.int(1).unwrap_or(0)).map_err(|_| wrong("offset is negative"))?;
        let rest = bytes
            .get(offset..)
            .ok_or_else(|| wrong("buffer length < offset"))?;
        let part = match call.int(2) {
            None => rest,
            Some(size) => {
                let size = usize::try_from(size).map_err(|_| wrong("size is negative"))?;
                rest.get(..size)
                    .ok_or_else(|| wrong("buffer length < offset + size"))?
            }
        };
        self.0.send(part, &[], position)?;
        Ok(Dynamic::UNIT)
    }

    fn recv_bytes(&self, maxlength: Option<i64>, position: Position) -> Result<Blob> {
        let maxlength = match maxlength {
            None => None,
            Some(length) => Some(
                usize::try_from(length)
                    .map_err(|_| raise(Kind::ValueError, "negative maxlength"))?,
            ),
        };
        let mut bytes = Blob::new();
        self.0.recv(&mut bytes, maxlength, position)?;
        Ok(bytes)
    }

    fn recv_bytes_into(&self, memory: &Block, offset: i64, position: Position) -> Result {
        if self.0.closed() || !self.0.readable() {
            self.0.poll(Deadline::NOW, position)?;
        }
        let offset =
            usize::try_from(offset).map_err(|_| raise(Kind::ValueError, "negative offset"))?;
        if offset > memory.len() {
            return Err(raise(Kind::ValueError, "offset too large"));
        }
        let bytes = self.recv_bytes(None, position)?;
        if memory.len() - offset < bytes.len() {
            let error = ScriptError::new(
                Kind::BufferTooShort,
                format!(
                    "the message has {} bytes, there is room for {}; e.data is the message",
                    bytes.len(),
                    memory.len() - offset
                ),
            );
            return Err(error.with_field("data", Dynamic::from_blob(bytes)).into());
        }
        memory.write(offset, &bytes)?;
        Ok(int(bytes.len()))
    }

    /// Whether both are the same end: of one socket there may be many descriptors, in one process and in several.
    fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
            || self
                .identity()
                .is_some_and(|identity| other.identity().is_some_and(|theirs| identity == theirs))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        let fd = borrow_fd(self.0.fileno().ok()?).ok()?;
        let status = nix::sys::stat::fstat(fd).ok()?;
        Some((status.st_dev, status.st_ino))
    }
}

fn int(length: usize) -> Dynamic {
    Dynamic::from(i64::try_from(length).unwrap_or(i64::MAX))
}

fn messages(registry: &mut Registry) {
    registry
        .class::<Connection>("Connection")
        .method("send(obj: any)", "Sends a value. Waits while the other side is far behind.", |call| {
            let value = call.take(0);
            call.this::<Connection>().send(&value, places::of_call(call.ctx))?;
            Ok(Dynamic::UNIT)
        })
        .method(
            "recv()",
            "Receives a value; waits for one. When every copy of the other end is closed and nothing is left, an `EOFError`.",
            |call| call.this::<Connection>().recv(places::of_call(call.ctx)),
        )
        .method(
            "send_bytes(buf: bytes, offset: int = 0, size: int = ())",
            "Sends the bytes of a blob or a string, from `offset` on, `size` of them.",
            |call| {
                let end = call.this::<Connection>();
                let bytes = call.take(0);
                if let Some(text) = bytes.read_lock::<ImmutableString>() {
                    return end.send_bytes(text.as_bytes(), call);
                }
                let blob = bytes.read_lock::<Blob>().expect("the signature lets only strings and blobs through");
                end.send_bytes(&blob, call)
            },
        )
        .method(
            "recv_bytes(maxlength: int = ())",
            "Receives what `send_bytes` sent, as a blob. A longer message than `maxlength` is an `OSError`, and the end can't receive any \
             more.",
            |call| {
                let bytes = call.this::<Connection>().recv_bytes(call.int(0), places::of_call(call.ctx))?;
                Ok(Dynamic::from_blob(bytes))
            },
        )
        .method(
            "recv_bytes_into(buf: any, offset: int = 0)",
            "Receives bytes into an Array, a RawArray or a shared memory's `buf`; gives their number. If there are too many, a \
             `BufferTooShort` has them in `e.data`.",
            |call| {
                let target = call.take(0);
                let memory = memory(&target)?;
                call.this::<Connection>().recv_bytes_into(&memory, call.int(1).unwrap_or(0), places::of_call(call.ctx))
            },
        )
        .method(
            "poll(timeout: seconds = 0)",
            "Whether something can be received, or the end has come. Waits for that at most `timeout` seconds, with `()` for ever.",
            |call| {
                let deadline = if call.given(0) { handle::timeout(call, 0) } else { Deadline::NOW };
                Ok(Dynamic::from(call.this::<Connection>().0.poll(deadline, places::of_call(call.ctx))?))
            },
        );
}

fn state(registry: &mut Registry) {
    let mut class = registry.class::<Connection>("Connection");
    with::context::<Connection>(None, "close");
    waitable_by_look::<Connection>(
        |value| Ok(of_type(value).0.fileno()?),
        |value, descriptor_ready| Ok(of_type(value).0.look(descriptor_ready)?),
    );
    convert::portable::<Connection>(encode);
    convert::decoder(HandleKind::Connection, decode);
    class
        .display(|end| match end.0.fileno() {
            Ok(fd) => format!("<multiprocessing.connection.Connection fd={fd}>"),
            Err(_) => "<multiprocessing.connection.Connection closed>".into(),
        })
        .equality(Connection::same)
        .method(
            "close()",
            "Closes this end in this process. Again is fine.",
            |call| {
                call.this::<Connection>().0.close();
                Ok(Dynamic::UNIT)
            },
        )
        .method("fileno()", "The descriptor's number.", |call| {
            Ok(Dynamic::from(i64::from(
                call.this::<Connection>().0.fileno()?,
            )))
        })
        .getter("closed", "Whether this process has closed it.", |call| {
            Ok(Dynamic::from(call.this::<Connection>().0.closed()))
        })
        .getter("readable", "Whether this end can receive.", |call| {
            Ok(Dynamic::from(call.this::<Connection>().0.readable()))
        })
        .getter("writable", "Whether this end can send.", |call| {
            Ok(Dynamic::from(call.this::<Connection>().0.writable()))
        });
}

/// The end that a value is known to be.
fn of_type(value: &Dynamic) -> impl Deref<Target = Connection> + '_ {
    value
        .read_lock::<Connection>()
        .expect("found by the type of the value")
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let end = of_type(value);
    let fd = borrow_fd(end.0.fileno()?)?;
    let mut shared = end.0.shared();
    if encoder.is_foreign() {
        encoder.leaves(end.0.clone());
        shared = None;
    }
    let (object, first) = shared.map_or((None, false), |(object, first)| (Some(object), first));
    encoder.begin_handle(HandleKind::Connection, object.as_ref(), Some(fd), 4)?;
    let writer = encoder.writer();
    writer.bool(end.0.framing() == Framing::Stream);
    writer.bool(end.0.readable());
    writer.bool(end.0.writable());
    writer.bool(first);
    writer.end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let fd = decoder.fd(&head)?;
    let mut flag = || {
        decoder
            .value()?
            .as_bool()
            .map_err(|_| handle::malformed(HandleKind::Connection))
    };
    if head.attributes != 4 {
        return Err(handle::malformed(HandleKind::Connection));
    }
    let (stream, readable, writable, first) = (flag()?, flag()?, flag()?, flag()?);
    decoder.reader().end();
    let end = if stream {
        core::Connection::from_stream_fd(fd)
    } else if head.object.is_some() {
        core::Connection::from_shared(fd, readable, writable, decoder.object(&head)?, first)?
    } else {
        let end = core::Connection::from_packet_fd(fd, readable, writable);
        if decoder.is_foreign() {
            end.from_another_program()
        } else {
            end
        }
    };
    Ok(Connection::new(end).value())
}

/// The memory that bytes can be received into.
fn memory(target: &Dynamic) -> Result<Block> {
    sharedctypes::memory(target).or_else(|| shared_memory::memory(target)).ok_or_else(|| {
        raise(
            Kind::TypeError,
            format!(
                "recv_bytes_into(): 'buf' must be an Array, a RawArray or the buf of a SharedMemory, not {}{}",
                type_name(target),
                if target.is_blob() { " (Rhai passes blobs by value: recv_bytes() gives one)" } else { "" }
            ),
        )
    })
}

fn wait(call: &mut Call<'_>) -> Result {
    let objects = call.array(0);
    let deadline = handle::timeout(call, 1);
    if objects.is_empty() && deadline.is_never() {
        // Nothing can ever become ready.
        return Ok(Dynamic::from_array(Array::new()));
    }
    let mut polled = Vec::with_capacity(objects.len());
    let mut looks = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        let (fd, look) = descriptor(object)?;
        polled.push(PollFd {
            fd,
            events: nix::libc::POLLIN,
            revents: 0,
        });
        looks.extend(look.map(|look| (index, look)));
    }
    let info = WaitInfo::new(WaitKind::Descriptors, 0, places::of_call(call.ctx));
    let ends: Vec<Connection> = objects
        .iter()
        .filter_map(|object| Some(object.read_lock::<Connection>()?.clone()))
        .collect();
    let has_message = || ends.iter().any(|end| end.0.has_message());
    loop {
        // What was seen there before can't be seen at the descriptor any more.
        let mut seen = false;
        for (index, look) in &looks {
            seen |= look(&objects[*index], false)? == Some(true);
        }
        let until = if seen { Deadline::NOW } else { deadline };
        wait_fds_or(&mut polled, info, until, &has_message)?;
        for (index, look) in &looks {
            let fd = &mut polled[*index];
            if let Some(ready) = look(&objects[*index], fd.revents != 0)?
                && fd.revents & nix::libc::POLLNVAL == 0
            {
                fd.revents = if ready { nix::libc::POLLIN } else { 0 };
            }
        }
        if until.has_passed() || polled.iter().any(|fd| fd.revents != 0) {
            break;
        }
    }
    if let Some(bad) = polled
        .iter()
        .find(|fd| fd.revents & nix::libc::POLLNVAL != 0)
    {
        return Err(raise(
            Kind::OSError,
            format!("wait(): there is no open descriptor {}", bad.fd),
        ));
    }
    let mut ready = Array::new();
    for (object, fd) in objects.into_iter().zip(&polled) {
        if fd.revents == 0 {
            continue;
        }
        if object.is_int() {
            // The kernel tells of an end before anybody has buried the process: who waited for it shall find its exit code.
            crate::process::settle(fd.fd)?;
        }
        ready.push(object);
    }
    Ok(ready.into())
}

fn descriptor(object: &Dynamic) -> Result<(RawFd, Option<Look>)> {
    if let Ok(number) = object.as_int() {
        return RawFd::try_from(number)
            .ok()
            .filter(|fd| *fd >= 0)
            .map(|fd| (fd, None))
            .ok_or_else(|| {
                raise(
                    Kind::ValueError,
                    format!("wait(): {number} is no descriptor"),
                )
            });
    }
    let known = WAITABLE.with_borrow(|all| all.get(&object.type_id()).copied());
    match known {
        Some((descriptor, look)) => Ok((descriptor(object)?, look)),
        None => Err(raise(
            Kind::TypeError,
            format!(
                "wait() takes connections, sockets, listeners and sentinels, not {}",
                type_name(object)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_examples_run() {
        let others: &[crate::testing::Register] =
            &[crate::builtins::register, crate::errors::register];
        crate::testing::run_examples(others, super::register);
    }
}
