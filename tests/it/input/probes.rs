//! Bad values for every field of a request, made from the descriptors: a field that is added to a
//! proto is probed without a word here.

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::DescriptorProto;
use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};

use crate::fixture::rpcs::Descriptors;

/// A field of a request with a bad value, to be put behind a sound request: protobuf lets the last
/// of a single field win, adds to repeated ones, and merges messages.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The field's path, without indices and keys: `app.allowed_return_urls`.
    pub field: String,
    /// What is wrong with the value.
    pub fault: String,
    /// Its encoding.
    pub bytes: Vec<u8>,
}

/// Longer than any text may be, shorter than the largest request.
const LONG: usize = 100_000;

/// More than any list or map may have.
const MANY: usize = 2_000;

/// Texts that no field takes. The first character is one that PostgreSQL can't even store.
fn bad_texts() -> [(&'static str, String); 3] {
    [
        ("is too long", "x".repeat(LONG)),
        ("holds a NUL", "a\u{0}b".to_owned()),
        ("holds a control character", "a\u{7}b".to_owned()),
    ]
}

/// Seconds and nanoseconds that are no duration a request may have.
const BAD_DURATIONS: [(i64, i32); 6] = [
    (-1, 0),
    (0, -1),
    (1, -1),
    (i64::MAX, 999_999_999),
    (i64::MIN, -999_999_999),
    (i64::MIN, 999_999_999),
];

/// Seconds and nanoseconds that are no time.
const BAD_TIMES: [(i64, i32); 5] = [
    (0, -1),
    (0, 1_000_000_000),
    (i64::MAX, 0),
    (i64::MIN, 0),
    (253_402_300_800, 0),
];

/// The probes of a request. `skipped` leaves out fields by message and name.
pub fn of(
    descriptors: &Descriptors,
    request: &str,
    skipped: &dyn Fn(&str, &FieldDescriptorProto) -> bool,
) -> Vec<Probe> {
    let mut walk = Walk {
        descriptors,
        skipped,
        probes: Vec::new(),
    };
    walk.message(request, "", &|bytes| bytes);
    walk.probes
}

struct Walk<'a> {
    descriptors: &'a Descriptors,
    skipped: &'a dyn Fn(&str, &FieldDescriptorProto) -> bool,
    probes: Vec<Probe>,
}

/// Puts the bytes of an inner message where they belong in the request.
type Wrap<'a> = &'a dyn Fn(Vec<u8>) -> Vec<u8>;

