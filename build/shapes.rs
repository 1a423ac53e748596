//! Writes down the shape of every message, for the check that precedes decoding (`src/wire/scan.rs`).

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Bytes of a `String` or a `Vec`, and of `Bytes`, on a 64-bit machine.
const TEXT_BYTES: u64 = 24;
const SHARED_BYTES: u64 = 32;
/// A number, or what tells which part of a oneof is there.
const WORD_BYTES: u64 = 8;

type Messages = BTreeMap<String, DescriptorProto>;

/// A Rust array of shapes in the order of their names.
pub fn table(descriptors: &FileDescriptorSet) -> String {
    let mut messages = Messages::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut messages);
        }
    }
    let places: BTreeMap<&String, usize> = messages.keys().zip(0..).collect();
    let mut out = String::from("&[\n");
    for (name, message) in &messages {
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        writeln!(out, "Shape {{ name: {name:?}, fields: &[").expect("a string takes all");
        for field in fields {
            let bytes = if is_list(field) {
                element_bytes(field, &messages)
            } else {
                0
            };
            let kind = match field.r#type() {
                Type::Message => format!("Kind::Message({})", places[&full_name(field)]),
                Type::String | Type::Bytes => "Kind::Text".to_owned(),
                _ => "Kind::Number".to_owned(),
            };
            let number = field.number();
            writeln!(
                out,
                "    Field {{ number: {number}, bytes: {bytes}, kind: {kind} }},"
            )
            .expect("a string takes all");
        }
        out.push_str("] },\n");
    }
    out.push(']');
    out
}

fn collect(prefix: &str, message: &DescriptorProto, messages: &mut Messages) {
    let name = format!("{prefix}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, messages);
    }
    messages.insert(name, message.clone());
}

fn full_name(field: &FieldDescriptorProto) -> String {
    field.type_name().trim_start_matches('.').to_owned()
}

fn is_list(field: &FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated
}

/// Bytes of one element as Rust holds it, without what it points to.
fn element_bytes(field: &FieldDescriptorProto, messages: &Messages) -> u64 {
    match field.r#type() {
        Type::Message => message_bytes(&full_name(field), messages),
        Type::String => TEXT_BYTES,
        Type::Bytes => SHARED_BYTES,
        _ => WORD_BYTES,
    }
}

/// No message contains itself, so this ends.
fn message_bytes(name: &str, messages: &Messages) -> u64 {
    let message = &messages[name];
    let mut oneofs = BTreeMap::<i32, u64>::new();
    let mut bytes = 0;
    for field in &message.field {
        let own = match (is_list(field), field.r#type()) {
            (true, _) => TEXT_BYTES,
            (false, Type::Message) => element_bytes(field, messages) + WORD_BYTES,
            (false, _) => element_bytes(field, messages),
        };
        match field.oneof_index {
            Some(oneof) => {
                let largest = oneofs.entry(oneof).or_default();
                *largest = own.max(*largest);
            }
            None => bytes += own,
        }
    }
    bytes
        + oneofs
            .values()
            .map(|largest| largest + WORD_BYTES)
            .sum::<u64>()
}
