//! What can go wrong with a connection.

use super::DESCRIPTOR_LIMIT;

/// Why a connection didn't do what it was asked for. The wording is that of CPython's `multiprocessing.connection` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// This process has closed its end. Python: OSError.
    #[error("handle is closed")]
    Closed,
    /// Sending is for the other end. Python: OSError.
    #[error("connection is read-only")]
    ReadOnly,
    /// Receiving is for the other end, or a message that was too long has been refused. Python: OSError.
    #[error("connection is write-only")]
    WriteOnly,
    /// Every copy of the other end has been closed, and all that it sent has been received. Python: EOFError.
    #[error("the other end of the connection is closed")]
    EndOfFile,
    /// Nobody is left who could receive. Python: BrokenPipeError.
    #[error("Broken pipe")]
    BrokenPipe,
    /// The message is longer than the receiver allows. Python: OSError.
    #[error("bad message length")]
    BadMessageLength,
    /// The sender died, or gave up, in the middle of the message. Python: OSError.
    #[error("got end of file during message")]
    TornMessage,
    /// What arrives isn't what the other end of such a connection sends. Python: OSError.
    #[error(
        "malformed message: the peer doesn't speak this protocol, or two processes use one end at the same time"
    )]
    Malformed,
    /// A callback used the connection while a message was half sent, or half received. Python: OSError.
    #[error(
        "the connection is in the middle of another message: use it outside of callbacks, or give them one of their own"
    )]
    Busy,
    /// More descriptors in one message than the kernel passes at once. Python: OSError.
    #[error(
        "a message may carry at most {DESCRIPTOR_LIMIT} connections and sockets, not {0}: send them in several messages"
    )]
    TooManyDescriptors(usize),
    /// The connection leads to another machine, or might. Python: OSError.
    #[error(
        "a network connection can't carry connections and sockets: they mean something on this machine alone"
    )]
    NoDescriptors,
}