impl Walk<'_> {
    fn message(&mut self, name: &str, above: &str, wrap: Wrap<'_>) {
        let message: &DescriptorProto = self.descriptors.message(name);
        for field in &message.field {
            if (self.skipped)(name, field) {
                continue;
            }
            let path = match above {
                "" => field.name().to_owned(),
                _ => format!("{above}.{}", field.name()),
            };
            self.field(field, &path, wrap);
        }
    }

    fn field(&mut self, field: &FieldDescriptorProto, path: &str, wrap: Wrap<'_>) {
        let tag = u32::try_from(field.number()).unwrap();
        if field.label() == Label::Repeated {
            self.many(field, tag, path, wrap);
        }
        match field.r#type() {
            Type::String => {
                for (fault, text) in bad_texts() {
                    self.add(path, fault, wrap(delimited(tag, text.as_bytes())));
                }
            }
            Type::Bytes => {
                let long = vec![0; LONG];
                self.add(path, "is too long", wrap(delimited(tag, &long)));
            }
            Type::Enum => {
                for number in [999, -1] {
                    let fault = format!("is {number}, which is no value of it");
                    self.add(path, &fault, wrap(integer(tag, number)));
                }
            }
            Type::Int32 | Type::Int64 => {
                self.add(path, "is negative", wrap(integer(tag, -1)));
            }
            Type::Bool => {}
            Type::Message => self.inner(field, tag, path, wrap),
            other => panic!("{path} is of a type that has no probes yet: {other:?}"),
        }
    }

    /// More entries than any list may have.
    fn many(&mut self, field: &FieldDescriptorProto, tag: u32, path: &str, wrap: Wrap<'_>) {
        let entry = match field.r#type() {
            Type::String => delimited(tag, b"x"),
            Type::Enum => integer(tag, 1),
            // The entries of a map need keys: they come with it.
            Type::Message if self.is_map(field) => return,
            _ => delimited(tag, &[]),
        };
        self.add(path, "has too many entries", wrap(entry.repeat(MANY)));
    }

    fn is_map(&self, field: &FieldDescriptorProto) -> bool {
        let message = self.descriptors.message(field.type_name());
        message.options.as_ref().is_some_and(|it| it.map_entry())
    }

    fn inner(&mut self, field: &FieldDescriptorProto, tag: u32, path: &str, wrap: Wrap<'_>) {
        let inside = |bytes: Vec<u8>| wrap(delimited(tag, &bytes));
        match field.type_name() {
            ".google.protobuf.Duration" => {
                for (seconds, nanos) in BAD_DURATIONS {
                    let fault = format!("is {seconds} s {nanos} ns");
                    self.add(path, &fault, inside(span(seconds, nanos)));
                }
            }
            ".google.protobuf.Timestamp" => {
                for (seconds, nanos) in BAD_TIMES {
                    let fault = format!("is at {seconds} s {nanos} ns");
                    self.add(path, &fault, inside(span(seconds, nanos)));
                }
            }
            ".google.protobuf.FieldMask" => {
                for (fault, text) in bad_texts() {
                    self.add(path, fault, inside(delimited(1, text.as_bytes())));
                }
                self.add(path, "names nothing", inside(delimited(1, b"nothing")));
            }
            ".google.protobuf.Struct" => {
                for (fault, text) in bad_texts() {
                    let value = inside(entry("display_name", &string_value(&text)));
                    self.add(path, &format!("has a value that {fault}"), value);
                    let key = inside(entry(&text, &string_value("x")));
                    self.add(path, &format!("has a key that {fault}"), key);
                }
            }
            name => {
                if self.is_map(field) {
                    self.map(self.descriptors.message(name), path, &inside);
                } else {
                    self.message(name, path, &inside);
                }
            }
        }
    }

    fn map(&mut self, entry: &DescriptorProto, path: &str, wrap: Wrap<'_>) {
        for part in &entry.field {
            assert_eq!(
                part.r#type(),
                Type::String,
                "{path}: give maps of this type probes"
            );
        }
        for (fault, text) in bad_texts() {
            let key = [delimited(1, text.as_bytes()), delimited(2, b"value")].concat();
            self.add(path, &format!("has a key that {fault}"), wrap(key));
            let value = [delimited(1, b"key"), delimited(2, text.as_bytes())].concat();
            self.add(path, &format!("has a value that {fault}"), wrap(value));
        }
        let many = (0..MANY).flat_map(|number| {
            let key = format!("k{number}");
            wrap([delimited(1, key.as_bytes()), delimited(2, b"v")].concat())
        });
        self.add(path, "has too many entries", many.collect());
    }

    fn add(&mut self, field: &str, fault: &str, bytes: Vec<u8>) {
        self.probes.push(Probe {
            field: field.to_owned(),
            fault: fault.to_owned(),
            bytes,
        });
    }
}

/// A field of text, bytes or a message.
pub fn delimited(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(bytes.len() + 10);
    encode_key(tag, WireType::LengthDelimited, &mut encoded);
    encode_varint(bytes.len() as u64, &mut encoded);
    encoded.extend_from_slice(bytes);
    encoded
}

fn integer(tag: u32, number: i64) -> Vec<u8> {
    let mut encoded = Vec::new();
    encode_key(tag, WireType::Varint, &mut encoded);
    // Negative numbers have ten bytes, whatever their width.
    encode_varint(number.cast_unsigned(), &mut encoded);
    encoded
}

/// A duration or a time: both are seconds and nanoseconds.
fn span(seconds: i64, nanos: i32) -> Vec<u8> {
    [integer(1, seconds), integer(2, i64::from(nanos))].concat()
}

/// An entry of a `google.protobuf.Struct`.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    delimited(
        1,
        &[delimited(1, key.as_bytes()), delimited(2, value)].concat(),
    )
}

fn string_value(text: &str) -> Vec<u8> {
    delimited(3, text.as_bytes())
}
