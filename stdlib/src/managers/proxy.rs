//! Proxies: references to objects in a manager's server.
//!
//! All proxies of one object in a process share an [`Inner`]; a script's copy of a proxy is a reference to it. What methods a proxy
//! has is decided by its Rust type, one for each kind of object ([`Typed`]).
//!
//! A proxy stored in an object of its own server, or sent elsewhere, stays live. On the way between a server and its client it
//! is written without an address, as "one of yours": so it doesn't matter by which address the client knows the server.
//!
//! Reading an item for a method call (`d["a"].push(1)`), Rhai sets the item again afterwards, changed or not. [`Proxy::get_place`] keeps
//! what it gave, and where in the script; [`Proxy::set_place`] sends nothing if it gets the same back at the same place.

use super::client::{self, Client};
use super::protocol::{Op, Tag};
use super::server::Server;
use crate::address::{address_of, address_value};
use crate::convert::{Decoder, Encoder};
use crate::error::Result;
use crate::handle::malformed;
use mphost_core::position::Position;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use rhai::{Array, Dynamic, ImmutableString, NativeCallContext};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How many values a proxy is in a message: address, whether the message is counted, number, kind, name, what may be called.
const ATTRIBUTES: usize = 6;

/// How many places of the script are remembered at a time: method calls nest no deeper as a rule.
const MARKS: usize = 4;

/// Which server an object is in.
#[derive(Clone)]
pub(super) enum Home {
    /// Another process.
    Client(Rc<Client>),
    /// This very process.
    Here(Rc<Server>),
}

/// What all proxies of one object in this process share.
pub(super) struct Inner {
    home: Home,
    id: u64,
    tag: Tag,
    typeid: ImmutableString,
    exposed: Option<Rc<[ImmutableString]>>,
    marks: RefCell<Vec<Mark>>,
    /// How often this process has changed the number of items.
    changes: Cell<u64>,
}

/// An item that was given out for something to be done with it.
struct Mark {
    place: rhai::Position,
    key: Dynamic,
    /// The item, as it came.
    bytes: Vec<u8>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &self.home {
            Home::Client(client) => client.dropped(self.id),
            Home::Here(server) => server.drop_soon(self.id),
        }
    }
}

/// A reference to an object in a server.
#[derive(Clone)]
pub(super) struct Proxy(Rc<Inner>);

/// A Rust type of proxies: what a script sees of them.
pub(super) trait Typed: Clone + 'static {
    /// The proxy inside.
    fn proxy(&self) -> &Proxy;
}

impl Proxy {
    /// Makes what a server has just made known: to the server itself.
    pub(super) fn local(
        server: &Rc<Server>,
        id: u64,
        tag: Tag,
        typeid: ImmutableString,
        exposed: Option<Rc<[ImmutableString]>>,
    ) -> Proxy {
        server.hold_here(id);
        Proxy(Rc::new(Inner {
            home: Home::Here(server.clone()),
            id,
            tag,
            typeid,
            exposed,
            marks: RefCell::default(),
            changes: Cell::new(0),
        }))
    }

    /// The proxy in a script's value, if it is one.
    pub(super) fn of(value: &Dynamic) -> Option<Proxy> {
        super::proxies::proxy_of(value)
    }

    /// As a script has it.
    pub(super) fn value(self) -> Dynamic {
        super::proxies::typed(self)
    }

    /// The object's number in its server.
    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    /// What kind of object it stands for.
    pub(super) fn tag(&self) -> Tag {
        self.0.tag
    }

    /// What may be called on a script's object.
    pub(super) fn exposed(&self) -> &[ImmutableString] {
        self.0.exposed.as_deref().unwrap_or_default()
    }

    /// Whether both stand for the same object.
    pub(super) fn same(&self, other: &Proxy) -> bool {
        if Rc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        let same_home = match (&self.0.home, &other.0.home) {
            (Home::Client(a), Home::Client(b)) => Rc::ptr_eq(a, b),
            (Home::Here(a), Home::Here(b)) => Rc::ptr_eq(a, b),
            _ => false,
        };
        same_home && self.0.id == other.0.id
    }

