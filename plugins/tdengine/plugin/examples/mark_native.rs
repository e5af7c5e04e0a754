use std::time::{Duration, Instant};
use pipeline_tdengine::client::{SocketLimits, Subscription};
use pipeline_tdengine::transport::{Connection, Consumer};
use pipeline_tdengine::dsn::Dsn;
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (from, to) = (Dsn::parse(&a[1]).unwrap(), Dsn::parse(&a[2]).unwrap());
    let db = &a[3];
    let limits = SocketLimits::default();
    let sql = Connection::open(&from, None, limits).await.unwrap();
    println!("place {}", sql.place());
    println!("{:?}", sql.query("select id, version from information_schema.ins_cluster").await.unwrap().texts());
    println!("bad: {}", sql.exec("selec 1").await.unwrap_err());
    println!("missing: {}", sql.exec(&format!("insert into {db}.nope values (now, 1)")).await.unwrap_err());
    println!("wrong password: {}", Connection::open(&Dsn::parse(&a[1].replace("taosdata", "wrong")).unwrap(), None, limits).await.err().unwrap());
    for s in [format!("drop topic if exists t_{db}"), format!("drop database if exists {db}"), format!("create database {db} vgroups 2 wal_retention_period 3600"),
        format!("create stable {db}.s (ts timestamp, v int, n nchar(8)) tags (a int)"),
        format!("insert into {db}.c1 using {db}.s tags (1) values (1700000000000, 1, '涛') (1700000001000, NULL, 'x')"),
        format!("create topic t_{db} with meta as database {db}")] { println!("{} <- {s}", sql.exec(&s).await.unwrap()); }
    let mut n = 0;
    let r = sql.query_each(&format!("select * from {db}.s order by ts"), |r, b| { n += b.rows(); println!("{:?}", r.fields().unwrap()); Ok(()) }).await.unwrap();
    println!("each {n} {}", r.fields_count);
    println!("{:?}", sql.query(&format!("select * from {db}.s order by ts")).await.unwrap().texts().unwrap());
    let target = Connection::open(&to, None, limits).await.unwrap();
    for s in [format!("drop database if exists {db}"), format!("create database {db} vgroups 2 wal_retention_period 3600"), format!("drop topic if exists x_{db}"), format!("create topic x_{db} with meta as database {db}")] {
        if s.starts_with("drop topic") { continue }
        target.exec(&s).await.unwrap(); }
    let target = Connection::open(&to, Some(db), limits).await.unwrap();
    let sub = |topic: String, exclude| Subscription { topic, group: format!("g{}", std::process::id()), client: "c".into(), exclude_marked: exclude, from_oldest: true, session_timeout: None };
    let t = Instant::now();
    let mut consumer = Consumer::subscribe(&from, &sub(format!("t_{db}"), true), limits).await.unwrap();
    println!("subscribed {:?}", t.elapsed());
    println!("assignment {:?}", consumer.assignment().await);
    let vgroups: Vec<i32> = consumer.assignment().await.unwrap().iter().map(|v| v.vgroup_id).collect();
    println!("committed {:?} position {:?}", consumer.committed(&vgroups).await, consumer.position(&vgroups).await);
    for v in consumer.assignment().await.unwrap() { println!("seek {:?}", consumer.seek(v.vgroup_id, v.begin).await); }
    let t = Instant::now();
    while t.elapsed() < Duration::from_secs(3) {
        if let Some(m) = consumer.poll(Duration::from_millis(200)).await.unwrap() {
            consumer.start_poll(Duration::from_millis(200));
            println!("vg {} kind {} raw_type {} bytes {} offset {} json {:?}", m.vgroup, m.kind, m.raw_type, m.raw.len(), m.offset, m.json);
            println!("  written {:?} position {:?}", target.write_raw(&m.raw).await, consumer.position(&[m.vgroup]).await);
        }
    }
    for v in &vgroups { let at = consumer.position(&[*v]).await.unwrap()[0]; println!("commit {v} {at} {:?} {:?}", consumer.commit_offset(*v, at).await, consumer.commit_offset(*v, at).await); }
    println!("committed {:?} beyond {:?}", consumer.committed(&vgroups).await, consumer.commit_offset(vgroups[0], 1 << 40).await);
    println!("target {:?}", target.query(&format!("select tbname, * from {db}.s order by ts")).await.unwrap().texts().unwrap());
    let mut b = Consumer::subscribe(&to, &sub(format!("x_{db}"), true), limits).await.unwrap();
    target.exec(&format!("create table {db}.c2 using {db}.s tags (2)")).await.unwrap();
    let t = Instant::now(); let mut seen = 0;
    while t.elapsed() < Duration::from_secs(3) { if let Some(m) = b.poll(Duration::from_millis(100)).await.unwrap() { seen += 1; println!("excluded consumer at target: {} {:?}", m.raw_type, m.json); } }
    println!("seen {seen} (1 = the control only)");
    // latency
    let mut total = vec![];
    for i in 0..20 {
        consumer.start_poll(Duration::from_millis(1000));
        tokio::time::sleep(Duration::from_millis(30)).await;
        let t = Instant::now();
        sql.exec(&format!("insert into {db}.c1 values ({}, {i}, NULL)", 1700000002000i64 + i * 1000)).await.unwrap();
        let w = t.elapsed();
        loop { if consumer.poll(Duration::from_millis(1000)).await.unwrap().is_some() { break } }
        total.push((w, t.elapsed()));
    }
    total.sort_by_key(|t| t.1);
    println!("latency median {:?} max {:?}", total[10], total[19]);
    let t = Instant::now(); drop(consumer); drop(b); println!("dropped in {:?}", t.elapsed());
    tokio::time::sleep(Duration::from_secs(4)).await;
    println!("{:?} {:?}", sql.exec(&format!("drop topic t_{db}")).await, target.exec(&format!("drop topic x_{db}")).await);
    println!("{:?} {:?}", sql.exec(&format!("drop database {db}")).await, target.exec(&format!("drop database {db}")).await);
}
