//! `sprintf`: Python's (and C's) `%` formats.
//!
//! One pass over the format: each conversion takes its value from the arguments, by order or, as `%(name)s`, by key. What
//! doesn't fit is the error that Python raises, in its words.
//!
//! Source: CPython Library Reference, "printf-style String Formatting".

use crate::api::type_name;
use crate::error::{Kind, Result, raise};
use crate::{room, spelling};
use rhai::{Array, Blob, Dynamic, ImmutableString, Map, NativeCallContext};

/// Widths and precisions above this are a mistake, not a wish.
const MAX_WIDTH: usize = 1 << 20;

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

struct Arguments {
    values: Array,
    next: usize,
    map: Option<Map>,
}

impl Arguments {
    fn new(args: Dynamic) -> Self {
        if args.is_array() {
            Self {
                values: args.cast::<Array>(),
                next: 0,
                map: None,
            }
        } else if let Some(map) = args.read_lock::<Map>().map(|map| map.clone()) {
            Self {
                values: vec![args],
                next: 0,
                map: Some(map),
            }
        } else {
            Self {
                values: vec![args],
                next: 0,
                map: None,
            }
        }
    }

    fn next(&mut self) -> Result {
        let value = self.values.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| raise(Kind::TypeError, "not enough arguments for format string"))
    }

    fn by_key(&self, key: &str) -> Result {
        let Some(map) = &self.map else {
            return Err(raise(Kind::TypeError, "format requires a mapping"));
        };
        map.get(key).cloned().ok_or_else(|| {
            let mut quoted = String::new();
            spelling::quote(key, &mut quoted);
            raise(Kind::KeyError, quoted)
        })
    }
}

/// Formats `args` (an array; a map for formats with keys; any other value stands for an array of itself) as `format` says.
///
/// # Errors
/// `TypeError` for too few, too many or unfit arguments, `ValueError` for a bad format, `KeyError` for a missing key.
pub fn sprintf(ctx: &NativeCallContext<'_>, format: &str, args: Dynamic) -> Result<String> {
    let mut args = Arguments::new(args);
    let mut out = String::with_capacity(format.len() + 16);
    let letters: Vec<char> = format.chars().collect();
    let mut at = 0;
    let incomplete = || raise(Kind::ValueError, "incomplete format");
    while at < letters.len() {
        let letter = letters[at];
        at += 1;
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut spec = Spec::default();
        let mut keyed = None;
        if letters.get(at) == Some(&'(') {
            let from = at + 1;
            let mut depth = 1;
            at = from;
            while depth > 0 {
                match letters.get(at) {
                    Some('(') => depth += 1,
                    Some(')') => depth -= 1,
                    Some(_) => {}
                    None => return Err(raise(Kind::ValueError, "incomplete format key")),
                }
                at += 1;
            }
            let key: String = letters[from..at - 1].iter().collect();
            keyed = Some(args.by_key(&key)?);
        }
        loop {
            match letters.get(at) {
                Some('-') => spec.left = true,
                Some('0') => spec.zero = true,
                Some('+') => spec.plus = true,
                Some(' ') => spec.space = true,
                Some('#') => spec.alternate = true,
                _ => break,
            }
            at += 1;
        }
        if letters.get(at) == Some(&'*') {
            at += 1;
            let width = star(&mut args)?;
            spec.left |= width < 0;
            spec.width = limited(width.unsigned_abs(), "width")?;
        } else {
            spec.width = digits(&letters, &mut at, "width")?;
        }
        if letters.get(at) == Some(&'.') {
            at += 1;
            spec.precision = Some(if letters.get(at) == Some(&'*') {
                at += 1;
                limited(star(&mut args)?.max(0).unsigned_abs(), "precision")?
            } else {
                digits(&letters, &mut at, "precision")?
            });
        }
        // C's length modifiers say nothing here.
        while matches!(letters.get(at), Some('l' | 'h' | 'L')) {
            at += 1;
        }
        let conversion = *letters.get(at).ok_or_else(incomplete)?;
        at += 1;
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let unsupported = !matches!(
            conversion,
            'd' | 'i'
                | 'u'
                | 'o'
                | 'x'
                | 'X'
                | 'e'
                | 'E'
                | 'f'
                | 'F'
                | 'g'
                | 'G'
                | 'c'
                | 'r'
                | 's'
                | 'a'
        );
        if unsupported {
            let code = u32::from(conversion);
            let text = format!(
                "unsupported format character '{conversion}' ({code:#x}) at index {}",
                at - 1
            );
            return Err(raise(Kind::ValueError, text));
        }
        let value = match keyed {
            Some(value) => value,
            None => args.next()?,
        };
        convert(ctx, conversion, &spec, &value, &mut out)?;
    }
    if args.map.is_none() && args.next < args.values.len() {
        return Err(raise(
            Kind::TypeError,
            "not all arguments converted during string formatting",
        ));
    }
    Ok(out)
}

