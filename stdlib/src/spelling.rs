//! Python's spelling of values: what `repr` shows, and what `%r` and `json` need of it.
//!
//! Rhai prints `#{"a": 1}` and `()`; documents written for Python show `{'a': 1}` and `None`. This module knows
//! the second way: quotes chosen as Python chooses them, the same escapes, the shortest digits of a float that read back
//! as the same number.
//!
//! Source: CPython's `repr` (Library Reference, Built-in Functions), `float.__repr__`, `unicode_repr` and `bytes_repr`.

use crate::error::ScriptError;
use rhai::{Array, Blob, Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use std::fmt::Write;
use std::ops::{Range, RangeInclusive};

/// Deeper than this a value shows as `...`: only a closure's captured variable can hold itself.
const MAX_DEPTH: usize = 200;

/// `repr(value)`.
#[must_use]
pub fn repr(ctx: &NativeCallContext<'_>, value: &Dynamic) -> String {
    let mut out = String::new();
    write_repr(ctx, value, &mut out, 0);
    out
}

/// `str(value)`: texts as they are, everything else as [`repr`]; a host object as `print` shows it.
#[must_use]
pub fn text(ctx: &NativeCallContext<'_>, value: &Dynamic) -> String {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return text.to_string();
    }
    if let Ok(letter) = value.as_char() {
        return letter.to_string();
    }
    if is_plain(value) {
        repr(ctx, value)
    } else {
        shown(ctx, value)
    }
}

/// What `print` shows of a value.
#[must_use]
pub fn shown(ctx: &NativeCallContext<'_>, value: &Dynamic) -> String {
    by_function(ctx, "to_string", value)
}

fn is_plain(value: &Dynamic) -> bool {
    value.is_unit()
        || value.is::<bool>()
        || value.is::<i64>()
        || value.is::<f64>()
        || value.is::<Array>()
        || value.is::<Map>()
        || value.is::<Blob>()
        || value.is::<Range<i64>>()
        || value.is::<RangeInclusive<i64>>()
        || value.is::<FnPtr>()
}

fn by_function(ctx: &NativeCallContext<'_>, name: &str, value: &Dynamic) -> String {
    let mut copy = value.clone().flatten();
    match ctx.call_native_fn_raw(name, true, &mut [&mut copy]) {
        Ok(text) if text.is_string() => text.to_string(),
        _ => ctx.engine().map_type_name(copy.type_name()).to_owned(),
    }
}

fn write_repr(ctx: &NativeCallContext<'_>, value: &Dynamic, out: &mut String, depth: usize) {
    if depth > MAX_DEPTH {
        out.push_str("...");
    } else if let Ok(int) = value.as_int() {
        let _ = write!(out, "{int}");
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        quote(&text, out);
    } else if value.is_unit() {
        out.push_str("None");
    } else if let Ok(truth) = value.as_bool() {
        out.push_str(if truth { "True" } else { "False" });
    } else if let Ok(number) = value.as_float() {
        out.push_str(&float(number));
    } else if let Ok(letter) = value.as_char() {
        quote(letter.encode_utf8(&mut [0; 4]), out);
    } else if let Some(array) = value.read_lock::<Array>() {
        out.push('[');
        for (index, item) in array.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write_repr(ctx, item, out, depth + 1);
        }
        out.push(']');
    } else if let Some(map) = value.read_lock::<Map>() {
        out.push('{');
        for (index, (key, item)) in map.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            quote(key, out);
            out.push_str(": ");
            write_repr(ctx, item, out, depth + 1);
        }
        out.push('}');
    } else if let Some(blob) = value.read_lock::<Blob>() {
        bytes(&blob, out);
    } else if let Some(range) = value.read_lock::<Range<i64>>() {
        let _ = write!(out, "range({}, {})", range.start, range.end);
    } else if let Some(range) = value.read_lock::<RangeInclusive<i64>>() {
        let _ = write!(
            out,
            "range({}, {})",
            range.start(),
            i128::from(*range.end()) + 1
        );
    } else if let Some(pointer) = value.read_lock::<FnPtr>() {
        if pointer.is_anonymous() {
            out.push_str("<function <lambda>>");
        } else {
            let _ = write!(out, "<function {}>", pointer.fn_name().replace("__", "."));
        }
    } else if let Some(error) = value.read_lock::<ScriptError>() {
        out.push_str(error.kind().name());
        out.push('(');
        if !error.detail().message.is_empty() {
            quote(&error.detail().message, out);
        }
        out.push(')');
    } else {
        out.push_str(&by_function(ctx, "to_debug", value));
    }
}

/// A text between quotes: single ones, unless it has such a quote in it and no double one.
pub fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if letter == quote => {
                out.push('\\');
                out.push(letter);
            }
            ' '..='~' => out.push(letter),
            _ if is_printable(letter) => out.push(letter),
            _ => {
                let code = u32::from(letter);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

// The standard library keeps the table of the same Unicode categories that Python's `str.isprintable` excludes, behind
// `escape_debug`. In second place, because the first character is also escaped when it only combines with the one before.
fn is_printable(letter: char) -> bool {
    let mut pair = String::from("x");
    pair.push(letter);
    !pair.escape_debug().to_string().contains('\\')
}

fn bytes(blob: &[u8], out: &mut String) {
    let quote = if blob.contains(&b'\'') && !blob.contains(&b'"') {
        b'"'
    } else {
        b'\''
    };
    out.push('b');
    out.push(char::from(quote));
    for &byte in blob {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'\\' => out.push_str("\\\\"),
            _ if byte == quote => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(char::from(quote));
}

/// A float as Python writes it: `1.0`, `3.14`, `1e+16`, `1e-05`, `inf`, `nan`.
#[must_use]
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    // Both give the shortest digits that read back as the same number; they differ in when they choose an exponent.
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("this format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a small number");
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        }
    } else {
        format!(
            "{mantissa}e{}{:02}",
            if exponent < 0 { '-' } else { '+' },
            exponent.abs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_python_writes_them() {
        for (number, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (3.15, "3.15"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000012345, "1.2345e-05"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn texts_as_python_quotes_them() {
        // The expected texts are what CPython 3.11 prints.
        for (text, expected) in [
            ("hello", "'hello'"),
            ("", "''"),
            ("it's", "\"it's\""),
            ("say \"x\"", "'say \"x\"'"),
            ("it's \"x\"", "'it\\'s \"x\"'"),
            ("a\nb\tc\rd\\e", "'a\\nb\\tc\\rd\\\\e'"),
            ("\0\x1b\x7f", "'\\x00\\x1b\\x7f'"),
            ("é中文", "'é中文'"),
            ("\u{a0}\u{ad}\u{85}", "'\\xa0\\xad\\x85'"),
            ("\u{200b}\u{2028}\u{feff}", "'\\u200b\\u2028\\ufeff'"),
            ("e\u{301}\u{301}", "'e\u{301}\u{301}'"),
            ("\u{1f600}", "'\u{1f600}'"),
            ("\u{e000}\u{e0001}", "'\\ue000\\U000e0001'"),
        ] {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn bytes_as_python_writes_them() {
        for (blob, expected) in [
            (b"abc".to_vec(), "b'abc'"),
            (b"it's".to_vec(), "b\"it's\""),
            (vec![0, 10, 92, 127, 255], "b'\\x00\\n\\\\\\x7f\\xff'"),
        ] {
            let mut out = String::new();
            bytes(&blob, &mut out);
            assert_eq!(out, expected);
        }
    }
}
