//! Script values as items of the core's queues: the one way in and the one way out.
//!
//! Problem: queues, pools and managers all put values into queues of the session. The way is hot, so one encoder's memory serves
//! all items of a process, and items are read where they lie.
//!
//! Invariants: an item is put whole or not at all; its references to session objects are taken after it is encoded and belong to
//! the queue from then on.

use crate::convert::{Decoder, Encoder, References};
use crate::error::Result;
use mphost_core::clock::Deadline;
use mphost_core::connection::Payload;
use mphost_core::position::Position;
use mphost_core::queue::{Item, Queue};
use mphost_core::session::session;
use mphost_core::transport::Link;
use mphost_core::wire::Reader;
use rhai::{Blob, Dynamic};
use std::cell::Cell;
use std::ops::Deref;

/// From so many bytes on a blob is copied once, from the script's value to where it lies in the queue, instead of twice.
const LARGE: usize = 16 << 10;

/// So many bytes don't go over a socket at once: the rest would be copied, if it weren't sent from where it is.
const LONG: usize = 256 << 10;

thread_local! {
    static ENCODER: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

/// Runs `work` with an empty encoder, whose memory is that of the last message. A message that is made meanwhile (by a callback that
/// runs while `work` waits) gets an encoder of its own.
pub fn with_encoder<R>(work: impl FnOnce(&mut Encoder) -> R) -> R {
    let mut encoder = ENCODER.take().unwrap_or_default();
    let result = work(&mut encoder);
    encoder.clear();
    encoder.set_foreign(false);
    ENCODER.set(Some(encoder));
    result
}

/// Puts one value; `root` is how an error calls it (`item`).
///
/// # Errors
/// `PicklingError` with the path to what can't travel; `Full` at the deadline; what the core says.
pub fn put(
    queue: &Queue,
    root: &str,
    value: &Dynamic,
    deadline: Deadline,
    position: Position,
) -> Result<()> {
    if let Some(blob) = large(value) {
        return with_large(&blob, |message| {
            let put = queue.put_with(message.len(), &[], 0, deadline, position, |room| {
                message.copy_to(room)
            });
            Ok(put?)
        });
    }
    with_encoder(|encoder| {
        encoder.value_at(root, value)?;
        let handles = encoder.seal();
        let bytes = encoder.bytes();
        if encoder.fds().is_empty() {
            return Ok(queue.put(bytes, &handles, 0, deadline, position)?);
        }
        match encoder.borrowed_fds() {
            Ok(fds) => Ok(queue.put_fds(bytes, &handles, &fds, 0, deadline, position)?),
            Err(error) => {
                handles
                    .into_iter()
                    .for_each(|handle| session().release(handle));
                Err(error)
            }
        }
    })
}

/// The value as a large blob, if it is one and nobody else can change it while this process waits for room.
pub(crate) fn large(value: &Dynamic) -> Option<impl Deref<Target = Blob> + '_> {
    if !value.is_blob() || value.is_shared() {
        return None;
    }
    value.read_lock::<Blob>().filter(|blob| blob.len() >= LARGE)
}

/// Runs `work` with the message that is a large blob, which isn't copied for it.
pub(crate) fn with_large<R>(blob: &Blob, work: impl FnOnce(&Payload<'_>) -> R) -> R {
    with_encoder(|encoder| {
        encoder.writer().blob_head(blob.len());
        work(&Payload::new(encoder.bytes(), blob))
    })
}

/// The blob that is all of a message, if it is a large one: in the message's memory. The message otherwise.
pub(crate) fn into_large(mut message: Vec<u8>) -> std::result::Result<Blob, Vec<u8>> {
    match Reader::lone_blob(&message) {
        Some(length) if length >= LARGE && message.capacity() / 2 <= length => {
            message.drain(..message.len() - length);
            Ok(message)
        }
        _ => Err(message),
    }
}

/// Sends what is in an encoder over a link, as much as goes at once.
///
/// # Errors
/// As [`Link::send`].
pub(crate) fn send(link: &mut Link, encoder: &mut Encoder) -> Result<()> {
    if encoder.fds().is_empty() && encoder.bytes().len() >= LONG {
        return Ok(link.send_long(encoder.writer().take_bytes())?);
    }
    let fds = encoder.borrowed_fds()?;
    Ok(link.send(encoder.bytes(), &fds)?)
}

/// Takes one value.
///
/// # Errors
/// `Empty` at the deadline; an item that this process can't decode is gone, and the error says why.
pub fn get(queue: &Queue, deadline: Deadline, position: Position) -> Result<Dynamic> {
    queue.get(deadline, position, read)?
}

/// The value of an item, while it lies in its queue.
///
/// # Errors
/// Where this process can't decode it.
pub fn read(item: Item<'_>) -> Result<Dynamic> {
    Decoder::new(item.payload, item.fds()?, References::Claim)?.only_value()
}
