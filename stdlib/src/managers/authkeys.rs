//! The keys by which servers know their clients (CPython's `authkey`), as far as a server has one of its own.
//!
//! Problem: a proxy travels without a key, so that whoever comes by one can't do more with it than who sent it; a process that is to use it has
//! to know the key from elsewhere.
//!
//! Invariant: keys go to no one but this process's children, and there are only those of servers that differ from the process's own.

use mphost_core::transport::Address;
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static KEYS: RefCell<HashMap<Address, Vec<u8>>> = RefCell::default();
}

/// Notes the key of a server, for proxies that come without one.
pub(super) fn learn_key(address: &Address, key: &[u8]) {
    KEYS.with_borrow_mut(|keys| keys.insert(address.clone(), key.to_vec()));
}

/// The key of a server. A proxy that came by some road brings none: this process's own is tried then, as in Python.
pub(super) fn key_of(address: &Address) -> Vec<u8> {
    let key = KEYS.with_borrow(|keys| keys.get(address).cloned());
    key.unwrap_or_else(|| crate::process::current().authkey())
}

/// The keys that a child is told when it starts: those of servers with a key of their own.
pub(crate) fn known_keys() -> Vec<(String, u16, Vec<u8>)> {
    KEYS.with_borrow(|keys| {
        let own = crate::process::current().authkey();
        let mut known = Vec::new();
        for (address, key) in keys.iter().filter(|(_, key)| **key != own) {
            match address {
                Address::Tcp(host, port) => known.push((host.clone(), *port, key.clone())),
                local => known.push((local.to_string(), 0, key.clone())),
            }
        }
        known
    })
}

/// What a child does with the [`known_keys`] of its parent.
pub(crate) fn learn_keys(known: &[(String, u16, Vec<u8>)]) {
    for (text, port, key) in known {
        let address = match port {
            0 => Address::from_text(text),
            port => Address::Tcp(text.clone(), *port),
        };
        learn_key(&address, key);
    }
}
