//! The hard cases of active-active replication, each by name: what users do, then both sites must be equal and nothing may loop.
//!
//! They run on two embedded nodes; with `PIPELINE_TEST_SITES=HOST:PORT,HOST:PORT` the same cases run on a real pair.

use std::time::Duration;

use pipeline_tests::{Pair, Site, messages_at, wait_for};

/// How long two sites may take to become equal after a case.
const SETTLE: Duration = Duration::from_secs(120);
/// How long nothing may come from a log while nobody writes.
const QUIET: Duration = Duration::from_secs(2);
const T0: i64 = 1_780_000_000_000;

/// Runs a case on a fresh pair and checks what every case must hold: sites are equal (`converged`), no message while nobody
/// writes (`no-loop`).
fn case(name: &str, body: impl FnOnce(&mut Pair)) {
    case_with(name, "vgroups 2", body);
}

fn case_with(name: &str, options: &str, body: impl FnOnce(&mut Pair)) {
    let mut pair = Pair::new(name, options).unwrap();
    body(&mut pair);
    settle(&mut pair);
    for site in [pair.a.clone(), pair.b.clone()] {
        let looped = messages_at(&site, name, QUIET).unwrap();
        assert!(looped.is_empty(), "{} sends while nobody writes: {looped:?}\n{}", site.address, pair.log());
    }
    pair.stop().unwrap();
}

fn settle(pair: &mut Pair) {
    pair.settle(SETTLE).unwrap_or_else(|error| panic!("{error:#}"));
}

fn meters(site: &Site, db: &str) {
    site.sql(&format!(
        "create stable if not exists {db}.meters (ts timestamp, current float, voltage int) tags (place varchar(24), grp int)"
    ));
}

fn count(site: &Site, sql: &str) -> i64 {
    site.sql(sql)[0][0].as_i64().unwrap()
}

#[test]
fn rows_of_both_sites_reach_the_other() {
    case("both_ways", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        settle(pair);
        for (site, name) in [(pair.a.clone(), "a"), (pair.b.clone(), "b")] {
            for table in 0..4 {
                site.sql(&format!(
                    "insert into {db}.{name}{table} using {db}.meters tags ('{name}', {table}) values ({T0}, 1.5, 220) ({}, null, 221)",
                    T0 + 1
                ));
            }
        }
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.meters")), 16);
        }
    });
}

#[test]
fn super_table_altered_where_it_did_not_come_from() {
    case("altered_elsewhere", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({T0}, 1, 2)"));
        settle(pair);
        pair.b.sql(&format!("alter stable {db}.meters add column power double"));
        pair.b.sql(&format!("alter stable {db}.meters add tag owner nchar(10)"));
        pair.b.sql(&format!("alter stable {db}.meters modify tag place varchar(60)"));
        settle(pair);
        pair.a.sql(&format!("insert into {db}.d1 values ({}, 3, 4, 5.5)", T0 + 1));
        pair.b.sql(&format!("insert into {db}.d1 values ({}, 6, 7, 8.5)", T0 + 2));
        pair.a.sql(&format!("alter table {db}.d1 set tag owner = '涛'"));
    });
}

#[test]
fn created_on_both_sides_and_then_altered_on_each() {
    case("created_on_both", |pair| {
        let db = pair.database.clone();
        settle(pair);
        pair.stop().unwrap();
        meters(&pair.a, &db);
        meters(&pair.b, &db);
        pair.start().unwrap();
        settle(pair);
        pair.a.sql(&format!("alter stable {db}.meters add column from_a int"));
        pair.b.sql(&format!("alter stable {db}.meters add column from_b int"));
        settle(pair);
        pair.a.sql(&format!(
            "insert into {db}.d1 using {db}.meters tags ('x', 1) (ts, current, from_a, from_b) values ({T0}, 1, 2, 3)"
        ));
        pair.b.sql(&format!(
            "insert into {db}.d2 using {db}.meters tags ('y', 2) (ts, current, from_a, from_b) values ({T0}, 4, 5, 6)"
        ));
    });
}

#[test]
fn column_added_and_dropped_at_once() {
    case("add_and_drop", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({T0}, 1, 2)"));
        settle(pair);
        for round in 0..3 {
            pair.a.sql(&format!("alter stable {db}.meters add column extra int"));
            pair.a.sql(&format!("insert into {db}.d1 (ts, current, extra) values ({}, 1, 9)", T0 + 10 + round));
            pair.a.sql(&format!("alter stable {db}.meters drop column extra"));
        }
        settle(pair);
        assert_eq!(count(&pair.b, &format!("select count(*) from {db}.d1")), 4);
    });
}

