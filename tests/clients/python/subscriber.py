"""taos-ws-py as a subscription of a user's own: `poll` is answered with `ok` and the rows that came, `TABLE,NUMBER` each.

usage: subscriber.py HOST:PORT "TOPIC [GROUP]"
"""

import sys

import taosws

ADDRESS, NAMES = sys.argv[1:]
TOPIC, *GROUP = NAMES.split()
HOST, PORT = ADDRESS.split(":")
CONSUMER = taosws.Consumer(
    conf={
        "td.connect.websocket.scheme": "ws",
        "td.connect.ip": HOST,
        "td.connect.port": PORT,
        "group.id": GROUP[0] if GROUP else "users_own",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": "false",
    }
)
CONSUMER.subscribe([TOPIC])


def poll():
    message = CONSUMER.poll(timeout=0.2)
    if message is None:
        return ""
    # Iterating a message empties it, so a commit comes before.
    CONSUMER.commit(message)
    return "".join(f" {table},{number}" for block in message for table, number in block.fetchall())


print("ready", flush=True)
for _ in sys.stdin:
    try:
        print(f"ok{poll()}", flush=True)
    except Exception as error:
        print(f"error {error}".replace("\n", " "), flush=True)
