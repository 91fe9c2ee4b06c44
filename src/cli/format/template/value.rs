//! What a template sees: JSON values, told apart as Go's types where the difference shows.
//!
//! JSON has one kind of object where docker has structs and maps. A struct prints as `{a b}` and lacks no field; a map
//! prints as `map[k:v]`, and `<no value>` for a missing key. Go exports only capitalized fields, so an object whose keys
//! all are capitalized identifiers is a struct. Likewise JSON has one null where Go has nil lists, maps and pointers.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::cli::format::number;

/// Fields that docker leaves out of its JSON while empty. Asking for one is no error, though for a field of it is.
#[rustfmt::skip] // One word a line would hide the code.
const OPTIONAL: &[&str] = &[
    "Annotations", "ArgsEscaped", "Author", "Comment", "ConfigFrom", "Container", "ContainerConfig",
    "CreatedAt", "CreatedSince", "Descriptor", "DeviceRequests", "DockerVersion", "ExposedPorts", "Health",
    "Healthcheck", "ImageManifestDescriptor", "Init", "Isolation", "MacAddress", "Manifests", "Mounts",
    "NetworkDisabled", "OnBuild", "OsVersion", "Parent", "Peers", "Shell", "SizeRootFs", "SizeRw", "Status",
    "StopSignal", "StopTimeout", "StorageOpt", "Sysctls", "Tmpfs", "UsageData", "Variant",
];

/// Fields that are lists in Go, and print as `[]` when null.
#[rustfmt::skip] // One word a line would hide the code.
const LISTS: &[&str] = &[
    "Aliases", "Args", "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps", "BlkioWeightDevice", "CapAdd", "CapDrop", "Cmd", "DNSNames", "DeviceCgroupRules",
    "DeviceRequests", "Devices", "Dns", "DnsOptions", "DnsSearch", "Entrypoint", "Env", "ExecIDs",
    "ExtraHosts", "GroupAdd", "Layers", "Links", "Log", "MaskedPaths", "Mounts", "OnBuild", "ReadonlyPaths",
    "RepoDigests", "RepoTags", "SecurityOpt", "Shell", "Test", "Ulimits", "VolumesFrom",
];

/// Fields that are maps in Go, and print as `map[]` when null.
#[rustfmt::skip] // One word a line would hide the code.
const MAPS: &[&str] = &[
    "Annotations", "Attributes", "Containers", "Data", "DriverOpts", "ExposedPorts", "Labels", "Networks", "Options",
    "PortBindings", "Ports", "StorageOpt", "Sysctls", "Tmpfs", "Volumes",
];

