//! A program in words: its processes, what each waits for and holds, where in the script, with the source line.
//!
//! One text for three readers: the report of a program that is stuck, the answer to SIGQUIT (Ctrl-\), and `mphost ps`.

use crate::traceback::Sources;
use mphost_core::files;
use mphost_core::position::Position;
use mphost_core::session::ObjectKind;
use mphost_core::snapshot::{Object, Owner, Process, Snapshot, State};
use mphost_core::table::{SlotId, SlotStatus, WaitingInfo};
use mphost_core::wait::WaitKind;
use std::collections::HashMap;
use std::fmt::Write;

/// How many holders of one semaphore are named.
const MOST_HOLDERS: usize = 8;

/// How many that wait for the same at the same place are described.
const MOST_ALIKE: usize = 5;
/// How many processes are described in all.
const MOST_DESCRIBED: usize = 40;

/// Writes pictures of one snapshot.
pub struct Picture<'a> {
    snapshot: &'a Snapshot,
    sources: Sources,
}

impl<'a> Picture<'a> {
    /// Of `snapshot`, with source lines from `sources`.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, sources: Sources) -> Self {
        Self { snapshot, sources }
    }

    /// These processes, one after the other: what each waits for, where, and who holds it. Of those who wait for the same at the same place
    /// only some are described.
    pub fn processes(&mut self, ids: &[SlotId]) -> String {
        let mut text = String::new();
        let mut alike: HashMap<_, usize> = HashMap::new();
        let (mut described, mut others) = (0, vec![]);
        for process in ids.iter().filter_map(|id| self.snapshot.process(*id)) {
            let wait = process.info.waiting.as_ref();
            let what = wait.map(|wait| (wait.kind as u8, wait.object, wait.position));
            let same = alike.entry(what).or_default();
            *same += 1;
            if *same > MOST_ALIKE || described == MOST_DESCRIBED {
                others.push(process.info.pid);
            } else {
                self.process(&mut text, process, 1, false);
                described += 1;
            }
        }
        if let (Some(first), Some(last)) = (others.first(), others.last()) {
            let _ = match others.len() {
                1 => writeln!(text, "  and one more (pid {first})"),
                n => writeln!(
                    text,
                    "  and {n} more, mostly like these (pid {first} to {last})"
                ),
            };
        }
        text
    }

    /// All processes as a tree, each below its parent, with what they hold, and the queues.
    pub fn program(&mut self) -> String {
        let mut text = String::new();
        let all = &self.snapshot.processes;
        let is_root =
            |p: &&Process| p.info.slot == self.snapshot.main || self.parent_of(p).is_none();
        let roots: Vec<SlotId> = all.iter().filter(is_root).map(|p| p.info.slot).collect();
        for root in roots {
            self.tree(&mut text, root, 1);
        }
        let queues: Vec<&Object> = self
            .snapshot
            .objects
            .iter()
            .filter(|object| {
                matches!(object.state, State::Queue { .. }) && object.created_at.is_known()
            })
            .collect();
        if !queues.is_empty() {
            text.push_str("  queues:\n");
        }
        for queue in queues {
            let _ = writeln!(
                text,
                "    {}{}: {}",
                kind_name(queue.kind),
                made_at(queue),
                contents(queue)
            );
        }
        text
    }

    fn parent_of(&self, process: &Process) -> Option<&Process> {
        self.snapshot.process(process.info.parent)
    }

    fn tree(&mut self, text: &mut String, id: SlotId, depth: usize) {
        let Some(process) = self.snapshot.process(id) else {
            return;
        };
        self.process(text, process, depth, true);
        let children: Vec<SlotId> = self
            .snapshot
            .processes
            .iter()
            .filter(|p| p.info.parent == id && p.info.slot != id)
            .map(|p| p.info.slot)
            .collect();
        // Damage could make a circle of parents.
        if depth < 64 {
            for child in children {
                self.tree(text, child, depth + 1);
            }
        }
    }

    fn process(&mut self, text: &mut String, process: &Process, depth: usize, whole: bool) {
        let indent = "  ".repeat(depth);
        let _ = write!(text, "{indent}{} {}", named(process), self.doing(process));
        if whole {
            let since = process.info.start_time;
            if since != 0 {
                let _ = write!(
                    text,
                    "; up {}",
                    duration(self.snapshot.taken_at.saturating_sub(since))
                );
            }
            if let Some(bytes) = memory(process.info.pid) {
                let _ = write!(text, ", {}", size(bytes));
            }
        }
        text.push('\n');
        let Some(wait) = &process.info.waiting else {
            self.holdings(text, process, &indent, whole);
            return;
        };
        self.place(text, &indent, wait.position);
        if let Some(object) = self.snapshot.object(wait.object)
            && wait.kind != WaitKind::ProcessJoin
        {
            self.holders(text, object, &indent);
        }
        self.holdings(text, process, &indent, whole);
    }

    fn holders(&mut self, text: &mut String, object: &Object, indent: &str) {
        let State::Permits { holders, .. } = &object.state else {
            return;
        };
        for owner in holders.iter().take(MOST_HOLDERS) {
            let _ = writeln!(text, "{indent}  held by {}", self.owner(owner));
            self.place(text, &format!("{indent}  "), owner.acquired_at);
        }
        if holders.len() > MOST_HOLDERS {
            let _ = writeln!(text, "{indent}  and {} more", holders.len() - MOST_HOLDERS);
        }
    }

    fn holdings(&mut self, text: &mut String, process: &Process, indent: &str, whole: bool) {
        if !whole {
            return;
        }
        for (handle, since) in &process.holds {
            let kind = self
                .snapshot
                .object(handle.to_u64())
                .map_or("lock", |object| kind_name(object.kind));
            let _ = writeln!(text, "{indent}  holds {} {kind}, since", article(kind));
            self.place(text, &format!("{indent}  "), *since);
        }
    }

    /// The place with its source line.
    fn place(&mut self, text: &mut String, indent: &str, position: Position) {
        if !position.is_known() {
            return;
        }
        let _ = write!(text, "{indent}    {}", describe(position));
        let line = files::name_of(position.file())
            .and_then(|path| self.sources.line(&path, position.line() as usize));
        match line.as_deref().map(str::trim) {
            Some(line) if !line.is_empty() => {
                let _ = writeln!(text, "    {line}");
            }
            _ => text.push('\n'),
        }
    }

    fn owner(&self, owner: &Owner) -> String {
        match (self.snapshot.process(owner.slot), owner.ended) {
            (Some(process), None) => format!("{}, since", named(process)),
            (_, Some(status)) => format!(
                "a process that has ended (pid {}, exit code {}) and never gave it back, since",
                owner.pid,
                status.code()
            ),
            _ => "a process that has ended and never gave it back, since".to_owned(),
        }
    }

    /// What it does, as the rest of a sentence that begins with its name.
    fn doing(&self, process: &Process) -> String {
        if process.info.status == SlotStatus::Starting {
            return "is being started".to_owned();
        }
        if state(process.info.pid) == Some('T') {
            return "is stopped".to_owned();
        }
        match &process.info.waiting {
            None => "runs".to_owned(),
            Some(wait) if process.info.helper && wait.kind == WaitKind::Descriptors => {
                "serves the others, and has nothing to do".to_owned()
            }
            Some(wait) => {
                let limit = if wait.timed && wait.kind != WaitKind::Sleep {
                    ", with a time limit"
                } else {
                    ""
                };
                format!("{}{limit}", self.waiting(wait))
            }
        }
    }

    fn waiting(&self, wait: &WaitingInfo) -> String {
        let object = self.snapshot.object(wait.object);
        let made = object.map(made_at).unwrap_or_default();
        let what = match wait.kind {
            WaitKind::Sleep => return "sleeps".to_owned(),
            WaitKind::Lock => format!("a Lock{made}"),
            WaitKind::RLock => format!("an RLock{made}"),
            WaitKind::Semaphore => format!("a Semaphore{made}, whose count is 0"),
            WaitKind::BoundedSemaphore => match object.map(|object| &object.state) {
                Some(State::Permits { limit, .. }) => {
                    format!("one of the {limit} permits of a BoundedSemaphore{made}")
                }
                _ => "a permit of a BoundedSemaphore".to_owned(),
            },
            WaitKind::QueueGet if !wait.position.is_known() => "a task of its Pool".to_owned(),
            WaitKind::QueueGet => match object {
                Some(queue) => format!(
                    "an item of a {}{made}: {}",
                    kind_name(queue.kind),
                    contents(queue)
                ),
                None => "an item of a queue".to_owned(),
            },
            WaitKind::QueuePut => match object {
                Some(queue) => {
                    format!(
                        "room in a {}{made}: {}",
                        kind_name(queue.kind),
                        contents(queue)
                    )
                }
                None => "room in a queue".to_owned(),
            },
            WaitKind::QueueJoin => match object {
                Some(queue) => {
                    format!("the tasks of a JoinableQueue{made}: {}", contents(queue))
                }
                None => "the tasks of a JoinableQueue".to_owned(),
            },
            WaitKind::Event => format!("an Event{made} to be set"),
            WaitKind::Condition => format!("a notification of a Condition{made}"),
            WaitKind::Barrier => match object.map(|object| &object.state) {
                Some(State::Barrier { parties, waiting }) => {
                    format!("the others at a Barrier{made}: {waiting} of {parties} are there")
                }
                _ => "the others at a Barrier".to_owned(),
            },
            WaitKind::ProcessJoin => {
                let whose = match self.snapshot.process(SlotId::from_u64(wait.object)) {
                    Some(process) => named(process),
                    None => "a process".to_owned(),
                };
                let when = if wait.position.is_known() {
                    ""
                } else {
                    ", at its own end"
                };
                format!("the end of {whose}{when}")
            }
            WaitKind::PoolResult => "a result of its Pool".to_owned(),
            WaitKind::Foreign => "another program".to_owned(),
            WaitKind::ProcessStart => match self.snapshot.process(SlotId::from_u64(wait.object)) {
                Some(process) => format!("{} to begin", named(process)),
                None => "a process to begin".to_owned(),
            },
            WaitKind::Descriptors => "a connection, a file or a terminal".to_owned(),
            WaitKind::Other => "something".to_owned(),
        };
        format!("waits for {what}")
    }
}

