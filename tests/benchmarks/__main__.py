"""What an order costs, measured on real PostgreSQL beside a floor: ``make bench`` (`docs/benchmarks.md`).

CPU is what the kernel charged to the server's process and to PostgreSQL's while so many requests were
answered, divided by them. The load generator shares the machine: rates suffer from that, CPU does not.
"""

import argparse
import asyncio
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from distribu import Settings
from distribu.container import database
from tests.benchmarks.deliveries import RECEIVERS, Sent, deliveries
from tests.benchmarks.limits import TOGETHER, Check, checks, redis
from tests.benchmarks.machine import cpu_s, free_port, load, memory_mib, postmaster, started
from tests.benchmarks.shelf import Shelf, pgbench, stocked

CONNECTIONS: Final = 8
READY: Final = "/healthz"


@dataclass(frozen=True, slots=True)
class Spent:
    """What one request cost: milliseconds of CPU, and requests per second."""

    server_ms: float
    postgres_ms: float
    per_s: float

    @property
    def ms(self) -> float:
        return self.server_ms + self.postgres_ms


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table; ``reach`` is what it has to keep, ``goal`` what we want."""

    name: str
    value: float
    unit: str
    reach: float | None = None
    goal: float | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def kept(self) -> bool | None:
        if self.reach is None:
            return None
        return self.value >= self.reach if self.more_is_better else self.value <= self.reach


@dataclass(slots=True)
class Bench:
    """One run: where it measures, and what it found."""

    settings: Settings
    shelf: Shelf
    quick: bool
    spent: dict[str, Spent] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    found: list[Figure] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.settings.data_path

    def seconds(self, whole: float) -> float:
        return whole / 8 if self.quick else whole

    def request(self, method: str, path: str, body: str = "", headers: str = "") -> str:
        return (
            f"{method} {path} HTTP/1.1\r\nhost: distribu\r\nauthorization: Bearer {self.shelf.key}\r\n"
            f"{headers}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        )

    def orders(self, headers: str = "") -> list[str]:
        return [self.request("POST", "/api/v1/orders", body, headers) for body in self.shelf.bodies]

    def measure(
        self, what: str, pid: int, requests: list[str], port: int, seconds: float, status: int
    ) -> None:
        """Have requests answered for a while and note what each cost."""
        plan: dict[str, Any] = {"port": port, "connections": CONNECTIONS, "requests": requests}
        load(**plan, seconds=max(0.4, self.seconds(1)))  # every connection prepares its statements
        with self.counting(pid) as done:
            answers = load(**plan, seconds=self.seconds(seconds))
            done.update(answers)
        if set(answers["statuses"]) != {str(status)}:
            raise SystemExit(f"{what}: the answers were {answers['statuses']}")
        self.spent[what] = done["spent"]

    @contextmanager
    def counting(self, pid: int | None) -> Iterator[dict[str, Any]]:
        """Count CPU inside; needs ``count`` and ``per_s`` to be put into what it gives, adds ``spent``."""
        postgres = postmaster(self.data_dir)
        done: dict[str, Any] = {}
        server_s, postgres_s = cpu_s(pid) if pid else 0.0, cpu_s(postgres)
        yield done
        each = 1000 / done["count"]
        done["spent"] = Spent(
            ((cpu_s(pid) if pid else 0.0) - server_s) * each,
            (cpu_s(postgres) - postgres_s) * each,
            done["per_s"],
        )

    @contextmanager
    def serving(self, *options: str, **settings: str) -> Iterator[tuple[int, int, float]]:
        """Distribu as a process: its id, its port, and the seconds it took to answer."""
        port = free_port()
        arguments = ("serve", "--port", str(port), "--data-dir", str(self.data_dir), *options)
        with started("distribu", *arguments, port=port, path=READY, settings=settings) as (pid, cold_s):
            yield pid, port, cold_s


def run(bench: Bench, say: Callable[[str], None]) -> None:
    """Measure everything, floors and all."""
    say("the floor: routes that do nothing")
    port = free_port()
    with started("tests.benchmarks.floor", str(port), port=port, path="/nothing") as (pid, _):
        bench.measure("empty GET", pid, [bench.request("GET", "/nothing")], port, 3, 200)
        posts = [bench.request("POST", "/nothing", body) for body in bench.shelf.bodies]
        bench.measure("empty POST", pid, posts, port, 3, 201)
    say("pgbench with an order's statements")  # before other orders change the rows of this one
    with bench.counting(None) as done:
        seconds = round(bench.seconds(7)) or 1
        per_s = pgbench(bench.settings, bench.shelf.order, seconds)
        done.update(count=(per_s or 1) * seconds, per_s=per_s or 0)
    if per_s is not None:
        bench.spent["pgbench"] = done["spent"]
    with bench.serving("--no-worker") as (pid, port, cold_s):
        say("the key's own page")
        bench.measure("me", pid, [bench.request("GET", "/api/v1/me")], port, 5, 200)
        say("pages of 50 products")
        pages = [bench.request("GET", "/api/v1/products?limit=50")]
        bench.measure("page", pid, pages, port, 7, 200)
        say("orders of two lines")
        bench.measure("order", pid, bench.orders(), port, 12, 201)
        say("orders with an Idempotency-Key")
        bench.measure("keyed", pid, bench.orders("idempotency-key: %COUNT%\r\n"), port, 7, 201)
        say("one order at a time")
        idle = load(port=port, connections=1, requests=bench.orders(), seconds=bench.seconds(4), pause_s=0.01)
        memory = memory_mib(pid)
    say("orders with the worker beside")
    with bench.serving() as (pid, port, _):
        plan: dict[str, Any] = {"port": port, "connections": CONNECTIONS, "requests": bench.orders()}
        load(**plan, seconds=max(0.4, bench.seconds(1)))
        _wait_for_relay(bench.settings)
        with bench.counting(pid) as done:
            done.update(load(**plan, seconds=bench.seconds(6)))
            _wait_for_relay(bench.settings)
    bench.spent["worked"] = done["spent"]
    _limited(bench, say)
    say("webhooks")
    # In a house of its own: the mails of all those orders still wait in this one.
    with tempfile.TemporaryDirectory(prefix="distribu-bench-") as folder, _database(folder) as settings:
        sent = asyncio.run(deliveries(settings, 200 if bench.quick else 1_000))
    bench.found = figures(bench.spent, bench.checks, bench.shelf, sent, idle, memory, cold_s)


def _database(folder: str) -> AbstractContextManager[Settings]:
    return database(Settings(data_dir=folder, port=0))


def _limited(bench: Bench, say: Callable[[str], None]) -> None:
    """The key's own page again, with limits that nobody reaches, and what a check costs by itself."""
    limits = {f"DISTRIBU_API_LIMIT_PER_{what}": "1000000" for what in ("KEY", "IP")}
    me = [bench.request("GET", "/api/v1/me")]
    with tempfile.TemporaryDirectory(prefix="distribu-redis-") as folder, redis(Path(folder)) as server:
        for what, settings in (
            ("me, limited", limits),
            ("me, limited by Redis", limits | {"DISTRIBU_REDIS_URL": server.url}),
        ):
            say(what)
            with bench.serving("--no-worker", **settings) as (pid, port, _):
                bench.measure(what, pid, me, port, 5, 200)
        say("checks of limits")
        bench.checks = checks(server, bench.seconds(3))


