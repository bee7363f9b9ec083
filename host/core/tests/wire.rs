//! The wire format: everything that goes in comes out, and whatever else comes in does no harm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mphost_core::value::{
    Callable, ErrorValue, Handle, HandleKind, RawHandle, SourcePosition, Value,
};
use mphost_core::wire::{
    CallableHead, DEPTH_LIMIT, Reader, Token, VERSION, WireError, Writer, decode, decode_control,
    encode, encode_control,
};
use proptest::prelude::*;

/// Notes the largest piece of memory that the current thread has asked for.
struct Measuring;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // A thread may free and allocate while its locals are being destroyed; nothing is measured then.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: all calls are passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those of the allocator called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

/// Decodes, and says how large a piece of memory was asked for on the way.
fn decode_measured(bytes: &[u8]) -> (Result<Value, WireError>, usize) {
    LARGEST.set(0);
    let result = decode(bytes);
    (result, LARGEST.get())
}

/// A decoder may ask for a small constant (an error's box), and for the elements that have arrived: a `Vec` that grows by doubling
/// is then at most twice as large as the elements, each of which took a byte of the message or more.
fn allowed(message: usize) -> usize {
    512 + 2 * message * size_of::<(String, Value)>()
}

fn kind() -> impl Strategy<Value = HandleKind> {
    prop::sample::select(HandleKind::ALL)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Unit),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-200i64..300).prop_map(Value::Int),
        (-70_000i64..70_000).prop_map(Value::Int),
        // By bits, so that NaNs with their payloads, infinities and subnormal numbers come up.
        any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
        any::<char>().prop_map(Value::Char),
        ".{0,300}".prop_map(Value::Str),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Blob),
        (any::<i64>(), any::<i64>(), any::<bool>()).prop_map(|(start, end, inclusive)| {
            Value::Range {
                start,
                end,
                inclusive,
            }
        }),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let values = prop::collection::vec(inner.clone(), 0..6);
        let entries = prop::collection::vec((".{0,12}", inner.clone()), 0..6);
        let position = ("[a-z/.]{0,12}", any::<u32>(), any::<u32>())
            .prop_map(|(file, line, column)| SourcePosition { file, line, column });
        let object = (any::<u32>(), any::<u32>())
            .prop_map(|(index, generation)| RawHandle { index, generation });
        prop_oneof![
            values.clone().prop_map(Value::Array),
            entries.clone().prop_map(Value::Map),
            (
                ".{0,12}",
                any::<bool>(),
                prop::option::of(".{0,12}"),
                values.clone()
            )
                .prop_map(|(name, native, module, curry)| Callable {
                    name,
                    native,
                    module,
                    curry
                }
                .into()),
            (
                ".{0,12}",
                ".{0,12}",
                prop::option::of(position),
                ".{0,12}",
                prop::option::of(inner),
                entries
            )
                .prop_map(|(class, message, position, traceback, cause, fields)| {
                    ErrorValue {
                        class,
                        message,
                        position,
                        traceback,
                        cause,
                        fields,
                    }
                    .into()
                }),
            (
                kind(),
                prop::option::of(object),
                prop::option::of(any::<u32>()),
                values
            )
                .prop_map(|(kind, object, fd, attributes)| Handle {
                    kind,
                    object,
                    fd,
                    attributes
                }
                .into()),
        ]
    })
}

/// Equality that takes floats by their bits, as a round trip has to keep them.
fn same(left: &Value, right: &Value) -> bool {
    // `{:?}` names all fields; only NaN payloads are invisible in it, and those the bytes show.
    format!("{left:?}") == format!("{right:?}") && encode(left) == encode(right)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(value in value()) {
        let bytes = encode(&value).unwrap();
        let back = decode(&bytes).unwrap();
        prop_assert!(same(&value, &back), "{value:?} came back as {back:?}");
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), version in any::<bool>()) {
        if version && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        let (_, largest) = decode_measured(&bytes);
        prop_assert!(largest <= allowed(bytes.len()), "{largest} bytes asked for at once by {} bytes", bytes.len());
    }

    /// Mostly tags and small lengths: such bytes get deeper into the decoder than arbitrary ones.
    #[test]
    fn bytes_like_ours_do_no_harm(bytes in prop::collection::vec(prop_oneof![0u8..20, any::<u8>(), 248u8..=255], 0..2000)) {
        let mut message = vec![VERSION];
        message.extend(bytes);
        let (_, largest) = decode_measured(&message);
        prop_assert!(largest <= allowed(message.len()), "{largest} bytes asked for at once by {} bytes", message.len());
    }

    #[test]
    fn every_truncation_is_an_error(value in value()) {
        let bytes = encode(&value).unwrap();
        for length in 0..bytes.len() {
            let (result, largest) = decode_measured(&bytes[..length]);
            prop_assert!(result.is_err(), "{length} of {} bytes decode to {result:?}", bytes.len());
            prop_assert!(largest <= allowed(length));
        }
    }

    #[test]
    fn a_flipped_byte_is_an_error_or_a_value(value in value(), flip in 1u8..) {
        let mut bytes = encode(&value).unwrap();
        for index in 0..bytes.len() {
            bytes[index] ^= flip;
            let (result, largest) = decode_measured(&bytes);
            prop_assert!(largest <= allowed(bytes.len()));
            if let Ok(value) = result {
                // Whatever it is, it can be sent on.
                prop_assert!(encode(&value).is_ok());
            }
            bytes[index] ^= flip;
        }
    }
}

