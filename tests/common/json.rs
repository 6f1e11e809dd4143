//! JSON with nothing lost that the format cares about: the order of keys, keys that stand there
//! twice, and whether a number was written as an integer or with a point.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::{Seek, Write};
use std::ops::Index;
use std::process::{Command, Stdio};

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

pub fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Value {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// None, for anything but an object.
    pub fn entries(&self) -> &[(String, Value)] {
        match self {
            Value::Object(entries) => entries,
            _ => &[],
        }
    }

    pub fn keys(&self) -> Vec<&str> {
        self.entries().iter().map(|(key, _)| key.as_str()).collect()
    }

    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    pub fn int(&self) -> u64 {
        match self {
            Value::Int(number) => u64::try_from(*number).unwrap(),
            other => panic!("not an integer: {other:?}"),
        }
    }

    pub fn float(&self) -> f64 {
        match self {
            Value::Float(number) => *number,
            other => panic!("not a float: {other:?}"),
        }
    }

    pub fn str(&self) -> &str {
        match self {
            Value::Text(text) => text,
            other => panic!("not a string: {other:?}"),
        }
    }

    pub fn bool(&self) -> bool {
        match self {
            Value::Bool(truth) => *truth,
            other => panic!("not a truth value: {other:?}"),
        }
    }

    pub fn has_null(&self) -> bool {
        match self {
            Value::Null => true,
            Value::List(items) => items.iter().any(Value::has_null),
            Value::Object(entries) => entries.iter().any(|(_, value)| value.has_null()),
            _ => false,
        }
    }
}

impl Index<&str> for Value {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or_else(|| panic!("no key {key:?}; there are {:?}", self.keys()))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }
    // serde_json calls these for numbers without point and exponent, and only for these.
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            // Objects are small, but for vmstat with some 200 keys.
            if entries.iter().any(|(other, _)| *other == key) {
                return Err(A::Error::custom(format!("key {key:?} stands there twice")));
            }
            entries.push((key, value));
        }
        Ok(Value::Object(entries))
    }
}

/// The same JSON as Python writes it, the reference's language: `json.dump(..., indent=2)`, or
/// without white space. `None` where there is no Python.
pub fn as_python_writes_it(text: &str, compact: bool) -> Option<String> {
    let layout = if compact { "separators=(',', ':')" } else { "indent=2" };
    let script = format!(
        "import json, sys\n\
         data = json.loads(sys.stdin.buffer.read().decode())\n\
         sys.stdout.buffer.write(json.dumps(data, ensure_ascii=False, {layout}).encode())"
    );
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    input.rewind().unwrap();
    // Without site packages it starts in a tenth of the time.
    let python = ["/usr/bin/python3", "python3"].into_iter().find_map(|python| {
        Command::new(python)
            .args(["-S", "-c", &script])
            .stdin(input.try_clone().unwrap())
            .stderr(Stdio::inherit())
            .output()
            .ok()
    })?;
    assert!(python.status.success(), "python3 cannot read it");
    Some(String::from_utf8(python.stdout).unwrap())
}
