//! Event: a flag that processes wait for.

use crate::api::Registry;
use crate::convert::Decoder;
use crate::error::Result;
use crate::handle::{self, Handle};
use crate::places;
use mphost_core::event;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::Dynamic;

/// A flag that processes wait for.
#[derive(Clone)]
pub struct Event(event::Event);

impl Handle for Event {
    const KIND: HandleKind = HandleKind::Event;

    fn object(&self) -> &ObjRef {
        self.0.obj()
    }

    fn rebuild(object: ObjRef, _decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self(event::Event::from_ref(object)?))
    }
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Event()",
        "A flag that processes can set, clear and wait for.\n\n```rhai\nlet e = Event();\nprint(e.wait(0.01));\ne.set();\nprint(e.wait());\n```",
        |call| {
            Ok(Dynamic::from(Event(event::Event::create(
                places::of_call(call.ctx),
            )?)))
        },
    );
    let mut class = registry.class::<Event>("Event");
    handle::register(&mut class);
    class
        .display(|event| {
            let state = match event.0.is_set() {
                Ok(true) => "set",
                Ok(false) => "unset",
                Err(_) => "unknown",
            };
            format!("<Event at {:#x} {state}>", handle::identity(event.object()))
        })
        .method(
            "set()",
            "Sets the flag and releases everybody who waits for it.",
            |call| {
                call.this::<Event>().0.set()?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("clear()", "Clears the flag.", |call| {
            call.this::<Event>().0.clear()?;
            Ok(Dynamic::UNIT)
        })
        .method("is_set()", "The flag.", |call| {
            Ok(Dynamic::from(call.this::<Event>().0.is_set()?))
        })
        .method(
            "wait(timeout: seconds = ())",
            "Waits until the flag is set, with `timeout` at most that long; gives the flag.",
            |call| {
                let deadline = handle::timeout(call, 0);
                Ok(Dynamic::from(
                    call.this::<Event>()
                        .0
                        .wait(deadline, places::of_call(call.ctx))?,
                ))
            },
        );
}
