#!/usr/bin/env python3
"""Files: CSV to Parquet and NDJSON through a filter to NDJSON, against DuckDB and Polars in the same run.

    cargo build --release && pip install duckdb polars && tests/bench/files.py [--rows 2000000] [--rounds 3] [--binary PATH]

Each program runs in a process of its own, in another order each round; a figure is the median over the rounds. Rows a second are of the
wall's time from start to end of the process, processor time and the largest resident memory of that process and nothing else.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PIPELINES = {
    "CSV to Parquet": """
[pipeline.p]
source = { type = "files", path = "rows.csv" }
sink   = { type = "files", name = "out", path = "out/rows.parquet" }
""",
    "NDJSON, filter, NDJSON": """
[pipeline.p]
source    = { type = "files", path = "rows.ndjson" }
transform = { type = "where", condition = "current > 12 and state = 'on'" }
sink      = { type = "files", name = "out", path = "out/rows.ndjson" }
""",
}
DUCKDB = {
    "CSV to Parquet": "copy (select * from 'rows.csv') to 'duckdb.parquet' (format parquet)",
    "NDJSON, filter, NDJSON": "copy (select * from 'rows.ndjson' where current > 12 and state = 'on') to 'duckdb.ndjson' (format json)",
}
POLARS = {
    "CSV to Parquet": "pl.scan_csv('rows.csv', try_parse_dates=True).sink_parquet('polars.parquet', compression='snappy')",
    "NDJSON, filter, NDJSON": "pl.scan_ndjson('rows.ndjson')"
    ".filter((pl.col('current') > 12) & (pl.col('state') == 'on')).sink_ndjson('polars.ndjson')",
}


def make(folder: pathlib.Path, rows: int) -> None:
    """Seven columns: time, two numbers with and one without a fraction, two texts of few values, one of many."""
    with open(folder / "rows.csv", "w") as csv, open(folder / "rows.ndjson", "w") as ndjson:
        csv.write("ts,device,location,state,current,voltage,note\n")
        for n in range(rows):
            ts = f"2026-01-{n // 86_400 % 28 + 1:02}T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.{n % 1000:03}"
            device, location, state = f"d{n % 997}", f"site {n % 13}", "on" if n * 7 % 10 < 7 else "off"
            current, voltage, note = (n * 37 % 2000) / 100, 210 + n % 23, f"note {n * 2654435761 % 4294967296:x}"
            csv.write(f"{ts},{device},{location},{state},{current},{voltage},{note}\n")
            ndjson.write(
                f'{{"ts":"{ts}","device":"{device}","location":"{location}","state":"{state}",'
                f'"current":{current},"voltage":{voltage},"note":"{note}"}}\n'
            )


def run(command: list[str], folder: pathlib.Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and largest memory in MiB of a process."""
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command}: {error.decode()}")
    return time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def programs(case: str, folder: pathlib.Path, binary: str) -> dict[str, list[str]]:
    file = folder / "pipeline.toml"
    file.write_text(PIPELINES[case])
    subprocess.run(["rm", "-rf", folder / "out", folder / ".pipeline.state"], check=True)
    found = {"pipeline": [binary, "run", str(file), "--quiet"]}
    for name, code in [
        ("duckdb", f'import duckdb; duckdb.sql("""{DUCKDB[case]}""")'),
        ("polars", f"import polars as pl; {POLARS[case]}"),
    ]:
        if subprocess.run([sys.executable, "-c", f"import {name}"], stderr=subprocess.DEVNULL).returncode == 0:
            found[name] = [sys.executable, "-c", code]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default="target/release/pipeline")
    options = parser.parse_args()
    binary = str(pathlib.Path(options.binary).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make(folder, options.rows)
        print("| job | program | M rows/s | processor s | peak MiB | rows a processor s, to the best |")
        print("|---|---|---:|---:|---:|---:|")
        for case in PIPELINES:
            taken: dict[str, list[tuple[float, float, float]]] = {}
            for turn in range(options.rounds):
                order = list(programs(case, folder, binary).items())
                for program, command in order[turn % len(order):] + order[: turn % len(order)]:
                    programs(case, folder, binary)
                    taken.setdefault(program, []).append(run(command, folder))
            medians = {program: [statistics.median(column) for column in zip(*each)] for program, each in taken.items()}
            best = min(cpu for _, cpu, _ in medians.values())
            for program, (seconds, cpu, memory) in medians.items():
                rate = options.rows / seconds / 1e6
                print(f"| {case} | {program} | {rate:.2f} | {cpu:.2f} | {memory:.0f} | {best / cpu:.2f} |")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
