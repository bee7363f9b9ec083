//! What the handles of session objects have in common: how they travel, compare and are told apart.
//!
//! Problem: a dozen types (queues, locks, shared values …) are each a reference to one object of the session and perhaps a few
//! attributes. They all become a message's part in the same way, and come out of one in the same way.
//!
//! Invariant: what [`Handle::attributes`] writes is what [`Handle::rebuild`] reads, value for value, and there are
//! [`Handle::ATTRIBUTES`] of them.

use crate::api::{Call, Class};
use crate::convert::{self, Decoder, Encoder};
use crate::error::{Kind, Result, raise};
use mphost_core::clock::Deadline;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use rhai::Dynamic;

/// A reference to one object of the session.
pub trait Handle: Clone + 'static {
    /// What it is called in messages.
    const KIND: HandleKind;
    /// How many values travel beside the reference.
    const ATTRIBUTES: usize = 0;

    /// The session object.
    fn object(&self) -> &ObjRef;

    /// Writes the attributes.
    ///
    /// # Errors
    /// `PicklingError` where one of them can't travel.
    fn attributes(&self, _encoder: &mut Encoder) -> Result<()> {
        Ok(())
    }

    /// Makes the handle again; reads the attributes.
    ///
    /// # Errors
    /// Where the object is of another kind, or an attribute isn't what it should be.
    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self>;
}

/// Registers what all handles can do: travel, and be compared.
pub fn register<T: Handle>(class: &mut Class<'_, T>) {
    convert::portable::<T>(encode::<T>);
    convert::decoder(T::KIND, decode::<T>);
    class.equality(|a, b| a.object() == b.object());
}

fn encode<T: Handle>(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let handle = value
        .read_lock::<T>()
        .expect("encoders are found by the type of the value");
    encoder.begin_handle(T::KIND, Some(handle.object()), None, T::ATTRIBUTES)?;
    handle.attributes(encoder)?;
    encoder.writer().end();
    Ok(())
}

fn decode<T: Handle>(head: HandleHead, decoder: &mut Decoder<'_>) -> Result<Dynamic> {
    if head.attributes != T::ATTRIBUTES {
        return Err(malformed(T::KIND));
    }
    let object = decoder.object(&head)?;
    let handle = T::rebuild(object, decoder)?;
    decoder.reader().end();
    Ok(Dynamic::from(handle))
}

/// The error for a handle in a message whose parts don't fit together.
#[must_use]
pub fn malformed(kind: HandleKind) -> crate::error::Error {
    raise(
        Kind::RuntimeError,
        format!("a message holds a malformed {kind:?}"),
    )
}

/// What stands for an object in texts: the same in every process that has it.
#[must_use]
pub fn identity(object: &ObjRef) -> u64 {
    object.handle().to_u64()
}

/// The deadline that the arguments `block` and `timeout` at these places ask for.
#[must_use]
pub fn deadline(call: &Call<'_>, block: usize, timeout: usize) -> Deadline {
    Deadline::from_timeout(call.bool(block, true), call.seconds(timeout))
}

/// The deadline that the argument `timeout` at this place asks for; without it, there is none.
#[must_use]
pub fn timeout(call: &Call<'_>, timeout: usize) -> Deadline {
    Deadline::from_timeout(true, call.seconds(timeout))
}

/// Whether a script's value counts as true where Python asks for the truth of any value.
#[must_use]
pub fn truth(value: &Dynamic) -> bool {
    if let Ok(truth) = value.as_bool() {
        truth
    } else if value.is_unit() {
        false
    } else if let Ok(int) = value.as_int() {
        int != 0
    } else if let Ok(float) = value.as_float() {
        float != 0.0
    } else if let Some(text) = value.read_lock::<rhai::ImmutableString>() {
        !text.is_empty()
    } else if let Some(array) = value.read_lock::<rhai::Array>() {
        !array.is_empty()
    } else if let Some(map) = value.read_lock::<rhai::Map>() {
        !map.is_empty()
    } else if let Some(blob) = value.read_lock::<rhai::Blob>() {
        !blob.is_empty()
    } else {
        true
    }
}
