//! What the server itself is and does: vgroups, topics, consumers, nodes, users.

use std::sync::Arc;

use super::{BIGINT, INT, Of, SMALLINT, TIME, TINYINT, memory};
use crate::database::{Consumer, Subscription, Topic, TopicKind, TopicMeta, User};
use crate::query::cell::Cell;
use crate::query::relation::Memory;
use crate::store::Store;
use crate::store::inner::now_ms;

/// Vgroups of one database, or of all.
pub(in crate::query) fn vgroups(store: &Store, of: Option<&str>) -> Memory {
    let mut rows = Vec::new();
    for database in store.databases().iter().filter(|database| of.is_none_or(|of| database.name == of)) {
        for vgroup in &database.vgroups {
            let mut row = vec![
                Cell::Int(i64::from(*vgroup)),
                Cell::text(database.name.as_str()),
                Cell::Int(store.vgroup_tables(*vgroup) as i64),
                Cell::Int(1),
                Cell::text("leader**"),
            ];
            row.extend([const { Cell::Null }; 6]);
            row.extend([Cell::Int(0), Cell::Int(0), Cell::Int(0)]);
            rows.push(row);
        }
    }
    memory(
        &[
            ("vgroup_id", INT), ("db_name", Of::Text(64)), ("tables", INT), ("v1_dnode", SMALLINT),
            ("v1_status", Of::Text(9)), ("v2_dnode", SMALLINT), ("v2_status", Of::Text(9)), ("v3_dnode", SMALLINT),
            ("v3_status", Of::Text(9)), ("v4_dnode", SMALLINT), ("v4_status", Of::Text(9)), ("cacheload", INT),
            ("cacheelements", INT), ("tsma", TINYINT),
        ],
        rows,
    )
}

pub(in crate::query) fn topics(store: &Store) -> Memory {
    let row = |topic: &Arc<Topic>| {
        let kind = match topic.kind {
            TopicKind::Database => "db",
            TopicKind::Stable { .. } => "stable",
            TopicKind::Select { .. } => "column",
        };
        let meta = match topic.meta {
            TopicMeta::None => "no",
            TopicMeta::With => "yes",
            TopicMeta::Only => "only",
        };
        vec![
            Cell::text(topic.name.as_str()),
            Cell::text(topic.database.as_str()),
            Cell::Time(topic.created_ms),
            Cell::text(topic.sql.as_str()),
            Cell::text("NULL"),
            Cell::text(meta),
            Cell::text(kind),
        ]
    };
    memory(
        &[
            ("topic_name", Of::Text(192)), ("db_name", Of::Text(64)), ("create_time", TIME), ("sql", Of::Text(2048)),
            ("schema", Of::Text(65_517)), ("meta", Of::Text(4)), ("type", Of::Text(8)),
        ],
        store.topics().iter().map(row).collect(),
    )
}

fn consumer_id(id: i64) -> String {
    format!("{id:#x}")
}

pub(in crate::query) fn subscriptions(store: &Store) -> Memory {
    let row = |subscription: &Subscription| {
        let end = store.wal_range(subscription.vgroup).map_or(0, |(_, next)| next);
        // Where a group stands is not told while a member reads (FACTS F38).
        let standing = subscription.offset.filter(|_| subscription.consumer.is_none());
        vec![
            Cell::text(subscription.topic.as_str()),
            Cell::text(subscription.group.as_str()),
            Cell::Int(i64::from(subscription.vgroup)),
            subscription.consumer.map_or(Cell::Null, |consumer| Cell::text(consumer_id(consumer))),
            standing.map_or(Cell::Null, |offset| Cell::text(format!("wal:{offset}/{end}"))),
            standing.map_or(Cell::Null, |_| Cell::Int(subscription.rows as i64)),
        ]
    };
    memory(
        &[
            ("topic_name", Of::Text(205)), ("consumer_group", Of::Text(193)), ("vgroup_id", INT),
            ("consumer_id", Of::Text(30)), ("offset", Of::Text(64)), ("rows", BIGINT),
        ],
        store.subscriptions().iter().map(row).collect(),
    )
}

