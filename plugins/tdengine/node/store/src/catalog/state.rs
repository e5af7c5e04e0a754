//! The catalog's state and its changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::VgroupId;
use crate::database::{Database, Topic, User};
use crate::schema::Stable;

/// Everything in the catalog. Small: it is copied by nobody and read under a lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Catalog {
    pub cluster_id: i64,
    pub created_ms: i64,
    next_vgroup: VgroupId,
    pub databases: BTreeMap<String, Arc<Database>>,
    /// By database id and name.
    stables: BTreeMap<i64, BTreeMap<String, Arc<Stable>>>,
    pub topics: BTreeMap<String, Arc<Topic>>,
    pub users: BTreeMap<String, Arc<User>>,
}

/// A step from one state of the catalog to the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    PutDatabase(Database),
    DropDatabase { name: String },
    PutStable { database: i64, stable: Stable },
    DropStable { database: i64, name: String },
    PutTopic(Topic),
    DropTopic { name: String },
    PutUser(User),
    DropUser { name: String },
}

/// Vgroup 1 belongs to the mnode of a real server.
const FIRST_VGROUP: VgroupId = 2;

impl Catalog {
    /// An empty cluster with one user.
    pub fn new(cluster_id: i64, created_ms: i64, root: User) -> Self {
        let users = BTreeMap::from([(root.name.clone(), Arc::new(root))]);
        Self {
            cluster_id,
            created_ms,
            next_vgroup: FIRST_VGROUP,
            databases: BTreeMap::new(),
            stables: BTreeMap::new(),
            topics: BTreeMap::new(),
            users,
        }
    }

    /// The id that the next vgroup gets.
    pub fn next_vgroup(&self) -> VgroupId {
        self.next_vgroup
    }

    pub fn stable(&self, database: i64, name: &str) -> Option<&Arc<Stable>> {
        self.stables.get(&database)?.get(name)
    }

    pub fn stables(&self, database: i64) -> impl Iterator<Item = &Arc<Stable>> {
        self.stables.get(&database).into_iter().flat_map(BTreeMap::values)
    }

    /// Takes a change that was checked when it was made.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::PutDatabase(database) => {
                let highest = database.vgroups.iter().copied().max().unwrap_or(0);
                self.next_vgroup = self.next_vgroup.max(highest + 1);
                self.databases.insert(database.name.clone(), Arc::new(database.clone()));
            }
            Change::DropDatabase { name } => {
                if let Some(database) = self.databases.remove(name) {
                    self.stables.remove(&database.id);
                }
            }
            Change::PutStable { database, stable } => {
                let stables = self.stables.entry(*database).or_default();
                stables.insert(stable.name.clone(), Arc::new(stable.clone()));
            }
            Change::DropStable { database, name } => {
                self.stables.entry(*database).or_default().remove(name);
            }
            Change::PutTopic(topic) => {
                self.topics.insert(topic.name.clone(), Arc::new(topic.clone()));
            }
            Change::DropTopic { name } => {
                self.topics.remove(name);
            }
            Change::PutUser(user) => {
                self.users.insert(user.name.clone(), Arc::new(user.clone()));
            }
            Change::DropUser { name } => {
                self.users.remove(name);
            }
        }
    }
}
