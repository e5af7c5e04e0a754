#!/usr/bin/env python3
"""Files and MQTT against Telegraf, DuckDB and Polars in the same run: rows a second, processor time, largest memory.

    tests/bench/files.py                         # inputs of 1 GB, which it makes; about ten minutes once the peers are there
    tests/bench/files.py --size 100MB --rounds 1 --only "CSV to Parquet" --without telegraf

Builds the binary and the plugins (release) and, once, the peers: DuckDB and Polars from PyPI in an environment of their own, Telegraf from
its Go module, all in the target folder (`--peers` names another), all of the versions that stand below. MQTT needs `mosquitto`
and `mosquitto_pub`.

Each program runs in a process of its own with the same number of threads, in another order each round; a figure is the median over
the rounds, with the lowest and the highest beside it. DuckDB and Polars count from the start of the query to its end, the others from
the start of the process to its end. Telegraf keeps every row in memory before it writes one, so it gets a smaller file: what is compared
with it is rows a processor second. MQTT: messages of one row wait at the broker for a session of each program; counted is from its
start until all rows are in its file.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TELEGRAF = "v1.37.2"
# All of its plugins take hours to build: these are the ones that are used here.
TELEGRAF_TAGS = "custom,inputs.file,inputs.mqtt_consumer,outputs.file,parsers.csv,parsers.json,serializers.json"
PACKAGES = ["duckdb==2.0.1", "polars==2.1.0"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
# Bytes of a row that `make` writes, about.
ROW_BYTES = {"csv": 63, "ndjson": 135}
# mosquitto_pub waits for the acknowledgement of its last message by an id of 16 bits: with more it ends too early.
PUBLISHED_AT_ONCE = 60_000
# What is wanted: at least so many times Telegraf's rows a processor second; within the time of DuckDB; MiB at most.
WANTED_TELEGRAF, WANTED_DUCKDB, WANTED_MIB = 20, 1.0, 200

CONDITION = "current > 12 and state = 'on'"
CASES = {
    "CSV to Parquet": {
        "input": "csv",
        "pipeline": 'sink = { type = "files", name = "out", path = "out/rows.parquet" }',
        "duckdb": "copy (select * from 'rows.csv') to 'peer.out' (format parquet)",
        "polars": "pl.scan_csv('rows.csv', try_parse_dates=True).sink_parquet('peer.out', compression='snappy')",
    },
    "CSV, filter, NDJSON": {
        "input": "csv",
        "pipeline": f'transform = {{ type = "where", condition = "{CONDITION}" }}\n'
        'sink = { type = "files", name = "out", path = "out/rows.ndjson" }',
        "duckdb": f"copy (select * from 'rows.csv' where {CONDITION}) to 'peer.out' (format json)",
        "polars": "pl.scan_csv('rows.csv', try_parse_dates=True)"
        ".filter((pl.col('current') > 12) & (pl.col('state') == 'on')).sink_ndjson('peer.out')",
        "telegraf": True,
    },
    "NDJSON, filter, NDJSON": {
        "input": "ndjson",
        "pipeline": f'transform = {{ type = "where", condition = "{CONDITION}" }}\n'
        'sink = { type = "files", name = "out", path = "out/rows.ndjson" }',
        # Times stay texts, as they are for the others.
        "duckdb": "copy (select * from read_json('rows.ndjson', format = 'newline_delimited', columns = {ts: 'VARCHAR', device: 'VARCHAR', "
        f"location: 'VARCHAR', state: 'VARCHAR', current: 'DOUBLE', voltage: 'BIGINT', note: 'VARCHAR'}}) where {CONDITION}) "
        "to 'peer.out' (format json)",
        "polars": "pl.scan_ndjson('rows.ndjson').filter((pl.col('current') > 12) & (pl.col('state') == 'on')).sink_ndjson('peer.out')",
    },
}
MQTT = "MQTT to NDJSON"

# Seven columns: time, one number with and one without a fraction, four texts, of few and of many values.
ROWS = """
select strftime(make_timestamp(1767225600000000 + n * 1001000), '%Y-%m-%dT%H:%M:%S.%g') as ts, 'd' || (n % 997) as device,
    'site ' || (n % 13) as location, case when n * 7 % 10 < 7 then 'on' else 'off' end as state,
    ((n * 37 % 2000) / 100)::double as current, 210 + n % 23 as voltage, 'note ' || to_hex(n * 2654435761 % 4294967296) as note
