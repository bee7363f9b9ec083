//! Running one script once, and leaving nothing of it behind.
//!
//! The program is started as the leader of a session of its own, in a fresh, empty working
//! directory, which is removed afterwards (a script finds its own folder by `__file__`), with pipes for its
//! output, and standard input from the test or empty. One poll(2) loop then moves the bytes of all three and waits
//! for the program's end, its time limit and the run's cancellation, so that no pipe can fill up unread.
//!
//! At the time limit the main process gets SIGQUIT, which the host answers with a picture of who waits for what
//! on standard error; then the session gets SIGKILL. After an end by itself, whatever is still alive has one second to go.
//! What then remains is named, killed and a failure.
//!
//! Invariants: [`execute`] returns within a few seconds of the program's end or time limit, whatever the program
//! does; after it no process of the run is alive; the output kept is bounded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::cancel::Cancel;
use super::survivors::{Family, MARK, Survivor, shared_memory};

/// How long descendants may outlive the main process: far longer than they need, for the sake of busy machines.
const GRACE: Duration = Duration::from_secs(3);
/// How long the output may stay open where nobody is found who has it: a process that is ending has no descriptors to be
/// looked at any more, and closes them when its turn on the CPU comes.
const NOBODY: Duration = Duration::from_secs(20);
/// How long the answer to SIGQUIT may take.
const DUMP_LIMIT: Duration = Duration::from_secs(3);
/// How long standard error must be silent for the answer to be taken as whole.
const DUMP_SILENCE: Duration = Duration::from_millis(500);
/// How much of each stream is kept, in bytes.
const MAX_OUTPUT: usize = 32 << 20;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    /// The mphost program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// What it reads.
    pub(crate) stdin: Option<&'a str>,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// The folder of named shared memory, where nothing must be left: /dev/shm.
    pub(crate) shared_memory: &'a Path,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself or by a signal: the exit code, -15 for SIGTERM.
    With(i32),
    /// It was killed at the time limit.
    TimedOut,
    /// It was killed because the whole run was cancelled.
    Cancelled,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) ended: Ended,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error, up to the time limit.
    pub(crate) stderr: String,
    /// What it wrote on standard error when the time limit was over: who waited for what.
    pub(crate) dump: Option<String>,
    /// What it left behind, in words.
    pub(crate) leftovers: Vec<String>,
    /// A stream was longer than what is kept.
    pub(crate) truncated: bool,
    /// From its start to its end, or to its time limit.
    pub(crate) duration: Duration,
    /// The main process.
    pub(crate) pid: i32,
    /// The last process id that the system had given when the program ended.
    pub(crate) last_pid: i32,
    /// The working directory it had.
    pub(crate) folder: PathBuf,
}

/// One of the program's output streams.
struct Stream {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
    truncated: bool,
}

impl Stream {
    fn new(pipe: OwnedFd) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Stream {
            pipe: Some(pipe),
            bytes: Vec::new(),
            truncated: false,
        })
    }

    /// Reads what there is.
    fn drain(&mut self) {
        let mut chunk = [0; 64 * 1024];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = MAX_OUTPUT - self.bytes.len();
                    self.truncated |= count > room;
                    self.bytes.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => self.pipe = None,
            }
        }
    }

    fn inode(&self) -> Option<u64> {
        rustix::fs::fstat(self.pipe.as_ref()?)
            .ok()
            .map(|stat| stat.st_ino)
    }
}

/// The program's input that isn't written yet.
struct Input<'a> {
    pipe: Option<OwnedFd>,
    rest: &'a [u8],
}

impl Input<'_> {
    /// Writes what the pipe takes.
    fn feed(&mut self) {
        while let Some(pipe) = &self.pipe {
            if self.rest.is_empty() {
                self.pipe = None;
                return;
            }
            match rustix::io::write(pipe, self.rest) {
                Ok(count) => self.rest = &self.rest[count..],
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                // The program doesn't want it.
                Err(_) => self.pipe = None,
            }
        }
    }
}

struct Running<'a> {
    stdout: Stream,
    stderr: Stream,
    input: Input<'a>,
    cancel: &'a Cancel,
}

