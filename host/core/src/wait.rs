//! The one way to wait.
//!
//! Every blocking operation of the crate, on shared state or on descriptors, comes through here:
//! it is published in the process's slot (so that deaths reach it and a stuck program can be
//! explained), minds signals, kicks and the deadline, and sleeps in the kernel. The interrupt hook
//! runs between sleeps, never inside a critical section, and while nothing is published: so it
//! may wait itself. A wait without a time limit looks now and then whether it can ever end (see
//! `deadlock`).
//!
//! Invariant: what a sleeper slept for is tried once more after every wake-up, before anything
//! else, so that a wake-up meant for it is never wasted.

use crate::clock::{self, Deadline};
use crate::deadlock::{self, Look, Watch};
use crate::error::{CoreError, Result};
use crate::eventcount::EventCount;
use crate::patience;
use crate::position::Position;
use crate::session::{Session, session};
use crate::signals;
use crate::sys::futex;
use crate::sys::signal::Blocked;
use crate::table::{SlotId, WAIT_LOOK, WAIT_OUTSIDE, WAIT_POLL, WAIT_TIMED};
use std::cell::Cell;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// A descriptor to wait for, as poll(2) has it.
pub type PollFd = libc::pollfd;

/// What would let a waiter go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// One certain process must act: the lock's holder, the process that is joined.
    And,
    /// Any process that can reach the object may act.
    Or,
    /// The outside or the clock may: never part of a deadlock.
    Never,
}

macro_rules! wait_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $edge:ident;)*) => {
        /// What kind of thing is waited for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum WaitKind { $($(#[$doc])* $name = $code,)* }

        impl WaitKind {
            pub(crate) fn from_code(code: u32) -> Self {
                match code { $($code => Self::$name,)* _ => Self::Other }
            }

            /// What would let the waiter go on.
            #[must_use]
            pub fn edge(self) -> Edge {
                match self { $(Self::$name => Edge::$edge,)* }
            }
        }
    };
}

wait_kinds! {
    /// Something else.
    Other = 0, Never;
    /// A lock.
    Lock = 1, And;
    /// A recursive lock.
    RLock = 2, And;
    /// A semaphore without holders.
    Semaphore = 3, Or;
    /// A semaphore with holders.
    BoundedSemaphore = 4, Or;
    /// An item of a queue.
    QueueGet = 5, Or;
    /// Room in a queue.
    QueuePut = 6, Or;
    /// All tasks of a queue done.
    QueueJoin = 7, Or;
    /// An event.
    Event = 8, Or;
    /// A condition's notification.
    Condition = 9, Or;
    /// The others at a barrier.
    Barrier = 10, Or;
    /// The end of a process.
    ProcessJoin = 11, And;
    /// Descriptors.
    Descriptors = 12, Never;
    /// Time.
    Sleep = 13, Never;
    /// The end of a process that isn't of the session.
    Foreign = 14, Never;
    /// A shared-memory result that a pool's workers produce.
    PoolResult = 15, Or;
    /// A process that another one starts.
    ProcessStart = 16, Never;
}

/// What a wait says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitInfo {
    /// The kind of thing.
    pub kind: WaitKind,
    /// Which: a `RawHandle` or `SlotId` as bits, or 0.
    pub object: u64,
    /// Where in the script.
    pub position: Position,
}

impl WaitInfo {
    /// A wait on `object` (bits of a handle, or 0) at `position`.
    #[must_use]
    pub fn new(kind: WaitKind, object: u64, position: Position) -> Self {
        Self {
            kind,
            object,
            position,
        }
    }
}

/// The hook that runs between sleeps when attention was raised: signals, callbacks.
pub type InterruptHook = fn() -> Result<()>;

static INTERRUPT_HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Installs what is called between sleeps, outside of critical sections, when attention was
/// raised. An error leaves the wait. It may wait itself.
pub fn set_interrupt_hook(hook: InterruptHook) {
    INTERRUPT_HOOK.store(hook as *mut (), SeqCst);
}

fn call_interrupt_hook() -> Result<()> {
    let hook = INTERRUPT_HOOK.load(SeqCst);
    if hook.is_null() {
        return Ok(());
    }
    // SAFETY: only `set_interrupt_hook` writes this, a function of this type.
    let hook: InterruptHook = unsafe { std::mem::transmute(hook) };
    hook()
}

/// Runs the interrupt hook if attention was raised. Cheap otherwise: between any two steps.
///
/// # Errors
/// What the hook raises.
#[inline]
pub fn poll_interrupts() -> Result<()> {
    if attention(session()) {
        run_hook(session())
    } else {
        Ok(())
    }
}

