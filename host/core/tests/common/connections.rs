//! What the tests of connections share.

use super::{P, finish, finish_well, start};
use mphost_core::clock::Deadline;
use mphost_core::connection::{Connection, ConnectionError};
use mphost_core::table::SlotId;
use mphost_core::{CoreError, Result};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

/// More than any kernel keeps for a receiver.
pub const LARGE: usize = 16 << 20;

/// Another process of the session.
pub struct Child(pub SlotId);

impl Child {
    pub fn run(body: impl FnOnce()) -> Child {
        Child(start("child", body))
    }

    #[track_caller]
    pub fn finish(self) {
        finish_well(self.0);
    }

    pub fn kill(self) {
        super::kill(self.0);
        assert_eq!(finish(self.0).code(), -9);
    }
}

/// Short forms, for operations that carry no descriptors.
pub trait Short {
    fn put(&self, payload: &[u8]) -> Result<()>;
    fn take(&self) -> Result<Vec<u8>>;
    fn take_within(&self, maxlength: usize) -> Result<Vec<u8>>;
    fn ready(&self) -> Result<bool>;
}

impl Short for Connection {
    fn put(&self, payload: &[u8]) -> Result<()> {
        self.send(payload, &[], P)
    }

    fn take(&self) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        assert!(self.recv(&mut message, None, P)?.is_empty());
        Ok(message)
    }

    fn take_within(&self, maxlength: usize) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        self.recv(&mut message, Some(maxlength), P)?;
        Ok(message)
    }

    fn ready(&self) -> Result<bool> {
        self.poll(Deadline::NOW, P)
    }
}

/// Two ends of each kind that can send in both directions.
pub fn duplex_pairs() -> Vec<(Connection, Connection)> {
    let (left, right) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    vec![
        Connection::pipe(true, P).unwrap(),
        Connection::pair(true).unwrap(),
        (
            Connection::from_stream_fd(left.into()),
            Connection::from_stream_fd(right.into()),
        ),
        (
            Connection::from_stream_fd(client.into()),
            Connection::from_stream_fd(server.into()),
        ),
    ]
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index ^ (index >> 9)) as u8)
        .collect()
}

pub fn error(kind: ConnectionError) -> CoreError {
    CoreError::Connection(kind)
}
