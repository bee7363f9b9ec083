//! Barrier: so many processes wait for each other.
//!
//! Who waits is written down by name, never counted: a party that is killed while it waits isn't
//! there any more, and the barrier waits for another in its place. One that is killed while it runs
//! the action breaks the barrier for those who wait.

use crate::board::{self, Board, Line, Mark};
use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::layout::Entry;
use crate::session::{ObjRef, ObjectKind, Session, session};
use crate::table::{self, SlotId, SlotStatus};
use crate::wait::{WaitInfo, WaitKind, wait_until};
use std::sync::atomic::Ordering::SeqCst;

/// Parties arrive.
const FILLING: u64 = 0;
const BROKEN: u64 = 1;

/// The state while process `id` runs the action.
fn running(id: SlotId) -> u64 {
    id.to_u64() << 2 | 2
}

/// How many processes the barrier of an entry is for, and how many are there.
pub(crate) fn counts(session: &Session, entry: &'static Entry) -> (u32, usize) {
    let body: &board::Body = entry.body();
    (
        body.parties.load(SeqCst),
        board::count_waiting(session, entry),
    )
}

/// A barrier for a fixed number of parties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier(Board);

enum Arrival {
    /// The last party: runs the action.
    Last(u64),
    Waits(&'static Line),
}

impl Barrier {
    /// A new barrier for `parties` processes.
    ///
    /// # Errors
    /// `Value` if `parties` is 0; `ObjectTableFull`; `OutOfMemory`.
    pub fn create(parties: u32, position: Position) -> Result<Self> {
        if parties == 0 {
            return Err(CoreError::Value("parties must be >= 1".into()));
        }
        Board::create(ObjectKind::Barrier, parties, position).map(Self)
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        Board::from_ref(object, ObjectKind::Barrier).map(Self)
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        self.0.obj()
    }

    /// Waits until all parties are here: this one's number, 0 to parties - 1, each once. The last one
    /// runs `action` before any goes on.
    ///
    /// # Errors
    /// `BrokenBarrier` if it is or gets broken, which passing the deadline does; what `action`
    /// raises (the barrier is broken then); what the interrupt hook raises.
    pub fn wait(
        &self,
        deadline: Deadline,
        position: Position,
        mut action: impl FnMut() -> Result<()>,
    ) -> Result<u32> {
        let entry = self.0.entry()?;
        let info = WaitInfo::new(WaitKind::Barrier, self.obj().handle().to_u64(), position);
        let mut deaths = Board::deaths();
        // While the action of the round before runs, nobody arrives.
        let Some(arrival) = wait_until(&entry.events[0], info, deadline, || self.arrive())? else {
            self.abort()?;
            return Err(CoreError::BrokenBarrier);
        };
        let line = match arrival {
            Arrival::Last(number) => return self.complete(number, action()),
            Arrival::Waits(line) => line,
        };
        let waited = wait_until(&entry.events[0], info, deadline, || {
            let now = Board::deaths();
            if now != deaths {
                deaths = now;
                let _guard = self.0.lock()?;
                self.notice_dead_runner()?;
            }
            Ok((line.mark() != Mark::Waiting).then_some(()))
        });
        let guard = self.0.lock()?;
        let (mark, number) = (line.mark(), line.number());
        line.set(Mark::Free);
        match (waited?, mark) {
            (_, Mark::Done) => Ok(number as u32),
            (Some(()), _) => Err(CoreError::BrokenBarrier),
            (None, _) => {
                self.break_all()?;
                drop(guard);
                self.0.wake_all()?;
                Err(CoreError::BrokenBarrier)
            }
        }
    }

    fn arrive(&self) -> Result<Option<Arrival>> {
        let _guard = self.0.lock()?;
        self.notice_dead_runner()?;
        let body = self.0.body()?;
        match body.state.load(SeqCst) {
            FILLING => {}
            BROKEN => return Err(CoreError::BrokenBarrier),
            _ => return Ok(None),
        }
        let mut taken = vec![];
        for line in self.0.lines()? {
            if line.mark() != Mark::Free && !line.is_alive() {
                line.set(Mark::Free);
            }
            if line.mark() == Mark::Waiting {
                taken.push(line.number());
            }
        }
        let number = (0..).find(|n| !taken.contains(n)).unwrap_or_default();
        if taken.len() as u64 + 1 >= u64::from(body.parties.load(SeqCst)) {
            body.state.store(running(session().me()), SeqCst);
            return Ok(Some(Arrival::Last(number)));
        }
        Ok(Some(Arrival::Waits(self.0.enter(number)?)))
    }

    /// The action has run: lets the others go on, or breaks the barrier.
    fn complete(&self, number: u64, outcome: Result<()>) -> Result<u32> {
        let result = {
            let _guard = self.0.lock()?;
            let body = self.0.body()?;
            if body.state.load(SeqCst) != running(session().me()) {
                // Aborted, reset or timed out meanwhile.
                outcome.and(Err(CoreError::BrokenBarrier))
            } else if let Err(e) = outcome {
                self.break_all()?;
                Err(e)
            } else {
                for line in self.0.lines()?.iter().filter(|l| l.mark() == Mark::Waiting) {
                    line.set(Mark::Done);
                }
                body.state.store(FILLING, SeqCst);
                Ok(number as u32)
            }
        };
        self.0.wake_all()?;
        result
    }

    /// The board is locked.
    fn break_all(&self) -> Result<()> {
        self.0.body()?.state.store(BROKEN, SeqCst);
        self.break_waiting()
    }

    fn break_waiting(&self) -> Result<()> {
        for line in self.0.lines()?.iter().filter(|l| l.mark() == Mark::Waiting) {
            line.set(Mark::Broken);
        }
        Ok(())
    }

    /// Breaks the barrier if the process that ran the action is dead. The board is locked.
    fn notice_dead_runner(&self) -> Result<()> {
        let state = self.0.body()?.state.load(SeqCst);
        if state > BROKEN
            && !matches!(
                table::status(SlotId::from_u64(state >> 2)),
                SlotStatus::Live | SlotStatus::Starting
            )
        {
            self.break_all()?;
            self.0.wake_all()?;
        }
        Ok(())
    }

    /// Makes the barrier new: those who wait get `BrokenBarrier`.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn reset(&self) -> Result<()> {
        {
            let _guard = self.0.lock()?;
            self.break_waiting()?;
            self.0.body()?.state.store(FILLING, SeqCst);
        }
        self.0.wake_all()
    }

    /// Breaks the barrier, for those who wait and those who come, until it is reset.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn abort(&self) -> Result<()> {
        {
            let _guard = self.0.lock()?;
            self.break_all()?;
        }
        self.0.wake_all()
    }

    /// How many processes it is for.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn parties(&self) -> Result<u32> {
        Ok(self.0.body()?.parties.load(SeqCst))
    }

    /// How many wait now.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn n_waiting(&self) -> Result<u32> {
        let _guard = self.0.lock()?;
        if self.0.body()?.state.load(SeqCst) != FILLING {
            return Ok(0);
        }
        Ok(self
            .0
            .lines()?
            .iter()
            .filter(|l| l.mark() == Mark::Waiting && l.is_alive())
            .count() as u32)
    }

    /// Whether it is broken.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn broken(&self) -> Result<bool> {
        let _guard = self.0.lock()?;
        self.notice_dead_runner()?;
        Ok(self.0.body()?.state.load(SeqCst) == BROKEN)
    }
}
