//! The OpenAPI 3.1 document of this API, made from its types and its table of methods: `docs/openapi.json`.
//!
//! A request has the schema of what is accepted (a field with a default may be left out), an answer that of what is
//! sent. Built only with the feature `schema`, which no program that is shipped has.

mod foreign;
mod frames;
mod text;

use super::method;
use super::{
    API_VERSION, API_VERSION_HEADER, ApiError, Code, Event, IDEMPOTENCY_HEADER, ImagesPruned,
    MAX_KEY, METRICS_PATH, NotRunning, OPERATIONS, PREFER_HEADER, REQUEST_HEADER, RESPOND_ASYNC,
    Shape, UPGRADE, Versions,
};
use crate::guest::ExitStatus;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where schemas stand in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// A method and the schemas of what it takes and gives.
#[derive(Debug)]
pub struct MethodSchema {
    /// Name in the path.
    pub name: &'static str,
    /// How it answers.
    pub shape: Shape,
    /// Of the request.
    pub request: Schema,
    /// Of the answer, or of the unit of its stream.
    pub reply: Schema,
}

/// The whole document.
///
/// # Errors
/// One name would stand for two schemas, or a type cannot be described; both are mistakes in the types.
pub fn openapi() -> Result<Value, String> {
    let settings = |mut s: SchemaSettings| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
        s.into_generator()
    };
    let mut requests = settings(SchemaSettings::draft2020_12().for_deserialize());
    let mut replies = settings(SchemaSettings::draft2020_12().for_serialize());
    let methods = method::schemas(&mut requests, &mut replies);
    // What no method answers with and a reader of frames, of a failure, or of the command line needs.
    replies.subschema_for::<ApiError>();
    replies.subschema_for::<Event>();
    replies.subschema_for::<ExitStatus>();
    replies.subschema_for::<Versions>();
    replies.subschema_for::<NotRunning>();
    replies.subschema_for::<ImagesPruned>();
    let schemas = merged(requests, replies)?;
    let paths: Map<String, Value> = methods
        .iter()
        .map(|m| Ok((format!("/v1/{}", m.name), path(m, &schemas)?)))
        .collect::<Result<_, String>>()?;
    let mut paths = paths;
    paths.insert(METRICS_PATH.to_owned(), metrics());
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "banger",
            "version": API_VERSION.to_string(),
            "description": text::INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://banger", "description": "Over the daemon's Unix socket; the host's name is not looked at." }],
        "tags": tags(&methods),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": failures(),
            "parameters": parameters(),
        },
    });
    text::tidy(&mut document);
    Ok(document)
}

/// Headers that several methods look at.
fn parameters() -> Value {
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "description": description, "schema": schema });
    json!({
        "ApiVersion": header(
            API_VERSION_HEADER,
            "The version that the client speaks; another one than the daemon's is refused.",
            json!({ "const": API_VERSION }),
        ),
        "Prefer": header(PREFER_HEADER, text::PREFER, json!({ "const": RESPOND_ASYNC })),
        "IdempotencyKey": header(
            IDEMPOTENCY_HEADER,
            text::KEY,
            json!({ "type": "string", "minLength": 1, "maxLength": MAX_KEY }),
        ),
    })
}

fn merged(
    mut requests: SchemaGenerator,
    mut replies: SchemaGenerator,
) -> Result<BTreeMap<String, Value>, String> {
    let mut all = BTreeMap::new();
    for (name, schema) in requests
        .take_definitions(true)
        .into_iter()
        .chain(replies.take_definitions(true))
    {
        if let Some(other) = all.insert(name.clone(), schema.clone())
            && other != schema
        {
            return Err(format!(
                "{name} is a part of requests and of answers, and differs: as answer {schema}, as request {other}"
            ));
        }
    }
    Ok(all)
}

fn tags(methods: &[MethodSchema]) -> Value {
    let used: BTreeSet<&str> = methods.iter().map(|m| tag(m.name)).collect();
    used.into_iter()
        .map(|name| json!({ "name": name }))
        .collect()
}

/// The noun of a method's name; what has none is about the daemon.
fn tag(method: &str) -> &str {
    method.split_once('.').map_or("daemon", |(noun, _)| noun)
}

