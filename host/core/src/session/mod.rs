//! The session: one program, all its processes, one memory.
//!
//! The main process makes it, forked children inherit it, exec'ed children attach to its
//! descriptor. Everything that is shared lies in it and is found by index and generation, so that
//! passing a handle to another process is passing two numbers.
//!
//! Invariants: whatever dies at whatever instruction, the others go on; nothing is left
//! behind (the memory has no name); one thread of each process uses the session.

pub(crate) mod layout;
pub(crate) mod objects;
pub(crate) mod pages;

use crate::error::{CoreError, Result};
use crate::postoffice::{Desk, Sockets};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::memory::Region;
use crate::sys::mutex::Guard;
use crate::table::{self, SlotId};
use layout::{Entry, FILES, FileName, Header, Layout, MAGIC, Slot};
pub use objects::{ObjRef, ObjectKind, RawHandle};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;

/// A process's access to the session's memory. There is one in a process: [`session`].
#[derive(Debug)]
pub struct Session {
    region: Region,
    layout: Layout,
    /// This process's slot, packed.
    me: AtomicU64,
    sockets: OnceLock<Sockets>,
}

#[cfg(not(test))]
static SESSION: AtomicPtr<Session> = AtomicPtr::new(std::ptr::null_mut());

// Each test of the crate's own has its own.
#[cfg(test)]
thread_local! {
    static SESSION: AtomicPtr<Session> = const { AtomicPtr::new(std::ptr::null_mut()) };
}

/// How much of the session's tables is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Shared objects that exist.
    pub objects: usize,
    /// Pages (4 KiB) that objects own.
    pub pages: usize,
    /// Slots of processes that are starting, live or dead and not yet released.
    pub processes: usize,
}

/// The session of this process, if there is one.
#[inline]
#[must_use]
pub fn try_session() -> Option<&'static Session> {
    #[cfg(not(test))]
    let session = SESSION.load(Ordering::Acquire);
    #[cfg(test)]
    let session = SESSION.with(|session| session.load(Ordering::Acquire));
    // SAFETY: the pointer is null or a leaked box, never freed.
    unsafe { session.as_ref() }
}

/// The session of this process.
///
/// # Panics
/// If there is none: the host makes one before anything else.
#[inline]
#[must_use]
pub fn session() -> &'static Session {
    try_session().expect("the session is made before anything uses it")
}

/// Makes this process, just forked, the one that `slot` describes. The first thing in the child:
/// the session still takes it for its parent. False if another process is that one: then this one must end.
pub fn after_fork(slot: SlotId) -> bool {
    session().me.store(slot.to_u64(), Ordering::SeqCst);
    crate::signals::after_fork();
    crate::reap::after_fork();
    table::begin_here(slot)
}

impl Session {
    /// Makes a new session, with this process as its main process.
    ///
    /// # Errors
    /// `Os` if the kernel gives no memory for it, not even 256 MiB of address space.
    pub fn create() -> Result<&'static Self> {
        let region = Region::create()?;
        let layout = Layout::of(&region);
        let session = Self::install(region, layout);
        let header = session.header();
        header.mutex.init();
        header.desk.init();
        session.set_sockets(Sockets::create()?);
        header.page_no_run.store(u32::MAX, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        let main = table::allocate("MainProcess", SlotId::NONE, false, 0)?;
        header.main.store(main.to_u64(), Ordering::SeqCst);
        session.me.store(main.to_u64(), Ordering::SeqCst);
        table::begin_here(main);
        Ok(session)
    }

