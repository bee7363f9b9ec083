//! Exit codes: the one table of them.

/// All is well.
pub(crate) const SUCCESS: u8 = 0;
/// What was asked for isn't there.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong, the script can't be read, or it has a syntax error: nothing was run.
pub(crate) const USAGE: u8 = 2;

/// A script's own exit code, of which the system keeps the low 8 bits.
pub(crate) fn of_script(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
