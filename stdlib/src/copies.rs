//! Objects that travel as a copy of their contents: an in-process queue, a range with a step.
//!
//! They are no session objects, so a message can't name them; it holds a tag and the parts. Each type says how it is taken
//! apart and put together again.

use crate::convert::{self, Decoder, Encoder};
use crate::error::{Kind, Result, raise};
use mphost_core::value::HandleKind;
use mphost_core::wire::HandleHead;
use rhai::{Array, Dynamic, ImmutableString};
use std::any::TypeId;
use std::cell::RefCell;

#[derive(Clone, Copy)]
struct Copied {
    type_id: TypeId,
    tag: &'static str,
    parts: fn(&Dynamic) -> Array,
    whole: fn(Array) -> Result,
}

thread_local! {
    static TYPES: RefCell<Vec<Copied>> = const { RefCell::new(Vec::new()) };
}

/// Lets values of type `T` travel: `parts` takes one apart into values that travel, `whole` is its inverse.
///
/// `tag` names the type in messages. `whole` gets what another process wrote and must not trust it.
pub fn travels<T: 'static>(
    tag: &'static str,
    parts: fn(&Dynamic) -> Array,
    whole: fn(Array) -> Result,
) {
    TYPES.with_borrow_mut(|types| {
        types.retain(|known| known.tag != tag);
        types.push(Copied {
            type_id: TypeId::of::<T>(),
            tag,
            parts,
            whole,
        });
    });
    convert::portable::<T>(encode);
    convert::decoder(HandleKind::Other, decode);
}

fn encode(value: &Dynamic, encoder: &mut Encoder) -> Result<()> {
    let id = value.type_id();
    let known = TYPES
        .with_borrow(|types| types.iter().find(|known| known.type_id == id).copied())
        .expect("`travels` registered this type with this function");
    let parts = (known.parts)(value);
    encoder.begin_handle(HandleKind::Other, None, None, parts.len() + 1)?;
    encoder.writer().str(known.tag);
    for part in &parts {
        encoder.value(part)?;
    }
    encoder.writer().end();
    Ok(())
}

fn decode(head: HandleHead, decoder: &mut Decoder<'_>) -> Result {
    let mut values = Array::new();
    for _ in 0..head.attributes {
        values.push(decoder.value()?);
    }
    decoder.reader().end();
    let tag = if values.is_empty() {
        Dynamic::UNIT
    } else {
        values.remove(0)
    };
    let tag = tag
        .read_lock::<ImmutableString>()
        .map(|tag| tag.clone())
        .unwrap_or_default();
    let known = TYPES.with_borrow(|types| types.iter().find(|known| tag == known.tag).copied());
    match known {
        Some(known) => (known.whole)(values),
        None => Err(raise(
            Kind::RuntimeError,
            format!("a message holds a '{tag}', which this process can't use"),
        )),
    }
}
