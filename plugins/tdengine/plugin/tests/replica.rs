//! Two pipelines of source and sink between two sites, driven by hand: the smallest engine that can be, so that what is
//! tested is the components. The sites are two embedded nodes, or whatever `PIPELINE_TEST_SITES` names (`A,B`).

mod rig;

use rig::{Rig, rows_of};

/// Writes at both sites and expects both to hold the same in the end, and nothing to come back.
async fn check(name: &str, setup: &[(usize, &str)], steps: &[(usize, &str)], queries: &[&str]) {
    let rig = Rig::start(name).await;
    for (site, sql) in setup {
        rig.exec(*site, sql).await;
    }
    rig.replicate().await;
    for (site, sql) in steps {
        rig.exec(*site, sql).await;
        rig.settle().await;
    }
    rig.assert_equal(queries).await;
    rig.assert_quiet().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_creates_and_alters_go_both_ways() {
    check(
        "basic",
        &[],
        &[
            (0, "create stable DB.s (ts timestamp, v int, n nchar(8)) tags (a int, b varchar(8))"),
            (0, "create table DB.c1 using DB.s tags (1, 'x')"),
            (0, "insert into DB.c1 values (1700000000000, 1, '涛')(1700000001000, NULL, NULL)"),
            (1, "create table DB.c2 using DB.s tags (NULL, 'it\\'s \"q\"')"),
            (1, "insert into DB.c2 values (1700000000000, 2, 'b')"),
            (1, "insert into DB.c3 using DB.s tags (3, NULL) values (1700000000000, 3, 'c')"),
            (1, "alter stable DB.s add column w double"),
            (0, "insert into DB.c1 (ts, w) values (1700000000000, 0.5)"),
            (0, "alter stable DB.s modify column n nchar(20)"),
            (1, "insert into DB.c2 (ts, n) values (1700000002000, 'twelve chars')"),
            (0, "alter table DB.c2 set tag a = 9"),
            (1, "delete from DB.c1 where ts = 1700000001000"),
            (0, "create table DB.n (ts timestamp, x bigint unsigned)"),
            (0, "insert into DB.n values (1700000000000, 18446744073709551615)"),
            (1, "alter table DB.n add column y varchar(4)"),
            (1, "insert into DB.n values (1700000001000, 1, 'y')"),
        ],
        &["select tbname, * from DB.s order by tbname, ts", "select * from DB.n order by ts"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_do_not_bounce_onto_what_was_made_again() {
    check(
        "drops",
        &[],
        &[
            (0, "create stable DB.s (ts timestamp, v int) tags (a int)"),
            (0, "insert into DB.c1 using DB.s tags (1) values (1700000000000, 1)"),
            (1, "drop table DB.c1"),
            (1, "insert into DB.c1 using DB.s tags (2) values (1700000000000, 2)"),
            (0, "drop stable DB.s"),
            (0, "create stable DB.s (ts timestamp, v int, w int) tags (a int)"),
            (1, "insert into DB.c1 using DB.s tags (3) values (1700000000000, 3, 3)"),
        ],
        &["select tbname, * from DB.s order by tbname, ts"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_in_another_order_land_where_they_belong() {
    check(
        "tagorder",
        &[],
        &[
            (0, "create stable DB.s (ts timestamp, v int) tags (a int)"),
            (0, "alter stable DB.s add tag lvl int"),
            (1, "alter stable DB.s add tag zone int"),
            (0, "insert into DB.c1 using DB.s (a, lvl, zone) tags (1, 2, 3) values (1700000000000, 1)"),
            (1, "insert into DB.c2 using DB.s (a, lvl, zone) tags (4, 5, 6) values (1700000000000, 1)"),
        ],
        &["select tbname, ts, v, a, lvl, zone from DB.s order by tbname, ts"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_with_a_condition_on_tags_takes_only_what_it_took() {
    check(
        "tagdelete",
        &[],
        &[
            (0, "create stable DB.s (ts timestamp, v int) tags (a int)"),
            (0, "insert into DB.c1 using DB.s tags (1) values (1700000000000, 1) DB.c2 using DB.s tags (2) values (1700000000000, 2)"),
            (1, "delete from DB.s where ts >= 1700000000000 and a = 1"),
        ],
        &["select tbname, * from DB.s order by tbname, ts"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_too_long_to_be_raw_is_still_exact() {
    let table = "t".repeat(180);
    let steps = [
        format!("create table DB.{table} (ts timestamp, v int)"),
        format!("insert into DB.{table} values (1700000000000, 1)(1700000001000, 2)(1700000002000, 3)"),
        format!("delete from DB.{table} where ts <= 1700000001000"),
        format!("insert into DB.{table} values (1700000000000, 4)"),
        format!("delete from DB.{table} where ts >= 1700000002000"),
    ];
    let steps: Vec<(usize, &str)> = [0, 0, 1, 0, 0].into_iter().zip(steps.iter().map(String::as_str)).collect();
    check("longdelete", &[], &steps, &[&format!("select * from DB.{table} order by ts")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_update_from_both_sides_keeps_both() {
    check(
        "partial",
        &[],
        &[
            (0, "create table DB.t (ts timestamp, a int, b int)"),
            (0, "insert into DB.t (ts, a) values (1700000000000, 1)"),
            (1, "insert into DB.t (ts, b) values (1700000000000, 2)"),
            (0, "insert into DB.t (ts, b) values (1700000000000, NULL)"),
            (0, "insert into DB.t (ts, a) values (1700000000000, 5)"),
        ],
        &["select * from DB.t order by ts"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let rig = Rig::start("restart").await;
    rig.replicate().await;
    rig.exec(0, "create table DB.t (ts timestamp, a int)").await;
    rig.exec(0, "insert into DB.t values (1700000000000, 1)").await;
    rig.settle().await;
    rig.halt().await;
    rig.exec(0, "insert into DB.t values (1700000001000, 2)").await;
    rig.exec(1, "insert into DB.t values (1700000002000, 3)").await;
    rig.replicate().await;
    rig.settle().await;
    rig.assert_equal(&["select * from DB.t order by ts"]).await;
    assert_eq!(rows_of(&rig, 0, "select * from DB.t").await.len(), 3);
    rig.stop().await;
}
