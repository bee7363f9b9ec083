//! SharedMemoryManager: makes shared memory, and unlinks all of it at its end.
//!
//! Python has a server process do this, since a name outlives its processes there. Here a name ends with its program, so the
//! manager is no more than a list of what it made.

use super::block::SharedMemory;
use super::list;
use crate::api::Registry;
use crate::error::{Kind, Result, raise};
use crate::{items, places, with};
use rhai::Dynamic;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A maker of shared memory that cleans up.
#[derive(Clone)]
pub struct SharedMemoryManager(Rc<Parts>);

#[derive(Default)]
struct Parts {
    state: Cell<State>,
    made: RefCell<Vec<SharedMemory>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Initial,
    Started,
    Shutdown,
}

impl SharedMemoryManager {
    fn check_started(&self) -> Result<()> {
        match self.0.state.get() {
            State::Started => Ok(()),
            State::Initial => Err(raise(
                Kind::ValueError,
                "this SharedMemoryManager isn't started: call start(), or use `with`",
            )),
            State::Shutdown => Err(raise(
                Kind::ValueError,
                "this SharedMemoryManager is shut down",
            )),
        }
    }

    fn shutdown(&self) {
        self.0.state.set(State::Shutdown);
        for memory in self.0.made.take() {
            // Whoever unlinked it before did no wrong.
            let _ = memory.unlink();
        }
    }
}

pub(super) fn register(registry: &mut Registry) {
    registry.function(
        "mp::managers",
        "SharedMemoryManager()",
        "Makes shared memory and unlinks all of it at its end: `with mp::managers::SharedMemoryManager() as m { … }`.",
        |_| Ok(Dynamic::from(SharedMemoryManager(Rc::default()))),
    );
    with::context::<SharedMemoryManager>(Some("__enter__"), "shutdown");
    registry
        .class::<SharedMemoryManager>("SharedMemoryManager")
        .display(|_| "<SharedMemoryManager>".into())
        .method("start()", "Begins; `with` does so by itself.", |call| {
            let manager = call.this::<SharedMemoryManager>();
            match manager.0.state.get() {
                State::Initial => manager.0.state.set(State::Started),
                State::Started => {
                    return Err(raise(
                        Kind::ProcessError,
                        "Already started SharedMemoryServer",
                    ));
                }
                State::Shutdown => {
                    return Err(raise(
                        Kind::ProcessError,
                        "SharedMemoryManager has shut down",
                    ));
                }
            }
            Ok(Dynamic::UNIT)
        })
        .method("__enter__()", "What `with` does first.", |call| {
            let manager = call.this::<SharedMemoryManager>();
            if manager.0.state.get() == State::Initial {
                manager.0.state.set(State::Started);
            }
            manager.check_started()?;
            Ok(Dynamic::UNIT)
        })
        .method("shutdown()", "Unlinks all that it made.", |call| {
            call.this::<SharedMemoryManager>().shutdown();
            Ok(Dynamic::UNIT)
        })
        .method(
            "SharedMemory(size: int)",
            "A new block of `size` bytes.",
            |call| {
                let manager = call.this::<SharedMemoryManager>();
                manager.check_started()?;
                let size = call
                    .int(0)
                    .and_then(|size| usize::try_from(size).ok())
                    .filter(|size| *size > 0);
                let size = size.ok_or_else(|| {
                    raise(
                        Kind::ValueError,
                        "'size' must be a positive number different from zero",
                    )
                })?;
                let memory = SharedMemory::create(None, size, places::of_call(call.ctx))?;
                manager.0.made.borrow_mut().push(memory.clone());
                Ok(Dynamic::from(memory))
            },
        )
        .method(
            "ShareableList(sequence: items)",
            "A new list in shared memory.",
            |call| {
                let manager = call.this::<SharedMemoryManager>();
                manager.check_started()?;
                let values = items::collect(call.ctx, call.take(0))?;
                let (list, memory) = list::create(&values, places::of_call(call.ctx))?;
                manager.0.made.borrow_mut().push(memory);
                Ok(list)
            },
        );
}
