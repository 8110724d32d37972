use super::*;
use crate::api::{Decoder, FrameError, METHODS};
use crate::guest::frame;

/// Every `$ref` in a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.push(target.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn every_method_has_its_path_and_nothing_else_has() {
    let document = openapi().unwrap();
    let paths: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let get = document["paths"][METRICS_PATH]["get"].clone();
    assert!(get.is_object());
    let mut methods: BTreeSet<String> = METHODS
        .iter()
        .map(|(name, _)| format!("/v1/{name}"))
        .collect();
    methods.insert(METRICS_PATH.to_owned());
    assert_eq!(paths, methods);
    for (name, shape) in METHODS {
        let post = &document["paths"][format!("/v1/{name}")]["post"];
        assert_eq!(post["operationId"], *name);
        assert!(!post["summary"].as_str().unwrap().is_empty(), "{name}");
        let (status, kind) = match shape {
            Shape::Json => ("200", Some("application/json")),
            Shape::Events | Shape::Upload | Shape::Notices => ("200", Some("application/x-ndjson")),
            Shape::Frames => ("101", None),
        };
        let answer = &post["responses"][status];
        assert!(answer.is_object(), "{name}");
        if let Some(kind) = kind {
            assert!(answer["content"][kind]["schema"].is_object(), "{name}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_led_to() {
    let document = openapi().unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 200, "{}", found.len());
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    // What only the command line prints.
    let printed = ["Versions", "NotRunning", "ImagesPruned"];
    for name in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        let used = found.contains(&format!("{SCHEMAS}{name}"));
        assert!(
            used || printed.contains(&name.as_str()),
            "{name} is not used"
        );
    }
}

#[test]
fn every_kind_of_failure_has_its_status() {
    let document = openapi().unwrap();
    let listed: Vec<&Value> = document["components"]["schemas"]["Code"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| &kind["const"])
        .collect();
    let all: Vec<Value> = Code::ALL.iter().map(|code| json!(code)).collect();
    assert_eq!(listed, all.iter().collect::<Vec<_>>());
    for code in Code::ALL {
        let status = code.status();
        let reference = &document["paths"]["/v1/ping"]["post"]["responses"][status.to_string()];
        let pointer = reference["$ref"].as_str().unwrap().trim_start_matches('#');
        let response = document.pointer(pointer).unwrap();
        let narrowed = &response["content"]["application/json"]["schema"]["allOf"][1];
        let codes = narrowed["properties"]["code"]["enum"].as_array().unwrap();
        assert!(codes.contains(&json!(code)), "{code}");
    }
}

/// Requests may leave out what has a default; answers never do.
#[test]
fn requests_and_answers_differ_in_what_may_be_absent() {
    let document = openapi().unwrap();
    let schemas = &document["components"]["schemas"];
    let create = &schemas["VmCreate"];
    assert_eq!(create["required"], Value::Null, "{create}");
    assert_eq!(create["additionalProperties"], false);
    let view = &schemas["VmView"]["required"].as_array().unwrap().clone();
    assert!(view.contains(&json!("init")) && !view.contains(&json!("reason")));
    assert_eq!(schemas["VmId"]["pattern"], "^[0-9a-f]{12}$");
}

#[test]
fn the_frames_of_the_document_are_those_that_are_spoken() {
    // Parts of a request are frames of the guest's channel only: a client's comes as JSON before the upgrade.
    let inner = [7, 8, 32];
    for number in 0..=u8::MAX {
        let mut decoder = Decoder::default();
        decoder.push(&[number, 0, 0, 0, 0]);
        let unknown = matches!(
            decoder.next_frame(),
            Err(FrameError::Command(frame::FrameError::UnknownType(_)))
        );
        let listed = frames::FRAMES.iter().any(|f| f.number == number);
        assert_eq!(listed || inner.contains(&number), !unknown, "type {number}");
    }
}

#[test]
fn no_description_speaks_of_the_code() {
    let text = openapi().unwrap().to_string();
    for word in ["super::", "crate::", "[`", "(R-"] {
        assert!(!text.contains(word), "{word}");
    }
}