def _wait_for_relay(settings: Settings) -> None:
    """Until the worker has taken everything out of the outbox: that is part of what an order costs."""
    with psycopg.connect(settings.queue_database_url or "", autocommit=True) as machine:
        while machine.execute("SELECT EXISTS (SELECT FROM distribu.outbox)").fetchone() == (True,):
            time.sleep(0.05)


def figures(
    spent: Mapping[str, Spent],
    checks: Mapping[str, Check],
    shelf: Shelf,
    sent: Sent,
    idle: Mapping[str, Any],
    memory: float,
    cold_s: float,
) -> list[Figure]:
    """The table, lines of a kind together."""
    cpu = "ms CPU"
    order, keyed, page, me = (spent[what] for what in ("order", "keyed", "page", "me"))
    worked, pgbench = spent["worked"], spent.get("pgbench")
    empty, taken = spent["empty GET"], spent["empty POST"]
    costs = shelf.costs

    def cpu_of(name: str, it: Spent, reach: float | None, goal: float | None, floor: Spent) -> list[Figure]:
        bare = "" if it is floor else f"{it.server_ms / floor.ms:.1f} x the floor"
        by_pgbench = f"{it.postgres_ms / pgbench.ms:.2f} x pgbench" if pgbench and floor is taken else ""
        return [
            Figure(name, it.ms, cpu, reach, goal),
            Figure("  server", it.server_ms, cpu, note=bare),
            Figure("  PostgreSQL", it.postgres_ms, cpu, note=by_pgbench),
        ]

    def check(name: str, it: Check, reach: float | None = None, goal: float | None = None) -> Figure:
        redis = f"and {it.redis_us:.0f} in Redis" if it.redis_us else ""
        return Figure(name, it.server_us, "us CPU", reach, goal, note=redis)

    def rate(name: str, it: Spent, reach: float, goal: float) -> Figure:
        return Figure(name, it.per_s, "/s", reach, goal, more_is_better=True)

    return [
        *cpu_of("order of two lines", order, 6.0, 3.0, taken),
        Figure("  round trips", costs["order"].round_trips, "", 4, 4, note="with the key's look-up"),
        Figure("  statements", costs["order"].statements, "", 16, 10),
        rate("  orders", order, 150, 400),
        Figure("  latency when idle, p50", idle["p50_ms"], "ms", note=f"p99 {idle['p99_ms']:.1f} ms"),
        *cpu_of("with an Idempotency-Key", keyed, 6.0, 3.0, taken),
        Figure("  round trips", costs["keyed"].round_trips, "", 4, 4),
        Figure("  statements", costs["keyed"].statements, "", 16, 10),
        Figure("with the worker beside", worked.ms, cpu, note="events relayed"),
        *cpu_of("page of 50 products", page, 1.8, 1.2, empty),
        Figure("  round trips", costs["page"].round_trips, ""),
        rate("  pages", page, 700, 1200),
        *cpu_of("GET /me", me, 0.8, 0.5, empty),
        Figure("  round trips", costs["me"].round_trips, ""),
        rate("  answers", me, 1200, 2000),
        Figure("  with limits, in process", spent["me, limited"].ms, cpu),
        Figure("  with limits, in Redis", spent["me, limited by Redis"].ms, cpu, note="Redis itself aside"),
        check("check of a limit, in process", checks["in process"]),
        check("  in Redis, alone", checks["alone"]),
        check(f"  in Redis, {TOGETHER} together", checks["together"], 120, 60),
        Figure("webhook sent", sent.worker_ms + sent.postgres_ms, cpu, note=f"to {RECEIVERS} receivers"),
        Figure("  worker", sent.worker_ms, cpu, note=f"{sent.worker_ms / sent.bare_ms:.1f} x the floor"),
        Figure("  PostgreSQL", sent.postgres_ms, cpu),
        Figure("  webhooks", sent.per_s, "/s", note="by one worker"),
        Figure(
            "  of the floor's",
            sent.per_s / sent.bare_per_s,
            "",
            None,
            0.5,
            more_is_better=True,
            note="rate against rate",
        ),
        Figure("memory of the server", memory, "MiB", 120, 90, note="after the run"),
        Figure("cold start to an answer", cold_s, "s", 2, 1, note="database running"),
        Figure("floor: empty GET", empty.server_ms, cpu, note=f"{empty.per_s:.0f}/s"),
        Figure("floor: empty POST", taken.server_ms, cpu, note=f"{taken.per_s:.0f}/s"),
        Figure("floor: a client that only posts", sent.bare_ms, cpu, note=f"{sent.bare_per_s:.0f}/s"),
        *([Figure("floor: pgbench", pgbench.ms, cpu, note=f"{pgbench.per_s:.0f}/s")] if pgbench else []),
    ]


