//! The JSON Schema of the file, for editors (draft 2020-12).

use super::{KEYS, Key, Kind};
use serde_json::{Map, Value, json};

/// The schema, from the table of keys.
pub fn schema() -> Value {
    let mut top = Map::new();
    for key in KEYS {
        match key.name.split_once('.') {
            None => {
                top.insert(key.name.to_owned(), of(key));
            }
            Some((table, name)) => {
                let table = top.entry(table).or_insert_with(
                    || json!({ "type": "object", "additionalProperties": false, "properties": {} }),
                );
                table["properties"][name] = of(key);
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "banger's config.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": top,
    })
}

fn of(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Path => json!({ "type": "string", "pattern": "^/" }),
        Kind::Place => json!({ "type": "string", "pattern": "^(/|https?://)" }),
        Kind::Image => json!({ "type": "string", "pattern": "^[a-z0-9._-]{1,63}$" }),
        Kind::Span { zero } => json!({
            "type": ["integer", "string"],
            "minimum": u8::from(!zero),
            "pattern": "^\\s*[0-9]+\\s*[smhdw]?\\s*$",
        }),
        Kind::Size { least, most } => {
            let mut schema = json!({
                "type": ["integer", "string"],
                "minimum": least.as_mib(),
                "pattern": "^\\s*[0-9]+\\s*([kKmMgGtT]([iI]?[bB])?)?\\s*$",
            });
            if let Some(most) = most {
                schema["maximum"] = json!(most.as_mib());
            }
            schema
        }
        Kind::Count { most } => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        Kind::Flag => json!({ "type": "boolean" }),
    };
    schema["description"] = json!(key.about);
    if !key.default.is_empty() {
        schema["default"] = match key.kind {
            Kind::Flag => json!(key.default == "true"),
            Kind::Count { .. } => json!(key.default.parse::<u32>().unwrap_or_default()),
            _ => json!(key.default),
        };
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MOST_DISK;

    #[test]
    fn every_key_is_in_it_and_nothing_else() {
        let schema = schema();
        let mut names = Vec::new();
        for (name, inner) in schema["properties"].as_object().unwrap() {
            match inner["properties"].as_object() {
                Some(inner) => names.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                None => names.push(name.clone()),
            }
        }
        let mut keys: Vec<_> = KEYS.iter().map(|k| k.name.to_owned()).collect();
        names.sort();
        keys.sort();
        assert_eq!(names, keys);
        assert_eq!(schema["properties"]["log_level"]["default"], "info");
        assert_eq!(
            schema["properties"]["vm_defaults"]["properties"]["nat"]["default"],
            false
        );
        let vm = &schema["properties"]["vm_defaults"]["properties"];
        assert_eq!(vm["disk_size"]["maximum"], MOST_DISK.as_mib());
        assert_eq!(vm["memory"]["maximum"], Value::Null);
    }
}
