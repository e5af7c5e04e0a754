use proptest::prelude::*;

use super::*;
use crate::tests::{any_column_type, any_damage, any_value, mutate};
use crate::types::{DataType, Field};

fn any_name() -> impl Strategy<Value = String> {
    "[^\0]{1,20}"
}

fn any_fields() -> impl Strategy<Value = Vec<Field>> {
    prop::collection::vec((any_name(), any_column_type(), any::<i16>(), any::<u8>()), 1..6).prop_map(|fields| {
        let field = |(name, column_type, id, flags)| Field { name, column_type, id, flags };
        fields.into_iter().map(field).collect()
    })
}

fn any_request() -> impl Strategy<Value = StableRequest> {
    let field = (0u8..=21, any::<i32>(), any_name());
    let fields = prop::collection::vec(field, 0..3);
    (any_name(), 1u8..=13, fields, prop::option::of(any_name()), any_name()).prop_map(
        |(full_name, action, fields, comment, sql)| StableRequest { full_name, action, fields, ttl: 0, comment, sql },
    )
}

fn any_stable() -> impl Strategy<Value = Stable> {
    let compression = prop::option::of(prop::collection::vec((any::<i16>(), any::<u32>()), 0..4));
    (any_name(), any_fields(), any_fields(), prop::option::of(any_request()), any::<(i64, i32, u8)>(), compression)
        .prop_map(|(name, columns, tags, request, (suid, version, source), compression)| Stable {
            name,
            suid,
            rollup: 0,
            columns,
            column_version: version,
            tags,
            tag_version: version,
            request: request.map(|request| request.encode()).unwrap_or_default(),
            source,
            compression_version: if compression.is_some() { version } else { 0 },
            compression,
            rest: Vec::new(),
        })
}

fn any_entry() -> impl Strategy<Value = TagEntry> {
    (any::<i16>(), 0..DataType::ALL.len()).prop_flat_map(|(id, index)| {
        let data_type = DataType::ALL[index];
        any_value(data_type).prop_map(move |bytes| TagEntry { key: TagKey::Id(id), data_type: Some(data_type), bytes })
    })
}

fn any_table() -> impl Strategy<Value = CreateTable> {
    let child = (any_name(), any::<i64>(), prop::collection::vec(any_entry(), 0..12)).prop_map(
        |(stable, suid, entries)| TableBody::Child {
            stable,
            suid,
            tag_count: entries.len() as u8,
            names: entries.iter().enumerate().map(|(index, _)| format!("t{index}")).collect(),
            tags: TagBlob::new(1, entries),
        },
    );
    let normal = (any_fields(), any::<i32>()).prop_map(|(columns, version)| TableBody::Normal { columns, version });
    let comment = prop::option::of(prop_oneof![Just(String::new()), any_name()]);
    (any_name(), any::<(i64, i64, i32)>(), comment, prop_oneof![child, normal]).prop_map(
        |(name, (uid, created_ms, ttl), comment, body)| CreateTable {
            flags: 0,
            name,
            uid,
            created_ms,
            ttl,
            comment,
            compression: matches!(body, TableBody::Normal { .. }).then(|| vec![(1, 0x0200_0102)]),
            body,
            sql: Vec::new(),
            compression_version: 0,
            rest: Vec::new(),
        },
    )
}