def show(console: Console, found: list[Figure]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "measured", "", "reach", "goal", ""):
        table.add_column(name, justify="right" if name in ("measured", "reach", "goal") else "left")
    for it in found:
        colour = {None: "", True: "[green]", False: "[red]"}[it.kept]
        reach, goal = (_shown(target) for target in (it.reach, it.goal))
        table.add_row(it.name, f"{colour}{_shown(it.value)}", it.unit, reach, goal, f"[dim]{it.note}")
    console.print(table)


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) or value >= 50 else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 s: figures to look at, not to keep")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    console = Console(stderr=given.json)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="distribu-bench-") as data_dir,
        _database(data_dir) as settings,
        console.status("stocking a company") as status,
    ):
        bench = Bench(settings, asyncio.run(stocked(settings)), given.quick)
        run(bench, lambda what: status.update(f"measuring {what}"))
    about = f"Python {platform.python_version()}, {platform.machine()}, {CONNECTIONS} connections"
    if given.json:
        print(json.dumps({"about": about, "figures": [_plain(it) for it in bench.found]}, indent=1))
        return
    show(console, bench.found)
    console.print(f"[dim]{about}, {time.monotonic() - begun:.0f} s in all")


def _plain(it: Figure) -> dict[str, Any]:
    return {
        "name": it.name.strip(),
        "value": round(it.value, 3),
        "unit": it.unit,
        "reach": it.reach,
        "goal": it.goal,
        "kept": it.kept,
        "note": it.note,
    }


main()