fn digits(letters: &[char], at: &mut usize, what: &str) -> Result<usize> {
    let mut number: u64 = 0;
    while let Some(digit) = letters.get(*at).and_then(|l| l.to_digit(10)) {
        number = number.saturating_mul(10).saturating_add(u64::from(digit));
        *at += 1;
    }
    limited(number, what)
}

fn limited(number: u64, what: &str) -> Result<usize> {
    usize::try_from(number)
        .ok()
        .filter(|n| *n <= MAX_WIDTH)
        .ok_or_else(|| raise(Kind::ValueError, format!("{what} too big")))
}

fn star(args: &mut Arguments) -> Result<i64> {
    args.next()?
        .as_int()
        .map_err(|_| raise(Kind::TypeError, "* wants int"))
}

fn convert(
    ctx: &NativeCallContext<'_>,
    conversion: char,
    spec: &Spec,
    value: &Dynamic,
    out: &mut String,
) -> Result<()> {
    match conversion {
        'd' | 'i' | 'u' => {
            let digits = whole(value).ok_or_else(|| {
                raise(
                    Kind::TypeError,
                    format!(
                        "%{conversion} format: a real number is required, not {}",
                        type_name(value)
                    ),
                )
            })??;
            integer(digits, 10, "", spec, out);
        }
        'o' | 'x' | 'X' => {
            let number = value
                .as_int()
                .or_else(|_| value.as_bool().map(i64::from))
                .map_err(|_| {
                    raise(
                        Kind::TypeError,
                        format!(
                            "%{conversion} format: an integer is required, not {}",
                            type_name(value)
                        ),
                    )
                })?;
            let (base, prefix) = match conversion {
                'o' => (8, "0o"),
                'x' => (16, "0x"),
                _ => (-16, "0X"),
            };
            integer(
                i128::from(number),
                base,
                if spec.alternate { prefix } else { "" },
                spec,
                out,
            );
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = real(value).ok_or_else(|| {
                raise(
                    Kind::TypeError,
                    format!("must be real number, not {}", type_name(value)),
                )
            })?;
            let text = float(number.abs(), conversion.to_ascii_lowercase(), spec);
            let text = if conversion.is_ascii_uppercase() {
                text.to_uppercase()
            } else {
                text
            };
            let negative = number.is_sign_negative() && !number.is_nan();
            signed(negative, "", &text, spec, out);
        }
        'c' => pad(&character(value)?, spec, out),
        _ => {
            let mut text = match conversion {
                's' => spelling::text(ctx, value),
                'r' => spelling::repr(ctx, value),
                _ => ascii(&spelling::repr(ctx, value)),
            };
            if let Some(precision) = spec.precision {
                text = text.chars().take(precision).collect();
            }
            pad(&text, spec, out);
        }
    }
    Ok(())
}

/// The whole part of a number; `None` for what is none.
fn whole(value: &Dynamic) -> Option<Result<i128>> {
    if let Ok(int) = value.as_int() {
        return Some(Ok(i128::from(int)));
    }
    if let Ok(truth) = value.as_bool() {
        return Some(Ok(i128::from(truth)));
    }
    let number = value.as_float().ok()?;
    if number.is_nan() {
        return Some(Err(raise(
            Kind::ValueError,
            "cannot convert float NaN to integer",
        )));
    }
    if number.abs() >= 1e38 {
        let text = if number.is_infinite() {
            "cannot convert float infinity to integer"
        } else {
            "number too large for %d"
        };
        return Some(Err(raise(Kind::OverflowError, text)));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "its whole part is wanted, and it fits"
    )]
    let whole = number.trunc() as i128;
    Some(Ok(whole))
}

fn real(value: &Dynamic) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "as Python's float(int) does")]
    let int = |i: i64| i as f64;
    value
        .as_float()
        .ok()
        .or_else(|| value.as_int().ok().map(int))
        .or_else(|| value.as_bool().ok().map(f64::from))
}

fn character(value: &Dynamic) -> Result<String> {
    if let Ok(letter) = value.as_char() {
        return Ok(letter.to_string());
    }
    if let Ok(code) = value.as_int() {
        return u32::try_from(code)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
            .ok_or_else(|| raise(Kind::OverflowError, "%c arg not in range(0x110000)"));
    }
    match value.read_lock::<ImmutableString>() {
        Some(text) if text.chars().count() == 1 => Ok(text.to_string()),
        _ => Err(raise(Kind::TypeError, "%c requires int or char")),
    }
}