fn any_action() -> impl Strategy<Value = TableAction> {
    let any_type = (0..DataType::ALL.len()).prop_map(|index| DataType::ALL[index]);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    prop_oneof![
        (any_name(), any_type.clone(), value)
            .prop_map(|(name, data_type, value)| TableAction::SetTag { name, data_type, value }),
        (any_name(), any_type.clone(), any::<(u8, i32, Option<u32>)>()).prop_map(
            |(name, data_type, (flags, bytes, compression))| {
                TableAction::AddColumn { name, data_type, flags, bytes, compression }
            },
        ),
        any_name().prop_map(|name| TableAction::DropColumn { name }),
        (any_name(), any_type, any::<i32>())
            .prop_map(|(name, data_type, bytes)| TableAction::ModifyColumn { name, data_type, bytes }),
        (any::<Option<i32>>(), prop::option::of(prop_oneof![Just(String::new()), any_name()]))
            .prop_map(|(ttl, comment)| TableAction::Options { ttl, comment }),
        (any_name(), any_name()).prop_map(|(name, new_name)| TableAction::RenameColumn { name, new_name }),
        (any_name(), any::<u32>()).prop_map(|(name, compression)| TableAction::Compress { name, compression }),
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let rest = Vec::new;
    prop_oneof![
        any_stable().prop_map(|stable| Meta::CreateStable(Stable { request: Vec::new(), ..stable })),
        (any_stable(), any_request())
            .prop_map(|(stable, request)| Meta::AlterStable(Stable { request: request.encode(), ..stable })),
        (any_name(), any::<i64>()).prop_map(move |(name, suid)| Meta::DropStable { name, suid, rest: rest() }),
        (prop::collection::vec(any_table(), 1..4), any::<u8>())
            .prop_map(move |(tables, source)| Meta::CreateTables { tables, source, rest: rest() }),
        (any_name(), any_action(), any::<(i32, i64, u8)>(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(
            |(name, action, (column_id, time_ms, source), rest)| {
                Meta::AlterTable(AlterTable { name, column_id, action, time_ms, source, rest })
            }
        ),
        prop::collection::vec((any_name(), any::<(i64, u8)>()), 1..4).prop_map(move |tables| {
            let table = |(name, (suid, if_exists))| DropTable { name, suid, if_exists, rest: rest() };
            Meta::DropTables { tables: tables.into_iter().map(table).collect(), rest: rest() }
        }),
        (any_name(), any_name(), any::<(i64, i64, i64, i64, u8)>(), prop::collection::vec(any::<i64>(), 0..4)).prop_map(
            move |(table, timestamp, (suid, from, to, affected, source), uids)| {
                let time_ms = 1;
                let rest = rest();
                Meta::Delete(Delete { suid, uids, from, to, affected, table, timestamp, time_ms, source, rest })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn binary_there_and_back(meta in any_meta(), vgroup_id: i32) {
        let raw = RawMeta { vgroup_id, meta };
        let (raw_type, bytes) = raw.encode().unwrap();
        prop_assert_eq!(&RawMeta::decode(raw_type, &bytes).unwrap(), &raw);
    }

    #[test]
    fn json_there_and_back(metas in prop::collection::vec(any_meta(), 0..3)) {
        let json = |meta: &Meta| render(meta, Rendering::Exact).ok();
        let rendered: Vec<MetaJson> = metas.iter().filter_map(json).collect();
        for meta in &rendered {
            prop_assert_eq!(&parse_json(&to_json(meta).unwrap()).unwrap(), &vec![meta.clone()]);
        }
        prop_assert_eq!(parse_json(&to_json_batch(&rendered).unwrap()).unwrap(), rendered);
    }

    #[test]
    fn damaged_changes_never_panic(meta in any_meta(), (changes, cut) in any_damage()) {
        let (raw_type, mut bytes) = RawMeta { vgroup_id: 2, meta }.encode().unwrap();
        mutate(&mut bytes, &changes, cut);
        let length = (bytes.len() as i32).to_le_bytes();
        if let Some(head) = bytes.get_mut(..4) {
            head.copy_from_slice(&length);
        }
        if let Ok(raw) = RawMeta::decode(raw_type, &bytes) {
            let _ = raw.encode();
            for rendering in [Rendering::Faithful, Rendering::Exact] {
                let _ = render(&raw.meta, rendering).and_then(|json| to_json(&json));
            }
        }
    }
}

#[test]
fn tag_blobs_with_a_large_index() {
    let entry = |id| TagEntry { key: TagKey::Id(id), data_type: Some(DataType::Varchar), bytes: vec![b'x'; 200] };
    let blob = TagBlob::new(3, vec![entry(2), entry(1), entry(3)]);
    let bytes = blob.encode().unwrap();
    assert_eq!((bytes[0], &bytes[9..15]), (0x20, &[0, 0, 204, 0, 152, 1][..]));
    assert_eq!(TagBlob::decode(&bytes).unwrap(), blob);
    assert!(TagBlob::decode(&bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn json_of_newer_servers() {
    let text = r#"{"type":"alter","tableType":"child","tableName":"c","alterType":15,"tags":[{"colName":"a"}]}"#;
    let [MetaJson::Alter(alter)] = &parse_json(text).unwrap()[..] else { panic!("no alter") };
    assert_eq!((alter.alter_type, alter.other["tags"][0]["colName"].as_str()), (15, Some("a")));
    let column = r#"{"type":"create","tableType":"normal","tableName":"n","columns":[{"name":"k","type":4,"isPrimaryKey":true}]}"#;
    let [MetaJson::CreateNormal { columns, .. }] = &parse_json(column).unwrap()[..] else { panic!("no table") };
    assert_eq!(columns[0].is_primary_key, Some(true));
    assert!(parse_json("null").unwrap().is_empty());
    for bad in ["", "[]", "{}", r#"{"type":"create"}"#, r#"{"metas":1}"#] {
        assert!(parse_json(bad).is_err(), "{bad}");
    }
}
