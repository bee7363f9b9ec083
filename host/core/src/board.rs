//! The board on which those who wait at a condition or a barrier write themselves down.
//!
//! Counting waiters would go wrong with the first one that is killed; here each has a line with
//! its name, so that the dead can be told from the living, and what was meant for a dead one is
//! given to another. Lines change under the board's robust mutex, each by one store, so that there
//! is nothing to repair.

use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::pages::{self, Run};
use crate::session::{ObjRef, ObjectKind, Session, objects, session};
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering::*};
use crate::sys::memory::Shared;
use crate::sys::mutex::{Guard, RobustMutex};
use crate::table::{self, SlotId, SlotStatus};
use crate::wait;

/// Lines beyond one for each process: waits within the callbacks of waits.
const EXTRA: usize = 1024;

/// The state of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Free = 0,
    Waiting = 1,
    /// May go on.
    Done = 2,
    /// Must give up.
    Broken = 3,
}

#[repr(C)]
pub(crate) struct Line {
    who: AtomicU64,
    /// Number and mark in one word.
    word: AtomicU64,
    /// For a condition: tickets below this were meant by the notification.
    bound: AtomicU64,
}
// SAFETY: repr(C), atomics.
unsafe impl Shared for Line {}

impl Line {
    pub(crate) fn mark(&self) -> Mark {
        match self.word.load(SeqCst) & 3 {
            0 => Mark::Free,
            1 => Mark::Waiting,
            2 => Mark::Done,
            _ => Mark::Broken,
        }
    }

    /// A condition's ticket, a barrier's party number.
    pub(crate) fn number(&self) -> u64 {
        self.word.load(SeqCst) >> 2
    }

    pub(crate) fn set(&self, mark: Mark) {
        self.word.store(self.number() << 2 | mark as u64, SeqCst);
    }

    pub(crate) fn who(&self) -> SlotId {
        SlotId::from_u64(self.who.load(SeqCst))
    }

    pub(crate) fn bound(&self) -> u64 {
        self.bound.load(SeqCst)
    }

    pub(crate) fn set_bound(&self, bound: u64) {
        self.bound.store(bound, SeqCst);
    }

    /// Whether the process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(
            table::status(self.who()),
            SlotStatus::Live | SlotStatus::Starting
        )
    }
}

/// The body of a condition's or barrier's entry.
#[repr(C)]
pub(crate) struct Body {
    mutex: RobustMutex,
    run: AtomicU64,
    /// Lines at and beyond this index were never used.
    high: AtomicU32,
    pub(crate) parties: AtomicU32,
    pub(crate) next_ticket: AtomicU64,
    pub(crate) state: AtomicU64,
}
// SAFETY: repr(C), atomics and a robust mutex.
unsafe impl Shared for Body {}

/// All lines of a board.
fn lines_of(session: &Session, body: &Body) -> Option<&'static [Line]> {
    let run = Run::from_u64(body.run.load(Acquire))?;
    session
        .region()
        .array(session.page_offset(run.first), Board::capacity(session))
}

/// How many living processes wait at the board of an entry: for pictures of the session.
pub(crate) fn count_waiting(session: &Session, entry: &'static Entry) -> usize {
    let body: &Body = entry.body();
    let high = body.high.load(SeqCst) as usize;
    let lines = lines_of(session, body).unwrap_or_default();
    let lines = lines.iter().take(high);
    lines
        .filter(|l| l.mark() == Mark::Waiting && l.is_alive())
        .count()
}

/// A board as this process uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Board(ObjRef);

impl Board {
    pub(crate) fn create(kind: ObjectKind, parties: u32, position: Position) -> Result<Self> {
        let object = objects::create(kind, position, |entry| {
            let body: &Body = entry.body();
            body.mutex.init();
            body.parties.store(parties, Relaxed);
        })?;
        let session = session();
        let count = pages::needed(Self::capacity(session) * size_of::<Line>())?;
        let run = pages::allocate(session, object.index(), count, None)?;
        object
            .entry()?
            .body::<Body>()
            .run
            .store(run.to_u64(), Release);
        Ok(Self(object))
    }

    pub(crate) fn from_ref(object: ObjRef, kind: ObjectKind) -> Result<Self> {
        object.expect(&[kind])?;
        Ok(Self(object))
    }

    fn capacity(session: &Session) -> usize {
        session.layout().slots + EXTRA
    }

    pub(crate) fn obj(&self) -> &ObjRef {
        &self.0
    }

    pub(crate) fn entry(&self) -> Result<&'static Entry> {
        self.0.entry()
    }

    pub(crate) fn body(&self) -> Result<&'static Body> {
        Ok(self.0.entry()?.body())
    }

    pub(crate) fn lock(&self) -> Result<Guard<'static>> {
        self.body()?.mutex.lock(|| {})
    }

    fn all(&self) -> Result<&'static [Line]> {
        lines_of(session(), self.body()?)
            .ok_or_else(|| CoreError::Corrupt("a board without its lines".into()))
    }

    /// The lines that were ever used.
    pub(crate) fn lines(&self) -> Result<&'static [Line]> {
        let high = self.body()?.high.load(SeqCst) as usize;
        let all = self.all()?;
        Ok(&all[..high.min(all.len())])
    }

    /// Writes this process down as waiting. The board is locked.
    pub(crate) fn enter(&self, number: u64) -> Result<&'static Line> {
        let (all, used) = (self.all()?, self.lines()?.len());
        let index = all[..used]
            .iter()
            .position(|l| l.mark() == Mark::Free)
            .unwrap_or(used);
        let line = all
            .get(index)
            .ok_or_else(|| CoreError::Runtime("too many processes wait here".into()))?;
        line.word.store(0, SeqCst);
        line.bound.store(0, SeqCst);
        line.who.store(session().me().to_u64(), SeqCst);
        line.word.store(number << 2 | Mark::Waiting as u64, SeqCst);
        if index == used {
            self.body()?.high.store(used as u32 + 1, SeqCst);
        }
        Ok(line)
    }

    /// Wakes the process of a line, and some others by chance.
    pub(crate) fn wake(&self, line: SlotId) -> Result<()> {
        self.entry()?.events[0].wake_bits(wait::bits_of(line));
        Ok(())
    }

    pub(crate) fn wake_all(&self) -> Result<()> {
        self.entry()?.events[0].wake_all();
        Ok(())
    }

    /// Deaths so far in the session: when this changes, the living look for the dead.
    pub(crate) fn deaths() -> u32 {
        session().header().deaths.load(SeqCst)
    }
}
