"""taos-ws-py as a writer: does what each line of standard input says, answers each with a line. See ../README.md.

usage: writer.py HOST:PORT DATABASE
"""

import sys

import taosws

ADDRESS, DATABASE = sys.argv[1:]


def connect():
    return taosws.connect(f"ws://root:taosdata@{ADDRESS}/{DATABASE}")


CONNECTION = connect()


def columns(time):
    return [
        taosws.millis_timestamps_to_column([time, time + 1]),
        taosws.floats_to_column([1.5, None]),
        taosws.ints_to_column([None, 221]),
    ]


def stmt(table, group, time):
    statement = CONNECTION.statement()
    statement.prepare("insert into ? using meters (place, grp) tags (?, ?) (ts, current, voltage) values (?, ?, ?)")
    statement.set_tbname(table)
    statement.set_tags([taosws.varchar_to_tag(table), taosws.big_int_to_tag(int(group))])
    statement.bind_param(columns(int(time)))
    statement.add_batch()
    statement.execute()
    statement.close()


def stmt2(table, group, time):
    statement = CONNECTION.stmt2_statement()
    statement.prepare("insert into ? using meters (place, grp) tags (?, ?) (ts, current, voltage) values (?, ?, ?)")
    tags = [taosws.varchar_to_tag(table), taosws.big_int_to_tag(int(group))]
    statement.bind([taosws.stmt2_bind_param_view(table_name=table, tags=tags, columns=columns(int(time)))])
    statement.execute()
    statement.close()


def line(text):
    CONNECTION.schemaless_insert(
        lines=[text],
        protocol=taosws.PySchemalessProtocol.Line,
        precision=taosws.PySchemalessPrecision.Millisecond,
        ttl=0,
        req_id=1,
    )


def do(action, rest):
    match action:
        case "sql":
            CONNECTION.execute(rest)
        case "count":
            return f" {next(iter(CONNECTION.query(rest)))[0]}"
        case "stmt":
            stmt(*rest.split())
        case "stmt2":
            stmt2(*rest.split())
        case "line":
            line(rest)
        case _:
            raise ValueError(f"unknown action {action}")
    return ""


print("ready", flush=True)
for request in sys.stdin:
    try:
        # A connection that was lost does not come back by itself.
        CONNECTION = CONNECTION or connect()
        print(f"ok{do(*request.rstrip().split(' ', 1))}", flush=True)
    except Exception as error:
        CONNECTION = None
        print(f"error {error}".replace("\n", " "), flush=True)
