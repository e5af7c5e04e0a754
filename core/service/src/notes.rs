//! The notes that services which share tasks leave for each other, at the site that tasks are shared by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_replica::{OpenSite, within};
use pipeline_sdk::Result;
use tokio::sync::{Mutex, MutexGuard};

use crate::sharing::SharedPlace;

/// One call; the first ever makes a database at the site.
const LIMIT: Duration = Duration::from_secs(180);

/// A connection to the notes of a group.
pub(crate) struct Notes {
    pub place: Arc<SharedPlace>,
    site: Mutex<Option<OpenSite>>,
}

/// Nobody else in this process uses the connection meanwhile.
pub(crate) struct Turn<'a> {
    place: &'a SharedPlace,
    site: MutexGuard<'a, Option<OpenSite>>,
}

impl Notes {
    pub fn new(place: Arc<SharedPlace>) -> Self {
        Self { place, site: Mutex::default() }
    }

    pub async fn turn(&self) -> Turn<'_> {
        Turn { place: &self.place, site: self.site.lock().await }
    }
}

impl Turn<'_> {
    /// Leaves notes, then returns all that there are, by name.
    pub async fn exchange(&mut self, notes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let mut open = match self.site.take() {
            Some(open) => open,
            None => self.place.open()?,
        };
        // After an error the next call opens it anew.
        let all = within(LIMIT, &open.name, open.site.notes(&self.place.group, notes)).await?;
        *self.site = Some(open);
        Ok(all)
    }
}
