//! Statements that a real server answered: what it refused by syntax is refused with the same code and text, the rest is read.

use tdengine_sql::parse;

const RECORDED: &str = include_str!("../../../../../tests/recordings/errors.jsonl");

/// Codes that a parser alone can give; 0x2617 and 0x2642 depend on lengths, which it knows too.
const SYNTAX: [u64; 3] = [0x2600, 0x2601, 0x2617];
/// A current database is the session's matter, not the parser's.
const ELSEWHERE: [&str; 1] = ["show tables"];

#[test]
fn errors_are_those_of_a_real_server() {
    let (mut same, mut wrong) = (0, Vec::new());
    for line in RECORDED.lines().skip(1) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let (sql, code) = (record["sql"].as_str().unwrap(), record["code"].as_u64().unwrap());
        if sql.is_empty() || ELSEWHERE.contains(&sql) {
            continue;
        }
        let expected = SYNTAX.contains(&code).then(|| (code, record["message"].as_str().unwrap().to_owned()));
        let found = parse(sql).err().map(|error| (u64::from(error.code), error.message));
        if expected == found {
            same += 1;
        } else {
            wrong.push(format!("{sql}\n  server {expected:?}\n  here   {found:?}"));
        }
    }
    println!("{same} of {} recorded statements read alike", same + wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
