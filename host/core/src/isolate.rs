//! Starting a foreign program so that it can be watched and ended as a whole.
//!
//! The test runner starts programs that may do anything: hang, leave processes behind, take the
//! terminal. [`isolate`] puts such a program into a session of its own, so that one signal reaches
//! all of it and Ctrl-C at the runner's terminal does not, and ties its life to the thread that
//! starts it, so that a killed runner leaves no program running.
//!
//! Invariant: what runs between fork and exec is async-signal-safe (three system calls, no
//! allocation, no lock).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid, setsid};

/// Makes `command` start as the leader of a new session and process group, which gets SIGKILL
/// when the thread that started it ends, however it ends (setsid(2), `PR_SET_PDEATHSIG` in prctl(2)).
///
/// The signal goes to the started process alone, not to its descendants. The thread that calls
/// `spawn` must outlive the child: the kernel watches the thread, not the process.
///
/// # Errors
///
/// None here; `Command::spawn` reports a refused `setsid` or `prctl`, and fails where the parent
/// has died before the child could ask for the signal.
pub fn isolate(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        setsid()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::Error::from_raw_os_error(
                nix::errno::Errno::ESRCH as i32,
            ));
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it takes no lock and allocates nothing, which is
    // all that is allowed between the fork of a threaded process and the exec.
    unsafe { command.pre_exec(prepare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_leads_a_session_of_its_own() {
        let mut command = Command::new("/bin/sh");
        // Field 1 is the pid, field 5 the process group, field 6 the session (proc(5)).
        command.args([
            "-c",
            "read pid comm state ppid group session rest </proc/$$/stat; echo $pid $group $session",
        ]);
        let output = isolate(&mut command).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let ids: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(ids.len(), 3, "{text:?}");
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[0], ids[2]);
    }

    #[test]
    fn the_child_dies_with_the_thread_that_started_it() {
        let child =
            std::thread::spawn(|| isolate(Command::new("sleep").arg("1000")).spawn().unwrap())
                .join();
        let status = child.unwrap().wait().unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(nix::libc::SIGKILL));
    }
}
