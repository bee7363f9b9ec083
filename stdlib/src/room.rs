//! Room for values whose size a script gives as a number: an error that it can catch where there is none.
//!
//! Problem: Rhai allocates what it is asked for, and a program whose allocation fails is aborted: `blob(99999999999999)`, a zero too many,
//! would end the process without a word. Rhai's own limits would help, but with one of them set it measures each value after each step.
//!
//! So whatever makes a value of a size that stands in the script asks here first: for no more than the machine has, since an
//! allocation beyond that may succeed and kill when it is used, and then for what the allocator says. This module replaces the
//! calls of Rhai's that do so, `blob` and `pad`.

use crate::api::Registry;
use crate::error::{Error, Kind, Result, raise};
use nix::unistd::{SysconfVar, sysconf};
use rhai::{Array, Blob, Dynamic, EvalAltResult, ImmutableString, NativeCallContext};
use std::sync::OnceLock;

/// Less than this is simply taken.
const SMALL: usize = 1 << 20;

/// The machine's memory, in bytes.
fn machine() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let number = |what| {
            let number = sysconf(what).ok().flatten()?;
            usize::try_from(number).ok()
        };
        let pages = number(SysconfVar::_PHYS_PAGES).unwrap_or(usize::MAX);
        pages.saturating_mul(number(SysconfVar::PAGE_SIZE).unwrap_or(4096))
    })
}

fn refused(bytes: Option<usize>) -> Error {
    let what = match bytes {
        Some(bytes) => format!("a value of {bytes} bytes"),
        None => "so large a value".into(),
    };
    raise(Kind::MemoryError, format!("there is no memory for {what}"))
}

/// Makes sure that `count` items of `size` bytes can be allocated at this moment.
///
/// # Errors
/// `MemoryError`; `OverflowError` for more than any machine could address, as in Python.
pub fn ensure(count: usize, size: usize) -> Result<()> {
    let bytes = count.checked_mul(size);
    match bytes.filter(|bytes| isize::try_from(*bytes).is_ok()) {
        Some(bytes) if bytes < SMALL => Ok(()),
        Some(bytes) => grow(&mut Vec::<u8>::new(), bytes),
        None => Err(raise(
            Kind::OverflowError,
            format!("{count} times {size} bytes is more than any memory"),
        )),
    }
}

/// An empty vector with room for `count` items.
///
/// # Errors
/// `MemoryError`.
pub fn vec<T>(count: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    grow(&mut vec, count)?;
    Ok(vec)
}

/// Room for `count` items in all.
///
/// # Errors
/// `MemoryError`.
pub fn grow<T>(vec: &mut Vec<T>, count: usize) -> Result<()> {
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_none_or(|bytes| bytes > machine()) {
        return Err(refused(bytes));
    }
    vec.try_reserve_exact(count.saturating_sub(vec.len()))
        .map_err(|_| refused(bytes))
}

type Fallible<T> = std::result::Result<T, Box<EvalAltResult>>;

fn placed<T>(ctx: &NativeCallContext<'_>, result: Result<T>) -> Fallible<T> {
    result.map_err(|error| error.into_rhai(ctx.call_source(), ctx.call_position()))
}

/// A size as Rhai's calls take it: a negative one is 0.
fn size(len: i64) -> usize {
    usize::try_from(len.max(0)).unwrap_or(usize::MAX)
}

/// The lowest byte.
fn byte(value: i64) -> u8 {
    value.to_le_bytes()[0]
}

fn blob(len: i64, value: i64) -> Result<Blob> {
    ensure(size(len), 1)?;
    Ok(vec![byte(value); size(len)])
}

fn pad<T: Clone>(items: &mut Vec<T>, len: i64, item: T) -> Result<()> {
    if size(len) > items.len() {
        grow(items, size(len))?;
        items.resize(size(len), item);
    }
    Ok(())
}

fn pad_text(text: &mut ImmutableString, len: i64, padding: &str) -> Result<()> {
    let missing = size(len).saturating_sub(text.chars().count());
    if missing == 0 || padding.is_empty() {
        return Ok(());
    }
    // As many bytes at most as the longest of the letters would need.
    let widest = padding.chars().map(char::len_utf8).max().unwrap_or(1);
    let bytes = missing
        .checked_mul(widest)
        .and_then(|n| n.checked_add(text.len()));
    let mut bytes = vec::<u8>(bytes.unwrap_or(usize::MAX))?;
    bytes.extend_from_slice(text.as_bytes());
    let mut padded = String::from_utf8(bytes).expect("these are a text's bytes");
    padded.extend(padding.chars().cycle().take(missing));
    *text = padded.into();
    Ok(())
}

