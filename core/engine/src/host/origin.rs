//! Where a component is made: in this process or in one of its own. Whoever makes components does not see the difference.

use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::context::Place;
use pipeline_sdk::{Result, Service, Sink, Source, Transform};
use serde_json::Value as Json;

use super::process::Process;

#[derive(Clone)]
pub enum Origin {
    Here(Library),
    Process(Arc<Process>),
}

impl Origin {
    pub async fn source(&self, component: &str, config: &Json, place: &Place, parts: HostParts) -> Result<Box<dyn Source>> {
        match self {
            Self::Here(library) => library.source(component, config, place, parts),
            Self::Process(process) => process.source(component, config, place, parts).await,
        }
    }

    /// `limit` is of one call, where that blocks its thread while another process answers.
    pub async fn transform(&self, component: &str, config: &Json, place: &Place, parts: HostParts, limit: Duration) -> Result<Box<dyn Transform>> {
        match self {
            Self::Here(library) => library.transform(component, config, place, parts),
            Self::Process(process) => process.transform(component, config, place, parts, limit).await,
        }
    }

    pub async fn sink(&self, component: &str, config: &Json, place: &Place, parts: HostParts) -> Result<Box<dyn Sink>> {
        match self {
            Self::Here(library) => library.sink(component, config, place, parts),
            Self::Process(process) => process.sink(component, config, place, parts).await,
        }
    }

    pub async fn service(&self, component: &str, config: &Json, place: &Place, parts: HostParts) -> Result<Box<dyn Service>> {
        match self {
            Self::Here(library) => library.service(component, config, place, parts),
            Self::Process(process) => process.service(component, config, place, parts).await,
        }
    }

    pub async fn discover(&self, component: &str, config: &Json) -> Result<Vec<String>> {
        match self {
            Self::Here(library) => library.discover(component, config).await,
            Self::Process(process) => process.discover(component, config).await,
        }
    }
}
