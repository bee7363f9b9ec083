//! `QueueProxy`: of Queue and JoinableQueue.

use super::super::protocol::Op;
use super::super::proxy::Typed;
use super::{QueueProxy, ask, class, forward};
use crate::api::Registry;

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    class::<QueueProxy>(registry, "QueueProxy")
        .method(
            "put(item: any, block: bool = true, timeout: number = ())",
            "Puts an item in, waiting for room if need be. No room in time: `Full`.",
            forward::<QueueProxy>(Op::Put, 3),
        )
        .method(
            "get(block: bool = true, timeout: number = ())",
            "Takes the oldest item out, waiting for one if need be. None in time: `Empty`.",
            forward::<QueueProxy>(Op::Get, 2),
        )
        .method(
            "put_nowait(item: any)",
            "Puts an item in, or raises `Full`.",
            |call| {
                let item = call.take(0);
                ask(
                    call.this::<QueueProxy>().proxy(),
                    Op::Put,
                    &[&item, &false.into()],
                    call,
                )
            },
        )
        .method(
            "get_nowait()",
            "Takes the oldest item out, or raises `Empty`.",
            |call| {
                ask(
                    call.this::<QueueProxy>().proxy(),
                    Op::Get,
                    &[&false.into()],
                    call,
                )
            },
        )
        .method(
            "qsize()",
            "How many items there are.",
            forward::<QueueProxy>(Op::QSize, 0),
        )
        .method(
            "empty()",
            "Whether there is no item.",
            forward::<QueueProxy>(Op::Empty, 0),
        )
        .method(
            "full()",
            "Whether there is no room.",
            forward::<QueueProxy>(Op::Full, 0),
        )
        .method(
            "task_done()",
            "Says that an item that was taken out is dealt with. Once too often: `ValueError`.",
            forward::<QueueProxy>(Op::TaskDone, 0),
        )
        .method(
            "join()",
            "Waits until all items are dealt with.",
            forward::<QueueProxy>(Op::Join, 0),
        );
}
