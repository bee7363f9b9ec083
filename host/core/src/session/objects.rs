//! Shared objects and the references that keep them.
//!
//! An entry of the table is one object: a queue, a lock, the memory of an array. A handle to
//! it is its index and generation. A reference is held by a process as a whole (one bit in a map
//! of that process, so that whoever buries it can drop them all) or by a message on its way (a
//! count without an owner). Inside a process [`ObjRef`] is a cheap clone that shares the
//! process's one reference.
//!
//! Invariants: a count is raised before the reference is written down and lowered after it is
//! struck out, so a death in between may leak an entry but never frees one in use. An entry whose
//! count is 0 is freed by the one who made it so, with its pages and what its contents refer to.

use super::layout::{BODY_WORDS, Entry};
use super::{Session, pages, session, try_session};
use crate::connection::lane;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::{permit, postoffice, queue};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A queue.
    Queue = 1,
    /// A queue that counts unfinished tasks.
    JoinableQueue = 2,
    /// A queue with the smaller set of methods.
    SimpleQueue = 3,
    /// A lock.
    Lock = 4,
    /// A lock that its owner can take again.
    RLock = 5,
    /// A counter without holders.
    Semaphore = 6,
    /// Permits with holders.
    BoundedSemaphore = 7,
    /// A flag to wait for.
    Event = 8,
    /// A condition variable.
    Condition = 9,
    /// A barrier.
    Barrier = 10,
    /// Plain memory: values and arrays.
    Block = 11,
    /// Plain memory with the records of a pool.
    Pool = 12,
    /// Plain memory for other uses.
    Other = 13,
    /// What a pipe has in shared memory.
    Pipe = 14,
}

impl ObjectKind {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        use ObjectKind as K;
        const ALL: [ObjectKind; 14] = [
            K::Queue,
            K::JoinableQueue,
            K::SimpleQueue,
            K::Lock,
            K::RLock,
            K::Semaphore,
            K::BoundedSemaphore,
            K::Event,
            K::Condition,
            K::Barrier,
            K::Block,
            K::Pool,
            K::Other,
            K::Pipe,
        ];
        ALL.into_iter().find(|k| *k as u32 == code)
    }
}

/// The name of an object within the session, without a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RawHandle {
    /// Which entry of the table.
    pub index: u32,
    /// Which of the objects that have lived there.
    pub generation: u32,
}

impl RawHandle {
    /// Both numbers in one.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// What [`RawHandle::to_u64`] gave.
    #[must_use]
    pub fn from_u64(bits: u64) -> Self {
        Self {
            index: (bits >> 32) as u32,
            generation: bits as u32,
        }
    }
}

/// This process's use of an object. Clones share one reference; the last one drops it.
#[derive(Debug, Clone)]
pub struct ObjRef(Rc<Held>);

#[derive(Debug)]
struct Held {
    handle: RawHandle,
    entry: &'static Entry,
}

thread_local! {
    /// What this process uses, so that a handle that comes twice is one reference.
    static LOCAL: RefCell<HashMap<u32, Weak<Held>>> = RefCell::new(HashMap::new());
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind)
            .field("refs", &self.refs)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ObjRef {
    fn eq(&self, other: &Self) -> bool {
        self.0.handle == other.0.handle
    }
}
impl Eq for ObjRef {}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(session) = try_session() else { return };
        let _ = LOCAL.try_with(|local| {
            if let Ok(mut local) = local.try_borrow_mut()
                && local
                    .get(&self.handle.index)
                    .is_some_and(|w| w.strong_count() == 0)
            {
                local.remove(&self.handle.index);
            }
        });
        // A permit that this process still holds keeps its object, so that it can be found
        // when the process dies.
        if self.entry.generation.load(Relaxed) == self.handle.generation
            && permit::held_by_me(session, self.entry)
        {
            return;
        }
        // Inherited by fork and not granted: not this process's to drop.
        if unmark(session, session.me().index, self.handle.index) {
            drop_reference(session, self.handle);
        }
    }
}

impl ObjRef {
    /// The object's name, without a reference.
    #[must_use]
    pub fn handle(&self) -> RawHandle {
        self.0.handle
    }

    /// The object's name, with a reference that belongs to the message it is written into.
    #[must_use]
    pub fn export(&self) -> RawHandle {
        self.0.entry.refs.fetch_add(1, SeqCst);
        self.0.handle
    }

    /// What kind of object this is.
    ///
    /// # Errors
    /// `ObjectGone` if this was inherited by fork without being granted, and has gone.
    pub fn kind(&self) -> Result<ObjectKind> {
        ObjectKind::from_code(self.entry()?.kind.load(Relaxed)).ok_or(CoreError::ObjectGone)
    }

    /// Where the script made it.
    #[must_use]
    pub fn created_at(&self) -> Position {
        Position::from_bits(self.0.entry.position.load(Relaxed))
    }