    /// Attaches this process, started by exec, to the session behind `fd` as process `slot`.
    ///
    /// # Errors
    /// `Value` if the descriptor is no session's memory, `ObjectGone` if the slot isn't waiting for a process.
    pub fn attach(fd: OwnedFd, slot: SlotId) -> Result<&'static Self> {
        let region = Region::attach(fd)?;
        let layout = Layout::of(&region);
        let magic: &AtomicU64 = region.at(0).ok_or(CoreError::NoSession)?;
        if magic.load(Ordering::Acquire) != MAGIC {
            return Err(CoreError::Value(
                "this descriptor is not the memory of a session of this version".into(),
            ));
        }
        let session = Self::install(region, layout);
        session.me.store(slot.to_u64(), Ordering::SeqCst);
        if !matches!(
            table::status(slot),
            table::SlotStatus::Starting | table::SlotStatus::Live
        ) {
            return Err(CoreError::ObjectGone);
        }
        if !table::begin_here(slot) {
            return Err(CoreError::ObjectGone);
        }
        Ok(session)
    }

    /// Makes the session behind `fd` one that this process only looks at: [`crate::snapshot`] and [`crate::files`] read it.
    /// Nothing else may be called then. It takes the place of the one that was looked at before.
    ///
    /// # Errors
    /// `Value` if the descriptor is no session's memory.
    pub fn observe(fd: OwnedFd) -> Result<()> {
        let region = Region::view(fd)?;
        let magic: &AtomicU64 = region.at(0).ok_or(CoreError::NoSession)?;
        if magic.load(Ordering::Acquire) != MAGIC {
            return Err(CoreError::Value(
                "this descriptor is not the memory of a session of this version".into(),
            ));
        }
        let layout = Layout::of(&region);
        Self::install(region, layout);
        Ok(())
    }

    fn install(region: Region, layout: Layout) -> &'static Self {
        // Leaked on purpose: references into the region are used until the process ends.
        let session: &'static Self = Box::leak(Box::new(Self {
            region,
            layout,
            me: AtomicU64::new(0),
            sockets: OnceLock::new(),
        }));
        let pointer = std::ptr::from_ref(session).cast_mut();
        #[cfg(not(test))]
        SESSION.store(pointer, Ordering::Release);
        #[cfg(test)]
        SESSION.with(|cell| cell.store(pointer, Ordering::Release));
        session
    }

    /// The descriptor of the session's memory (close-on-exec): what an exec'ed child is given.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.region.fd()
    }

    /// This process.
    #[inline]
    #[must_use]
    pub fn me(&self) -> SlotId {
        #[cfg(test)]
        if let Some(process) = crate::models::machine::me() {
            return process;
        }
        SlotId::from_u64(self.me.load(Ordering::Relaxed))
    }

    /// The main process.
    #[must_use]
    pub fn main_slot(&self) -> SlotId {
        SlotId::from_u64(self.header().main.load(Ordering::Acquire))
    }

    /// What is in use at present.
    ///
    /// # Errors
    /// `Corrupt` if the tables can't be read.
    pub fn usage(&self) -> Result<Usage> {
        let _guard = self.lock()?;
        Ok(Usage {
            objects: objects::count(self),
            pages: pages::count(self),
            processes: table::all().len(),
        })
    }

    pub(crate) fn desk(&self) -> &'static Desk {
        &self.header().desk
    }

    pub(crate) fn sockets(&self) -> Option<&Sockets> {
        self.sockets.get()
    }

    /// Once in a process's life.
    pub(crate) fn set_sockets(&self, sockets: Sockets) {
        let _ = self.sockets.set(sockets);
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub(crate) fn header(&self) -> &'static Header {
        self.region.at(0).expect("the header lies in every region")
    }

    /// The names of the program's files.
    pub(crate) fn files(&self) -> &'static [FileName] {
        self.region
            .array(self.layout.files_at, FILES)
            .expect("the names of files lie in the region")
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> Option<&'static Slot> {
        let index = index as usize;
        if index >= self.layout.slots {
            return None;
        }
        self.region
            .at(self.layout.slots_at + index * size_of::<Slot>())
    }

    /// The slot of this process.
    #[inline]
    pub(crate) fn my_slot(&self) -> &'static Slot {
        self.slot(self.me().index)
            .expect("this process's slot is within the table")
    }

    #[inline]
    pub(crate) fn entry(&self, index: u32) -> Option<&'static Entry> {
        let index = index as usize;
        if index >= self.layout.objects {
            return None;
        }
        self.region
            .at(self.layout.entries_at + index * size_of::<Entry>())
    }

    /// One bit for each entry: set if it is in use.
    pub(crate) fn used_map(&self) -> &'static [AtomicU64] {
        self.region
            .array(self.layout.used_at, self.layout.objects / 64)
            .expect("the used map lies in the region")
    }

    /// One bit for each entry: set if that process holds a reference to it.
    pub(crate) fn held_map(&self, slot: u32) -> &'static [AtomicU64] {
        let bytes = self.layout.objects / 8;
        let index = (slot as usize).min(self.layout.slots - 1);
        self.region
            .array(
                self.layout.held_at + index * bytes,
                self.layout.objects / 64,
            )
            .expect("the held maps lie in the region")
    }

    /// For each page 0 if free, the number of the owning entry plus one, or a mark of `pages`.
    pub(crate) fn owners(&self) -> &'static [AtomicU32] {
        self.region
            .array(self.layout.owners_at, self.layout.pages)
            .expect("the owners lie in the region")
    }

    /// Where page `index` begins.
    #[inline]
    pub(crate) fn page_offset(&self, index: u32) -> usize {
        self.layout.pages_at + index as usize * crate::sys::memory::PAGE
    }

    /// Locks the tables, repaired if somebody died inside.
    pub(crate) fn lock(&self) -> Result<Guard<'static>> {
        self.header().mutex.lock(|| {
            objects::repair(self);
            pages::repair(self);
        })
    }
}