/// Registers `blob` and `pad`, in the place of Rhai's.
pub fn register(registry: &mut Registry) {
    if registry.wants("blob") {
        let module = registry.module("");
        module.set_native_fn("blob", |ctx: NativeCallContext<'_>, len: i64| {
            placed(&ctx, blob(len, 0))
        });
        module.set_native_fn(
            "blob",
            |ctx: NativeCallContext<'_>, len: i64, value: i64| placed(&ctx, blob(len, value)),
        );
    }
    if registry.wants("pad") {
        let module = registry.module("");
        module.set_native_fn(
            "pad",
            |ctx: NativeCallContext<'_>, blob: &mut Blob, len: i64, value: i64| {
                placed(&ctx, pad(blob, len, byte(value)))
            },
        );
        module.set_native_fn(
            "pad",
            |ctx: NativeCallContext<'_>, array: &mut Array, len: i64, item: Dynamic| {
                placed(&ctx, pad(array, len, item))
            },
        );
        module.set_native_fn(
            "pad",
            |ctx: NativeCallContext<'_>, text: &mut ImmutableString, len: i64, letter: char| {
                placed(&ctx, pad_text(text, len, letter.encode_utf8(&mut [0; 4])))
            },
        );
        module.set_native_fn(
            "pad",
            |ctx: NativeCallContext<'_>,
             text: &mut ImmutableString,
             len: i64,
             padding: ImmutableString| { placed(&ctx, pad_text(text, len, &padding)) },
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, outcome};

    #[test]
    fn a_size_beyond_all_memory_is_an_error_that_can_be_caught() {
        let engine = engine(&[
            super::register,
            crate::builtins::register,
            crate::os::register,
        ]);
        for call in [
            "blob(99999999999999)",
            "blob(99999999999999, 7)",
            "blob(9223372036854775807)",
            "let b = blob(); b.pad(99999999999999, 1)",
            "let a = [1]; a.pad(99999999999999, ())",
            "let a = [1]; a.pad(9223372036854775807, ())",
            "let s = \"a\"; s.pad(99999999999999, 'x')",
            "let s = \"a\"; s.pad(9223372036854775807, \"xy\")",
            "\"ab\" * 99999999999999",
            "'a' * 99999999999999",
            "[1, 2] * 99999999999999",
            "[1, 2] * 9223372036854775807",
            "blob(3, 1) * 99999999999999",
            "os::urandom(99999999999999)",
            "sum(range(99999999999999))",
            "sum(0..=99999999999999)",
        ] {
            let got = outcome(&engine, call);
            assert!(
                got.starts_with("MemoryError: there is no memory for "),
                "{call}: {got}"
            );
        }
        let caught = "let n = 0; try { blob(99999999999999); } catch { n = 1; } n";
        check(&engine, &[(caught, "1")]);
    }

    #[test]
    fn blob_and_pad_are_as_rhais() {
        let engine = engine(&[super::register]);
        check(
            &engine,
            &[
                ("blob(-1).len()", "0"),
                ("blob(2).len()", "2"),
                ("blob(2, 0x142)[1]", "66"),
                (
                    "let b = blob(1, 7); b.pad(3, 8); b.pad(2, 9); b.pad(-1, 9); [b.len(), b[0], b[2]]",
                    "[3, 7, 8]",
                ),
                (
                    "let a = [1]; a.pad(3, 5); a.pad(2, 6); a.pad(-5, 6); a",
                    "[1, 5, 5]",
                ),
                (
                    "let s = \"\u{e4}\"; s.pad(3, 'x'); s.pad(2, 'y'); s.pad(-1, 'y'); s",
                    "\u{e4}xx",
                ),
                (
                    "let s = \"hello\"; s.pad(10, \"(!)\"); s.pad(8, \"***\"); s.pad(20, \"\"); s",
                    "hello(!)(!",
                ),
            ],
        );
    }
}