    /// The object's state.
    #[inline]
    pub(crate) fn entry(&self) -> Result<&'static Entry> {
        if self.0.entry.generation.load(Relaxed) == self.0.handle.generation {
            Ok(self.0.entry)
        } else {
            Err(CoreError::ObjectGone)
        }
    }

    pub(crate) fn index(&self) -> u32 {
        self.0.handle.index
    }

    /// Checks that this is an object of one of `kinds`.
    pub(crate) fn expect(&self, kinds: &[ObjectKind]) -> Result<&'static Entry> {
        let entry = self.entry()?;
        let kind = self.kind()?;
        if kinds.contains(&kind) {
            Ok(entry)
        } else {
            Err(CoreError::Type(format!(
                "this handle is a {kind:?}, not a {:?}",
                kinds[0]
            )))
        }
    }
}

impl Session {
    /// A reference of this process's own to the object of a message; the message keeps its own.
    ///
    /// # Errors
    /// `ObjectGone` if the handle is stale.
    pub fn claim(&self, handle: RawHandle) -> Result<ObjRef> {
        let entry = self.live_entry(handle)?;
        let me = self.me().index;
        if !is_marked(self, me, handle.index) {
            entry.refs.fetch_add(1, SeqCst);
            mark(self, me, handle.index);
        }
        Ok(local(handle, entry))
    }

    /// Drops a reference that belonged to a message.
    pub fn release(&self, handle: RawHandle) {
        if self.live_entry(handle).is_ok() {
            drop_reference(self, handle);
        }
    }

    /// Makes the reference of a message this process's: [`Session::claim`], then
    /// [`Session::release`].
    ///
    /// # Errors
    /// `ObjectGone` if the handle is stale.
    pub fn adopt(&self, handle: RawHandle) -> Result<ObjRef> {
        let object = self.claim(handle)?;
        self.release(handle);
        Ok(object)
    }

    /// Takes over a reference that was granted before this process started.
    ///
    /// # Errors
    /// `ObjectGone` if it wasn't.
    pub fn adopt_granted(&self, handle: RawHandle) -> Result<ObjRef> {
        let entry = self.live_entry(handle)?;
        if !is_marked(self, self.me().index, handle.index) {
            return Err(CoreError::ObjectGone);
        }
        Ok(local(handle, entry))
    }

    fn live_entry(&self, handle: RawHandle) -> Result<&'static Entry> {
        let entry = self.entry(handle.index).ok_or(CoreError::ObjectGone)?;
        if entry.generation.load(Acquire) != handle.generation || entry.kind.load(Relaxed) == 0 {
            return Err(CoreError::ObjectGone);
        }
        Ok(entry)
    }
}

fn local(handle: RawHandle, entry: &'static Entry) -> ObjRef {
    LOCAL.with_borrow_mut(|local| {
        if let Some(held) = local.get(&handle.index).and_then(Weak::upgrade)
            && held.handle == handle
        {
            return ObjRef(held);
        }
        let held = Rc::new(Held { handle, entry });
        local.insert(handle.index, Rc::downgrade(&held));
        ObjRef(held)
    })
}

/// A new object with a zeroed body; `init` makes the body what it should be.
pub(crate) fn create(
    kind: ObjectKind,
    position: Position,
    init: impl FnOnce(&'static Entry),
) -> Result<ObjRef> {
    let session = session();
    let (handle, entry) = {
        let _guard = session.lock()?;
        let map = session.used_map();
        let header = session.header();
        let start = header.object_cursor.load(Relaxed) as usize % map.len();
        let word = (start..map.len())
            .chain(0..start)
            .find(|w| map[*w].load(Relaxed) != u64::MAX)
            .ok_or(CoreError::ObjectTableFull)?;
        let bit = map[word].load(Relaxed).trailing_ones();
        let index = word as u32 * 64 + bit;
        let entry = session.entry(index).ok_or(CoreError::ObjectTableFull)?;
        header.object_cursor.store(word as u32, Relaxed);
        map[word].fetch_or(1 << bit, Relaxed);
        let generation = entry.generation.load(Relaxed).max(1);
        entry.generation.store(generation, Relaxed);
        entry.refs.store(1, Relaxed);
        entry.pages.store(0, Relaxed);
        entry.position.store(position.to_bits(), Relaxed);
        for event in &entry.events {
            event.reset();
        }
        for word in &entry.body[..BODY_WORDS] {
            word.store(0, Relaxed);
        }
        init(entry);
        entry.kind.store(kind as u32, Release);
        (RawHandle { index, generation }, entry)
    };
    mark(session, session.me().index, handle.index);
    Ok(local(handle, entry))
}

/// Objects in use. The tables are locked.
pub(super) fn count(session: &Session) -> usize {
    session
        .used_map()
        .iter()
        .map(|w| w.load(Relaxed).count_ones() as usize)
        .sum()
}

/// After a death inside: an entry that was taken but never made is free again.
pub(super) fn repair(session: &Session) {
    for (word, bits) in session.used_map().iter().enumerate() {
        let mut left = bits.load(Relaxed);
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            if session
                .entry(word as u32 * 64 + bit)
                .is_some_and(|e| e.kind.load(Relaxed) == 0)
            {
                bits.fetch_and(!(1 << bit), Relaxed);
            }
        }
    }
}

