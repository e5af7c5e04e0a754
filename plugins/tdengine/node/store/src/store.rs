//! The store: one folder, opened by one process, shared by clones of [`Store`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tdengine_wire::block::BlockView;

use crate::config::StoreConfig;
use crate::database::{Consumer, Database, Subscription, Topic, User};
use crate::ddl::topic::topic_missing;
use crate::entry::Entry;
use crate::error::{Result, ServerError, code};
use crate::faults::Faults;
use crate::result::Outcome;
use crate::schema::{Stable, TableSchema};
use crate::session::Session;
use crate::table::Table;
use crate::write::current_database;
use crate::{Version, VgroupId, users};

pub(crate) mod inner;

use inner::Inner;

/// A store that is open. Clones share it; every call takes short locks and is safe from any thread.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// A child to be made by a write, if it is missing (`INSERT … USING`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateChild {
    /// The super table.
    pub stable: String,
    /// Names of the tags that are given; `None` for all of them in order.
    pub tag_names: Option<Vec<String>>,
    /// Their values: little-endian bytes of the tag's width, or bytes without prefix; `None` for NULL.
    pub tag_values: Vec<Option<Vec<u8>>>,
    /// `TTL` in days, 0 for none.
    pub ttl_days: i32,
}

/// Rows for one table.
#[derive(Debug)]
pub struct TableWrite<'a> {
    /// The table.
    pub table: &'a str,
    /// The rows.
    pub block: BlockView<'a>,
    /// Names of the block's columns; `None` binds them by position.
    pub names: Option<Vec<&'a str>>,
    /// How to make the table when it is missing.
    pub create: Option<CreateChild>,
    /// 0x8 for replicated rows.
    pub flags: u8,
}

/// A field as it stands behind the block in action 5 (PROTOCOL 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawField {
    /// Its name.
    pub name: String,
    /// Its type code.
    pub data_type: u8,
    /// Its width, 0 for unknown.
    pub bytes: i32,
}

/// Opening and what there is one of.
impl Store {
    /// Opens the folder, and makes it when missing. What a crash left is repaired: a torn tail is cut, a half-written
    /// snapshot is ignored, a change of schema that did not reach every vgroup is finished.
    ///
    /// # Errors
    /// When another process has it open, a file is damaged in its middle (the text has file and offset), or the disk
    /// fails.
    pub fn open(config: StoreConfig) -> std::io::Result<Self> {
        let inner = Arc::new(Inner::open(config)?);
        maintain_in_background(&inner)?;
        Ok(Self { inner })
    }

    /// As it was opened.
    pub fn config(&self) -> &StoreConfig {
        &self.inner.config
    }

    /// The cluster's id (FACTS F54); a new folder has a new one.
    pub fn cluster_id(&self) -> i64 {
        self.inner.catalog.read().cluster_id
    }

    /// When the cluster was made.
    pub fn created_ms(&self) -> i64 {
        self.inner.catalog.read().created_ms
    }

    /// Writes snapshots of every database, drops log segments that are past their retention, and forces everything to
    /// the disk.
    ///
    /// # Errors
    /// When the disk fails; nothing is lost then.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush(&self.databases())
    }

    /// The same for one database (`FLUSH DATABASE`).
    ///
    /// # Errors
    /// 0x0388; when the disk fails.
    pub fn flush_database(&self, database: &str) -> Result<()> {
        self.inner.flush(&[self.database(database)?])
    }

    /// Forces every log to the disk whatever the policy; for a clean end.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Checks a password.
    ///
    /// # Errors
    /// 0x0351 for an unknown user, 0x0357 for a wrong password.
    pub fn authenticate(&self, user: &str, password: &str) -> Result<()> {
        let found = self.inner.user(user).ok_or_else(|| ServerError::new(code::INVALID_USER, "Invalid user"))?;
        if users::matches(&found, password) {
            return Ok(());
        }
        Err(ServerError::new(code::AUTHENTICATION, "Authentication failure"))
    }

    /// Faults for tests.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Makes every write to a vgroup fail with 0x000B until it is called with `false`.
    ///
    /// # Errors
    /// 0x0503 when there is no such vgroup.
    pub fn freeze(&self, vgroup: VgroupId, frozen: bool) -> Result<()> {
        self.inner.vgroup(vgroup)?.freeze(frozen);
        Ok(())
    }

    /// Drops the log of a vgroup below `before` as retention would, in whole segments.
    ///
    /// # Errors
    /// 0x0503 when there is no such vgroup; when the disk fails.
    pub fn truncate_wal(&self, vgroup: VgroupId, before: Version) -> Result<()> {
        self.inner.truncate(vgroup, before)
    }
}

/// One thread a store; it ends when the last clone is gone or the store is closed.
fn maintain_in_background(inner: &Arc<Inner>) -> std::io::Result<()> {
    let weak = Arc::downgrade(inner);
    let interval = inner.maintenance_interval();
    let body = move || {
        loop {
            std::thread::sleep(interval);
            let Some(inner) = weak.upgrade() else { break };
            if inner.is_closing() {
                break;
            }
            inner.maintain();
        }
    };
    std::thread::Builder::new().name("tdengine-store".to_owned()).spawn(body).map(drop)
}