#[test]
fn table_dropped_and_created_again_at_once() {
    case("recreated_table", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('old', 1) values ({T0}, 1, 2)"));
        settle(pair);
        for (round, site) in [pair.a.clone(), pair.b.clone(), pair.a.clone()].into_iter().enumerate() {
            site.sql(&format!("drop table {db}.d1"));
            site.sql(&format!(
                "insert into {db}.d1 using {db}.meters tags ('new{round}', 7) values ({}, 3, 4)",
                T0 + round as i64
            ));
            settle(pair);
            for site in [&pair.a, &pair.b] {
                assert_eq!(count(site, &format!("select count(*) from {db}.d1")), 1);
            }
        }
    });
}

#[test]
fn super_table_dropped_and_created_again_with_one_vgroup_far_behind() {
    case("recreated_stable", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        settle(pair);
        // One table, so one vgroup, gets far ahead of the others.
        let values: String = (0..2000).map(|row| format!(" ({}, {row}, 1)", T0 + row)).collect();
        for round in 0..20 {
            let values = values.replace(&T0.to_string()[..7], &(T0 + round * 10_000_000).to_string()[..7]);
            pair.a.sql(&format!("insert into {db}.busy using {db}.meters tags ('x', 1) values{values}"));
        }
        pair.a.sql(&format!("drop stable {db}.meters"));
        meters(&pair.a, &db);
        for table in 0..6 {
            pair.a.sql(&format!("insert into {db}.n{table} using {db}.meters tags ('n', {table}) values ({T0}, 1, 2)"));
        }
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.meters")), 6);
        }
    });
}

#[test]
fn super_table_dropped_and_created_again_after_the_other_site_altered_it() {
    case("remade", |pair| {
        let db = pair.database.clone();
        pair.a.sql(&format!("create stable `{db}`.st (ts timestamp, a int, s varchar(20)) tags (g int)"));
        pair.a.sql(&format!("create table `{db}`.c0 using `{db}`.st tags (1)"));
        settle(pair);
        pair.b.sql(&format!("alter stable `{db}`.st add column b double"));
        settle(pair);
        pair.a.sql(&format!("drop stable `{db}`.st"));
        pair.a.sql(&format!("create stable `{db}`.st (ts timestamp, q int, a int) tags (g int)"));
        pair.a.sql(&format!("create table `{db}`.c0 using `{db}`.st tags (1)"));
        settle(pair);
        // B's log never told A's side that its super table is another one now.
        pair.b.sql(&format!("insert into `{db}`.c0 values (1700000000000, 7, 8)"));
        settle(pair);
        assert_eq!(count(&pair.a, &format!("select q from `{db}`.c0 where a = 8")), 7);
    });
}

#[test]
fn partial_updates_of_one_row_from_both_sides() {
    case("partial_update", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({T0}, 1, 2)"));
        settle(pair);
        pair.a.sql(&format!("insert into {db}.d1 (ts, current) values ({T0}, 10)"));
        pair.b.sql(&format!("insert into {db}.d1 (ts, voltage) values ({T0}, 20)"));
        settle(pair);
        for site in [&pair.a, &pair.b] {
            let rows = site.sql(&format!("select current, voltage from {db}.d1"));
            assert_eq!((rows[0][0].as_f64(), rows[0][1].as_i64()), (Some(10.0), Some(20)));
        }
        pair.a.sql(&format!("insert into {db}.d1 (ts, current) values ({T0}, null)"));
        settle(pair);
        let rows = pair.b.sql(&format!("select current, voltage from {db}.d1"));
        assert!(rows[0][0].is_null() && rows[0][1] == 20, "{rows:?}");
    });
}

/// What waits is written together: several messages with the same rows in one, with times that grow and that do not, and columns that are NULL.
#[test]
fn rows_written_over_again_and_again_while_the_pipelines_are_down() {
    /// A server hands out entries of its log together until they have 4,096 rows.
    const ROWS: i64 = 4_200;
    const ROUNDS: i64 = 12;
    case("written_over", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("create table {db}.d1 using {db}.meters tags ('x', 1)"));
        settle(pair);
        pair.stop().unwrap();
        for round in 0..ROUNDS {
            let values = |row: i64| {
                let voltage = if (row + round) % 3 == 0 { "null".to_owned() } else { round.to_string() };
                format!("({}, {round}, {voltage})", T0 + if round % 2 == 0 { row } else { ROWS - 1 - row })
            };
            let rows: String = (0..ROWS).map(values).collect();
            pair.a.sql(&format!("insert into {db}.d1 values {rows}"));
        }
        pair.start().unwrap();
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.d1 where current = {}", ROUNDS - 1)), ROWS);
        }
    });
}