/// A time in nanoseconds as people say it: `0.4 s`, `1:02`, `3:00:01`, `2 d 4:00:00`.
#[must_use]
pub fn duration(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}.{} s", nanos / 100_000_000 % 10),
        (0, 0, _) => format!("{minutes}:{:02}", seconds % 60),
        (0, ..) => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        _ => format!(
            "{days} d {}:{:02}:{:02}",
            hours % 24,
            minutes % 60,
            seconds % 60
        ),
    }
}

/// Bytes as people say them.
#[must_use]
pub fn size(bytes: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "one digit behind the point is shown"
    )]
    let value = bytes as f64;
    match bytes {
        0..1_000_000 => format!("{:.0} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.1} GB", value / 1e9),
    }
}

/// How many bytes of memory a process has, shared ones by its share: PSS, of /proc/PID/smaps_rollup (proc(5)).
#[must_use]
pub fn memory(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The system's letter for what a process does (proc(5)).
fn state(pid: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')?..].chars().nth(2)
}

fn named(process: &Process) -> String {
    format!("{} (pid {})", process.info.name, process.info.pid)
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'R']) {
        "an"
    } else {
        "a"
    }
}

fn kind_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Queue => "Queue",
        ObjectKind::JoinableQueue => "JoinableQueue",
        ObjectKind::SimpleQueue => "SimpleQueue",
        ObjectKind::Lock => "Lock",
        ObjectKind::RLock => "RLock",
        ObjectKind::Semaphore => "Semaphore",
        ObjectKind::BoundedSemaphore => "BoundedSemaphore",
        ObjectKind::Event => "Event",
        ObjectKind::Condition => "Condition",
        ObjectKind::Barrier => "Barrier",
        _ => "object",
    }
}

