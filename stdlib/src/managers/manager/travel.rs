//! Managers in messages: whoever gets one uses the same server, as if it had called `connect()`.
//!
//! What travels is where the server is and which names it was told of. The server's life stays with the manager that has
//! started it: `shutdown()` of the others does nothing. The key stays where it is, too; a process of this program knows it already, or it is
//! the program's own.

use super::{Class, Manager, Phase, Registered, State};
use crate::address::{address_of, address_value};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Kind, Result, raise};
use crate::handle::malformed;
use crate::managers::client::Client;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use rhai::{Array, Dynamic, ImmutableString};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

const ATTRIBUTES: usize = 3;

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let manager = value
        .read_lock::<Manager>()
        .expect("encoders are found by the type of the value");
    let client = manager.client().map_err(|_| {
        raise(
            Kind::PicklingError,
            "a Manager can't travel to another process before start() or connect(), nor after shutdown(): it has no server",
        )
    })?;
    encoder.begin_handle(HandleKind::Manager, None, None, ATTRIBUTES)?;
    encoder.value(&address_value(client.address()))?;
    encoder.value(&(manager.0.class == Class::Sync).into())?;
    let registered = manager.0.registered.borrow();
    let names: Array = registered
        .iter()
        .filter(|(_, entry)| entry.method)
        .map(|(name, _)| name.clone().into())
        .collect();
    encoder.value(&Dynamic::from_array(names))?;
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let wrong = || malformed(HandleKind::Manager);
    if head.attributes != ATTRIBUTES {
        return Err(wrong());
    }
    let address = address_of(&decoder.value()?)?;
    let sync = decoder.value()?.as_bool().map_err(|_| wrong())?;
    let names = decoder.value()?.try_cast::<Array>().ok_or_else(wrong)?;
    decoder.reader().end();
    let registered: HashMap<ImmutableString, Registered> = names
        .into_iter()
        .filter_map(|name| name.into_immutable_string().ok())
        .map(|name| {
            let entry = Registered {
                callable: None,
                exposed: None,
                method: true,
                proxied: rhai::Map::new(),
            };
            (name, entry)
        })
        .collect();
    let client = Client::at(&address);
    Ok(Dynamic::from(Manager(Rc::new(State {
        class: if sync { Class::Sync } else { Class::Base },
        // For a server that it could start; the client finds the key of the one that there is, once it connects.
        key: Vec::new(),
        address: RefCell::new(Some(address)),
        own_key: false,
        method: None,
        registered: RefCell::new(registered),
        phase: RefCell::new(Phase::Connected { client }),
        // Nobody's: it has no server to end.
        owner: 0,
    }))))
}

/// Whether both have the same server.
pub(super) fn same(a: &Manager, b: &Manager) -> bool {
    Rc::ptr_eq(&a.0, &b.0)
        || matches!((a.client(), b.client()), (Ok(a), Ok(b)) if a.address() == b.address())
}

/// Says that managers can travel.
pub(super) fn register() {
    convert::portable::<Manager>(encode);
    convert::decoder(HandleKind::Manager, decode);
}
