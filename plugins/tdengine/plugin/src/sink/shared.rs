//! What the lanes of one sink share: definitions at the target, and a lock on them.
//!
//! A sink has one instance a lane. Their changes of super tables are applied one at a time, while none of them writes what was
//! compared with an older definition; and what one lane learns of the target or changes there, the others see.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use pipeline_sdk::{Context, Result};
use tokio::sync::watch;

use crate::transport::Connection;
use crate::metadata::{self, Definition};

/// All instances of this process that are in use: pipeline, task, component, place and database.
static ALL: Mutex<Vec<(String, Weak<Shared>)>> = Mutex::new(Vec::new());

/// Definitions of one target database.
pub struct Shared {
    cache: RwLock<Cache>,
    /// Held to write by a change of a super table, to read from the look at a definition to the raw write that rests on it:
    /// between the two, another lane's change would put values into the wrong columns without an error (FACTS F26, F67).
    pub definitions: tokio::sync::RwLock<()>,
    /// Counts changes of definitions at either end: what was concluded from them is stale.
    generation: AtomicU64,
    /// Tells lanes that wait for the log to announce something that some lane brought a change.
    news: watch::Sender<()>,
    /// Whether changes are parked, as far as is known: those of an earlier run may be.
    pub has_parked: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            cache: RwLock::default(),
            definitions: tokio::sync::RwLock::default(),
            generation: AtomicU64::default(),
            news: watch::Sender::default(),
            has_parked: AtomicBool::new(true),
        }
    }
}

#[derive(Default)]
struct Cache {
    /// Table → its super table, itself for a normal one. Filled whole at first, then by what changes.
    tables: HashMap<Arc<str>, Arc<str>>,
    is_filled: bool,
    /// Super tables and normal tables; `None`: looked for and not there.
    definitions: HashMap<Arc<str>, Option<Arc<Definition>>>,
    /// How often definitions were found old: what was asked for before that is not kept.
    changes: u64,
}

impl Cache {
    fn group_changed(&mut self, group: &str) {
        self.definitions.remove(group);
        self.changes += 1;
    }
}

/// A table as the target knows it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The super table's name; the table's own for a normal one.
    pub group: Arc<str>,
    pub definition: Arc<Definition>,
}

impl Shared {
    /// The one instance for this pipeline, task, component and target database in this process.
    pub fn of(context: &Context, place: &str, database: &str) -> Arc<Self> {
        let at = &context.place;
        let key = format!("{}\0{}\0{}\0{place}\0{database}", at.pipeline, at.task, at.component);
        let mut all = ALL.lock();
        all.retain(|(_, shared)| shared.strong_count() > 0);
        if let Some(shared) = all.iter().find(|(other, _)| *other == key).and_then(|(_, shared)| shared.upgrade()) {
            return shared;
        }
        let shared = Arc::new(Self::default());
        all.push((key, Arc::downgrade(&shared)));
        shared
    }