pub(in crate::query) fn consumers(store: &Store) -> Memory {
    let row = |consumer: &Consumer| {
        vec![
            Cell::text(consumer_id(consumer.id)),
            Cell::text(consumer.group.as_str()),
            Cell::text(consumer.client.as_str()),
            Cell::text(consumer.status.as_str()),
            Cell::text(consumer.topics.join(",")),
            Cell::Time(consumer.subscribed_ms),
            Cell::Time(consumer.subscribed_ms),
            Cell::Time(consumer.subscribed_ms),
            Cell::text("tbname:1,commit:0,interval:5000ms,reset:earliest"),
        ]
    };
    memory(
        &[
            ("consumer_id", Of::Text(30)), ("consumer_group", Of::Text(192)), ("client_id", Of::Text(192)),
            ("status", Of::Text(20)), ("topics", Of::Text(205)), ("up_time", TIME), ("subscribe_time", TIME),
            ("rebalance_time", TIME), ("parameters", Of::Text(128)),
        ],
        store.consumers().iter().map(row).collect(),
    )
}

pub(in crate::query) fn cluster(store: &Store) -> Memory {
    let id = store.cluster_id();
    let row = vec![
        Cell::Int(id),
        Cell::text(format!("embedded-node-{id:016x}")),
        Cell::Int((now_ms() - store.created_ms()) / 1000),
        Cell::Time(store.created_ms()),
        Cell::text("community"),
        Cell::Null,
    ];
    memory(
        &[
            ("id", BIGINT), ("name", Of::Text(40)), ("uptime", INT), ("create_time", TIME), ("version", Of::Text(10)),
            ("expire_time", TIME),
        ],
        vec![row],
    )
}

pub(in crate::query) fn dnodes(store: &Store) -> Memory {
    let vnodes: usize = store.databases().iter().map(|database| database.vgroups.len()).sum();
    let row = vec![
        Cell::Int(1),
        Cell::text("localhost:6030"),
        Cell::Int(vnodes as i64),
        Cell::Int(64),
        Cell::text("ready"),
        Cell::Time(store.created_ms()),
        Cell::Time(store.created_ms()),
        Cell::text(""),
    ];
    memory(
        &[
            ("id", INT), ("endpoint", Of::Text(134)), ("vnodes", SMALLINT), ("support_vnodes", SMALLINT),
            ("status", Of::Text(10)), ("create_time", TIME), ("reboot_time", TIME), ("note", Of::Text(256)),
        ],
        vec![row],
    )
}

pub(in crate::query) fn mnodes(store: &Store) -> Memory {
    let row = vec![
        Cell::Int(1),
        Cell::text("localhost:6030"),
        Cell::text("leader"),
        Cell::text("ready"),
        Cell::Time(store.created_ms()),
        Cell::Time(store.created_ms()),
    ];
    let fields = [
        ("id", INT), ("endpoint", Of::Text(134)), ("role", Of::Text(12)), ("status", Of::Text(9)), ("create_time", TIME),
        ("role_time", TIME),
    ];
    memory(&fields, vec![row])
}

pub(in crate::query) fn users(store: &Store) -> Memory {
    let row = |user: &Arc<User>| {
        vec![
            Cell::text(user.name.as_str()),
            Cell::Int(i64::from(user.is_super)),
            Cell::Int(1),
            Cell::Int(1),
            Cell::Time(user.created_ms),
            Cell::text("127.0.0.1"),
        ]
    };
    let fields = [
        ("name", Of::Text(24)), ("super", TINYINT), ("enable", TINYINT), ("sysinfo", TINYINT), ("create_time", TIME),
        ("allowed_host", Of::Text(49_152)),
    ];
    memory(&fields, store.users().iter().map(row).collect())
}

pub(in crate::query) fn grants() -> Memory {
    let values = [
        ("version", 9, "community"), ("expire_time", 19, "unlimited"), ("service_time", 19, "limited"),
        ("expired", 5, "false"), ("state", 9, "ungranted"), ("timeseries", 21, "unlimited"), ("dnodes", 10, "unlimited"),
        ("cpu_cores", 13, "unlimited"),
    ];
    let fields: Vec<_> = values.iter().map(|(name, length, _)| (*name, Of::Text(*length))).collect();
    memory(&fields, vec![values.iter().map(|(_, _, value)| Cell::text(*value)).collect()])
}
