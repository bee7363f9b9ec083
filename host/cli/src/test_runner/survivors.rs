//! Finding what a program left running.
//!
//! A process belongs to a test when it is in the session that the runner made for it, or when its
//! environment carries the test's mark: a process that made a session of its own, and whose parents
//! are all gone, still has that. Both are read from /proc (proc(5)).
//!
//! Invariants: a process id found here may be another process a moment later, so processes are
//! waited for and signalled through a pidfd that was opened before they were looked at. Other users'
//! processes are never touched.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

/// The environment variable that marks the processes of one run.
pub(crate) const MARK: &str = "MPHOST_TEST_RUN";

/// A process that outlived the program it belongs to.
#[derive(Debug)]
pub(crate) struct Survivor {
    /// Its process id.
    pub(crate) pid: Pid,
    /// What it runs, as it would be typed; `[name]` where it can't be read.
    pub(crate) command: String,
    /// A descriptor that is readable once it has ended.
    pub(crate) pidfd: OwnedFd,
}

impl Survivor {
    /// Ends it.
    pub(crate) fn kill(&self) {
        // It may have ended by itself meanwhile, which is as good.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// How the processes of a run are known.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    /// The main process, which leads the session.
    pub(crate) main: Pid,
    /// The value of [`MARK`] in its environment.
    pub(crate) mark: String,
    /// The inode numbers of the pipes that take its output.
    pub(crate) pipes: Vec<u64>,
}

/// What /proc/PID/stat says.
struct Stat {
    name: String,
    state: char,
    parent: i32,
    session: i32,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name is in brackets and may hold anything, brackets and spaces too.
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let mut fields = text[end + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        name: text[start + 1..end].to_owned(),
        state,
        parent,
        session,
    })
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn is_ours(pid: Pid) -> bool {
    fs::metadata(format!("/proc/{}", pid.as_raw_nonzero()))
        .is_ok_and(|data| data.uid() == rustix::process::geteuid().as_raw())
}

fn command(pid: Pid, name: &str) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let words = words.trim_end_matches('\0');
    if words.is_empty() {
        return format!("[{name}]");
    }
    words
        .split('\0')
        .map(|word| shlex::try_quote(word).unwrap_or_default().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn has_mark(pid: Pid, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).is_ok_and(|environment| {
        environment
            .split(|&byte| byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
}

fn holds_pipe(pid: Pid, pipes: &[u64]) -> bool {
    let entries = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| {
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok());
            inode.is_some_and(|inode: u64| pipes.contains(&inode))
        })
}

fn survivors(family: &Family, belongs: impl Fn(Pid, &Stat) -> bool) -> Vec<Survivor> {
    let own = rustix::process::getpid();
    let mut found = Vec::new();
    for pid in processes().filter(|&pid| pid != family.main && pid != own && is_ours(pid)) {
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let Some(stat) = stat(pid) else { continue };
        if matches!(stat.state, 'Z' | 'X') || !belongs(pid, &stat) {
            continue;
        }
        found.push(Survivor {
            pid,
            command: command(pid, &stat.name),
            pidfd,
        });
    }
    found
}

impl Family {
    /// The living processes of the run but for its main process.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        let session = self.main.as_raw_nonzero().get();
        survivors(self, |pid, stat| {
            stat.session == session || has_mark(pid, &self.mark)
        })
    }

    /// The processes, whoever they are, that still hold the run's output open. Slower, and needed only
    /// where nothing else tells why the output doesn't end.
    pub(crate) fn output_holders(&self) -> Vec<Survivor> {
        survivors(self, |pid, _| holds_pipe(pid, &self.pipes))
    }

    /// Takes the exit status of ended processes of the run that have become the runner's children
    /// (it is a subreaper), so that no zombies pile up.
    pub(crate) fn reap(&self) {
        let (own, session) = (rustix::process::getpid(), self.main.as_raw_nonzero().get());
        for pid in processes().filter(|&pid| pid != self.main) {
            if stat(pid).is_some_and(|stat| {
                stat.state == 'Z'
                    && stat.parent == own.as_raw_nonzero().get()
                    && stat.session == session
            }) {
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Entries of /dev/shm that an mphost program of this user made.
pub(crate) fn shared_memory(folder: &Path) -> Vec<String> {
    let own = rustix::process::geteuid().as_raw();
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == own))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("mphost"))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_marked_process_is_found_and_named() {
        let mark = format!("unit-{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("1000")
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // The main process of this family is one that can't be among the found.
        let family = Family {
            main: Pid::INIT,
            mark,
            pipes: Vec::new(),
        };
        let found = loop {
            // Between fork and exec it still has this process's environment.
            let found = family.survivors();
            if !found.is_empty() || child.try_wait().unwrap().is_some() {
                break found;
            }
        };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].command, "sleep 1000");
        assert_eq!(found[0].pid.as_raw_nonzero().get() as u32, child.id());
        found[0].kill();
        assert!(!child.wait().unwrap().success());
        assert!(family.survivors().is_empty());
    }

    #[test]
    fn only_names_of_this_program_count() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mphost-2", "other", "mphost.1"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(shared_memory(folder.path()), ["mphost-2", "mphost.1"]);
    }
}