#[test]
fn integers_have_their_sizes() {
    for (int, length) in [
        (0, 2),
        (-32, 2),
        (159, 2),
        (160, 4),
        (-33, 4),
        (i64::from(i16::MIN), 4),
        (i64::from(i16::MAX) + 1, 6),
        (i64::from(i32::MIN) - 1, 10),
        (i64::MAX, 10),
        (i64::MIN, 10),
    ] {
        let bytes = encode(&Value::Int(int)).unwrap();
        assert_eq!(bytes.len(), length, "{int}");
        assert_eq!(decode(&bytes), Ok(Value::Int(int)));
    }
}

#[test]
fn lengths_of_every_size_arrive() {
    for length in [0, 1, 250, 251, 65_535, 65_536] {
        let blob = Value::Blob(vec![7; length]);
        assert_eq!(decode(&encode(&blob).unwrap()), Ok(blob));
        let array = Value::Array(vec![Value::Unit; length]);
        assert_eq!(decode(&encode(&array).unwrap()), Ok(array));
    }
}

/// `depth` arrays, each in the next.
fn nested(depth: u32) -> Value {
    (1..depth).fold(Value::Array(Vec::new()), |inner, _| {
        Value::Array(vec![inner])
    })
}

#[test]
fn depth_is_limited_on_both_sides() {
    let deepest = nested(DEPTH_LIMIT);
    let bytes = encode(&deepest).unwrap();
    assert_eq!(decode(&bytes), Ok(deepest));
    assert_eq!(encode(&nested(DEPTH_LIMIT + 1)), Err(WireError::TooDeep));

    // A million arrays of one element each, as no writer writes them.
    let mut bytes = vec![VERSION];
    bytes.extend([10u8, 1].repeat(1_000_000));
    assert_eq!(decode(&bytes), Err(WireError::TooDeep));
}

#[test]
fn siblings_are_not_depth() {
    let siblings = Value::Array(vec![Value::Array(Vec::new()); 1000]);
    assert_eq!(decode(&encode(&siblings).unwrap()), Ok(siblings));
}

#[test]
fn depth_counts_every_container() {
    let mut value = Value::Unit;
    for level in 0..DEPTH_LIMIT {
        value = match level % 4 {
            0 => Value::Map(vec![("k".to_owned(), value)]),
            1 => Callable {
                name: "f".to_owned(),
                curry: vec![value],
                ..Callable::default()
            }
            .into(),
            2 => ErrorValue {
                cause: Some(value),
                ..ErrorValue::default()
            }
            .into(),
            _ => Handle {
                kind: HandleKind::Condition,
                object: None,
                fd: None,
                attributes: vec![value],
            }
            .into(),
        };
    }
    assert_eq!(decode(&encode(&value).unwrap()), Ok(value.clone()));
    assert_eq!(encode(&Value::Array(vec![value])), Err(WireError::TooDeep));
}

