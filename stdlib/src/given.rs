//! What a getter gave last, so that Rhai's writing it back can be told from an assignment.
//!
//! Problem: after a call on what a getter or an index gave (`v.value.to_string()`, `a[0..3].len()`), Rhai calls the setter with it, in
//! case that the call has changed it. If another process wrote in between, this would undo its write.
//!
//! Rhai calls getter and setter for the same place in the script, which no assignment does: so a setter call for the place of the last
//! getter call, with the content that this one gave, writes nothing.

use rhai::Position;
use std::cell::Cell;

/// The last thing that a getter of one object gave.
#[derive(Debug, Default)]
pub struct Given(Cell<Option<(Position, usize, u64)>>);

impl Given {
    /// Notes that the getter called at `at` gave part number `part` of the object, with this content.
    pub fn note(&self, at: Position, part: usize, content: u64) {
        self.0.set(Some((at, part, content)));
    }

    /// Whether a setter call at `at` only writes back what was given; `content` is asked for only if that may be.
    pub fn is_written_back(
        &self,
        at: Position,
        part: usize,
        content: impl FnOnce() -> u64,
    ) -> bool {
        let same = |(there, given_part, given): (Position, usize, u64)| {
            there == at && given_part == part && given == content()
        };
        !at.is_none() && self.0.take().is_some_and(same)
    }
}

/// What stands for a content of many bytes.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    // Compared within one process only; the seeds don't matter.
    ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_content_at_the_same_place_is_a_writing_back() {
        let given = Given::default();
        let (here, there) = (Position::new(3, 7), Position::new(3, 9));
        given.note(here, 1, 5);
        assert!(given.is_written_back(here, 1, || 5));
        assert!(!given.is_written_back(here, 1, || 5), "once");
        for (at, part, content) in [(there, 1, 5), (here, 2, 5), (here, 1, 6)] {
            given.note(here, 1, 5);
            assert!(!given.is_written_back(at, part, || content));
        }
        given.note(Position::NONE, 1, 5);
        assert!(!given.is_written_back(Position::NONE, 1, || 5));
    }
}
