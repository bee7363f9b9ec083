//! Addresses of servers.

use crate::error::Result;
use std::fmt;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A name in Linux's abstract namespace of local sockets: no file, gone with its server. Written `@name`.
    Abstract(String),
    /// A path in the file system.
    Path(String),
    /// A host (empty: all of this machine's own) and a port (0: any that is free).
    Tcp(String, u16),
}

impl Address {
    /// A local address that nobody can guess.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn random() -> Result<Address> {
        let mut bytes = [0; 16];
        crate::random::fill(&mut bytes)?;
        let number = u128::from_le_bytes(bytes);
        Ok(Address::Abstract(format!("mphost-{number:032x}")))
    }

    /// The address that a text means: `@name`, else a path.
    #[must_use]
    pub fn from_text(text: &str) -> Address {
        match text.strip_prefix(['@', '\0']) {
            Some(name) => Address::Abstract(name.to_owned()),
            None => Address::Path(text.to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Abstract(name) => write!(f, "@{name}"),
            Address::Path(path) => f.write_str(path),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_read_back() {
        let random = Address::random().unwrap();
        assert_ne!(random, Address::random().unwrap());
        for address in [random, Address::Path("/run/a.sock".into())] {
            assert_eq!(Address::from_text(&address.to_string()), address);
        }
    }
}
