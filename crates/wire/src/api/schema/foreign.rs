//! Schemas of types that write themselves.

use crate::guest::{ExecId, PathBytes};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

impl JsonSchema for ExecId {
    fn schema_name() -> Cow<'static, str> {
        "ExecId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a command is known by in its guest, chosen by the client: asking twice with one id starts one command.",
            "type": "string",
            "pattern": "^[0-9a-f]{32}$",
        })
    }
}

impl JsonSchema for PathBytes {
    fn schema_name() -> Cow<'static, str> {
        "PathBytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A path: a text, or an array of bytes if it is not UTF-8.",
            "oneOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 } },
            ],
        })
    }
}
