//! A place in a script, small enough to be stored by one atomic store.
//!
//! Shared memory remembers where a lock was taken, an object made, a wait begun. Only numbers
//! are kept here; which file a number stands for is the business of whoever runs the script.

/// A place in a script: file number, line and column, all zero if unknown.
///
/// A line beyond 16,777,215 and a column beyond 65,535 are cut to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// The unknown place.
    pub const NONE: Self = Self(0);

    /// A place by the number of its file, its line (from 1) and its column (from 1).
    #[must_use]
    pub const fn new(file: u16, line: u32, column: u16) -> Self {
        let line = if line > 0xff_ffff { 0xff_ffff } else { line };
        Self(((file as u64) << 40) | ((line as u64) << 16) | column as u64)
    }

    /// The number of the file.
    #[must_use]
    pub const fn file(self) -> u16 {
        (self.0 >> 40) as u16
    }

    /// The line, from 1; 0 if unknown.
    #[must_use]
    pub const fn line(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff
    }

    /// The column, from 1; 0 if unknown.
    #[must_use]
    pub const fn column(self) -> u16 {
        self.0 as u16
    }

    /// Whether this says anything.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// The place as one number, for storing.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The place that [`Position::to_bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0x00ff_ffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn parts_come_back() {
        let p = Position::new(7, 70_000, 80);
        assert_eq!((p.file(), p.line(), p.column()), (7, 70_000, 80));
        assert_eq!(Position::from_bits(p.to_bits()), p);
        assert!(p.is_known() && !Position::NONE.is_known());
        assert_eq!(Position::new(1, u32::MAX, 1).line(), 0xff_ffff);
    }
}