/// Statements.
impl Store {
    /// Runs the first statement of `sql` (FACTS F58). `USE` changes the session.
    ///
    /// # Errors
    /// The code and text that a real server gives.
    pub fn execute(&self, session: &mut Session, sql: &str) -> Result<Outcome> {
        crate::execute::execute(self, session, sql)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

/// Writes that are not SQL.
impl Store {
    /// Writes rows of several tables of one database; those of one vgroup become one log entry. Names that a table does
    /// not have are refused. Types must be those of the target.
    ///
    /// # Errors
    /// 0x0388 for the database; the first refusal, and then tables of vgroups that were written before it stay written.
    pub fn write_tables(&self, database: &str, writes: &[TableWrite<'_>]) -> Result<u64> {
        self.inner.write_tables(&*self.database(database)?, writes)
    }

    /// Actions 4 (`fields` is `None`: by position) and 5 (by name), marked, as a real server does them in faithful
    /// mode: the silent shift after an unknown name, INT and FLOAT bits swapped (FACTS F25–F28).
    ///
    /// # Errors
    /// The codes of FACTS F27.
    pub fn write_raw_block(
        &self,
        session: &Session,
        table: &str,
        fields: Option<&[RawField]>,
        block: &[u8],
    ) -> Result<u64> {
        self.inner.write_raw_block(&*current_database(&self.inner, session)?, table, fields, block)
    }
}

/// Raw messages.
impl Store {
    /// Action 3: raw data (2, 4) and raw meta (515, 517, 519, 531, 533, 535, 579) as `fetch_raw` delivered it.
    ///
    /// # Errors
    /// The codes of FACTS F9, F30–F32; malformed bodies 0x0115; unknown types 0x0118.
    pub fn apply_raw(&self, session: &Session, raw_type: u16, body: &[u8]) -> Result<u64> {
        crate::raw::apply(&self.inner, session, raw_type, body)
    }
}

/// Reading the catalog.
impl Store {
    /// Every database, by name.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        self.inner.catalog.read().databases.values().cloned().collect()
    }

    /// The database of this name.
    ///
    /// # Errors
    /// 0x0388 when there is none.
    pub fn database(&self, name: &str) -> Result<Arc<Database>> {
        self.inner.database(name).ok_or_else(ServerError::database_missing)
    }

    /// The super tables of a database, by name.
    pub fn stables(&self, database: &str) -> Vec<Arc<Stable>> {
        let catalog = self.inner.catalog.read();
        let found = catalog.databases.get(database);
        found.map_or_else(Vec::new, |database| catalog.stables(database.id).cloned().collect())
    }

    /// The super table of this name.
    pub fn stable(&self, database: &str, name: &str) -> Option<Arc<Stable>> {
        let catalog = self.inner.catalog.read();
        let database = catalog.databases.get(database)?;
        catalog.stable(database.id, name).cloned()
    }

    /// The children and normal tables of a database, by vgroup and then by name.
    pub fn tables(&self, database: &str) -> Vec<Arc<Table>> {
        self.tables_where(database, |_| true)
    }

    /// The child or normal table of this name.
    pub fn table(&self, database: &str, name: &str) -> Option<Arc<Table>> {
        self.inner.find_table(&*self.inner.database(database)?, name).ok()?
    }

    /// The children of a super table, by vgroup and then by name.
    pub fn children(&self, database: &str, suid: i64) -> Vec<Arc<Table>> {
        self.tables_where(database, |table| table.meta().suid() == suid)
    }

    fn tables_where(&self, database: &str, takes: impl Fn(&Table) -> bool) -> Vec<Arc<Table>> {
        let vgroups = self.inner.database(database).and_then(|database| self.inner.vgroups_of(&database).ok());
        let vgroups = vgroups.unwrap_or_default();
        let tables = |vgroup: &Arc<crate::vgroup::Vgroup>| {
            vgroup.index().tables().filter(|table| takes(table)).cloned().collect::<Vec<_>>()
        };
        vgroups.iter().flat_map(tables).collect()
    }

    /// Columns and tags of a super table, child or normal table.
    ///
    /// # Errors
    /// 0x0388 for the database, 0x2603 for the table.
    pub fn describe(&self, database: &str, table: &str) -> Result<TableSchema> {
        if let Some(stable) = self.stable(database, table) {
            return Ok(stable.schema());
        }
        let found = self.inner.find_table(&*self.database(database)?, table)?.ok_or_else(ServerError::table_missing)?;
        self.inner.vgroup(found.vgroup)?.index().schema(&found)
    }

    /// The number of a vgroup's tables.
    pub fn vgroup_tables(&self, vgroup: VgroupId) -> usize {
        self.inner.vgroup(vgroup).map_or(0, |vgroup| vgroup.index().tables().len())
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.inner.catalog.read().topics.values().cloned().collect()
    }

    /// The topic of this name.
    ///
    /// # Errors
    /// 0x03E1 when there is none.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.inner.catalog.read().topics.get(name).cloned().ok_or_else(topic_missing)
    }

    /// Every user, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.inner.catalog.read().users.values().cloned().collect()
    }

