//! What a worker is given of its pool: references to the queues and the record, which travel in its arguments alone.

use crate::convert::{self, Decoder};
use crate::error::{Kind, Result, raise};
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::Dynamic;

/// One of the objects that a pool and its workers share.
#[derive(Clone, Debug)]
struct Link(ObjRef);

/// The value that carries `object` to a worker.
pub(super) fn value(object: &ObjRef) -> Dynamic {
    Dynamic::from(Link(object.clone()))
}

/// The object that a value carries.
///
/// # Errors
/// `TypeError` for any other value.
pub(super) fn object(value: Dynamic) -> Result<ObjRef> {
    value.try_cast::<Link>().map(|link| link.0).ok_or_else(|| {
        raise(
            Kind::TypeError,
            "this call is made by a pool's worker itself",
        )
    })
}

/// Makes links travel.
pub(super) fn register() {
    convert::portable::<Link>(|value, encoder| {
        let link = value
            .read_lock::<Link>()
            .expect("encoders are found by the type of the value");
        encoder.begin_handle(HandleKind::PoolLink, Some(&link.0), None, 0)?;
        encoder.writer().end();
        Ok(())
    });
    convert::decoder(HandleKind::PoolLink, |head, decoder: &mut Decoder<'_>| {
        let object = decoder.object(&head)?;
        decoder.reader().end();
        Ok(value(&object))
    });
}