impl Running<'_> {
    /// Moves bytes until one of `others` is readable (true) or the deadline is over (false). With `silence`, it
    /// also ends (false) when standard error has begun to speak and then brought nothing for so long.
    fn pump(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Instant,
        silence: Option<Duration>,
    ) -> bool {
        let mut heard = None;
        loop {
            let now = Instant::now();
            let until = match (heard, silence) {
                (Some(heard), Some(silence)) => deadline.min(heard + silence),
                _ => deadline,
            };
            if now >= until {
                return false;
            }
            let mut fds: Vec<PollFd<'_>> = others
                .iter()
                .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
                .collect();
            for stream in [&self.stdout, &self.stderr] {
                if let Some(pipe) = &stream.pipe {
                    fds.push(PollFd::new(pipe, PollFlags::IN));
                }
            }
            if let Some(pipe) = &self.input.pipe {
                fds.push(PollFd::new(pipe, PollFlags::OUT));
            }
            // A wait that is refused (no memory) is tried again: the deadline bounds it.
            let _ = poll(&mut fds, Some(&timespec(until - now)));
            let woken = fds
                .iter()
                .take(others.len())
                .any(|fd| !fd.revents().is_empty());
            let before = self.stderr.bytes.len();
            self.stdout.drain();
            self.stderr.drain();
            self.input.feed();
            if self.stderr.bytes.len() != before {
                heard = Some(Instant::now());
            }
            if woken {
                return true;
            }
        }
    }

    fn open(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that a wait doesn't end just before its time.
    Timespec {
        tv_sec: duration.as_secs().min(1 << 30) as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Runs the plan.
///
/// # Errors
///
/// The program can't be started, or the system has no descriptors or no room for the working directory.
pub(crate) fn execute(plan: &Plan<'_>, cancel: &Cancel) -> io::Result<Outcome> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mark = format!(
        "{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let folder = tempfile::Builder::new().prefix("mphost-test-").tempdir()?;
    let shared_before = shared_memory(plan.shared_memory);

    let mut command = Command::new(plan.program);
    command
        .args(&plan.arguments)
        .current_dir(folder.path())
        .env(MARK, &mark)
        .env("PWD", folder.path())
        .stdin(if plan.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    mphost_core::isolate::isolate(&mut command);
    let started = Instant::now();
    // One at a time: between fork and exec a child has this process's descriptors, and with them the far ends of the pipes
    // of whatever is being started beside it, which would keep that test's output open.
    static STARTING: Mutex<()> = Mutex::new(());
    let mut child = {
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        command.spawn()?
    };
    let main = Pid::from_child(&child);
    let prepared = Running::new(&mut child, plan, cancel).and_then(|running| {
        Ok((
            running,
            rustix::process::pidfd_open(main, PidfdFlags::empty())?,
        ))
    });
    let (mut running, pidfd) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    };
    let pipes = [&running.stdout, &running.stderr]
        .into_iter()
        .filter_map(Stream::inode)
        .collect();
    let family = Family { main, mark, pipes };

    let woken = running.pump(
        &[pidfd.as_fd(), cancel.descriptor()],
        started + plan.timeout,
        None,
    );
    let ended_by_itself = woken && ended(&pidfd);
    let duration = started.elapsed();
    let mut dump = None;
    if !woken {
        let before = running.stderr.bytes.len();
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::QUIT);
        running.pump(
            &[pidfd.as_fd(), cancel.descriptor()],
            Instant::now() + DUMP_LIMIT,
            Some(DUMP_SILENCE),
        );
        dump = Some(running.stderr.bytes.split_off(before));
    }
    let last_pid = last_pid().unwrap_or(i32::MAX);
    let mut leftovers = Vec::new();
    if ended_by_itself {
        leftovers = wait_for_the_rest(&family, &mut running);
    }
    // The main process is reaped last: until then its number can't become another process's, and so no
    // other session can have it.
    clear(&family, main, &mut running);
    let status = child.wait()?;
    family.reap();

    if ended_by_itself {
        for name in shared_memory(plan.shared_memory)
            .into_iter()
            .filter(|name| !shared_before.contains(name))
        {
            let path = plan.shared_memory.join(name);
            if claim(&path) {
                leftovers.push(format!(
                    "a shared memory object appeared and stayed: {}",
                    path.display()
                ));
            }
        }
    }
    Ok(Outcome {
        ended: match (ended_by_itself, woken) {
            (true, _) => Ended::With(exit_code(status)),
            (false, true) => Ended::Cancelled,
            (false, false) => Ended::TimedOut,
        },
        truncated: running.stdout.truncated || running.stderr.truncated,
        stdout: text(running.stdout.bytes),
        stderr: text(running.stderr.bytes),
        dump: dump.map(text),
        leftovers,
        duration,
        pid: main.as_raw_nonzero().get(),
        last_pid,
        folder: folder.path().to_owned(),
    })
}

impl<'a> Running<'a> {
    fn new(child: &mut Child, plan: &Plan<'a>, cancel: &'a Cancel) -> io::Result<Running<'a>> {
        let missing = || io::Error::other("the program's pipes are missing");
        let input = child.stdin.take().map(OwnedFd::from);
        if let Some(pipe) = &input {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Running {
            stdout: Stream::new(child.stdout.take().ok_or_else(missing)?.into())?,
            stderr: Stream::new(child.stderr.take().ok_or_else(missing)?.into())?,
            input: Input {
                pipe: input,
                rest: plan.stdin.unwrap_or_default().as_bytes(),
            },
            cancel,
        })
    }
}

