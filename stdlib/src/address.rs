//! Addresses as scripts have them: `["host", port]`, or the path of a local socket.

use crate::error::{Kind, Result, raise};
use mphost_core::transport::Address;
use rhai::{Array, Dynamic, ImmutableString};

/// An address as a script has it: a text, or `[host, port]`.
pub(crate) fn address_value(address: &Address) -> Dynamic {
    match address {
        Address::Tcp(host, port) => {
            Dynamic::from_array(vec![host.clone().into(), i64::from(*port).into()])
        }
        local => local.to_string().into(),
    }
}

/// The address that a script means.
///
/// # Errors
/// `TypeError` for what is none.
pub(crate) fn address_of(value: &Dynamic) -> Result<Address> {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(Address::from_text(&text));
    }
    let parts = value.read_lock::<Array>();
    if let Some([host, port]) = parts.as_deref().map(Vec::as_slice)
        && let (Some(host), Ok(port)) = (host.read_lock::<ImmutableString>(), port.as_int())
    {
        let port = u16::try_from(port).map_err(|_| {
            raise(
                Kind::OverflowError,
                format!("a port is a number from 0 to 65535, not {port}"),
            )
        })?;
        return Ok(Address::Tcp(host.to_string(), port));
    }
    Err(raise(
        Kind::TypeError,
        format!(
            "an address is [\"host\", port] or the path of a local socket, not {}",
            crate::api::type_name(value)
        ),
    ))
}