fn integer(number: i128, base: i32, prefix: &str, spec: &Spec, out: &mut String) {
    let magnitude = number.unsigned_abs();
    let mut text = match base {
        8 => format!("{magnitude:o}"),
        16 => format!("{magnitude:x}"),
        -16 => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    };
    if let Some(precision) = spec.precision
        && text.len() < precision
    {
        text = "0".repeat(precision - text.len()) + &text;
    }
    signed(number < 0, prefix, &text, spec, out);
}

fn signed(negative: bool, prefix: &str, digits: &str, spec: &Spec, out: &mut String) {
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    let length = sign.len() + prefix.len() + digits.len();
    let fill = spec.width.saturating_sub(length);
    let (before, zeros, after) = match (spec.left, spec.zero) {
        (true, _) => (0, 0, fill),
        (_, true) => (0, fill, 0),
        _ => (fill, 0, 0),
    };
    out.extend(std::iter::repeat_n(' ', before));
    out.push_str(sign);
    out.push_str(prefix);
    out.extend(std::iter::repeat_n('0', zeros));
    out.push_str(digits);
    out.extend(std::iter::repeat_n(' ', after));
}

fn pad(text: &str, spec: &Spec, out: &mut String) {
    let fill = spec.width.saturating_sub(text.chars().count());
    if !spec.left {
        out.extend(std::iter::repeat_n(' ', fill));
    }
    out.push_str(text);
    if spec.left {
        out.extend(std::iter::repeat_n(' ', fill));
    }
}

fn float(number: f64, conversion: char, spec: &Spec) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return "inf".into();
    }
    let precision = spec.precision.unwrap_or(6);
    match conversion {
        'f' => fixed(number, precision, spec.alternate),
        'e' => scientific(number, precision, spec.alternate),
        _ => {
            let precision = precision.max(1);
            // The exponent after rounding decides between the two forms.
            let rounded = format!("{number:.*e}", precision - 1);
            let exponent: i64 = rounded
                .split_once('e')
                .and_then(|(_, e)| e.parse().ok())
                .unwrap_or(0);
            let limit = i64::try_from(precision).unwrap_or(i64::MAX);
            let text = if exponent < -4 || exponent >= limit {
                scientific(number, precision - 1, spec.alternate)
            } else {
                fixed(
                    number,
                    usize::try_from(limit - 1 - exponent).unwrap_or(0),
                    spec.alternate,
                )
            };
            if spec.alternate {
                text
            } else {
                without_trailing_zeros(&text)
            }
        }
    }
}

fn fixed(number: f64, precision: usize, alternate: bool) -> String {
    let mut text = format!("{number:.precision$}");
    if alternate && precision == 0 {
        text.push('.');
    }
    text
}

fn scientific(number: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').expect("this format has an exponent");
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{mantissa}{point}e{sign}{exponent:0>2}")
}

fn without_trailing_zeros(text: &str) -> String {
    let (mantissa, exponent) = match text.find('e') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    format!("{mantissa}{exponent}")
}

/// `ascii(text)`: what isn't ASCII as an escape.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match u32::from(letter) {
            0..=0x7f => out.push(letter),
            code @ 0x80..=0xff => out.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

/// Repeats a text, an array or a blob, as `*` does; a negative count means 0.
///
/// # Errors
/// `MemoryError` where there is no room for the result.
pub fn repeat(value: &Dynamic, count: i64) -> Result {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.read_lock::<ImmutableString>() {
        room::ensure(count, text.len())?;
        return Ok(text.repeat(count).into());
    }
    if let Ok(letter) = value.as_char() {
        room::ensure(count, letter.len_utf8())?;
        return Ok(letter.to_string().repeat(count).into());
    }
    if let Some(blob) = value.read_lock::<Blob>() {
        room::ensure(count, blob.len())?;
        return Ok(Dynamic::from_blob(blob.repeat(count)));
    }
    let array = value
        .read_lock::<Array>()
        .map(|array| array.clone())
        .unwrap_or_default();
    let mut all = room::vec(array.len().saturating_mul(count))?;
    // Nothing as often as can be is nothing.
    let count = if array.is_empty() { 0 } else { count };
    for _ in 0..count {
        all.extend_from_slice(&array);
    }
    Ok(Dynamic::from_array(all))
}

#[cfg(test)]
mod tests;
