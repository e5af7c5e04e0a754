"""The unmodified Python client taos-ws-py 0.7.0 against the server that TDENGINE names (HOST:PORT)."""

import os
import time

import pytest
import taosws

ADDRESS = os.environ["TDENGINE"]
T0 = 1_780_000_000_000


@pytest.fixture
def db(request):
    name = "py_" + request.node.name.removeprefix("test_")
    connection = taosws.connect(f"ws://root:taosdata@{ADDRESS}")
    connection.execute(f"drop topic if exists topic_{name}")
    connection.execute(f"drop database if exists {name}")
    connection.execute(f"create database {name} vgroups 2 wal_retention_period 3600")
    connection.execute(f"use {name}")
    yield connection, name
    connection.close()


def rows(connection, sql):
    return [tuple(row) for row in connection.query(sql)]


def connect_to(name):
    return taosws.connect(f"ws://root:taosdata@{ADDRESS}/{name}")


def test_query(db):
    connection, _ = db
    connection.execute(
        "create table t (ts timestamp, b bool, i tinyint, s smallint, n int, l bigint, ui int unsigned, f float, d double,"
        " v varchar(20), w nchar(10), x varbinary(8))"
    )
    assert connection.execute(f"insert into t values ({T0}, true, -1, -2, -3, -4, 5, 1.5, 2.5, 'ab', '涛思', '\\x0102')") == 1
    assert connection.execute(f"insert into t (ts, n) values ({T0 + 1}, 7) ({T0 + 2}, null)") == 2
    got = rows(connection, "select b, i, s, n, l, ui, f, d, v, w from t order by ts")
    assert got[0] == (True, -1, -2, -3, -4, 5, 1.5, 2.5, "ab", "涛思")
    assert got[1] == (None, None, None, 7, None, None, None, None, None, None)
    assert rows(connection, "select count(*), sum(n) from t") == [(3, 4)]
    with pytest.raises(taosws.QueryError, match="(?i)0x2662|0x2603|table does not exist"):
        connection.query("select * from missing")


def test_cursor(db):
    connection, name = db
    connection.execute("create table t (ts timestamp, n int)")
    cursor = connect_to(name).cursor()
    cursor.execute("insert into t values ({}, {})".format(T0, 5))
    cursor.execute("select n from t")
    assert cursor.fetchall() == [(5,)]


def test_stmt(db):
    connection, name = db
    connection.execute("create stable s (ts timestamp, n int, v varchar(10)) tags (g int)")
    stmt = connect_to(name).statement()
    stmt.prepare("insert into ? using s tags (?) values (?, ?, ?)")
    for table in range(2):
        stmt.set_tbname(f"t{table}")
        stmt.set_tags([taosws.int_to_tag(table)])
        stmt.bind_param(
            [
                taosws.millis_timestamps_to_column([T0, T0 + 1]),
                taosws.ints_to_column([1, None]),
                taosws.varchar_to_column(["a", None]),
            ]
        )
        stmt.add_batch()
    assert stmt.execute() == 4
    stmt.close()
    assert sorted(rows(connection, "select g, count(*), count(n), count(v) from s group by g")) == [(0, 2, 1, 1), (1, 2, 1, 1)]


@pytest.mark.skipif(os.environ.get("TDENGINE_STMT2") == "no", reason="this server has no stmt2")
def test_stmt2(db):
    connection, name = db
    connection.execute("create stable s (ts timestamp, n int, v nchar(10)) tags (g int, p varchar(10))")
    stmt = connect_to(name).stmt2_statement()
    stmt.prepare("insert into ? using s tags (?, ?) values (?, ?, ?)")
    stmt.bind(
        [
            taosws.stmt2_bind_param_view(
                table_name=f"t{table}",
                tags=[taosws.int_to_tag(table), taosws.varchar_to_tag("p")],
                columns=[
                    taosws.millis_timestamps_to_column([T0, T0 + 1]),
                    taosws.ints_to_column([table, None]),
                    taosws.nchar_to_column(["涛", None]),
                ],
            )
            for table in range(3)
        ]
    )
    assert stmt.execute() == 6
    stmt.close()
    assert rows(connection, "select count(*), count(n), count(v), sum(n) from s") == [(6, 3, 3, 3)]
    query = connect_to(name).stmt2_statement()
    query.prepare("select n from s where g = ?")
    query.bind([taosws.stmt2_bind_param_view(table_name="", tags=None, columns=[taosws.ints_to_column([2])])])
    query.execute()
    assert sorted((tuple(row) for row in query.result_set()), key=str) == [(2,), (None,)]
    query.close()


