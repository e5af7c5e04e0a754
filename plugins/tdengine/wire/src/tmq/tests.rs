use super::*;
use crate::block::VERSION_TMQ;
use crate::tests::{hex, unhex};
use crate::types::{ColumnType, DataType, Field, Precision};

/// The TMQ message of PROTOCOL 17.
pub(crate) const EXAMPLE: &str = "6412000000110a000000000000001114000000000000000100000001018d0101000000000000000000000000000002000002\
    0000007b00000002000000040000000000008000000000000000000908000000040400000008120000000a2a000000100000\
    0008000000040000000c000000000068e5cf8b010000e86be5cf8b01000040010000000000000000000000ffffffff020061\
    62000000000600000004009b6d0000040078000000000802090110020374730004010804027600080124060273000a015408\
    026e00036431000000000000000000";

fn fields() -> Vec<Field> {
    [("ts", ColumnType::of(DataType::Timestamp)), ("v", ColumnType::of(DataType::Int))]
        .into_iter()
        .chain([("s", ColumnType::varchar(16)), ("n", ColumnType::nchar(10))])
        .zip(1..)
        .map(|((name, column_type), id)| Field::new(name, column_type, id))
        .collect()
}

fn message(tables: &[&str]) -> DataBuilder {
    let mut block = unhex(crate::block::tests::EXAMPLE);
    block[0] = VERSION_TMQ as u8;
    let fields = fields();
    let mut message = DataBuilder::new(&Offset::Log(10), &Offset::Log(20));
    for table in tables {
        let precision = Precision::Milliseconds;
        message.push(&BlockParts { table, fields: &fields, schema_version: 1, precision, block: &block }).unwrap();
    }
    message
}

#[test]
fn the_protocols_message() {
    let bytes = message(&["d1"]).finish();
    assert_eq!(hex(&bytes), EXAMPLE);
    let view = DataView::parse(&bytes).unwrap();
    assert_eq!((view.request_offset().version(), view.response_offset().version()), (Some(10), Some(20)));
    let entries: Vec<_> = view.blocks().collect::<Result<_, _>>().unwrap();
    assert_eq!((entries.len(), entries[0].table, entries[0].view().unwrap().rows()), (1, Some("d1"), 2));
    assert_eq!(entries[0].fields.unwrap().to_vec().unwrap(), fields());
    assert_eq!(view.tail(DATA).unwrap(), Tail::Sleep(0));
    assert!(view.tail(515).is_err());
    for cut in 0..bytes.len() - 8 {
        let whole = DataView::parse(&bytes[..cut]).and_then(|view| view.blocks().collect::<Result<Vec<_>, _>>());
        assert!(whole.is_err(), "cut at {cut}");
    }
}

#[test]
fn cut_split_and_join() {
    let all = message(&["a", "b", "a"]).finish();
    assert_eq!(keep_tables(&all, |_| true).unwrap().as_ref(), Some(&all));
    assert_eq!(keep_tables(&all, |table| table == "b").unwrap(), Some(message(&["b"]).finish()));
    assert_eq!(keep_tables(&all, |_| false).unwrap(), None);
    let creates: [&[u8]; 2] = [b"one", b"three"];
    let metadata = message(&["a", "b", "a"]).finish_with_creates(creates.into_iter());
    let (data, split_off) = split(&metadata).unwrap();
    assert_eq!((&data, &split_off[..]), (&all, &creates[..]));
    assert_eq!(join(&data, split_off.into_iter()).unwrap(), metadata);
    assert_eq!(keep_tables(&message(&[]).finish(), |_| true).unwrap(), None);
}

#[test]
fn entries_of_several_messages_become_one() {
    let messages = [message(&["a", "b"]).finish(), message(&["a"]).finish()];
    let read = |body: &'static [u8]| {
        let mut blocks = DataView::parse(body).unwrap().blocks();
        assert!(blocks.all(|entry| entry.is_ok()));
        blocks.as_bytes()
    };
    let entries = messages.map(|body| read(body.leak()));
    let (head, tail) = enclose(3, entries[0].len() + entries[1].len());
    let raw = [&head, entries[0], entries[1], &tail].concat();
    let (raw_type, body) = unpack(&raw).unwrap();
    let mut whole = message(&["a", "b", "a"]).finish();
    // But for where it stood in the log.
    let head_bytes = DataView::parse(&whole).unwrap().head().len();
    whole[..head_bytes].copy_from_slice(&body[..head_bytes]);
    assert_eq!((raw_type, hex(body), raw.len()), (DATA, hex(&whole), PACK_BYTES + body.len()));
}

proptest::proptest! {
    #[test]
    fn damaged_messages_never_panic((changes, cut) in crate::tests::any_damage()) {
        let creates: [&[u8]; 1] = [b"create"];
        let mut bytes = message(&["a", "b"]).finish_with_creates(creates.into_iter());
        crate::tests::mutate(&mut bytes, &changes, cut);
        let _ = split(&bytes);
        let _ = keep_tables(&bytes, |table| table == "a");
        if let Ok(view) = DataView::parse(&bytes) {
            for entry in view.blocks().map_while(Result::ok) {
                let _ = (entry.view().is_ok(), entry.fields.map(|fields| fields.to_vec()));
            }
        }
    }

    #[test]
    fn blocks_come_back(blocks in proptest::collection::vec(crate::tests::any_block(), 1..4)) {
        let mut message = DataBuilder::new(&Offset::Log(1), &Offset::Log(i64::MAX));
        let mut expect = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let bytes = block.encode(VERSION_TMQ).unwrap();
            let columns = block.columns().iter().zip(1..);
            let fields: Vec<_> = columns.map(|(column, id)| Field::new("c", column.column_type(), id)).collect();
            let table = format!("t{index}");
            let precision = Precision::Nanoseconds;
            let parts = BlockParts { table: &table, fields: &fields, schema_version: 3, precision, block: &bytes };
            message.push(&parts).unwrap();
            expect.push((table, fields, bytes));
        }
        let bytes = message.finish();
        let view = DataView::parse(&bytes).unwrap();
        let found: Vec<_> = view.blocks().map(|entry| {
            let entry = entry.unwrap();
            (entry.table.unwrap().to_owned(), entry.fields.unwrap().to_vec().unwrap(), entry.block.to_vec())
        }).collect();
        proptest::prop_assert_eq!(found, expect);
    }
}