#[test]
fn deletes_of_rows_that_the_other_site_wrote() {
    case("deletes", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        for row in 0..10 {
            pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({}, 1, 2)", T0 + row));
        }
        settle(pair);
        pair.b.sql(&format!("delete from {db}.d1 where ts >= {} and ts < {}", T0 + 2, T0 + 5));
        settle(pair);
        pair.a.sql(&format!("delete from {db}.d1 where ts = {}", T0 + 9));
        // One that hits nothing.
        pair.b.sql(&format!("delete from {db}.d1 where ts < {}", T0 - 100));
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.d1")), 6);
        }
    });
}

#[test]
fn delete_on_a_super_table_with_a_tag_condition() {
    case("tag_delete", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        for table in 0..6 {
            pair.a.sql(&format!(
                "insert into {db}.d{table} using {db}.meters tags ('x', {table}) values ({T0}, 1, 2) ({}, 1, 2)",
                T0 + 1
            ));
        }
        settle(pair);
        pair.a.sql(&format!("delete from {db}.meters where ts = {T0} and grp = 1"));
        settle(pair);
        pair.b.sql(&format!("delete from {db}.meters where ts = {} and grp = 2", T0 + 1));
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.meters")), 10);
        }
    });
}

#[test]
fn tag_values_with_quotes_null_and_beyond_two_to_the_53() {
    case("odd_tags", |pair| {
        let db = pair.database.clone();
        pair.a.sql(&format!(
            "create stable {db}.odd (ts timestamp, v int) tags (s varchar(40), n nchar(20), big bigint, ubig bigint unsigned, d double, b bool)"
        ));
        settle(pair);
        let tables = [
            r#"'it''s "quoted"', '', 9007199254740993, 18446744073709551615, 0.1, true"#,
            "null, null, null, null, null, null",
            r"'back\\slash; -- /* x */', '涛思', -9223372036854775807, 9007199254740993, 1e300, false",
        ];
        for (at, tags) in tables.iter().enumerate() {
            let site = if at == 1 { pair.b.clone() } else { pair.a.clone() };
            site.sql(&format!("create table {db}.t{at} using {db}.odd tags ({tags})"));
            site.sql(&format!("insert into {db}.t{at} values ({T0}, {at})"));
        }
        settle(pair);
        pair.b.sql(&format!("alter table {db}.t0 set tag big = 9007199254740995"));
        pair.b.sql(&format!("alter table {db}.t1 set tag s = 'say ''no'''"));
        pair.a.sql(&format!("alter table {db}.t2 set tag n = null"));
    });
}

#[test]
fn tags_added_in_another_order_at_each_site() {
    case("tag_order", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        settle(pair);
        pair.stop().unwrap();
        pair.a.sql(&format!("alter stable {db}.meters add tag lvl int"));
        pair.a.sql(&format!("alter stable {db}.meters add tag zone int"));
        pair.b.sql(&format!("alter stable {db}.meters add tag zone int"));
        pair.b.sql(&format!("alter stable {db}.meters add tag lvl int"));
        pair.start().unwrap();
        settle(pair);
        pair.a.sql(&format!(
            "insert into {db}.d1 using {db}.meters (place, grp, lvl, zone) tags ('a', 1, 11, 12) values ({T0}, 1, 2)"
        ));
        pair.b.sql(&format!(
            "insert into {db}.d2 using {db}.meters (place, grp, lvl, zone) tags ('b', 2, 21, 22) values ({T0}, 1, 2)"
        ));
        settle(pair);
        for site in [&pair.a, &pair.b] {
            // Not by ORDER BY: a 3.3.0.1 died of it once (a segmentation fault in `blockDataSort`).
            let rows = site.sql(&format!("select distinct tbname, lvl, zone from {db}.meters"));
            let mut found: Vec<_> = rows.iter().map(|row| (row[1].as_i64(), row[2].as_i64())).collect();
            found.sort();
            assert_eq!(found, [(Some(11), Some(12)), (Some(21), Some(22))]);
        }
        pair.a.sql(&format!("alter table {db}.d2 set tag lvl = 5"));
    });
}