fn path(method: &MethodSchema, schemas: &BTreeMap<String, Value>) -> Result<Value, String> {
    let described = method
        .request
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| schemas.get(r.strip_prefix(SCHEMAS)?))
        .and_then(|schema| schema.get("description")?.as_str())
        .ok_or_else(|| format!("the request of {} has no description", method.name))?;
    let (summary, description) = text::of_method(method.name, described)?;
    let mut parameters = vec![json!({ "$ref": "#/components/parameters/ApiVersion" })];
    let body = if method.shape == Shape::Upload {
        parameters.push(json!({
            "name": REQUEST_HEADER,
            "in": "header",
            "required": true,
            "description": "The request itself.",
            "content": { "application/json": { "schema": method.request } },
        }));
        json!({ "required": true, "content": { "application/octet-stream": {} } })
    } else {
        json!({ "content": { "application/json": { "schema": method.request } } })
    };
    if method.shape == Shape::Frames {
        for (name, value) in [("Connection", "upgrade"), ("Upgrade", UPGRADE)] {
            parameters.push(json!({
                "name": name, "in": "header", "required": true, "schema": { "const": value },
            }));
        }
    }
    let mut responses: Map<String, Value> = statuses()
        .into_keys()
        .map(|status| {
            let response = json!({ "$ref": format!("#/components/responses/Status{status}") });
            (status.to_string(), response)
        })
        .collect();
    let (status, answer) = success(method);
    responses.insert(status.to_owned(), answer);
    if OPERATIONS.contains(&method.name) {
        for name in ["Prefer", "IdempotencyKey"] {
            parameters.push(json!({ "$ref": format!("#/components/parameters/{name}") }));
        }
        let begun = json!({ "$ref": "#/components/responses/Begun" });
        responses.insert("202".to_owned(), begun);
    }
    Ok(json!({ "post": {
        "operationId": method.name,
        "tags": [tag(method.name)],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "requestBody": body,
        "responses": responses,
    } }))
}

fn metrics() -> Value {
    json!({ "get": {
        "operationId": "metrics",
        "tags": ["daemon"],
        "summary": "What Prometheus reads",
        "description": text::METRICS,
        "responses": { "200": {
            "description": "The text exposition format, version 0.0.4.",
            "content": { "text/plain": { "schema": { "type": "string" } } },
        } },
    } })
}

fn success(method: &MethodSchema) -> (&'static str, Value) {
    let content = |kind: &str| json!({ kind: { "schema": method.reply } });
    match method.shape {
        Shape::Json => (
            "200",
            json!({ "description": "The answer.", "content": content("application/json") }),
        ),
        Shape::Events | Shape::Upload => (
            "200",
            json!({ "description": text::EVENTS, "content": content("application/x-ndjson") }),
        ),
        Shape::Notices => (
            "200",
            json!({ "description": text::NOTICES, "content": content("application/x-ndjson") }),
        ),
        Shape::Frames => (
            "101",
            json!({ "description": text::FRAMES, "x-banger-frames": frames::table() }),
        ),
    }
}

/// The kinds of failure by their HTTP status.
fn statuses() -> BTreeMap<u16, Vec<Code>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL {
        by_status.entry(code.status()).or_default().push(code);
    }
    by_status
}

fn failures() -> Value {
    let responses: Map<String, Value> = statuses()
        .into_iter()
        .map(|(status, codes)| {
            let names: Vec<Value> = codes.iter().map(|code| json!(code)).collect();
            let words: Vec<String> = codes.iter().map(ToString::to_string).collect();
            let narrowed = json!({ "allOf": [
                { "$ref": format!("{SCHEMAS}ApiError") },
                { "properties": { "code": { "enum": names } } },
            ] });
            let response = json!({
                "description": format!("It was not done: {}.", words.join(", or ")),
                "content": { "application/json": { "schema": narrowed } },
            });
            (format!("Status{status}"), response)
        })
        .collect();
    let mut responses = responses;
    responses.insert(
        "Begun".to_owned(),
        json!({
            "description": text::BEGUN,
            "content": { "application/json": { "schema": { "$ref": format!("{SCHEMAS}OperationView") } } },
        }),
    );
    Value::Object(responses)
}

#[cfg(test)]
mod tests;
