//! What CPython 3.11 prints for the same formats and values.

use crate::testing::{engine, outcome};

#[test]
fn formats_as_cpython_does() {
    let engine = engine(&[crate::builtins::register]);
    for (script, expected) in [
        (
            r##"sprintf("%s runs %0.2f seconds", ["task", 1.23456])"##,
            r##"task runs 1.23 seconds"##,
        ),
        (r##"sprintf("%d", [42])"##, r##"42"##),
        (r##"sprintf("%5d|", [42])"##, r##"   42|"##),
        (r##"sprintf("%-5d|", [42])"##, r##"42   |"##),
        (r##"sprintf("%05d", [42])"##, r##"00042"##),
        (r##"sprintf("%+d", [42])"##, r##"+42"##),
        (r##"sprintf("% d", [42])"##, r##" 42"##),
        (r##"sprintf("%d", [-42])"##, r##"-42"##),
        (r##"sprintf("%05d", [-42])"##, r##"-0042"##),
        (r##"sprintf("%.3d", [7])"##, r##"007"##),
        (r##"sprintf("%8.3d|", [-7])"##, r##"    -007|"##),
        (r##"sprintf("%x", [255])"##, r##"ff"##),
        (r##"sprintf("%X", [255])"##, r##"FF"##),
        (r##"sprintf("%#x", [255])"##, r##"0xff"##),
        (r##"sprintf("%#o", [8])"##, r##"0o10"##),
        (r##"sprintf("%o", [8])"##, r##"10"##),
        (r##"sprintf("%x", [-255])"##, r##"-ff"##),
        (r##"sprintf("%#06x", [255])"##, r##"0x00ff"##),
        (r##"sprintf("%d", [3.99])"##, r##"3"##),
        (r##"sprintf("%d", [-3.99])"##, r##"-3"##),
        (r##"sprintf("%i", [true])"##, r##"1"##),
        (r##"sprintf("%f", [3.14159])"##, r##"3.141590"##),
        (r##"sprintf("%.0f", [2.5])"##, r##"2"##),
        (r##"sprintf("%.0f", [3.5])"##, r##"4"##),
        (r##"sprintf("%10.2f|", [3.14159])"##, r##"      3.14|"##),
        (r##"sprintf("%-10.2f|", [3.14159])"##, r##"3.14      |"##),
        (r##"sprintf("%010.2f", [-3.14159])"##, r##"-000003.14"##),
        (r##"sprintf("%+.1f", [0.05])"##, r##"+0.1"##),
        (r##"sprintf("%f", [1])"##, r##"1.000000"##),
        (
            r##"sprintf("%.2f", [10000000000.0])"##,
            r##"10000000000.00"##,
        ),
        (r##"sprintf("%e", [12345.678])"##, r##"1.234568e+04"##),
        (r##"sprintf("%.2e", [0.00012])"##, r##"1.20e-04"##),
        (r##"sprintf("%E", [12345.678])"##, r##"1.234568E+04"##),
        (r##"sprintf("%.0e", [15.0])"##, r##"2e+01"##),
        (r##"sprintf("%#.0e", [15.0])"##, r##"2.e+01"##),
        (r##"sprintf("%#.0f", [15.0])"##, r##"15."##),
        (r##"sprintf("%e", [0.0])"##, r##"0.000000e+00"##),
        (r##"sprintf("%e", [1e+100])"##, r##"1.000000e+100"##),
        (r##"sprintf("%g", [0.0001])"##, r##"0.0001"##),
        (r##"sprintf("%g", [1e-05])"##, r##"1e-05"##),
        (r##"sprintf("%g", [123456.0])"##, r##"123456"##),
        (r##"sprintf("%g", [1234567.0])"##, r##"1.23457e+06"##),
        (r##"sprintf("%g", [100000.0])"##, r##"100000"##),
        (r##"sprintf("%g", [1000000.0])"##, r##"1e+06"##),
        (r##"sprintf("%.3g", [3.14159])"##, r##"3.14"##),
        (r##"sprintf("%#g", [1.0])"##, r##"1.00000"##),
        (r##"sprintf("%G", [1e-10])"##, r##"1E-10"##),
        (r##"sprintf("%g", [0.0])"##, r##"0"##),
        (r##"sprintf("%.10g", [0.1])"##, r##"0.1"##),
        (r##"sprintf("%g", [999999.5])"##, r##"1e+06"##),
        (r##"sprintf("%s", [()])"##, r##"None"##),
        (r##"sprintf("%s", [true])"##, r##"True"##),
        (r##"sprintf("%s", [1.0])"##, r##"1.0"##),
        (r##"sprintf("%s", [[1, "a", ()]])"##, r##"[1, 'a', None]"##),
        (r##"sprintf("%r", ["it's"])"##, r##""it's""##),
        (
            r##"sprintf("%s", [#{a: 1, b: [true]}])"##,
            r##"{'a': 1, 'b': [True]}"##,
        ),
        (r##"sprintf("%10s|", ["中文"])"##, r##"        中文|"##),
        (r##"sprintf("%-10s|", ["ab"])"##, r##"ab        |"##),
        (r##"sprintf("%.2s", ["abcdef"])"##, r##"ab"##),
        (
            r##"sprintf("%a", ["é中😀"])"##,
            r##"'\xe9\u4e2d\U0001f600'"##,
        ),
        (r##"sprintf("%c", [65])"##, r##"A"##),
        (r##"sprintf("%c", ["x"])"##, r##"x"##),
        (r##"sprintf("%5c|", ["x"])"##, r##"    x|"##),
        (r##"sprintf("100%%", [])"##, r##"100%"##),
        (r##"sprintf("%*d", [6, 42])"##, r##"    42"##),
        (r##"sprintf("%-*d|", [6, 42])"##, r##"42    |"##),
        (r##"sprintf("%*d|", [-6, 42])"##, r##"42    |"##),
        (r##"sprintf("%.*f", [2, 3.14159])"##, r##"3.14"##),
        (
            r##"sprintf("%(a)s and %(b)03d", #{a: 1, b: 2})"##,
            r##"1 and 002"##,
        ),
        (r##"sprintf("%ld", [5])"##, r##"5"##),
        (r##"sprintf("%f", [(1.0/0.0)])"##, r##"inf"##),
        (r##"sprintf("%5.1f", [(0.0/0.0)])"##, r##"  nan"##),
        (r##"sprintf("%+f", [(-1.0/0.0)])"##, r##"-inf"##),
        (
            r##"sprintf("%s %s", ["a"])"##,
            r##"TypeError: not enough arguments for format string"##,
        ),
        (
            r##"sprintf("%s", ["a", "b"])"##,
            r##"TypeError: not all arguments converted during string formatting"##,
        ),
        (
            r##"sprintf("x", ["a"])"##,
            r##"TypeError: not all arguments converted during string formatting"##,
        ),
        (
            r##"sprintf("%d", ["x"])"##,
            r##"TypeError: %d format: a real number is required, not string"##,
        ),
        (
            r##"sprintf("%x", [1.5])"##,
            r##"TypeError: %x format: an integer is required, not float"##,
        ),
        (
            r##"sprintf("%f", ["x"])"##,
            r##"TypeError: must be real number, not string"##,
        ),
        (
            r##"sprintf("%z", [1])"##,
            r##"ValueError: unsupported format character 'z' (0x7a) at index 1"##,
        ),
        (
            r##"sprintf("%", [1])"##,
            r##"ValueError: incomplete format"##,
        ),
        (
            r##"sprintf("%(a", #{a: 1})"##,
            r##"ValueError: incomplete format key"##,
        ),
        (
            r##"sprintf("%(a)s", [1])"##,
            r##"TypeError: format requires a mapping"##,
        ),
        (r##"sprintf("%(c)s", #{a: 1})"##, r##"KeyError: 'c'"##),
        (
            r##"sprintf("%c", ["ab"])"##,
            r##"TypeError: %c requires int or char"##,
        ),
        (
            r##"sprintf("%*d", ["a", 1])"##,
            r##"TypeError: * wants int"##,
        ),
        (
            r##"sprintf("%c", [1114112])"##,
            r##"OverflowError: %c arg not in range(0x110000)"##,
        ),
        // Beyond Python: one value stands for an array of it.
        (r##"sprintf("%s", 5)"##, "5"),
        (r##"sprintf("plain")"##, "plain"),
        (
            r##"sprintf(5, [])"##,
            "TypeError: sprintf(): 'format' must be a string, not int",
        ),
        (
            r##"sprintf("%99999999999d", [1])"##,
            "ValueError: width too big",
        ),
    ] {
        assert_eq!(outcome(&engine, script), expected, "{script}");
    }
}