#[test]
fn several_tables_in_one_statement() {
    case("several", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!(
            "create table {db}.a1 using {db}.meters tags ('x', 1) {db}.a2 using {db}.meters tags ('y', 2) {db}.a3 using {db}.meters tags ('z', 3)"
        ));
        settle(pair);
        pair.b.sql(&format!(
            "insert into {db}.a1 values ({T0}, 1, 2) {db}.a2 values ({T0}, 3, 4) {db}.b1 using {db}.meters tags ('q', 9) values ({T0}, 5, 6)"
        ));
        settle(pair);
        pair.b.sql(&format!("drop table {db}.a2, {db}.a3"));
        settle(pair);
        assert_eq!(count(&pair.a, &format!("select count(*) from {db}.meters")), 2);
    });
}

#[test]
fn long_and_odd_names() {
    case("long_names", |pair| {
        let db = pair.database.clone();
        let (stable, table, column) = ("s".repeat(180), "t".repeat(190), "c".repeat(64));
        pair.a.sql(&format!("create stable {db}.`{stable}` (ts timestamp, `{column}` int) tags (g int)"));
        settle(pair);
        pair.a.sql(&format!("insert into {db}.`{table}` using {db}.`{stable}` tags (1) values ({T0}, 1) ({}, 2)", T0 + 1));
        for name in ["Mixed Case", "quo\"te", "semi;colon", "涛思", "sp ace"] {
            pair.b.sql(&format!("create table {db}.`{name}` (ts timestamp, `Weird ; col` int, v varchar(10))"));
            pair.b.sql(&format!("insert into {db}.`{name}` values ({T0}, 1, 'x')"));
        }
        settle(pair);
        pair.b.sql(&format!("delete from {db}.`{table}` where ts = {T0}"));
        settle(pair);
        pair.a.sql(&format!("drop table {db}.`Mixed Case`"));
    });
}

#[test]
fn six_super_tables_altered_at_once_over_four_vgroups() {
    case_with("six_stables", "vgroups 4", |pair| {
        let db = pair.database.clone();
        for stable in 0..6 {
            pair.a.sql(&format!("create stable {db}.s{stable} (ts timestamp, v int) tags (g int)"));
        }
        settle(pair);
        std::thread::scope(|scope| {
            for stable in 0..6 {
                let (site, db) = (if stable % 2 == 0 { pair.a.clone() } else { pair.b.clone() }, &db);
                scope.spawn(move || {
                    for column in 0..3 {
                        site.sql(&format!("alter stable {db}.s{stable} add column c{column} int"));
                        site.sql(&format!(
                            "insert into {db}.t{stable}_{column} using {db}.s{stable} tags ({column}) (ts, v, c{column}) values ({T0}, 1, {column})"
                        ));
                    }
                });
            }
        });
    });
}

#[test]
fn replay_after_a_crash_does_not_overwrite_a_newer_value() {
    case("no_regress", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({T0}, 0, 0)"));
        settle(pair);
        for round in 1..6_i64 {
            pair.a.sql(&format!("insert into {db}.d1 values ({T0}, {round}, 1)"));
            settle_value(pair, &format!("select current from {db}.d1"), round as f64);
            // Killed behind the write and before the next checkpoint, more often than not.
            pair.b.sql(&format!("insert into {db}.d1 values ({T0}, {}, 2)", round + 100));
            pair.kill().unwrap();
            let before = pair.log().len();
            pair.start().unwrap();
            // Killed between the intent and the write, nobody can tell whether it was written: then it is reported, and writing
            // it again at its site repairs it.
            let select = format!("select current from {db}.d1");
            let deadline = std::time::Instant::now() + SETTLE;
            let is_equal = |pair: &Pair| [&pair.a, &pair.b].iter().all(|site| site.sql(&select)[0][0] == (round + 100) as f64);
            while !is_equal(pair) && !pair.log()[before..].contains("kind=\"regress\"") {
                let held = pair.a.sql(&select)[0][0].as_f64();
                assert!(held == Some(round as f64) || is_equal(pair), "round {round}: A fell back to {held:?}\n{}", pair.log());
                assert!(std::time::Instant::now() < deadline, "neither equal nor reported:\n{}", pair.log());
                std::thread::sleep(Duration::from_millis(20));
            }
            if !is_equal(pair) {
                pair.b.sql(&format!("insert into {db}.d1 values ({T0}, {}, 2)", round + 200));
                settle_value(pair, &select, (round + 200) as f64);
            }
        }
    });
}

