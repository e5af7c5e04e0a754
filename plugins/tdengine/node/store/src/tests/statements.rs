//! The error list of a real server, statement by statement.

use super::{code, open, recording, run};

/// What is known to differ, and why.
const TEXT_DIFFERS: [&str; 3] = [
    // The node shows the literal, the server the rest of the statement.
    "insert int overflow",
    "insert unsigned negative",
    "insert ts null",
];

#[test]
fn every_statement_answers_the_recorded_code() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let prepare = [
        "create stable st(ts timestamp, a int, v varchar(4), n nchar(4)) tags(t int, tv varchar(4))",
        "create table c1 using st tags(1,\"a\")",
        "create table n1(ts timestamp, a int)",
    ];
    let mut session = run(&store, "re", &prepare);
    let mut wrong = Vec::new();
    let (mut checked, mut reads) = (0, 0);
    for line in recording("errors.jsonl") {
        let sql = line["sql"].as_str().unwrap();
        session.database = line["current_db"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        // Statements that read belong to the tests of queries; an empty text never gets here.
        if ["sel", "sho", "des", ""].contains(&sql.get(..3).unwrap_or("")) && !sql.starts_with("selec 1") {
            reads += 1;
            continue;
        }
        checked += 1;
        let got = code(&store, &mut session, sql);
        let expect = (line["code"].as_u64().unwrap() as u16, line["message"].as_str().unwrap().to_owned());
        let text_counts = !TEXT_DIFFERS.contains(&line["case"].as_str().unwrap());
        if got.0 != expect.0 || text_counts && got.1 != expect.1 {
            wrong.push(format!("{sql}\n  got    0x{:04x} {}\n  expect 0x{:04x} {}", got.0, got.1, expect.0, expect.1));
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 100 && reads < 30, "{checked} {reads}");
}