    /// Whether its object is in this server.
    pub(super) fn is_in(&self, server: &Rc<Server>) -> bool {
        matches!(&self.0.home, Home::Here(own) if Rc::ptr_eq(own, server))
    }

    /// CPython's `repr` of a proxy.
    pub(super) fn describe(&self) -> String {
        format!(
            "<{} object, typeid '{}' at {:#x}>",
            self.0.tag.proxy_class(),
            self.0.typeid,
            self.0.id
        )
    }

    /// How often this process has changed the number of items.
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.get()
    }

    /// Notes such a change.
    pub(super) fn changed(&self) {
        self.0.changes.set(self.0.changes.get() + 1);
    }

    /// Has the server do an operation.
    ///
    /// # Errors
    /// What it throws; ConnectionError's kin where the server is gone.
    pub(super) fn call(&self, op: Op, args: &[&Dynamic], position: Position) -> Result<Dynamic> {
        match &self.0.home {
            Home::Client(client) => client.request(
                position,
                |encoder| self.write(encoder, op, args),
                |decoder, _| decoder.value(),
            ),
            Home::Here(server) => server.call_here(
                self.0.id,
                op,
                args.iter().map(|arg| (*arg).clone()).collect(),
            ),
        }
    }

    fn write(&self, encoder: &mut Encoder, op: Op, args: &[&Dynamic]) -> Result<()> {
        let writer = encoder.writer();
        writer.int(op as i64);
        writer.int(self.0.id.cast_signed());
        writer
            .begin_array(args.len())
            .expect("one level is never too deep");
        for (index, arg) in args.iter().enumerate() {
            // The last argument is the value as a rule, what is before it tells where it goes.
            let root = if index + 1 == args.len() {
                "value"
            } else {
                "key"
            };
            encoder.value_at(root, arg)?;
        }
        encoder.writer().end();
        Ok(())
    }

    /// Gets an item for what the script does with it at this place.
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub(super) fn get_place(
        &self,
        op: Op,
        key: Option<&Dynamic>,
        ctx: &NativeCallContext<'_>,
    ) -> Result<Dynamic> {
        let args = key.as_slice();
        let position = crate::places::of_call(ctx);
        let Home::Client(client) = &self.0.home else {
            return self.call(op, args, position);
        };
        let place = ctx.call_position();
        client.request(
            position,
            |encoder| self.write(encoder, op, args),
            |decoder, bytes| {
                let value = decoder.value()?;
                if !place.is_none() {
                    let mut marks = self.0.marks.borrow_mut();
                    // The memory of the oldest mark serves the newest.
                    let mut kept = if marks.len() == MARKS {
                        marks.remove(0).bytes
                    } else {
                        Vec::new()
                    };
                    kept.clear();
                    kept.extend_from_slice(bytes);
                    let key = key.map(|key| (*key).clone()).unwrap_or_default();
                    marks.push(Mark {
                        place,
                        key,
                        bytes: kept,
                    });
                }
                Ok(value)
            },
        )
    }

    /// Sets an item, unless this is Rhai's own setting of what it got at the same place, and nothing has changed.
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub(super) fn set_place(
        &self,
        op: Op,
        key: Option<&Dynamic>,
        value: &Dynamic,
        ctx: &NativeCallContext<'_>,
    ) -> Result<()> {
        if self.is_unchanged(key, value, ctx.call_position()) {
            return Ok(());
        }
        let args: Vec<&Dynamic> = key.into_iter().chain([value]).collect();
        self.call(op, &args, crate::places::of_call(ctx)).map(drop)
    }

    fn is_unchanged(&self, key: Option<&Dynamic>, value: &Dynamic, place: rhai::Position) -> bool {
        let unit = Dynamic::UNIT;
        let key = key.unwrap_or(&unit);
        let mut marks = self.0.marks.borrow_mut();
        let found = marks
            .iter()
            .rposition(|mark| mark.place == place && super::comparison::equal(&mark.key, key));
        let Some(mark) = found.map(|index| marks.remove(index)) else {
            return false;
        };
        drop(marks);
        let Home::Client(client) = &self.0.home else {
            return false;
        };
        crate::message::with_encoder(|encoder| {
            // The version byte stands before the value.
            client.writing(|| encoder.value(value)).is_ok()
                && encoder.bytes().get(1..) == Some(&mark.bytes[..])
        })
    }
}

