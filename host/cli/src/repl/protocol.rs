//! What the prompt and its program say to each other.
//!
//! The prompt is a process of its own: it edits lines and draws what the program's processes print, in several threads; the program's
//! main process has one thread, as every process that runs a script. Between them is a socket; each message is its length and the bytes.

use mphost_core::wire;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// A message may hold so many bytes.
const LIMIT: usize = 64 << 20;

/// From the prompt to the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Evaluate this, which may come from a file; with `timed`, say how long it took.
    Evaluate {
        text: String,
        timed: bool,
        file: Option<String>,
    },
    /// Start processes by this method from now on.
    StartMethod(String),
    /// Show the processes.
    Processes,
    /// What `input` was answered; `None` is the end of the input.
    Input(Option<String>),
    /// End.
    Quit,
}

/// A name of the program, for completion.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) params: Vec<String>,
}

/// From the program to the prompt.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The request is done, and everything that belongs to it is printed.
    Done(Vec<Name>),
    /// The script asks for a line.
    Input(String),
    /// The script asked for the end of the program, which comes next.
    Ending,
}

/// Sends a message.
///
/// # Errors
/// Where the other side is gone.
pub(super) fn send<T: Serialize>(mut to: &UnixStream, message: &T) -> io::Result<()> {
    let bytes = wire::encode_control(message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut all = length.to_le_bytes().to_vec();
    all.extend(bytes);
    to.write_all(&all)
}

/// Receives a message; `None` where the other side is gone.
///
/// # Errors
/// For what is no message.
pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LIMIT {
        return Err(io::Error::other("a message that is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    wire::decode_control(&bytes, LIMIT)
        .map(Some)
        .map_err(io::Error::other)
}
