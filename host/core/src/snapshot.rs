//! A session as it is at a moment: its processes, what each waits for and holds, its queues.
//!
//! For people: pictures of stuck programs, `ps`. Everything is read as it lies there, without a lock, so a snapshot of a running
//! program may show two moments side by side. Nothing of what is read is trusted: damage shows as something that is missing.

use crate::barrier;
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::{ObjectKind, RawHandle, Session, session};
use crate::table::{self, ProcessInfo, SlotId, SlotStatus, WaitingInfo};
use crate::wait::{self, WaitKind};
use crate::{permit, queue};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

pub use crate::permit::Owner;

/// A session at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The main process.
    pub main: SlotId,
    /// When it was taken ([`crate::clock::now`]).
    pub taken_at: u64,
    /// The processes that are live or about to be, in the order of the table.
    pub processes: Vec<Process>,
    /// The objects that somebody waits for, that are held, and all queues.
    pub objects: Vec<Object>,
}

/// A process of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its row of the table.
    pub info: ProcessInfo,
    /// What it holds, and since which line.
    pub holds: Vec<(RawHandle, Position)>,
}

/// A shared object of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the session.
    pub handle: RawHandle,
    /// What it is.
    pub kind: ObjectKind,
    /// Where the script made it.
    pub created_at: Position,
    /// What there is to say of it.
    pub state: State,
}

/// The state of a shared object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A queue.
    Queue {
        /// Items in it.
        items: u64,
        /// Its bound, 0 for none.
        maxsize: u64,
        /// Items whose work isn't done, where that is counted.
        unfinished: Option<u64>,
    },
    /// A lock or a bounded semaphore.
    Permits {
        /// How many there are in all.
        limit: u64,
        /// Who holds one.
        holders: Vec<Owner>,
    },
    /// A semaphore's count.
    Count(u64),
    /// An event's flag.
    Flag(bool),
    /// A barrier.
    Barrier {
        /// How many processes it is for.
        parties: u32,
        /// How many are there.
        waiting: usize,
    },
    /// Nothing.
    Other,
}

impl Snapshot {
    /// The session of this process as it is now.
    #[must_use]
    pub fn take() -> Self {
        let session = session();
        let rows = table::all();
        let is_there = |row: &ProcessInfo| match row.status {
            SlotStatus::Live => true,
            SlotStatus::Starting => {
                table::lookup(row.slot).is_some_and(|slot| !table::is_abandoned(slot))
            }
            SlotStatus::Dead(_) | SlotStatus::Gone => false,
        };
        let rows = rows.into_iter().filter(is_there);
        let mut processes: Vec<Process> = rows
            .map(|info| Process {
                info,
                holds: vec![],
            })
            .collect();
        // A signal's handler runs between two sleeps of this process: what matters is what it sleeps for.
        if let Some(own) = processes.iter_mut().find(|p| p.info.slot == session.me())
            && own.info.waiting.is_none()
        {
            own.info.waiting = wait::interrupted().map(|(info, timed)| WaitingInfo {
                kind: info.kind,
                object: info.object,
                position: info.position,
                timed,
                outside: false,
                since: crate::clock::now(),
                edge: info.kind.edge(),
                sequence: 0,
            });
        }
        let waits_on = |handle: RawHandle| {
            let waits = processes.iter().filter_map(|p| p.info.waiting.as_ref());
            let mut objects = waits.filter(|w| w.kind != WaitKind::ProcessJoin);
            objects.any(|w| w.object == handle.to_u64())
        };
        let objects: Vec<Object> = in_use(session)
            .filter_map(|(index, entry)| object(session, index, entry))
            .filter(|object| match &object.state {
                State::Queue { .. } => object.created_at.is_known() || waits_on(object.handle),
                State::Permits { holders, .. } => !holders.is_empty() || waits_on(object.handle),
                _ => waits_on(object.handle),
            })
            .collect();
        for process in &mut processes {
            process.holds = objects
                .iter()
                .filter_map(|object| match &object.state {
                    State::Permits { holders, .. } => Some((object, holders)),
                    _ => None,
                })
                .flat_map(|(object, holders)| {
                    let mine = holders.iter().filter(|o| o.slot == process.info.slot);
                    mine.map(|owner| (object.handle, owner.acquired_at))
                })
                .collect();
        }
        Self {
            main: session.main_slot(),
            taken_at: crate::clock::now(),
            processes,
            objects,
        }
    }

    /// A process of it.
    #[must_use]
    pub fn process(&self, id: SlotId) -> Option<&Process> {
        self.processes.iter().find(|p| p.info.slot == id)
    }

    /// An object of it, by the bits of its handle.
    #[must_use]
    pub fn object(&self, bits: u64) -> Option<&Object> {
        self.objects.iter().find(|o| o.handle.to_u64() == bits)
    }
}

fn in_use(session: &'static Session) -> impl Iterator<Item = (u32, &'static Entry)> {
    let words = session.used_map().iter().enumerate();
    words.flat_map(move |(word, bits)| {
        let bits = bits.load(SeqCst);
        (0..64)
            .filter(move |bit| bits >> bit & 1 != 0)
            .filter_map(move |bit| {
                let index = word as u32 * 64 + bit;
                Some((index, session.entry(index)?))
            })
    })
}

fn object(session: &Session, index: u32, entry: &'static Entry) -> Option<Object> {
    use ObjectKind as K;
    let generation = entry.generation.load(SeqCst);
    let kind = K::from_code(entry.kind.load(SeqCst))?;
    let state = match kind {
        K::Queue | K::JoinableQueue | K::SimpleQueue => {
            let counts = queue::counts(entry);
            State::Queue {
                items: counts.items,
                maxsize: counts.maxsize,
                unfinished: (kind == K::JoinableQueue).then_some(counts.unfinished),
            }
        }
        K::Lock | K::RLock | K::BoundedSemaphore => {
            let (limit, holders) = permit::holders(session, entry);
            State::Permits { limit, holders }
        }
        K::Semaphore => State::Count(permit::holders(session, entry).0),
        K::Event => State::Flag(entry.body[0].load(SeqCst) & 1 != 0),
        K::Barrier => {
            let (parties, waiting) = barrier::counts(session, entry);
            State::Barrier { parties, waiting }
        }
        _ => State::Other,
    };
    Some(Object {
        handle: RawHandle { index, generation },
        kind,
        created_at: Position::from_bits(entry.position.load(Relaxed)),
        state,
    })
}