def test_schemaless(db):
    connection, name = db
    client = connect_to(name)
    client.schemaless_insert(
        lines=[f"weather,city=a temp=1.5,n=3i32 {T0}", f"weather,city=b temp=2.5 {T0 + 1}"],
        protocol=taosws.PySchemalessProtocol.Line,
        precision=taosws.PySchemalessPrecision.Millisecond,
        ttl=0,
        req_id=7,
    )
    assert sorted(rows(connection, "select city, temp from weather")) == [("a", 1.5), ("b", 2.5)]
    client.schemaless_insert(
        lines=[f"weather,city=a,zone=z temp=3.5,more=true {T0 + 2}"],
        protocol=taosws.PySchemalessProtocol.Line,
        precision=taosws.PySchemalessPrecision.Millisecond,
        ttl=0,
        req_id=8,
    )
    assert rows(connection, "select zone, more from weather where more is not null") == [("z", True)]


def consumer(topic, group, **more):
    made = taosws.Consumer(
        conf={
            "td.connect.websocket.scheme": "ws",
            "td.connect.ip": ADDRESS.split(":")[0],
            "td.connect.port": ADDRESS.split(":")[1],
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
            **more,
        }
    )
    made.subscribe([topic])
    return made


def drain(of, wanted, commit=False):
    """So many rows, within a minute, and what comes until nothing does for half a second; iterating a message empties it, so a commit
    comes before."""
    got, count, until = [], 0, time.monotonic() + 60
    while time.monotonic() < until:
        message = of.poll(timeout=0.5)
        if message is None:
            if count >= wanted:
                return got
            continue
        topic = message.topic()
        if commit:
            of.commit(message)
        for block in message:
            fetched = list(block.fetchall())
            got.append((topic, fetched))
            count += len(fetched)
    return got


def test_tmq(db):
    connection, name = db
    connection.execute("create stable s (ts timestamp, n int) tags (g int)")
    connection.execute(f"create topic topic_{name} as select ts, n from s")
    for table in range(4):
        connection.execute(f"insert into t{table} using s tags ({table}) values ({T0}, {table}) ({T0 + 1}, {table})")
    first = consumer(f"topic_{name}", "g1")
    got = drain(first, 8, commit=True)
    values = sorted(row[1] for _, block in got for row in block)
    assert values == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {topic for topic, _ in got} == {f"topic_{name}"}
    assignments = first.assignment()[0].assignments()
    assert len(assignments) == 2
    assert f"topic_{name}" in first.list_topics()
    for lane in assignments:
        # All that was handed out was committed; behind it stand at most entries that are nobody's to read.
        committed = first.committed(f"topic_{name}", lane.vg_id())
        assert lane.begin() < committed <= first.position(f"topic_{name}", lane.vg_id())
    for lane in assignments:
        first.seek(f"topic_{name}", lane.vg_id(), lane.begin())
    again = sorted(row[1] for _, block in drain(first, 8) for row in block)
    assert again == values
    first.unsubscribe()
    connection.execute(f"insert into t0 values ({T0 + 9}, 99)")
    second = consumer(f"topic_{name}", "g1")
    assert [row[1] for _, block in drain(second, 1) for row in block] == [99]
    second.unsubscribe()


def test_tmq_with_meta(db):
    connection, name = db
    connection.execute(f"create topic topic_{name} with meta as database {name}")
    connection.execute("create stable s (ts timestamp, n int) tags (g int)")
    connection.execute(f"insert into t0 using s tags (1) values ({T0}, 5)")
    connection.execute("alter stable s add column m int")
    connection.execute(f"insert into t0 values ({T0 + 1}, 6, 7)")
    of = consumer(f"topic_{name}", "g1")
    got = [row for _, block in drain(of, 2) for row in block]
    assert sorted(row[1] for row in got) == [5, 6]
    of.unsubscribe()
