//! Sharing the tasks with other services: asks a site again and again which lanes are this service's.
//!
//! Who has a lane is settled by the site's own engine ([`pipeline_sdk::Site::hold`]); what follows for the tasks is in the engine's
//! [`Share`]. While the site does not answer, nothing is renewed and tasks stop in time.

use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::Redactor;
use pipeline_engine::graph::SiteGraph;
use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::{Share, Terms};
use pipeline_replica::{OpenSite, kinds, within};
use pipeline_sdk::{Error, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hand_over::HandOverNotes;
use crate::member::Member;
use crate::orders::Orders;

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// One question. The first ever makes a database at the site, which takes a server half a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// What this service shares by.
pub struct Sharing {
    place: Arc<SharedPlace>,
    share: Arc<Share>,
}

/// The site, and the name of those who share.
pub(crate) struct SharedPlace {
    pub group: String,
    /// This service, for the others.
    pub me: Member,
    site: SiteGraph,
    plugins: Arc<Plugins>,
    pub redactor: Arc<Redactor>,
}

impl SharedPlace {
    pub fn open(&self) -> Result<OpenSite> {
        pipeline_replica::open(&self.site, &self.plugins, &self.redactor)
    }
}

impl Sharing {
    /// `address` is that of a site of the kind of replicas that the plugins know; services with one `group` share, and know this one as
    /// `me`.
    ///
    /// # Errors
    /// The plugins know no sites, or several kinds; the address cannot be used. Does not connect.
    pub fn new(address: &str, group: &str, me: Member, plugins: Arc<Plugins>, redactor: Redactor) -> Result<Self> {
        let known = kinds(&*plugins);
        let [kind] = known.as_slice() else {
            let types = known.iter().map(|it| it.replica.type_name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::fatal(format!("tasks are shared by a site, and the plugins here know not one kind of them: {types}"))
                .code("service.share")
                .hint("`pipeline plugin list` shows what was found, --plugin-path names a folder"));
        };
        let replica = &kind.replica;
        let config = serde_json::json!({ &replica.address_key: address });
        let site = SiteGraph { name: "of the shared tasks".into(), type_name: replica.site.clone(), plugin: String::new(), config };
        let place = Arc::new(SharedPlace { group: group.to_owned(), me, site, plugins, redactor: Arc::new(redactor) });
        place.open().map_err(|error| error.hint("--share takes an address as the `sites` of a replica do"))?;
        Ok(Self { place, share: Share::new(Terms::default()) })
    }

    /// For the runs that share.
    pub fn share(&self) -> Arc<Share> {
        self.share.clone()
    }

    /// What operators want, for the supervisor of the same service.
    pub fn orders(&self) -> Arc<Orders> {
        Arc::new(Orders::new(self.place.clone()))
    }

    /// How tasks are handed over, for the supervisor of the same service.
    pub fn hand_overs(&self) -> Arc<HandOverNotes> {
        HandOverNotes::new(self.place.clone())
    }

    /// Asks until told to stop; then leaves.
    pub async fn keep(self, stop: CancellationToken) {
        let mut site = None;
        let mut held = Vec::new();
        let mut trouble = String::new();
        loop {
            let asked = Instant::now();
            match self.ask(&mut site, asked).await {
                Ok(()) => trouble.clear(),
                Err(error) => {
                    site = None;
                    let error = self.place.redactor.redact(&error.to_string());
                    if error != trouble {
                        tracing::warn!(error, "the site that tasks are shared by does not answer as it should");
                    }
                    trouble = error;
                }
            }
            let now_held = self.share.held();
            if now_held != held {
                tracing::info!(group = self.place.group, lanes = ?now_held, "lanes of this service");
                held = now_held;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(asked + INTERVAL) => {}
            }
        }
    }

    async fn ask(&self, site: &mut Option<OpenSite>, asked: Instant) -> Result<()> {
        let open = match site.take() {
            Some(open) => site.insert(open),
            None => site.insert(self.place.open()?),
        };
        let holding = within(LIMIT, &open.name, open.site.hold(&self.place.group)).await?;
        self.share.told(holding, asked);
        Ok(())
    }
}
