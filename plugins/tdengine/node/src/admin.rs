//! The admin address: HTTP and JSON for tests, never for clients.
//!
//! | request | does |
//! |---|---|
//! | `GET /` | what this is, version, mode, requests that could not be read |
//! | `GET /faults` | faults that are armed and how often each acted |
//! | `POST /faults` | arms a [`Fault`]; answers its id |
//! | `DELETE /faults`, `DELETE /faults/{id}` | removes all or one |
//! | `GET /consumers` | groups, their members and lanes |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::fault::Fault;
use crate::node::{BANNER, Shared};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/faults", get(list).post(arm).delete(remove_all))
        .route("/faults/{id}", axum::routing::delete(remove))
        .route("/consumers", get(consumers))
        .with_state(shared)
}

async fn about(State(shared): State<Arc<Shared>>) -> Response {
    let config = &shared.config;
    let body = json!({
        "banner": BANNER, "version": config.version, "mode": config.mode,
        "malformed": shared.malformed.load(Ordering::Relaxed),
    });
    Json(body).into_response()
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.faults.list()).into_response()
}

async fn consumers(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.groups.list()).into_response()
}

async fn arm(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let fault: Fault = match serde_json::from_str(&body) {
        Ok(fault) => fault,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Err(why) = apply(&shared, &fault) {
        return refuse(StatusCode::CONFLICT, why);
    }
    tracing::info!(?fault, "fault armed");
    let lasts = !matches!(fault, Fault::TruncateWal { .. });
    let id = if lasts { shared.faults.arm(fault) } else { 0 };
    Json(json!({ "id": id })).into_response()
}

async fn remove(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    match shared.faults.remove(id) {
        Some(fault) => {
            withdraw(&shared, &fault);
            StatusCode::NO_CONTENT.into_response()
        }
        None => refuse(StatusCode::NOT_FOUND, format!("no fault {id}; GET /faults lists them")),
    }
}

async fn remove_all(State(shared): State<Arc<Shared>>) -> StatusCode {
    for armed in shared.faults.list() {
        if let Some(fault) = shared.faults.remove(armed.id) {
            withdraw(&shared, &fault);
        }
    }
    StatusCode::NO_CONTENT
}

/// What a fault changes in the store.
fn apply(shared: &Shared, fault: &Fault) -> Result<(), String> {
    match fault {
        Fault::FreezeVgroup { vgroup } => shared.store.freeze(*vgroup, true).map_err(|error| error.to_string()),
        Fault::TruncateWal { vgroup, below } => {
            shared.store.truncate_wal(*vgroup, *below).map_err(|error| error.to_string())
        }
        Fault::CapDisk { bytes } => {
            shared.store.faults().limit_disk(Some(*bytes));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn withdraw(shared: &Shared, fault: &Fault) {
    match fault {
        Fault::FreezeVgroup { vgroup } => {
            if let Err(error) = shared.store.freeze(*vgroup, false) {
                tracing::info!(%error, vgroup, "a frozen vgroup is gone");
            }
        }
        Fault::CapDisk { .. } => shared.store.faults().limit_disk(None),
        _ => {}
    }
}

fn refuse(status: StatusCode, why: String) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}