fn made_at(object: &Object) -> String {
    if object.created_at.is_known() {
        format!(" (made at {})", describe(object.created_at))
    } else {
        String::new()
    }
}

fn contents(queue: &Object) -> String {
    let State::Queue {
        items,
        maxsize,
        unfinished,
    } = &queue.state
    else {
        return "unknown".to_owned();
    };
    let mut text = match (items, maxsize) {
        (0, _) => "it is empty".to_owned(),
        (1, 0) => "1 item".to_owned(),
        (items, 0) => format!("{items} items"),
        (items, maxsize) => format!("{items} of at most {maxsize} items"),
    };
    if let Some(unfinished) = unfinished.filter(|n| *n != 0) {
        let _ = write!(text, ", {unfinished} not done");
    }
    text
}

/// `file:line:column`.
fn describe(position: Position) -> String {
    crate::places::describe(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mphost_core::session::RawHandle;
    use mphost_core::table::{ExitStatus, ProcessInfo};
    use mphost_core::wait::Edge;

    fn id(index: u32) -> SlotId {
        SlotId {
            index,
            generation: 1,
        }
    }

    fn process(index: u32, name: &str, waiting: Option<(WaitKind, u64)>) -> Process {
        Process {
            info: ProcessInfo {
                slot: id(index),
                pid: 2_000_000_100 + index as i32,
                parent: if index == 0 { SlotId::NONE } else { id(0) },
                name: name.into(),
                daemon: false,
                helper: false,
                start_method: 1,
                start_time: 0,
                status: SlotStatus::Live,
                waiting: waiting.map(|(kind, object)| WaitingInfo {
                    kind,
                    object,
                    position: Position::default(),
                    timed: false,
                    outside: false,
                    since: 0,
                    edge: Edge::And,
                    sequence: 2,
                }),
            },
            holds: vec![],
        }
    }

    fn owner(slot: SlotId, ended: Option<i32>) -> Owner {
        Owner {
            slot,
            pid: 7,
            name: String::new(),
            mine: false,
            ended: ended.map(ExitStatus::from_raw),
            acquired_at: Position::default(),
        }
    }

    #[test]
    fn times_and_sizes_are_short() {
        let seconds = |s: u64| duration(s * 1_000_000_000);
        assert_eq!(duration(1_460_000_000), "1.4 s");
        assert_eq!(
            [seconds(62), seconds(3600), seconds(90_061)],
            ["1:02", "1:00:00", "1 d 1:01:01"]
        );
        assert_eq!(
            [size(0), size(4096), size(12_340_000), size(2_500_000_000)],
            ["0 kB", "4 kB", "12.3 MB", "2.5 GB"]
        );
    }

    #[test]
    fn who_waits_for_whom_is_said_in_words() {
        let lock = RawHandle {
            index: 3,
            generation: 1,
        };
        let mut holder = process(1, "Process-1", Some((WaitKind::Sleep, 0)));
        holder.holds = vec![(lock, Position::default())];
        let snapshot = Snapshot {
            main: id(0),
            taken_at: 0,
            processes: vec![
                process(
                    0,
                    "MainProcess",
                    Some((WaitKind::ProcessJoin, id(2).to_u64())),
                ),
                holder,
                process(2, "Process-2", Some((WaitKind::Lock, lock.to_u64()))),
            ],
            objects: vec![Object {
                handle: lock,
                kind: ObjectKind::Lock,
                created_at: Position::default(),
                state: State::Permits {
                    limit: 1,
                    holders: vec![owner(id(1), None), owner(SlotId::NONE, Some(9))],
                },
            }],
        };
        let text = Picture::new(&snapshot, Sources::default()).program();
        // No such processes run: nothing of the system's is said of them.
        let wanted =
            "  MainProcess (pid 2000000100) waits for the end of Process-2 (pid 2000000102), at its own end
    Process-1 (pid 2000000101) sleeps
      holds a Lock, since
    Process-2 (pid 2000000102) waits for a Lock
      held by Process-1 (pid 2000000101), since
      held by a process that has ended (pid 7, exit code -9) and never gave it back, since
";
        assert_eq!(text, wanted);
        let two = Picture::new(&snapshot, Sources::default()).processes(&[id(1), id(9)]);
        assert_eq!(two, "  Process-1 (pid 2000000101) sleeps\n");
    }
}
