//! The files of a program's scripts, by number.
//!
//! A [`Position`](crate::position::Position) has room for a number, not for a path. All processes of a program must mean the same
//! file by it, and whoever looks at the program from outside must be able to tell which: so the paths stand in the session.
//!
//! Invariant: a name is written under the session's mutex, committed by the store of its length, and never changed.

use crate::session::layout::{FILE_NAME_LEN, FileName};
use crate::session::try_session;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The number of a file, from 1; the same in every process. `None` where there is no session or no room for one more.
///
/// Of a path beyond 508 bytes only the end is kept.
#[must_use]
pub fn number_of(path: &str) -> Option<u16> {
    let session = try_session()?;
    let name = kept(path);
    let files = session.files();
    let find = || {
        let known = files.iter().take_while(|file| file.len.load(Acquire) != 0);
        let mut known = known.enumerate();
        known.find_map(|(index, file)| (text(file) == name.as_bytes()).then_some(index))
    };
    let index = match find() {
        Some(index) => index,
        None => {
            let _guard = session.lock().ok()?;
            find().or_else(|| {
                let free = files.iter().position(|file| file.len.load(Relaxed) == 0)?;
                for (place, byte) in files[free].bytes.iter().zip(name.bytes()) {
                    place.store(byte, Relaxed);
                }
                files[free].len.store(name.len() as u32, Release);
                Some(free)
            })?
        }
    };
    u16::try_from(index + 1).ok()
}

/// The path of a file by its number.
#[must_use]
pub fn name_of(number: u16) -> Option<String> {
    let file = try_session()?
        .files()
        .get(usize::from(number).checked_sub(1)?)
        .filter(|file| file.len.load(Acquire) != 0)?;
    Some(String::from_utf8_lossy(&text(file)).into_owned())
}

fn text(file: &FileName) -> Vec<u8> {
    let len = (file.len.load(Acquire) as usize).min(FILE_NAME_LEN);
    file.bytes[..len].iter().map(|b| b.load(Relaxed)).collect()
}

/// The end of a path that is too long; what has no name at all is called so.
fn kept(path: &str) -> &str {
    if path.is_empty() {
        return "<script>";
    }
    let start = (path.len().saturating_sub(FILE_NAME_LEN)..)
        .find(|at| path.is_char_boundary(*at))
        .unwrap_or(0);
    &path[start..]
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_a_long_path_the_end_is_kept() {
        let long = format!("{}/é{}", "x".repeat(30), "y".repeat(506));
        assert_eq!(super::kept(&long), &long[31..]);
        let longer = format!("é{}", "y".repeat(507));
        assert_eq!(super::kept(&longer), "y".repeat(507));
        assert_eq!(super::kept(""), "<script>");
        assert_eq!(super::kept("a/b"), "a/b");
    }
}