/// Writes a proxy into a message.
pub(super) fn encode(proxy: &Proxy, encoder: &mut Encoder) -> Result<()> {
    let inner = &proxy.0;
    let counted = !encoder.is_repeated();
    if !counted {
        encoder.pin(proxy.clone().value());
    }
    let address = match (&inner.home, client::in_exchange()) {
        (Home::Client(client), Some(target)) if Rc::ptr_eq(client, &target) => Dynamic::UNIT,
        (Home::Client(client), _) => {
            if counted {
                client.lend(inner.id);
            }
            address_value(client.address())
        }
        (Home::Here(server), None) if server.is_answering() => {
            server.grant(inner.id);
            Dynamic::UNIT
        }
        (Home::Here(server), _) => {
            if counted {
                server.lend_here(inner.id);
            }
            address_value(server.address())
        }
    };
    encoder.begin_handle(HandleKind::Proxy, None, None, ATTRIBUTES)?;
    encoder.value(&address)?;
    let writer = encoder.writer();
    writer.bool(counted);
    writer.int(inner.id.cast_signed());
    writer.int(inner.tag as i64);
    writer.str(&inner.typeid);
    match &inner.exposed {
        None => writer.unit(),
        Some(names) => {
            let names: Array = names.iter().cloned().map(Dynamic::from).collect();
            encoder.value(&Dynamic::from_array(names))?;
        }
    }
    encoder.writer().end();
    Ok(())
}

/// Makes a proxy of what a message holds.
pub(super) fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let bad = || malformed(HandleKind::Proxy);
    if head.attributes != ATTRIBUTES {
        return Err(bad());
    }
    let address = decoder.value()?;
    let counted = decoder.value()?.as_bool().map_err(|_| bad())?;
    let id = decoder
        .value()?
        .as_int()
        .map_err(|_| bad())?
        .cast_unsigned();
    let tag = decoder
        .value()?
        .as_int()
        .ok()
        .and_then(Tag::from_number)
        .ok_or_else(bad)?;
    let typeid = decoder
        .value()?
        .into_immutable_string()
        .map_err(|_| bad())?;
    let exposed = match decoder.value()?.try_cast::<Array>() {
        None => None,
        Some(names) => {
            let names: Option<Rc<[ImmutableString]>> = names
                .into_iter()
                .map(|name| name.into_immutable_string().ok())
                .collect();
            Some(names.ok_or_else(bad)?)
        }
    };
    decoder.reader().end();
    let of_peer = address.is_unit();
    let home = match (of_peer, client::in_exchange(), Server::current()) {
        (true, Some(client), _) => Home::Client(client),
        (true, None, Some(server)) => Home::Here(server),
        (true, None, None) => return Err(bad()),
        (false, _, server) => {
            let address = address_of(&address)?;
            match server.filter(|server| *server.address() == address) {
                Some(server) => Home::Here(server),
                None => Home::Client(Client::at(&address)),
            }
        }
    };
    let inner = match &home {
        Home::Client(client) => match client.held(id) {
            Some(inner) => {
                if !of_peer && counted {
                    client.returned(id);
                }
                inner
            }
            None => {
                let inner = Rc::new(Inner {
                    home: home.clone(),
                    id,
                    tag,
                    typeid,
                    exposed,
                    marks: RefCell::default(),
                    changes: Cell::new(0),
                });
                if !of_peer && !counted {
                    // The sender has it as long as the message may be read: so it is there to be counted, now.
                    client.lend(id);
                }
                client.hold(id, &inner, of_peer);
                inner
            }
        },
        Home::Here(server) => {
            if !of_peer && counted {
                server.return_here(id);
            }
            return Ok(Proxy::local(server, id, tag, typeid, exposed).value());
        }
    };
    Ok(Proxy(inner).value())
}
