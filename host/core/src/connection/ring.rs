//! Rings: where the bytes of a very long message go from one process to the other.
//!
//! Problem: a message that is too long for a [lane](super::lane) takes the socket, by whose packets its sender and its receiver keep step and
//! learn of each other's end. But the kernel copies each byte into memory of its own and out again, in packets of 64 KiB. So a lane may
//! have a ring: some memory in which the next pieces of such a message lie, of each of which a packet tells. It is used wherever it has
//! room: what finds none goes with its packet, as if there were no ring. So nobody ever waits for it, and whoever dies in the middle leaves
//! what a torn message leaves.
//!
//! Invariants:
//! - One process at a time puts pieces into a ring, and a dead one's place is free.
//! - A piece is counted before its packet is sent, and taken when it was copied: what a living message is made of is never written over. A piece
//!   whose packet was never sent is taken with the next.

use crate::error::{CoreError, Result};
use crate::session::Session;
use crate::session::pages::{self, Run};
use crate::sys::atomic::{AtomicU64, Ordering::*};
use crate::sys::memory::{PAGE, Shared};
use crate::table::{self, SlotId, SlotStatus};

use super::payload::Payload;

/// How many pieces a ring has room for: enough for both sides to work at once.
const PIECES: u64 = 4;
/// The longest piece, in bytes. All of a ring stays in a processor's cache.
pub(super) const PIECE: usize = 256 << 10;
const PAGES: u32 = (PIECES as usize * PIECE / PAGE) as u32;

#[repr(C)]
pub(super) struct Ring {
    /// Where its memory is: a [`Run`], or 0.
    run: AtomicU64,
    /// Who puts pieces into it: a [`SlotId`], or 0.
    sender: AtomicU64,
    /// How many pieces were put into it, and taken.
    written: AtomicU64,
    taken: AtomicU64,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Ring {}

/// A ring that this process puts pieces into, until this is dropped.
pub(super) struct Claim {
    ring: &'static Ring,
    session: &'static Session,
    run: Run,
}

impl Ring {
    /// Makes it this process's to put pieces into; none where it is another one's, or there is no memory. The caller holds the put lock
    /// of the lane, which is object `owner`.
    pub(super) fn claim(
        &'static self,
        session: &'static Session,
        owner: u32,
    ) -> Result<Option<Claim>> {
        if !self.is_free() {
            return Ok(None);
        }
        let known = Run::from_u64(self.run.load(Relaxed)).filter(|run| run.count == PAGES);
        let run = match known {
            Some(run) => run,
            None => match pages::allocate(session, owner, PAGES, None) {
                Ok(run) => {
                    // Only now, when they are this object's.
                    self.run.store(run.to_u64(), SeqCst);
                    run
                }
                Err(CoreError::OutOfMemory) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        self.sender.store(session.me().to_u64(), SeqCst);
        Ok(Some(Claim {
            ring: self,
            session,
            run,
        }))
    }

    /// Whether nobody who lives puts pieces into it.
    fn is_free(&self) -> bool {
        let sender = SlotId::from_u64(self.sender.load(SeqCst));
        sender == SlotId::NONE || !matches!(table::status(sender), SlotStatus::Live)
    }

    /// Whether no message has pieces in it.
    pub(super) fn is_idle(&self) -> bool {
        self.is_free() && self.written.load(SeqCst) == self.taken.load(SeqCst)
    }

    /// Takes piece `number`, of `length` bytes, to the end of `into`; false if that can't be.
    pub(super) fn take(
        &self,
        session: &Session,
        number: u64,
        length: usize,
        into: &mut Vec<u8>,
    ) -> bool {
        let run = Run::from_u64(self.run.load(Acquire)).filter(|run| run.count == PAGES);
        let Some(piece) = run.and_then(|run| piece(session, run, number, length)) else {
            return false;
        };
        into.reserve(length);
        // SAFETY: the piece lies in the region (checked by `piece`), of which no reference to these bytes is made; the room was just reserved,
        // and all of it is written before it counts. Whoever breaks the protocol meanwhile has bytes of another message copied.
        unsafe {
            std::ptr::copy_nonoverlapping(
                piece.cast_const(),
                into.as_mut_ptr().add(into.len()),
                length,
            );
            into.set_len(into.len() + length);
        }
        self.taken.fetch_max(number.saturating_add(1), SeqCst);
        true
    }
}

/// Where a piece lies.
fn piece(session: &Session, run: Run, number: u64, length: usize) -> Option<*mut u8> {
    if length > PIECE || run.first.checked_add(run.count)? as usize > session.layout().pages {
        return None;
    }
    let offset = (number % PIECES) as usize * PIECE;
    session
        .region()
        .bytes(session.page_offset(run.first) + offset, length)
}

impl Claim {
    /// Puts a piece into the ring, if there is room: its number.
    pub(super) fn put(&self, bytes: &Payload<'_>) -> Option<u64> {
        let number = self.ring.written.load(Relaxed);
        // What isn't less than none is nonsense.
        let unread = number.checked_sub(self.ring.taken.load(SeqCst))?;
        if unread >= PIECES {
            return None;
        }
        let at = piece(self.session, self.run, number, bytes.len())?;
        // SAFETY: the piece lies in the region (checked by `piece`); this process alone writes there, since the ring is its own, and nobody
        // reads, since what was there has been taken.
        bytes.copy_to(unsafe { std::slice::from_raw_parts_mut(at, bytes.len()) });
        self.ring.written.store(number.wrapping_add(1), SeqCst);
        Some(number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A forked child has a copy of this, and no ring.
        let me = self.session.me().to_u64();
        let _ = self.ring.sender.compare_exchange(me, 0, SeqCst, Relaxed);
    }
}