#[inline]
fn attention(session: &Session) -> bool {
    signals::attention() || session.my_slot().kick.load(Relaxed) != 0
}

thread_local! {
    /// The wait in which the interrupt hook is run, and whether it has a time limit.
    static INTERRUPTED: Cell<Option<(WaitInfo, bool)>> = const { Cell::new(None) };
}

/// What this process waits for, if this is called by the interrupt hook in the middle of a wait; and whether that has a time limit.
pub(crate) fn interrupted() -> Option<(WaitInfo, bool)> {
    INTERRUPTED.get()
}

fn interrupt(session: &Session, info: &WaitInfo, deadline: Deadline) -> Result<()> {
    let outer = INTERRUPTED.replace(Some((*info, !deadline.is_never())));
    let result = run_hook(session);
    INTERRUPTED.set(outer);
    result
}

#[cold]
fn run_hook(session: &Session) -> Result<()> {
    // Lowered first: what comes during the hook raises it again.
    session.my_slot().kick.store(0, SeqCst);
    signals::clear_attention();
    call_interrupt_hook()
}

/// The bit of a futex's bit set that wakes process `id`, and some others by chance.
pub(crate) fn bits_of(id: SlotId) -> u32 {
    1 << (id.index % 32)
}

/// A published wait; dropping it takes it back.
struct Published<'a> {
    session: &'static Session,
    event: &'a EventCount,
}

impl<'a> Published<'a> {
    fn new(
        session: &'static Session,
        event: &'a EventCount,
        info: &WaitInfo,
        flags: u32,
        since: u64,
    ) -> Self {
        let slot = session.my_slot();
        let outside = if deadlock::is_awaiting_outsiders() {
            WAIT_OUTSIDE
        } else {
            0
        };
        slot.wait_seq.fetch_add(1, SeqCst);
        slot.wait_since.store(since, Relaxed);
        slot.wait_object.store(info.object, Relaxed);
        slot.wait_position.store(info.position.to_bits(), Relaxed);
        slot.wait_flags
            .store(info.kind as u32 | flags | outside, Relaxed);
        slot.waiting_on
            .store(session.region().offset_of(event) as u64, SeqCst);
        slot.wait_seq.fetch_add(1, SeqCst);
        event.enter();
        slot.counted.store(1, SeqCst);
        Self { session, event }
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        let slot = self.session.my_slot();
        slot.counted.store(0, SeqCst);
        self.event.leave();
        slot.waiting_on.store(0, SeqCst);
        slot.wait_seq.fetch_add(2, SeqCst);
    }
}

/// Waits until `try_op` gives something: `Some(it)`, or `None` at the deadline.
///
/// `try_op` is tried at once, before anything is published, and again after every wake-up of
/// `event`; it must not wait. It should be cheap where it finds nothing.
///
/// # Errors
/// What `try_op` or the interrupt hook raises.
pub fn wait_until<T>(
    event: &EventCount,
    info: WaitInfo,
    deadline: Deadline,
    mut try_op: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    if let Some(done) = try_op()? {
        return Ok(Some(done));
    }
    if deadline.is_now() {
        return Ok(None);
    }
    if let Some(done) = patience::look_around(info.kind, deadline, &mut try_op)? {
        return Ok(Some(done));
    }
    sleep_until(event, info, deadline, &mut try_op)
}

#[cold]
fn sleep_until<T>(
    event: &EventCount,
    info: WaitInfo,
    deadline: Deadline,
    try_op: &mut dyn FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let session = session();
    let flags = if deadline.is_never() { 0 } else { WAIT_TIMED };
    let bits = bits_of(session.me());
    let since = clock::now();
    let mut watch = Watch::new(session, info.kind, deadline, since);
    loop {
        let published = Published::new(session, event, &info, flags, since);
        loop {
            let key = event.key();
            if let Some(done) = try_op()? {
                patience::slept(info.kind, clock::now() - since);
                return Ok(Some(done));
            }
            if attention(session) {
                break;
            }
            if deadline.has_passed() {
                return Ok(None);
            }
            match watch.look(session) {
                Look::Sleep => {}
                Look::TryAgain => continue,
                Look::Stuck(report) => {
                    drop(published);
                    return Err(deadlock::raise(&report));
                }
            }
            let asleep = &session.my_slot().asleep;
            asleep.store(1, SeqCst);
            futex::wait(event.sequence(), key, watch.until(deadline), bits);
            asleep.store(0, SeqCst);
        }
        drop(published);
        watch.disturbed();
        interrupt(session, &info, deadline)?;
    }
}

