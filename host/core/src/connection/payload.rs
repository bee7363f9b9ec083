//! The bytes of a message that is sent.
//!
//! Problem: a message is a short head and, often, bytes that its sender has somewhere else already; a mebibyte isn't copied behind five
//! bytes for nothing.

use std::io::IoSlice;

/// The bytes of a message: a head, and what comes behind it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Payload<'a> {
    head: &'a [u8],
    body: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Those of `head` and then those of `body`.
    #[must_use]
    pub fn new(head: &'a [u8], body: &'a [u8]) -> Self {
        Self { head, body }
    }

    /// How many bytes it has.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `length` bytes, at most, and the rest.
    pub(super) fn split(self, length: usize) -> (Self, Self) {
        let (head, rest_of_head) = self.head.split_at(length.min(self.head.len()));
        let (body, rest) = self
            .body
            .split_at((length - head.len()).min(self.body.len()));
        (
            Self { head, body },
            Self {
                head: rest_of_head,
                body: rest,
            },
        )
    }

    /// Copies all of it to `room`, which is as long.
    ///
    /// # Panics
    /// If it isn't.
    #[inline]
    pub fn copy_to(&self, room: &mut [u8]) {
        if self.head.is_empty() {
            return room.copy_from_slice(self.body);
        }
        let (front, back) = room.split_at_mut(self.head.len());
        front.copy_from_slice(self.head);
        back.copy_from_slice(self.body);
    }

    /// For the kernel, behind `first`.
    pub(super) fn behind<'b>(&self, first: &'b [u8]) -> [IoSlice<'b>; 3]
    where
        'a: 'b,
    {
        [first, self.head, self.body].map(IoSlice::new)
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(body: &'a [u8]) -> Self {
        Self { head: &[], body }
    }
}

#[cfg(test)]
mod tests {
    use super::Payload;

    #[test]
    fn it_is_split_anywhere() {
        let whole = Payload::new(b"abc", b"defgh");
        for length in 0..10 {
            let (first, rest) = whole.split(length);
            assert_eq!(first.len(), length.min(8));
            let mut all = [0; 8];
            let (front, back) = all.split_at_mut(first.len());
            first.copy_to(front);
            rest.copy_to(back);
            assert_eq!(&all, b"abcdefgh", "at {length}");
        }
    }
}