/// Notes that a process holds a reference (which is counted already).
pub(crate) fn mark(session: &Session, slot: u32, index: u32) {
    if let Some(s) = session.slot(slot) {
        s.held_high.fetch_max(index / 64 + 1, SeqCst);
    }
    session.held_map(slot)[index as usize / 64].fetch_or(1 << (index % 64), SeqCst);
}

/// Strikes a process's reference out; says whether there was one, which the caller then drops.
fn unmark(session: &Session, slot: u32, index: u32) -> bool {
    let bit = 1 << (index % 64);
    session.held_map(slot)[index as usize / 64].fetch_and(!bit, SeqCst) & bit != 0
}

/// Whether a process holds a reference.
pub(crate) fn is_marked(session: &Session, slot: u32, index: u32) -> bool {
    session.held_map(slot)[index as usize / 64].load(SeqCst) & (1 << (index % 64)) != 0
}

/// How many references there are to an object, those of messages included; never less. `None` if it is gone.
pub(crate) fn count_of(session: &Session, handle: RawHandle) -> Option<u64> {
    let entry = session.live_entry(handle).ok()?;
    Some(entry.refs.load(SeqCst).into())
}

/// The indices of all objects that a process holds.
pub(crate) fn held_by(session: &Session, slot: u32) -> Vec<u32> {
    let high = session.slot(slot).map_or(0, |s| s.held_high.load(SeqCst)) as usize;
    let map = session.held_map(slot);
    let mut all = Vec::new();
    for (word, bits) in map.iter().enumerate().take(high) {
        let mut left = bits.load(SeqCst);
        while left != 0 {
            all.push(word as u32 * 64 + left.trailing_zeros());
            left &= left - 1;
        }
    }
    all
}

/// Gives process `slot`, which isn't running yet, a reference to an object that this process
/// or a message keeps.
pub(crate) fn grant(session: &Session, slot: u32, handle: RawHandle) -> Result<()> {
    let entry = session.live_entry(handle)?;
    if !is_marked(session, slot, handle.index) {
        entry.refs.fetch_add(1, SeqCst);
        mark(session, slot, handle.index);
    }
    Ok(())
}

/// Gives process `slot` a reference to everything that this process holds.
pub(crate) fn grant_all(session: &Session, slot: u32) -> Result<()> {
    for index in held_by(session, session.me().index) {
        if let Some(entry) = session.entry(index) {
            grant(
                session,
                slot,
                RawHandle {
                    index,
                    generation: entry.generation.load(Relaxed),
                },
            )?;
        }
    }
    Ok(())
}

/// Drops all references of a process that is no more.
pub(crate) fn drop_all(session: &Session, slot: u32) {
    for index in held_by(session, slot) {
        if let Some(entry) = session.entry(index)
            && unmark(session, slot, index)
        {
            drop_reference(
                session,
                RawHandle {
                    index,
                    generation: entry.generation.load(Relaxed),
                },
            );
        }
    }
}

/// Lowers an object's count, and frees it at 0, together with what only its contents kept.
fn drop_reference(session: &Session, handle: RawHandle) {
    let mut left = vec![];
    let mut next = Some(handle);
    let mut queues = false;
    while let Some(handle) = next {
        if let Some(entry) = session.entry(handle.index)
            && entry.generation.load(Relaxed) == handle.generation
            && entry.kind.load(Relaxed) != 0
            && entry.refs.fetch_sub(1, SeqCst) == 1
        {
            let kind = ObjectKind::from_code(entry.kind.load(Relaxed));
            if let Some(ObjectKind::Queue | ObjectKind::JoinableQueue | ObjectKind::SimpleQueue) =
                kind
            {
                queue::carried(session, entry.body(), &mut left);
                queues = true;
            }
            if kind == Some(ObjectKind::Pipe) {
                lane::carried(session, entry, &mut left);
            }
            // A damaged table leaks the object; there is nobody to tell.
            let _ = free(session, handle.index, entry);
        }
        next = left.pop();
    }
    if queues {
        // Their items' descriptors.
        let _ = postoffice::sweep(super::session(), None);
    }
}

fn free(session: &Session, index: u32, entry: &'static Entry) -> Result<()> {
    pages::free_all(session, index, entry)?;
    let _guard = session.lock()?;
    let generation = entry.generation.load(Relaxed).wrapping_add(1).max(1);
    entry.generation.store(generation, SeqCst);
    entry.kind.store(0, SeqCst);
    session.used_map()[index as usize / 64].fetch_and(!(1 << (index % 64)), SeqCst);
    Ok(())
}
