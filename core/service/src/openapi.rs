//! The OpenAPI document: made of the types that server and client share, so that it cannot say anything else.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use crate::api::{ChooseTasks, ErrorBody, File, PutFile, Seen, Service, Task};

/// OpenAPI 3.1.
pub fn document() -> Json {
    let mut generator = SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into()).into_generator();
    let paths = paths(&mut generator);
    let schemas: Map<String, Json> = generator.take_definitions(true).into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pipeline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs pipeline files and tells how they are. Over the unix socket no token is needed; over TCP every request but /healthz and /readyz brings one.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }, {}],
    })
}

fn paths(generator: &mut SchemaGenerator) -> Json {
    let text = |summary: &str| json!({ "get": { "summary": summary, "responses": { "200": { "description": "text" } } } });
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" }, "description": "the file's name without ending" });
    let tasks = schema::<Vec<Task>>(generator);
    let order = |generator: &mut SchemaGenerator, summary: &str, tasks: &Json| {
        json!({ "post": {
            "summary": summary,
            "requestBody": body::<ChooseTasks>(generator),
            "responses": responses(generator, "200", tasks, &["400", "404", "409"]),
        } })
    };
    let service = schema::<Service>(generator);
    let files = schema::<Vec<File>>(generator);
    let file = schema::<File>(generator);
    json!({
        "/healthz": text("Whether the process answers"),
        "/readyz": text("Whether every file was begun; 503 before that"),
        "/metrics": text("Everything that is counted, in the text format of Prometheus"),
        "/openapi.json": text("This document"),
        "/api/v1/service": { "get": { "summary": "The service itself", "responses": responses(generator, "200", &service, &[]) } },
        "/api/v1/files": { "get": { "summary": "All files", "responses": responses(generator, "200", &files, &[]) } },
        "/api/v1/files/{id}": {
            "parameters": [id],
            "get": { "summary": "One file, with its text", "responses": responses(generator, "200", &file, &["404"]) },
            "put": {
                "summary": "Checks a file, writes it and applies it; a wrong one changes nothing",
                "requestBody": body::<PutFile>(generator),
                "responses": put_responses(generator, &file),
            },
            "delete": {
                "summary": "Removes a file, its state, and what its pipelines left at their sources",
                "parameters": [query("force", "boolean", "stop tasks that run, and go on though a source cannot be reached")],
                "responses": responses(generator, "204", &Json::Null, &["404", "409", "500"]),
            },
        },
        "/api/v1/tasks": { "get": {
            "summary": "Tasks",
            "parameters": [query("file", "string", "of this file only")],
            "responses": responses(generator, "200", &tasks, &["404"]),
        } },
        "/api/v1/tasks/stop": order(generator, "Stops tasks until they are started again, over restarts; answers those that it stopped", &tasks),
        "/api/v1/tasks/start": order(generator, "Starts tasks that are over; answers those that it started", &tasks),
        "/api/v1/tasks/restart": order(generator, "Restarts tasks; they go on from their checkpoints", &tasks),
        "/api/v1/tasks/remove": order(generator, "Forgets tasks that are over, here and at their sources; `file` and `values` are needed", &tasks),
        "/api/v1/tap": { "get": {
            "summary": "Messages that leave a source or transform or reach a sink, as they pass: a line of JSON each, until the client ends it. No pipeline waits for it: what does not fit its buffer is counted in `dropped`",
            "parameters": [
                query("file", "string", "where several files have the pipeline"),
                query("pipeline", "string", "needed"),
                query("component", "string", "needed: a source, transform or sink of it by name, or `dead-letter`"),
                query("sample", "integer", "one of so many messages"),
                query("rows", "integer", "rows of a message that are shown"),
            ],
            "responses": tap_responses(generator),
        } },
        "/api/v1/reload": { "post": {
            "summary": "Looks at the folder now and applies what differs",
            "responses": responses(generator, "200", &files, &["409"]),
        } },
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Json {
    generator.subschema_for::<T>().to_value()
}

fn body<T: JsonSchema>(generator: &mut SchemaGenerator) -> Json {
    json!({ "required": true, "content": { "application/json": { "schema": schema::<T>(generator) } } })
}

fn query(name: &str, kind: &str, description: &str) -> Json {
    json!({ "name": name, "in": "query", "schema": { "type": kind }, "description": description })
}

fn responses(generator: &mut SchemaGenerator, status: &str, answer: &Json, errors: &[&str]) -> Json {
    let content = |schema: &Json| json!({ "application/json": { "schema": schema } });
    let done = match answer {
        Json::Null => json!({ "description": "done" }),
        answer => json!({ "description": "done", "content": content(answer) }),
    };
    let error = schema::<ErrorBody>(generator);
    let errors = errors.iter().map(|status| ((*status).to_owned(), json!({ "description": meaning(status), "content": content(&error) })));
    Json::Object([(status.to_owned(), done)].into_iter().chain(errors).collect())
}

fn tap_responses(generator: &mut SchemaGenerator) -> Json {
    let seen = schema::<Seen>(generator);
    let mut all = responses(generator, "200", &seen, &["400", "404", "409"]);
    all["200"]["content"] = json!({ "application/x-ndjson": { "schema": seen } });
    all
}

fn put_responses(generator: &mut SchemaGenerator, file: &Json) -> Json {
    let mut all = responses(generator, "200", file, &["400", "409", "422"]);
    all["201"] = all["200"].clone();
    all
}

fn meaning(status: &str) -> &'static str {
    match status {
        "400" => "what was sent cannot be understood",
        "404" => "there is no such file or task",
        "409" => "things are not as they must be for this; nothing was changed",
        "422" => "the file is wrong; nothing was changed",
        _ => "it failed",
    }
}