from range({rows}) as numbers(n)
"""

TELEGRAF_FILE = """
[agent]
omit_hostname = true
metric_buffer_limit = {limit}
metric_batch_size = 10000
flush_interval = "100ms"
collection_jitter = "0s"
quiet = true
[[inputs.file]]
files = ["{folder}/telegraf.csv"]
data_format = "csv"
csv_header_row_count = 1
csv_tag_columns = ["device", "location", "state"]
csv_timestamp_column = "ts"
csv_timestamp_format = "2006-01-02T15:04:05.000"
metricpass = "fields.current > 12.0 && tags.state == 'on'"
[[outputs.file]]
files = ["{folder}/peer.out"]
data_format = "json"
"""

TELEGRAF_MQTT = """
[agent]
omit_hostname = true
metric_buffer_limit = {limit}
metric_batch_size = 10000
flush_interval = "200ms"
collection_jitter = "0s"
quiet = true
[[inputs.mqtt_consumer]]
servers = ["tcp://127.0.0.1:{port}"]
topics = ["meters/#"]
qos = 1
persistent_session = true
client_id = "telegraf"
max_undelivered_messages = 100000
data_format = "json"
tag_keys = ["device"]
json_string_fields = ["note"]
[[outputs.file]]
files = ["{folder}/peer.out"]
data_format = "json"
"""

PIPELINE_MQTT = """
[pipeline.p]
source = {{ type = "mqtt", url = "mqtt://127.0.0.1:{port}", topics = ["meters/#"], client-id = "pipeline" }}
sink   = {{ type = "files", name = "out", path = "out/rows.ndjson" }}
"""


def size(text: str) -> int:
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    return int(float(text[:-2]) * units[text[-2:].upper()])


def build(options: argparse.Namespace) -> dict[str, str]:
    """What there is to run: name to program."""
    programs = {"pipeline": options.binary}
    if not options.binary:
        packages = ["pipeline", "pipeline-plugin-files", "pipeline-plugin-basics", "pipeline-plugin-mqtt"]
        subprocess.run(["cargo", "build", "--release", *(part for it in packages for part in ("-p", it))], cwd=ROOT, check=True)
        programs["pipeline"] = str(options.target / "release/pipeline")
    peers = options.peers
    peers.mkdir(parents=True, exist_ok=True)
    # The input is made with DuckDB, too.
    python = peers / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", peers / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    programs |= {name: str(python) for name in ["duckdb", "polars"] if name not in options.without}
    programs["python"] = str(python)
    if "telegraf" not in options.without:
        telegraf = peers / f"telegraf-{TELEGRAF}"
        if not telegraf.exists():
            go = os.environ | {"GOBIN": str(peers / "go-bin")}
            subprocess.run(["go", "install", "-tags", TELEGRAF_TAGS, "-ldflags", "-s -w", f"github.com/influxdata/telegraf/cmd/telegraf@{TELEGRAF}"], env=go, check=True)
            shutil.move(peers / "go-bin/telegraf", telegraf)
        programs["telegraf"] = str(telegraf)
    return programs


def make(python: str, folder: pathlib.Path, options: argparse.Namespace) -> dict[str, int]:
    """Inputs, each with its rows."""
    rows = {name: options.size // row for name, row in ROW_BYTES.items()} | {"telegraf": min(options.telegraf_rows, options.size // ROW_BYTES["csv"])}
    copies = [(rows["csv"], "rows.csv", "format csv, header"), (rows["ndjson"], "rows.ndjson", "format json"), (rows["telegraf"], "telegraf.csv", "format csv, header")]
    code = "import duckdb\nduckdb.sql('set enable_progress_bar = false')\n" + "\n".join(
        f'duckdb.sql("""copy ({ROWS.format(rows=count)}) to \'{folder / name}\' ({how})""")' for count, name, how in copies
    )
    subprocess.run([python, "-c", code], check=True)
    for _, name, _ in copies:
        print(f"{name}: {(folder / name).stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    return rows


class Measured(tuple):
    """Seconds, processor seconds, largest memory in MiB."""


def finish(process: subprocess.Popen, begun: float, ended: float | None = None) -> Measured:
    error = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = (ended or time.monotonic()) - begun
    if process.returncode not in (0, -signal.SIGTERM):
        sys.exit(f"{process.args}: {process.returncode}\n{error[-2000:]}")
    return Measured((seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))


def start(command: list[str], folder: pathlib.Path, environment: dict[str, str] | None = None) -> subprocess.Popen:
    environment = os.environ | (environment or {})
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def query(python: str, code: str, folder: pathlib.Path, threads: int) -> Measured:
    """Runs Python that is one query, and measures the query alone."""
    body = f"""
import json, resource, time
import duckdb, polars as pl
duckdb.sql("set threads = {threads}; set enable_progress_bar = false")
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
begun, before = time.monotonic(), used()
{code}
print(json.dumps([time.monotonic() - begun, used() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
    environment = os.environ | {"POLARS_MAX_THREADS": str(threads)}
    done = subprocess.run([python, "-c", body], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{code}: {done.stderr[-2000:]}")
    return Measured(json.loads(done.stdout.splitlines()[-1]))


def clean(folder: pathlib.Path) -> None:
    for name in ["out", ".pipeline.state", "peer.out"]:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def run_file(case: str, program: str, programs: dict[str, str], folder: pathlib.Path, rows: dict[str, int], options: argparse.Namespace) -> Measured:
    what = CASES[case]
    clean(folder)
    begun = time.monotonic()
    match program:
        case "pipeline":
            source = f'source = {{ type = "files", path = "rows.{what["input"]}", threads = {options.threads} }}'
            (folder / "pipeline.toml").write_text(f'[pipeline.p]\n{source}\n{what["pipeline"]}\n')
            return finish(start([programs["pipeline"], "run", "pipeline.toml", "--quiet"], folder), begun)
        case "duckdb":
            return query(programs["duckdb"], f'duckdb.sql("""{what["duckdb"]}""")', folder, options.threads)
        case "polars":
            return query(programs["polars"], what["polars"], folder, options.threads)
        case _:
            (folder / "telegraf.conf").write_text(TELEGRAF_FILE.format(folder=folder, limit=rows["telegraf"] + 1))
            environment = {"GOMAXPROCS": str(options.threads)}
            return finish(start([programs["telegraf"], "--config", "telegraf.conf", "--once"], folder, environment), begun)


class Broker:
    """Mosquitto, which holds what waits for sessions in memory."""

    def __init__(self, folder: pathlib.Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\n")
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if not program or not shutil.which("mosquitto_pub"):
            sys.exit("MQTT needs `mosquitto` and `mosquitto_pub`: install mosquitto and mosquitto-clients, or leave it out with --only")
        self.process = subprocess.Popen([program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the broker", lambda: connects(self.port))

    def publish(self, messages: int) -> None:
        for first in range(0, messages, PUBLISHED_AT_ONCE):
            self.publish_some(range(first, min(first + PUBLISHED_AT_ONCE, messages)))

    def publish_some(self, numbers: range) -> None:
        row = '{{"device":"d{}","current":{},"voltage":{},"note":"note {:x}"}}\n'
        publisher = subprocess.Popen(["mosquitto_pub", "-p", str(self.port), "-q", "1", "-M", "100", "-l", "-t", "meters/a"], stdin=subprocess.PIPE, text=True)
        for n in numbers:
            publisher.stdin.write(row.format(n % 997, n * 37 % 2000 / 100, 210 + n % 23, n * 2654435761 % 4294967296))
        publisher.stdin.close()
        if publisher.wait() != 0:
            sys.exit("mosquitto_pub failed")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def connects(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(what: str, is_true, limit: float = 300) -> None:
    deadline = time.monotonic() + limit
    while not is_true():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {limit:.0f} s")
        time.sleep(0.01)


class Lines:
    """Ends of lines in files that grow."""

    def __init__(self, *places: pathlib.Path):
        self.places, self.read, self.count = places, {}, 0

    def __call__(self) -> int:
        for path in (path for place in self.places for path in (place.rglob("*") if place.is_dir() else [place])):
            # A part keeps its inode where it gets its name.
            if path.is_file() and path.suffix in (".part", ".ndjson", ".out"):
                with open(path, "rb") as file:
                    key = os.fstat(file.fileno()).st_ino
                    file.seek(self.read.get(key, 0))
                    while chunk := file.read(1 << 20):
                        self.count += chunk.count(b"\n")
                    self.read[key] = file.tell()
        return self.count


def run_mqtt(names: list[str], programs: dict[str, str], folder: pathlib.Path, options: argparse.Namespace) -> dict[str, Measured]:
    """One round: both have a session, the messages come, and each takes what waits for it."""
    broker = Broker(folder)
    (folder / "mqtt.toml").write_text(PIPELINE_MQTT.format(port=broker.port))
    (folder / "telegraf.conf").write_text(TELEGRAF_MQTT.format(port=broker.port, folder=folder, limit=options.messages + 1))
    commands = {"pipeline": [programs["pipeline"], "run", "mqtt.toml", "--quiet"], "telegraf": [programs.get("telegraf"), "--config", "telegraf.conf"]}
    environment = {"GOMAXPROCS": str(options.threads)}
    clean(folder)
    shutil.rmtree(folder / ".mqtt.state", ignore_errors=True)

    def runs(name: str, process: subprocess.Popen) -> None:
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode}: {process.stderr.read().decode(errors='replace')[-2000:]}")

    def until(name: str, count: int) -> Measured:
        (folder / "peer.out").unlink(missing_ok=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        lines, begun = Lines(folder / "out", folder / "peer.out"), time.monotonic()
        process = start(commands[name], folder, environment)

        def is_there() -> bool:
            runs(name, process)
            return lines() >= count

        wait_for(f"{name}: rows", is_there)
        ended = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return finish(process, begun, ended)

    found = {}
    try:
        for name in names:
            # A message that comes tells that the session is there.
            process = start(commands[name], folder, environment)
            lines = Lines(folder / "out", folder / "peer.out")

            def came() -> bool:
                runs(name, process)
                broker.publish(1)
                return lines() > 0

            wait_for(f"{name}: a session", came)
            process.send_signal(signal.SIGTERM)
            finish(process, time.monotonic())
            clean(folder)
        # What came for one while the other was tried is taken by it before.
        for name in names:
            broker.publish(1)
            until(name, 1)
        broker.publish(options.messages)
        for name in names:
            found[name] = until(name, options.messages)
    finally:
        broker.end()
    return found


def report(taken: dict[str, dict[str, list[Measured]]], rows: dict[str, int], options: argparse.Namespace) -> None:
    print(f"\n{options.threads} threads, {options.rounds} rounds: median (lowest to highest)\n")
    print("| job | program | M rows | M rows/s | M rows a processor s | peak MiB |")
    print("|---|---|---:|---:|---:|---:|")
    verdicts = []
    for case, programs in taken.items():
        medians = {}
        for program, measured in programs.items():
            count = options.messages if case == MQTT else rows["telegraf" if program == "telegraf" else CASES[case]["input"]]
            figures = [[count / seconds / 1e6 for seconds, _, _ in measured], [count / cpu / 1e6 for _, cpu, _ in measured], [memory for *_, memory in measured]]
            medians[program] = [statistics.median(it) for it in figures]
            shown = [f"{statistics.median(it):.{digits}f} ({min(it):.{digits}f} to {max(it):.{digits}f})" for it, digits in zip(figures, [2, 3, 0])]
            print(f"| {case} | {program} | {count / 1e6:.2f} | {' | '.join(shown)} |")
        ours = medians["pipeline"]
        checks = [(f"peak MiB ≤ {WANTED_MIB}", ours[2], ours[2] <= WANTED_MIB)]
        if "telegraf" in medians:
            ratio = ours[1] / medians["telegraf"][1]
            checks.append((f"rows a processor second / Telegraf ≥ {WANTED_TELEGRAF}", ratio, ratio >= WANTED_TELEGRAF))
        for peer in ["duckdb", "polars"]:
            if peer in medians:
                # Neighbours within a round are compared, as the machine changes from round to round.
                pairs = list(zip(programs["pipeline"], programs[peer]))
                wall, cpu = (statistics.median(other[at] / own[at] for own, other in pairs) for at in (0, 1))
                wanted = WANTED_DUCKDB if peer == "duckdb" else None
                checks.append((f"rows/s / {peer}" + (f" ≥ {wanted}" if wanted else ""), wall, wanted is None or wall >= wanted))
                checks.append((f"rows a processor second / {peer}", cpu, True))
        verdicts += [(case, *check) for check in checks]
    print("\n| job | figure, wanted | reached | |")
    print("|---|---|---:|---|")
    for case, what, value, is_reached in verdicts:
        print(f"| {case} | {what} | {value:.2f} | {'' if is_reached else 'missed'} |")
    print(f"\nload before and after: {options.load[0]:.1f}, {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    parser.add_argument("--size", type=size, default="1GB", help="of each input file: KB, MB, GB (default: 1GB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each program (default: as many as there are processors)")
    parser.add_argument("--telegraf-rows", type=int, default=1_000_000, help="of the file that Telegraf gets (default: 1000000)")
    parser.add_argument("--telegraf-rounds", type=int, default=2)
    parser.add_argument("--messages", type=int, default=300_000, help="of MQTT (default: 300000)")
    parser.add_argument("--mqtt-rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[*CASES, MQTT], help="a job; may be repeated")
    parser.add_argument("--without", action="append", default=[], choices=["telegraf", "duckdb", "polars"], help="a peer; may be repeated")
    parser.add_argument("--binary", type=lambda it: str(pathlib.Path(it).resolve()), help="instead of building one")
    parser.add_argument("--peers", type=lambda it: pathlib.Path(it).resolve(), default=target / "bench-files", help="where peers are kept")
    options = parser.parse_args()
    options.target, options.load = target, os.getloadavg()
    programs = build(options)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="work-", dir=options.peers))
    try:
        rows = make(programs["python"], folder, options)
        taken: dict[str, dict[str, list[Measured]]] = {}
        for case in options.only or [*CASES, MQTT]:
            measured = taken.setdefault(case, {})
            for turn in range(options.mqtt_rounds if case == MQTT else options.rounds):
                print(f"{case}: round {turn + 1}", file=sys.stderr)
                if case == MQTT:
                    names = [name for name in ["pipeline", "telegraf"] if name in programs]
                    for program, one in run_mqtt(names[turn % len(names) :] + names[: turn % len(names)], programs, folder, options).items():
                        measured.setdefault(program, []).append(one)
                    continue
                peers = [name for name in ["duckdb", "polars"] if name in programs]
                if "telegraf" in programs and CASES[case].get("telegraf") and turn < options.telegraf_rounds:
                    peers.append("telegraf")
                order = ["pipeline", *peers]
                for program in order[turn % len(order) :] + order[: turn % len(order)]:
                    measured.setdefault(program, []).append(run_file(case, program, programs, folder, rows, options))
        report(taken, rows, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