/// Waits until both sites answer `value`.
fn settle_value(pair: &mut Pair, sql: &str, value: f64) {
    let found = || [&pair.a, &pair.b].map(|site| site.sql(sql)[0][0].as_f64());
    wait_for(&format!("{value} of {sql}"), SETTLE, || found() == [Some(value); 2], || format!("{:?}\n{}", found(), pair.log()));
}

#[test]
fn a_change_that_the_target_refuses_is_parked_and_tried_again() {
    case("refused_change", |pair| {
        let db = pair.database.clone();
        meters(&pair.a, &db);
        pair.a.sql(&format!("insert into {db}.d1 using {db}.meters tags ('x', 1) values ({T0}, 1, 2)"));
        settle(pair);
        // A user's own topic at the target uses the column (FACTS F69).
        pair.b.sql(&format!("create topic users_own as select ts, voltage from {db}.meters"));
        pair.a.sql(&format!("alter stable {db}.meters drop column voltage"));
        pair.a.sql(&format!("insert into {db}.d1 values ({}, 5)", T0 + 1));
        let deadline = std::time::Instant::now() + SETTLE;
        while count(&pair.b, &format!("select count(*) from {db}.d1")) < 2 || !pair.log().contains("users_own") {
            assert!(std::time::Instant::now() < deadline, "rows wait, or the topic is not named:\n{}", pair.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        pair.b.sql("drop topic users_own");
    });
}

#[test]
fn schemaless_writes_grow_the_schema_at_either_side() {
    case("schemaless", |pair| {
        let db = pair.database.clone();
        let line = |site: &Site, line: String| pipeline_tests::insert_line(site, &db, &line).unwrap();
        line(&pair.a, format!("weather,city=a temp=1.5 {T0}"));
        settle(pair);
        line(&pair.b, format!("weather,city=b,zone=z1 temp=2.5,wind=3i32 {}", T0 + 1));
        settle(pair);
        line(&pair.a, format!("weather,city=a,zone=z2,lvl=7 temp=3.5,note=\"a long text that widens\" {}", T0 + 2));
        line(&pair.a, format!("weather,city=c temp=4.5,note=\"{}\" {}", "x".repeat(200), T0 + 3));
    });
}

/// The largest that a server takes: rows of 64 KiB, tables of 4,096 columns, and rows that have one time and differ in a second key.
#[test]
fn wide_tables_long_rows_and_composite_keys() {
    const COLUMNS: usize = 4_000;
    const LONG: usize = 65_000;
    case("large", |pair| {
        let db = pair.database.clone();
        let columns: String = (0..COLUMNS).map(|column| format!(", c{column} int")).collect();
        pair.a.sql(&format!("create table {db}.wide (ts timestamp{columns})"));
        pair.a.sql(&format!("create table {db}.long (ts timestamp, v varchar({LONG}))"));
        pair.a.sql(&format!("create stable {db}.keyed (ts timestamp, k int primary key, v int) tags (g int)"));
        pair.a.sql(&format!("create table {db}.k1 using {db}.keyed tags (1)"));
        settle(pair);
        for (at, site) in [pair.a.clone(), pair.b.clone()].into_iter().enumerate() {
            let values: String = (0..COLUMNS).map(|column| format!(", {}", column + at)).collect();
            site.sql(&format!("insert into {db}.wide values ({}{values})", T0 + at as i64));
            let text: String = (0..LONG).map(|place| char::from(b'a' + ((place + at) % 26) as u8)).collect();
            site.sql(&format!("insert into {db}.long values ({}, '{text}')", T0 + at as i64));
            // The same time at both sites, and one row of both.
            site.sql(&format!("insert into {db}.k1 values ({T0}, {at}, 1) ({T0}, {}, 2) ({T0}, 9, 3)", at + 2));
        }
        settle(pair);
        pair.b.sql(&format!("insert into {db}.k1 values ({T0}, 0, 7)"));
        settle(pair);
        for site in [&pair.a, &pair.b] {
            assert_eq!(count(site, &format!("select count(*) from {db}.wide where c0 = 1 and c3999 = 4000")), 1);
            assert_eq!(count(site, &format!("select count(*) from {db}.long where length(v) = {LONG}")), 2);
            assert_eq!(count(site, &format!("select count(*) from {db}.k1")), 5);
            assert_eq!(count(site, &format!("select v from {db}.k1 where k = 0")), 7);
        }
        pair.a.sql(&format!("delete from {db}.k1 where ts = {T0}"));
        settle(pair);
        assert_eq!(count(&pair.b, &format!("select count(*) from {db}.k1")), 0);
    });
}