/// Waits until one of `fds` is ready (`revents` says which): how many are, or 0 at the deadline.
///
/// # Errors
/// `Os` from ppoll(2); what the interrupt hook raises.
pub fn wait_fds(fds: &mut [PollFd], info: WaitInfo, deadline: Deadline) -> Result<usize> {
    look_and_sleep(fds, info, deadline, None)
}

/// [`wait_fds`] for a caller who waits for what lies in shared memory, too, for which others let a descriptor become ready. Should they die before they
/// do, `seen` says so: then this returns 0.
///
/// # Errors
/// As [`wait_fds`].
pub fn wait_fds_or(
    fds: &mut [PollFd],
    info: WaitInfo,
    deadline: Deadline,
    seen: &dyn Fn() -> bool,
) -> Result<usize> {
    look_and_sleep(fds, info, deadline, Some(seen))
}

fn look_and_sleep(
    fds: &mut [PollFd],
    info: WaitInfo,
    deadline: Deadline,
    seen: Option<&dyn Fn() -> bool>,
) -> Result<usize> {
    let mut look = || {
        let ready = ready_now(fds)?;
        Ok((ready > 0 || seen.is_some_and(|seen| seen())).then_some(ready))
    };
    // What is ready already costs one system call.
    if let Some(ready) = look()? {
        return Ok(ready);
    }
    if let Some(ready) = patience::look_longer(info.kind, deadline, &mut look)? {
        return Ok(ready);
    }
    sleep_until_ready_or(fds, info, deadline, seen)
}

/// [`wait_fds`] for a caller who has looked long enough, and knows that nothing was ready.
///
/// # Errors
/// As [`wait_fds`].
pub(crate) fn sleep_until_ready(
    fds: &mut [PollFd],
    info: WaitInfo,
    deadline: Deadline,
) -> Result<usize> {
    sleep_until_ready_or(fds, info, deadline, None)
}

/// The same for a caller who may give what [`wait_fds_or`] is given.
///
/// # Errors
/// As [`wait_fds`].
pub(crate) fn sleep_until_ready_or(
    fds: &mut [PollFd],
    info: WaitInfo,
    deadline: Deadline,
    seen: Option<&dyn Fn() -> bool>,
) -> Result<usize> {
    let session = session();
    let since = clock::now();
    loop {
        if attention(session) {
            interrupt(session, &info, deadline)?;
        }
        if deadline.has_passed() {
            return ready_now(fds);
        }
        let flags = WAIT_POLL
            | if deadline.is_never() { 0 } else { WAIT_TIMED }
            | if seen.is_some() { WAIT_LOOK } else { 0 };
        let local = &session.my_slot().local;
        let published = Published::new(session, local, &info, flags, since);
        // From here on a death disturbs the sleep; what came before one is seen here.
        if seen.is_some_and(|seen| seen()) {
            return Ok(0);
        }
        // Signals come only inside ppoll from here on, so none falls between look and sleep.
        let blocked = Blocked::new();
        if !attention(session) {
            let time = deadline.remaining().map(|left| libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(left.subsec_nanos() as i32),
            });
            let asleep = &session.my_slot().asleep;
            asleep.store(1, SeqCst);
            let ready = ppoll(fds, time, Some(blocked.previous()));
            asleep.store(0, SeqCst);
            if let Some(ready) = ready? {
                patience::slept(info.kind, clock::now() - since);
                return Ok(ready);
            }
        }
        drop(blocked);
        drop(published);
    }
}

fn ready_now(fds: &mut [PollFd]) -> Result<usize> {
    Ok(ppoll(fds, Deadline::NOW.to_timespec(), None)?.unwrap_or(0))
}

/// `None` if nothing was ready or a signal came.
fn ppoll(
    fds: &mut [PollFd],
    time: Option<libc::timespec>,
    mask: Option<&libc::sigset_t>,
) -> Result<Option<usize>> {
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mask = mask.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the slice is valid for its length, time and mask are null or valid.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, time, mask) };
    match usize::try_from(ready) {
        Ok(0) => Ok(None),
        Ok(ready) => Ok(Some(ready)),
        Err(_) => match CoreError::os_last("ppoll") {
            CoreError::Os {
                errno: libc::EINTR, ..
            } => Ok(None),
            e => Err(e),
        },
    }
}

/// Sleeps for `duration`; interrupts are minded and don't shorten it.
///
/// # Errors
/// What the interrupt hook raises.
pub fn sleep(duration: Duration, position: Position) -> Result<()> {
    let info = WaitInfo::new(WaitKind::Sleep, 0, position);
    let deadline = Deadline::after(duration);
    if deadline.is_now() {
        std::thread::yield_now();
        return poll_interrupts();
    }
    sleep_until::<()>(&session().my_slot().local, info, deadline, &mut || Ok(None))?;
    Ok(())
}