/// A value while a template is rendered.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    /// What a map has for a key that it lacks.
    Missing,
    /// Null, and how it prints.
    Nil(&'static str),
    /// Anything else; never `Value::Null`.
    Is(Cow<'a, Value>),
}

impl<'a> Val<'a> {
    /// The value of a field or an item.
    pub(super) fn named(name: &str, value: &'a Value) -> Val<'a> {
        if value.is_null() { Val::Nil(null_text(name)) } else { Val::Is(Cow::Borrowed(value)) }
    }

    /// A value made by a function.
    pub(super) fn owned(value: impl Into<Value>) -> Val<'a> {
        match value.into() {
            Value::Null => Val::Nil("<nil>"),
            value => Val::Is(Cow::Owned(value)),
        }
    }

    pub(super) fn as_value(&self) -> Option<&Value> {
        match self {
            Val::Is(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.as_value(), Some(Value::String(_)))
    }

    /// Go's notion of true: not zero, not empty.
    pub(super) fn is_true(&self) -> bool {
        match self.as_value() {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
        }
    }

    /// Picks a part out of a list or object, borrowed where the whole is.
    pub(super) fn part(&self, name: &str, pick: impl Fn(&Value) -> Option<&Value>) -> Option<Val<'a>> {
        match self {
            Val::Is(Cow::Borrowed(whole)) => {
                let whole: &'a Value = whole;
                pick(whole).map(|v| Val::named(name, v))
            }
            Val::Is(Cow::Owned(whole)) => pick(whole).map(|v| match v {
                Value::Null => Val::Nil(null_text(name)),
                v => Val::Is(Cow::Owned(v.clone())),
            }),
            _ => None,
        }
    }

    /// The items as a loop sees them, with their keys; maps in the order of their keys. `None` if it has no items.
    pub(super) fn items(&self) -> Option<Vec<(Val<'a>, Val<'a>)>> {
        match self {
            Val::Missing | Val::Nil(_) => Some(Vec::new()),
            Val::Is(value) => match &**value {
                Value::Array(items) => {
                    let item =
                        |i: usize| (Val::owned(i), self.part("", |v| v.get(i)).unwrap_or(Val::Missing));
                    Some((0..items.len()).map(item).collect())
                }
                Value::Object(map) => {
                    let item = |key: &String| {
                        (Val::owned(key.as_str()), self.part(key, |v| v.get(key)).unwrap_or(Val::Missing))
                    };
                    Some(sorted_keys(map).into_iter().map(item).collect())
                }
                _ => None,
            },
        }
    }

    /// Appends what Go's `%v` prints.
    pub(super) fn print(&self, out: &mut String) {
        match self {
            Val::Missing => out.push_str("<no value>"),
            Val::Nil(text) => out.push_str(text),
            Val::Is(value) => print(value, out),
        }
    }

    /// The name of its type in Go, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        self.as_value().map_or("nil", type_name)
    }
}

/// The name of a JSON value's type in Go.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(map) if is_struct(map) => "struct",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Whether an object stands for one of docker's structs.
pub(super) fn is_struct(map: &Map<String, Value>) -> bool {
    !map.is_empty()
        && map.keys().all(|k| {
            k.starts_with(|c: char| c.is_ascii_uppercase()) && k.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

/// Whether docker has this field, though it may not be in the JSON.
pub(super) fn is_optional(field: &str) -> bool {
    OPTIONAL.contains(&field)
}

/// How a null in this field prints.
fn null_text(field: &str) -> &'static str {
    if LISTS.contains(&field) {
        "[]"
    } else if MAPS.contains(&field) {
        "map[]"
    } else {
        "<nil>"
    }
}

/// A field of an object. Go's names differ from the JSON's in case only (`ID` and `Id`, `MediaType` and `mediaType`), and
/// docker's users write either.
pub(super) fn field<'v>(map: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    map.get(name).or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v))
}

/// The keys in the order in which Go's templates walk a map.
pub(super) fn sorted_keys(map: &Map<String, Value>) -> Vec<&String> {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    keys
}

/// Appends what Go's `%v` prints for a JSON value.
pub(super) fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => match n.as_f64() {
            Some(float) if n.is_f64() => out.push_str(&number::shortest(float)),
            _ => out.push_str(&n.to_string()),
        },
        Value::String(s) => out.push_str(s),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(map) if is_struct(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                Val::named(key, item).print(out);
            }
            out.push('}');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, key) in sorted_keys(map).into_iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                Val::named(key, &map[key]).print(out);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prints_like_go() {
        let cases = [
            (json!("a b"), "a b"),
            (json!([1, "x", null, [true]]), "[1 x <nil> [true]]"),
            (json!({"b": 1, "a": {"X": 1, "A": null, "Cmd": null}}), "map[a:{1 <nil> []} b:1]"),
            (json!({}), "map[]"),
            (json!(18446744073709551615_u64), "18446744073709551615"),
            (json!(9007199254740993_i64), "9007199254740993"),
            (json!(0.5), "0.5"),
        ];
        for (value, expected) in cases {
            let mut out = String::new();
            print(&value, &mut out);
            assert_eq!(out, expected);
        }
    }
}