#[test]
fn a_huge_claim_fails_before_anything_is_reserved() {
    // string, blob, array, map; then a length of 2^60.
    for tag in [8u8, 9, 10, 11] {
        let mut bytes = vec![VERSION, tag, 253];
        bytes.extend((1u64 << 60).to_le_bytes());
        bytes.extend([0; 32]);
        let (result, largest) = decode_measured(&bytes);
        assert_eq!(
            result,
            Err(WireError::BadLength {
                claimed: 1 << 60,
                remaining: 32
            }),
            "tag {tag}"
        );
        assert!(largest < 1024);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases: [(&[u8], WireError); 12] = [
        (&[], WireError::Truncated),
        (&[VERSION], WireError::Truncated),
        (&[9, 0], WireError::Version(9)),
        (&[VERSION, 16], WireError::UnknownTag(16)),
        (&[VERSION, 0, 0], WireError::Trailing(1)),
        (&[VERSION, 5, 1, 2], WireError::Truncated),
        (&[VERSION, 8, 1, 0xff], WireError::BadText),
        (&[VERSION, 7, 0, 0xd8, 0, 0], WireError::BadChar(0xd800)),
        (&[VERSION, 8, 255], WireError::UnknownTag(255)),
        (
            &[VERSION, 8, 2, b'a'],
            WireError::BadLength {
                claimed: 2,
                remaining: 1,
            },
        ),
        (&[VERSION, 15, 200, 0, 0], WireError::UnknownHandleKind(200)),
        (&[VERSION, 13, 4, 0, 0], WireError::UnknownFlags(4)),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn handles_and_descriptors_are_collected() {
    let lock = RawHandle {
        index: 3,
        generation: 7,
    };
    let condition = RawHandle {
        index: 4,
        generation: 1,
    };
    let mut writer = Writer::new();
    for _ in 0..2 {
        writer.clear();
        writer.begin_array(2).unwrap();
        writer
            .begin_handle(HandleKind::Condition, Some(condition), None, 1)
            .unwrap();
        writer
            .begin_handle(HandleKind::RLock, Some(lock), None, 0)
            .unwrap();
        writer.end();
        writer.end();
        writer
            .begin_handle(HandleKind::Connection, None, Some(17), 0)
            .unwrap();
        writer.end();
        writer.end();
        assert_eq!(writer.objects(), [condition, lock]);
        assert_eq!(writer.fds(), [17]);
    }
    let inner = Handle {
        kind: HandleKind::RLock,
        object: Some(lock),
        fd: None,
        attributes: Vec::new(),
    };
    assert_eq!(
        decode(writer.as_bytes()),
        Ok(Value::Array(vec![
            Handle {
                kind: HandleKind::Condition,
                object: Some(condition),
                fd: None,
                attributes: vec![inner.into()]
            }
            .into(),
            Handle {
                kind: HandleKind::Connection,
                object: None,
                fd: Some(0),
                attributes: Vec::new()
            }
            .into(),
        ]))
    );
}

#[test]
fn tokens_borrow_from_the_message() {
    let mut writer = Writer::new();
    writer
        .begin_callable(&CallableHead {
            name: "getpid",
            native: true,
            module: Some("os"),
            curry: 1,
        })
        .unwrap();
    writer.blob(b"bytes");
    writer.end();
    let bytes = writer.into_bytes();
    let mut reader = Reader::new(&bytes).unwrap();
    let head = CallableHead {
        name: "getpid",
        native: true,
        module: Some("os"),
        curry: 1,
    };
    assert_eq!(reader.next_token(), Ok(Token::Callable(head)));
    let Ok(Token::Blob(blob)) = reader.next_token() else {
        panic!("a blob was written")
    };
    assert!(bytes.as_ptr_range().contains(&blob.as_ptr()));
    reader.end();
    reader.finish().unwrap();
}

#[test]
fn handle_kinds_know_their_numbers() {
    for &kind in HandleKind::ALL {
        assert_eq!(HandleKind::from_u8(kind.into()), Some(kind));
    }
    assert_eq!(HandleKind::from_u8(0), None);
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Control {
    name: String,
    numbers: Vec<u64>,
    blob: Vec<u8>,
    choice: Option<Choice>,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Choice {
    Plain,
    Numbered { number: i32 },
}

fn control() -> Control {
    Control {
        name: "Process-1".to_owned(),
        numbers: vec![1, u64::MAX],
        blob: vec![1, 2, 3],
        choice: Some(Choice::Numbered { number: -1 }),
    }
}

#[test]
fn control_messages_come_back() {
    for length in [0, 5000, 100_000, 2_000_000] {
        let message = Control {
            name: "x".repeat(length),
            ..control()
        };
        let bytes = encode_control(&message).unwrap();
        assert_eq!(decode_control::<Control>(&bytes, bytes.len()), Ok(message));
    }
    let plain = encode_control(&Choice::Plain).unwrap();
    assert_eq!(decode_control(&plain, 100), Ok(Choice::Plain));
}

#[test]
fn control_messages_have_limits() {
    let bytes = encode_control(&control()).unwrap();
    let length = bytes.len();
    assert_eq!(
        decode_control::<Control>(&bytes, length - 1),
        Err(WireError::TooLarge {
            length,
            limit: length - 1
        })
    );
    for end in 0..length {
        assert!(matches!(
            decode_control::<Control>(&bytes[..end], length),
            Err(WireError::Control(_))
        ));
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(
        decode_control::<Control>(&longer, 1000),
        Err(WireError::Trailing(1))
    );
    // The name claims 2^60 bytes, or 2^29.
    for claim in [1u64 << 60, 1 << 29] {
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&claim.to_le_bytes());
        LARGEST.set(0);
        assert!(matches!(
            decode_control::<Control>(&huge, 1000),
            Err(WireError::Control(_))
        ));
        assert!(
            LARGEST.get() <= 0x1_0000,
            "{} bytes asked for",
            LARGEST.get()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_control_messages_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        LARGEST.set(0);
        let _ = decode_control::<Control>(&bytes, 1000);
        prop_assert!(LARGEST.get() <= 0x1_0000);
    }
}