fn ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0
            })
        ),
        Ok(1..)
    )
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| -signal))
        .unwrap_or(-1)
}

/// The main process has ended: the others have [`GRACE`] to do so. Gives those that don't, in words.
fn wait_for_the_rest(family: &Family, running: &mut Running<'_>) -> Vec<String> {
    let begin = Instant::now();
    running.stdout.drain();
    running.stderr.drain();
    loop {
        let mut others = family.survivors();
        if others.is_empty() && running.open() {
            others = family.output_holders();
        }
        if (others.is_empty() && !running.open()) || running.cancel.signal().is_some() {
            return Vec::new();
        }
        let deadline = begin + if others.is_empty() { NOBODY } else { GRACE };
        if Instant::now() >= deadline {
            others.iter().for_each(Survivor::kill);
            return name(&others);
        }
        let mut fds: Vec<BorrowedFd<'_>> = others.iter().map(|other| other.pidfd.as_fd()).collect();
        fds.push(running.cancel.descriptor());
        // An end of any of them wakes; who only holds the output open may close it without ending.
        let until = if others.is_empty() {
            deadline.min(Instant::now() + GRACE / 20)
        } else {
            deadline
        };
        running.pump(&fds, until, None);
    }
}

fn name(others: &[Survivor]) -> Vec<String> {
    if others.is_empty() {
        return vec!["something that can't be found keeps its output open".to_owned()];
    }
    others
        .iter()
        .map(|other| {
            format!(
                "a process was still alive after the end: pid {}, {}",
                other.pid.as_raw_nonzero(),
                other.command
            )
        })
        .collect()
}

/// Ends whatever is alive of the run, until a look finds nothing.
fn clear(family: &Family, main: Pid, running: &mut Running<'_>) {
    let deadline = Instant::now() + GRACE * 5;
    let _ = rustix::process::kill_process(main, Signal::KILL);
    let _ = rustix::process::kill_process_group(main, Signal::KILL);
    loop {
        let others = family.survivors();
        if others.is_empty() || Instant::now() >= deadline {
            break;
        }
        others.iter().for_each(Survivor::kill);
        for other in &others {
            running.pump(&[other.pidfd.as_fd()], deadline, None);
        }
        family.reap();
    }
    running.stdout.drain();
    running.stderr.drain();
}

/// The process id that the system gave last (proc(5), /proc/loadavg).
fn last_pid() -> Option<i32> {
    let mut text = String::new();
    File::open("/proc/loadavg")
        .ok()?
        .read_to_string(&mut text)
        .ok()?;
    text.split_whitespace().last()?.parse().ok()
}

/// Whether nobody has reported this shared memory object yet: tests that run side by side all see it,
/// and which of them made it can't be told. None does, while mphost keeps its promise.
fn claim(path: &Path) -> bool {
    static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    CLAIMED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(path.to_owned())
}
