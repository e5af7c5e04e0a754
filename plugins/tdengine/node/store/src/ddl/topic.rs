//! Topics, consumer groups and their offsets.

use crate::Version;
use crate::catalog::Change;
use crate::database::{Database, Topic};
use crate::error::{Result, ServerError, code};
use crate::store::inner::Inner;
use crate::vgroup::{Effect, Payload};

impl Inner {
    /// Makes a topic; `resolve` says what it reads once the name is known to be free.
    pub fn create_topic(&self, name: &str, if_not_exists: bool, resolve: impl FnOnce() -> Result<Topic>) -> Result<()> {
        let exists = self.catalog.read().topics.contains_key(name);
        if exists {
            let error = ServerError::new(code::TOPIC_EXISTS, "Topic already exists");
            return if if_not_exists { Ok(()) } else { Err(error) };
        }
        let topic = resolve()?;
        self.change(|catalog| {
            if catalog.topics.len() >= self.config.topics_max {
                return Err(ServerError::new(code::TOPIC_COUNT, "Topic num out of range"));
            }
            if !catalog.databases.contains_key(&topic.database) {
                return Err(database_unavailable());
            }
            Ok(Some(Change::PutTopic(topic)))
        })
    }

    /// Drops a topic that nobody is subscribed to, and the offsets of its groups.
    pub fn drop_topic(&self, name: &str, if_exists: bool) -> Result<()> {
        let Some(topic) = self.catalog.read().topics.get(name).cloned() else {
            return if if_exists { Ok(()) } else { Err(topic_missing()) };
        };
        if self.consumers.lock().values().any(|consumer| consumer.topics.iter().any(|topic| topic == name)) {
            return Err(ServerError::new(code::TOPIC_SUBSCRIBED, "Topic subscribed cannot be dropped"));
        }
        self.change(|_| Ok(Some(Change::DropTopic { name: name.to_owned() })))?;
        match self.database(&topic.database) {
            Some(database) => self.forget(&database, name, None),
            None => Ok(()),
        }
    }

    /// Drops a group that has no consumer.
    pub fn drop_group(&self, group: &str, topic: &str, if_exists: bool) -> Result<()> {
        let found = self.catalog.read().topics.get(topic).cloned();
        let database = found.and_then(|topic| self.database(&topic.database));
        let database = database.ok_or_else(topic_missing)?;
        let of_group = |consumer: &crate::database::Consumer| {
            consumer.group == group && consumer.topics.iter().any(|name| name == topic)
        };
        if self.consumers.lock().values().any(of_group) {
            return Err(ServerError::new(code::GROUP_USED, "Consumer group being used by some consumer"));
        }
        let vgroups = self.vgroups_of(&database)?;
        if !vgroups.iter().any(|vgroup| vgroup.index().offset(topic, group).is_some()) {
            let missing = ServerError::new(code::SUBSCRIPTION_MISSING, "Subcribe not exist");
            return if if_exists { Ok(()) } else { Err(missing) };
        }
        self.forget(&database, topic, Some(group))
    }

    fn forget(&self, database: &Database, topic: &str, group: Option<&str>) -> Result<()> {
        let is_kept = |of: &str, by: &str| of != topic || group.is_some_and(|group| group != by);
        self.handed_out.lock().retain(|(of, by, _), _| is_kept(of, by));
        let effect = Effect::Forget { topic: topic.to_owned(), group: group.map(str::to_owned) };
        for vgroup in self.vgroups_of(database)? {
            vgroup.write(|_| Ok((Some(Payload::Marker(effect.clone())), ())))?;
        }
        Ok(())
    }

    /// Commits an offset of a group; the same one again writes nothing.
    pub fn commit(&self, group: &str, topic: &str, vgroup: crate::VgroupId, offset: Version) -> Result<()> {
        let vgroup = self.vgroup(vgroup)?;
        let next = vgroup.range().1;
        if !(0..=next).contains(&offset) {
            return Err(ServerError::new(code::OFFSET_OUT_OF_RANGE, "Offset out of range"));
        }
        vgroup.write(|index| {
            if index.offset(topic, group) == Some(offset) {
                return Ok((None, ()));
            }
            let effect = Effect::Commit { group: group.to_owned(), topic: topic.to_owned(), offset };
            Ok((Some(Payload::Marker(effect)), ()))
        })
    }

    /// The entry that a subscription leaves in each vgroup (FACTS F59).
    pub fn mark_subscription(&self, topic: &str) -> Result<()> {
        let found = self.catalog.read().topics.get(topic).cloned().ok_or_else(topic_missing)?;
        let database = self.database(&found.database).ok_or_else(ServerError::database_missing)?;
        for vgroup in self.vgroups_of(&database)? {
            vgroup.write(|_| Ok((Some(Payload::Marker(Effect::Nothing)), ())))?;
        }
        Ok(())
    }
}

pub(crate) fn topic_missing() -> ServerError {
    ServerError::new(code::TOPIC_MISSING, "Topic not exist")
}

pub(crate) fn database_unavailable() -> ServerError {
    ServerError::new(code::DATABASE_UNAVAILABLE, "Database not specified or available")
}
