//! How many descriptors this process may have (getrlimit(2), RLIMIT_NOFILE).
//!
//! Problem: the usual limit of 1024 is for programs that use select(2), which can't do with more. Servers with many clients need more, and
//! may have it up to the hard limit, by asking. It is asked for when it is needed, and programs that are run from here get back
//! what this one had.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The limit that this process began with, if it was raised; else 0.
static BEFORE: AtomicU64 = AtomicU64::new(0);

/// Lets this process have as many descriptors as the system allows it at most; whether these are more than before.
pub fn raise_descriptor_limit() -> bool {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return false;
    };
    // Refused, it stays as it was; whoever is too many waits then.
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    if raised {
        let _ = BEFORE.compare_exchange(0, soft, SeqCst, SeqCst);
    }
    raised
}

/// Sets the limit back to what it was; async-signal-safe.
pub(crate) fn restore_descriptor_limit() {
    let before = BEFORE.load(SeqCst);
    if before > 0
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, before.min(hard), hard);
    }
}

/// Makes a descriptor, once more with a raised limit if there are too many.
pub(crate) fn with_room<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) && raise_descriptor_limit() => {
            make()
        }
        made => made,
    }
}