    /// A source in this process saw in the log of this site that a table or super table was altered or dropped there: sinks
    /// that write to it read its definition again. With one that still has a dropped column, values would land in others
    /// without an error (FACTS F26).
    pub fn changed_at(place: &str, database: &str, name: &str) {
        let end = format!("\0{place}\0{database}");
        let all: Vec<Arc<Self>> = {
            let all = ALL.lock();
            all.iter().filter(|(key, _)| key.ends_with(&end)).filter_map(|(_, shared)| shared.upgrade()).collect()
        };
        for shared in all {
            let mut cache = shared.cache.write();
            let is_known = cache.definitions.contains_key(name) | cache.tables.remove(name).is_some();
            if is_known {
                cache.group_changed(name);
                drop(cache);
                shared.advance();
            }
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Something is known of the source's or the target's definitions that was not.
    pub fn advance(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.news.send_replace(());
    }

    /// Sees every change that a lane brings from now on.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// The table, `None` where the target has none of this name.
    pub async fn table(&self, connection: &Connection, database: &str, name: &str) -> Result<Option<Target>> {
        self.fill(connection, database).await?;
        let group = self.cache.read().tables.get(name).cloned();
        let Some(group) = group else { return Ok(None) };
        let definition = self.definition(connection, database, &group).await?;
        Ok(definition.map(|definition| Target { group, definition }))
    }

    /// As [`Shared::table`] from what is known already: no call, so that it can be asked for every block.
    pub fn known_table(&self, name: &str) -> Option<Target> {
        let cache = self.cache.read();
        let group = cache.tables.get(name)?;
        let definition = cache.definitions.get(group)?.clone()?;
        Some(Target { group: group.clone(), definition })
    }

    /// A super table's or normal table's definition.
    pub async fn definition(
        &self,
        connection: &Connection,
        database: &str,
        group: &str,
    ) -> Result<Option<Arc<Definition>>> {
        if let Some(known) = self.cache.read().definitions.get(group) {
            return Ok(known.clone());
        }
        Ok(self.describe(connection, database, group).await?.0)
    }

    /// The same, read again where what is known is not enough: a user may have changed it here.
    pub async fn definition_with(
        &self,
        connection: &Connection,
        database: &str,
        group: &str,
        is_enough: impl Fn(&Definition) -> bool,
    ) -> Result<Option<Arc<Definition>>> {
        let known = self.definition(connection, database, group).await?;
        if known.as_deref().is_some_and(is_enough) {
            return Ok(known);
        }
        self.reload(connection, database, group).await?;
        self.definition(connection, database, group).await
    }

    /// Asks the target, and keeps the answer unless a change came meanwhile: it may be of before that change. Whether it is
    /// another than the one that was known.
    async fn describe(
        &self,
        connection: &Connection,
        database: &str,
        group: &str,
    ) -> Result<(Option<Arc<Definition>>, bool)> {
        loop {
            let changes = self.cache.read().changes;
            let found = metadata::describe(connection, database, group).await?.map(Arc::new);
            let mut cache = self.cache.write();
            if cache.changes != changes {
                continue;
            }
            if let Some(known) = cache.definitions.get(group).filter(|known| **known == found) {
                return Ok((known.clone(), false));
            }
            cache.definitions.insert(group.into(), found.clone());
            return Ok((found, true));
        }
    }

    /// Reads a definition again, for when what is known would leave values out: a user may have changed it here. DESCRIBE
    /// is answered from what the adapter's client library remembers, so that is made to forget first.
    pub async fn reload(&self, connection: &Connection, database: &str, group: &str) -> Result<()> {
        metadata::reset_query_cache(connection).await?;
        if self.describe(connection, database, group).await?.1 {
            self.advance();
        }
        Ok(())
    }

    async fn fill(&self, connection: &Connection, database: &str) -> Result<()> {
        if self.cache.read().is_filled {
            return Ok(());
        }
        let tables = metadata::tables(connection, database).await?;
        let mut cache = self.cache.write();
        for (table, stable) in tables {
            let table: Arc<str> = table.into();
            let group = if stable.is_empty() { table.clone() } else { stable.into() };
            cache.tables.entry(table).or_insert(group);
        }
        cache.is_filled = true;
        Ok(())
    }

    /// A table was made; `group` is its super table, or itself.
    pub fn table_created(&self, name: &str, group: &str) {
        let mut cache = self.cache.write();
        cache.tables.insert(name.into(), group.into());
        if name == group {
            cache.group_changed(name);
        }
        drop(cache);
        self.news.send_replace(());
    }

    pub fn table_dropped(&self, name: &str) {
        let mut cache = self.cache.write();
        cache.tables.remove(name);
        cache.group_changed(name);
    }

    /// A super table or normal table was made or altered: read it again.
    pub fn group_changed(&self, group: &str) {
        self.cache.write().group_changed(group);
        self.advance();
    }

    /// A super table was dropped, and its tables with it.
    pub fn group_dropped(&self, group: &str) {
        let mut cache = self.cache.write();
        cache.group_changed(group);
        cache.tables.retain(|_, of| &**of != group);
    }

    /// Somebody else may have changed the target: read everything again.
    pub fn forget(&self) {
        let mut cache = self.cache.write();
        *cache = Cache { changes: cache.changes + 1, ..Cache::default() };
        drop(cache);
        self.advance();
    }

    /// The super table of a table that is known, or itself for a normal one.
    pub fn group_of(&self, name: &str) -> Option<Arc<str>> {
        self.cache.read().tables.get(name).cloned()
    }

    /// As [`Shared::forget`] for some tables: looks them up at the target now.
    pub async fn refresh_tables(&self, connection: &Connection, database: &str, names: &[&str]) -> Result<()> {
        // Filled before it is corrected: else a later filling would bring back what was found gone.
        self.fill(connection, database).await?;
        let found = metadata::tables_named(connection, database, names).await?;
        let mut cache = self.cache.write();
        let mut is_news = false;
        for name in names {
            let group = found.get(*name).map(|stable| if stable.is_empty() { *name } else { stable.as_str() });
            if cache.tables.get(*name).map(AsRef::as_ref) == group {
                continue;
            }
            is_news = true;
            cache.group_changed(name);
            match group {
                Some(group) => {
                    cache.group_changed(group);
                    cache.tables.insert((*name).into(), group.into())
                }
                None => cache.tables.remove(*name),
            };
        }
        drop(cache);
        if is_news {
            self.advance();
        }
        Ok(())
    }
}