    /// Every consumer that is connected.
    pub fn consumers(&self) -> Vec<Consumer> {
        self.inner.consumers.lock().values().cloned().collect()
    }

    /// Every group of every topic, by vgroup: those with a committed offset, then those that only have members.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let consumers = self.consumers();
        let handed_out = self.inner.handed_out.lock().clone();
        let subscription = |topic: &str, group: &str, vgroup: VgroupId, committed: Option<Version>| {
            let reads = |consumer: &&Consumer| {
                consumer.group == group && consumer.lanes.iter().any(|(of, lane)| of == topic && *lane == vgroup)
            };
            let key = (topic.to_owned(), group.to_owned(), vgroup);
            let given = handed_out.get(&key);
            Subscription {
                vgroup,
                consumer: consumers.iter().find(reads).map(|consumer| consumer.id),
                offset: given.map(|given| given.position).or(committed),
                rows: given.map_or(0, |given| given.rows),
                topic: key.0,
                group: key.1,
            }
        };
        let of_vgroup = |vgroup: &Arc<crate::vgroup::Vgroup>| {
            let id = vgroup.id;
            let committed = |(topic, group, offset): (&str, &str, Version)| subscription(topic, group, id, Some(offset));
            vgroup.index().offsets().map(committed).collect::<Vec<_>>()
        };
        let mut found: Vec<Subscription> = self.inner.all_vgroups().iter().flat_map(of_vgroup).collect();
        let mut known: BTreeSet<(String, String, VgroupId)> =
            found.iter().map(|it| (it.topic.clone(), it.group.clone(), it.vgroup)).collect();
        for consumer in &consumers {
            for name in &consumer.topics {
                let Some(database) = self.topic(name).ok().and_then(|topic| self.database(&topic.database).ok()) else { continue };
                for vgroup in &database.vgroups {
                    if known.insert((name.clone(), consumer.group.clone(), *vgroup)) {
                        found.push(subscription(name, &consumer.group, *vgroup, None));
                    }
                }
            }
        }
        found
    }
}

/// Logs, for consumers.
impl Store {
    /// First kept version and the next to be written (FACTS F38).
    ///
    /// # Errors
    /// 0x0503 when there is no such vgroup (any more).
    pub fn wal_range(&self, vgroup: VgroupId) -> Result<(Version, Version)> {
        Ok(self.inner.vgroup(vgroup)?.range())
    }

    /// Changes whenever something is appended: holds the next version to be written.
    ///
    /// # Errors
    /// As [`Store::wal_range`].
    pub fn subscribe_appends(&self, vgroup: VgroupId) -> Result<tokio::sync::watch::Receiver<Version>> {
        Ok(self.inner.vgroup(vgroup)?.appends())
    }

    /// Entries from `from` on until `max_bytes` are passed; at least one when there is one. A `from` below the first
    /// kept version starts at that one (FACTS F40).
    ///
    /// # Errors
    /// As [`Store::wal_range`]; 0x1005 when an entry cannot be read.
    pub fn read_wal(&self, vgroup: VgroupId, from: Version, max_bytes: usize) -> Result<Vec<Entry>> {
        self.inner.vgroup(vgroup)?.read(from, max_bytes)
    }

    /// The committed offset of a group, `None` when it never committed.
    pub fn committed(&self, group: &str, topic: &str, vgroup: VgroupId) -> Option<Version> {
        self.inner.vgroup(vgroup).ok()?.index().offset(topic, group)
    }

    /// Commits; this is an entry in the vgroup's log (FACTS F59). The committed offset again writes nothing.
    ///
    /// # Errors
    /// 0x4007 beyond the log's end or below 0; as [`Store::wal_range`].
    pub fn commit(&self, group: &str, topic: &str, vgroup: VgroupId, offset: Version) -> Result<()> {
        self.inner.commit(group, topic, vgroup, offset)
    }

    /// Writes the entry that a subscription leaves in each vgroup of the topic (FACTS F59).
    ///
    /// # Errors
    /// 0x03E1 for an unknown topic.
    pub fn mark_subscription(&self, topic: &str) -> Result<()> {
        self.inner.mark_subscription(topic)
    }

    /// Notes what a group was given of a vgroup, for those who list subscriptions.
    pub fn hand_out(&self, group: &str, topic: &str, vgroup: VgroupId, position: Version, rows: u64) {
        let mut handed_out = self.inner.handed_out.lock();
        let given = handed_out.entry((topic.to_owned(), group.to_owned(), vgroup)).or_default();
        given.position = position;
        given.rows += rows;
    }

    /// Adds or replaces a connected consumer; its topics cannot be dropped meanwhile (0x03EB).
    pub fn put_consumer(&self, consumer: Consumer) {
        self.inner.consumers.lock().insert(consumer.id, consumer);
    }

    /// Forgets a consumer that left.
    pub fn remove_consumer(&self, id: i64) {
        self.inner.consumers.lock().remove(&id);
    }
}
