use super::*;
use crate::block::BlockHeader;
use crate::tests::{hex, unhex};
use crate::types::{ColumnType, DataType, Precision};

#[test]
fn the_protocols_reply_heads() {
    let block = vec![7; 123];
    let reply = ResultBlockReply { timing: 5, req_id: 0x11, code: 0, message: "", result_id: 1, block: Some(&block) };
    let bytes = reply.encode();
    let head = "ffffffffffffffff07000000000000000100050000000000000011000000000000000000000000000000010000000000000000\
        7b000000";
    assert_eq!(hex(&bytes[..55]), head);
    assert_eq!(BinaryReply::decode(&bytes).unwrap(), BinaryReply::ResultBlock(reply));

    let text = "Table does not exist";
    let error = ResultBlockReply { timing: 5, req_id: 0x11, code: 0x2603, message: text, result_id: 1, block: None };
    let expect = "ffffffffffffffff07000000000000000100050000000000000011000000000000000326000014000000\
        5461626c6520646f6573206e6f74206578697374010000000000000001";
    assert_eq!(hex(&error.encode()), expect);
    assert_eq!(BinaryReply::decode(&unhex(expect)).unwrap(), BinaryReply::ResultBlock(error));
}

#[test]
fn request_ids_are_exact() {
    for id in [0, 1, u64::MAX, 18_250_284_034_228_092_929] {
        let text = request_text(id, &Query { sql: "select 1".to_owned() }).unwrap();
        let request = Request::parse(&text).unwrap();
        assert_eq!((request.req_id, &*request.action), (id, "query"));
        assert_eq!(request.args::<Query>().unwrap().sql, "select 1");
        let text = reply_text("query", id, 5, &QueryReply::update(3)).unwrap();
        let reply = Reply::parse(&text).unwrap();
        assert_eq!((reply.req_id, reply.timing), (id, 5));
        assert_eq!(reply.body::<QueryReply>().unwrap().affected_rows, 3);
    }
    let request = Request::parse(r#"{"action":"version"}"#).unwrap();
    assert_eq!((request.req_id, &*request.action), (0, "version"));
    assert!(Request::parse("no json").is_err());
}

#[test]
fn scalars_of_any_kind() {
    let text = r#"{"action":"subscribe","args":{"req_id":"7","user":"root","db":null,"group_id":5,"topics":["t"],
        "offset_reset":"latest","auto_commit":true,"msg_consume_excluded":1,"config":{"a.b":1.5}}}"#;
    let request = Request::parse(text).unwrap();
    assert_eq!(request.req_id, 7);
    let args: Subscribe = request.args().unwrap();
    assert_eq!((args.group_id.as_str(), args.db.as_str()), ("5", ""));
    assert_eq!(args.reset(), Some(&Scalar::from("latest")));
    assert!(args.msg_consume_excluded.as_ref().is_some_and(Scalar::is_number));
    assert_eq!(args.auto_commit.as_ref().map(Scalar::as_text), Some("true"));
    assert_eq!(args.config.as_ref().map(|config| config["a.b"].as_text().to_owned()), Some("1.5".to_owned()));
    let sent = request_text(1, &args).unwrap();
    assert!(sent.contains(r#""offset_reset":"latest""#) && sent.contains(r#""msg_consume_excluded":1"#), "{sent}");
    assert!(!format!("{args:?}").contains("password"));
}

#[test]
fn binary_requests_both_ways() {
    let block = unhex(crate::block::tests::EXAMPLE);
    let field = WriteField { name: "ts".to_owned(), type_code: 9, bytes: 8 };
    let fields = vec![field; 4];
    let requests = [
        BinaryRequest::StmtSetTags { block: &block },
        BinaryRequest::StmtBind { block: &block },
        BinaryRequest::WriteRaw { raw_type: 531, data: b"meta" },
        BinaryRequest::WriteBlock { rows: 2, table: "d1", block: &block },
        BinaryRequest::WriteBlockWithFields { rows: 2, table: "d1", block: &block, fields },
        BinaryRequest::Query { sql: "select 1" },
        BinaryRequest::FetchBlock,
        BinaryRequest::Stmt2Bind { column: -1, data: b"bind" },
        BinaryRequest::ValidateSql { sql: "select 2" },
        BinaryRequest::Stmt2BindExec { data: b"exec" },
    ];
    for request in requests {
        let bytes = request.encode(u64::MAX, 3).unwrap();
        assert_eq!(BinaryRequest::decode(&bytes).unwrap(), (u64::MAX, 3, request.clone()));
        let cut = BinaryRequest::decode(&bytes[..bytes.len() - 1]).map(|(.., decoded)| decoded);
        assert_ne!(cut, Ok(request));
    }
    let query = BinaryRequest::Query { sql: "x" }.encode(1, 2).unwrap();
    assert_eq!(hex(&query), "0100000000000000020000000000000006000000000000000100010000\
        0078");
}

#[test]
fn old_replies_both_ways() {
    let ws = BlockReply { timing: 1, req_id: None, id: 2, block: b"block" };
    assert_eq!(BlockReply::decode_ws(&ws.encode()).unwrap(), ws);
    let tmq = BlockReply { timing: 1, req_id: Some(5), id: 2, block: b"block" };
    assert_eq!(BlockReply::decode_tmq(&tmq.encode()).unwrap(), tmq);
    let raw = RawReply { timing: 1, req_id: 2, message_id: 3, raw_type: 2, data: b"data" };
    assert_eq!(RawReply::decode(&raw.encode()).unwrap(), raw);
    let data = RawDataReply { timing: 1, req_id: 2, code: 0, message: "", message_id: 3, raw: Some((2, b"data")) };
    assert_eq!(BinaryReply::decode(&data.encode()).unwrap(), BinaryReply::RawData(data));
}

/// The examples of PROTOCOL 17, byte for byte.
#[test]
fn the_protocols_json() {
    let version = |version: &str| VersionReply { version: Some(version.to_owned()) };
    assert_eq!(
        reply_text("conn", 0, 1_200, &version("3.3.6.13")).unwrap(),
        r#"{"code":0,"message":"","action":"conn","req_id":0,"timing":1200,"version":"3.3.6.13"}"#
    );
    let fields = [("ts".to_owned(), ColumnType::of(DataType::Timestamp)), ("v".to_owned(), ColumnType::of(DataType::Int))];
    assert_eq!(
        reply_text("binary_query", 7, 5_200, &QueryReply::rows(1, &fields, Precision::Milliseconds)).unwrap(),
        concat!(
            r#"{"code":0,"message":"","action":"binary_query","req_id":7,"timing":5200,"id":1,"is_update":false,"affected_rows":0,"#,
            r#""fields_count":2,"fields_names":["ts","v"],"fields_types":[9,4],"fields_lengths":[8,4],"precision":0,"#,
            r#""fields_precisions":[0,0],"fields_scales":[0,0]}"#
        )
    );
    assert_eq!(
        error_text(9731, "Table does not exist", "query", 8, 900, &Empty {}).unwrap(),
        r#"{"code":9731,"message":"Table does not exist","action":"query","req_id":8,"timing":900}"#
    );
    let (topic, database) = ("t".to_owned(), "db".to_owned());
    let poll = PollReply { have_message: true, topic, database, vgroup_id: 2, message_type: 1, message_id: 1, offset: 10 };
    assert_eq!(
        reply_text("poll", 3, 0, &poll).unwrap(),
        concat!(
            r#"{"code":0,"message":"","action":"poll","req_id":3,"timing":0,"have_message":true,"topic":"t","database":"db","#,
            r#""vgroup_id":2,"message_type":1,"message_id":1,"offset":10}"#
        )
    );
    assert_eq!(
        error_text(16391, "Offset out of range", "seek", 4, 100, &Empty {}).unwrap(),
        r#"{"code":16391,"message":"Offset out of range","action":"seek","req_id":4,"timing":100}"#
    );
}

#[test]
fn updates_have_no_fields_and_older_servers_no_keys_of_decimals() {
    let update = QueryReply::update(3);
    let text = reply_text("query", 1, 0, &update).unwrap();
    assert!(text.ends_with(r#""fields_lengths":null,"precision":0,"fields_precisions":null,"fields_scales":null}"#), "{text}");
    let older = QueryReply { fields_precisions: None, fields_scales: None, ..update };
    let text = reply_text("query", 1, 0, &older).unwrap();
    assert!(text.ends_with(r#""fields_lengths":null,"precision":0}"#), "{text}");
    assert_eq!(Reply::parse(&text).unwrap().body::<QueryReply>().unwrap(), older);
}

/// Clients in Rust send what lay in memory as padding, and any number of rows (PROTOCOL 3).
#[test]
fn padding_of_fields_and_the_copy_of_the_rows_do_not_matter() {
    let block = unhex(crate::block::tests::EXAMPLE);
    let fields = vec![WriteField { name: "ts".to_owned(), type_code: 9, bytes: 8 }; 4];
    let request = BinaryRequest::WriteBlockWithFields { rows: 99, table: "d1", block: &block, fields };
    let mut bytes = request.encode(1, 0).unwrap();
    let end = bytes.len();
    for field in 0..4 {
        bytes[end - 72 * field - 6..end - 72 * field - 4].copy_from_slice(&[0xaa, 0x55]);
    }
    let (.., decoded) = BinaryRequest::decode(&bytes).unwrap();
    assert_eq!(decoded, request);
    let BinaryRequest::WriteBlockWithFields { block, .. } = decoded else { panic!("a write") };
    assert_eq!(BlockHeader::parse(block).unwrap().rows, 2, "the block's own");
}
