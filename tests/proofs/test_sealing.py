"""A million records: sealed in batches, taken out, and checked offline with the public key alone."""

import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from distribu import Shop
from distribu.adapters import verify_export
from distribu.application.sealing import SEAL_BATCH, ExportAudit, head_view, recorded, sealing
from distribu.application.shapes import encode
from tests.contracts.sealing import heads_of
from tests.proofs.conftest import House
from tests.proofs.processes import superuser

RECORDS = 1_000_000

_FILL = """
WITH new AS (
    SELECT n, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id,
        one.person_id, one.body::json ->> 'person' AS person
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
        (SELECT person_id, body FROM distribu.records WHERE company_id = %(company)s LIMIT 1) AS one
), written AS (
    INSERT INTO distribu.records SELECT %(company)s, id, '2026-01-31T09:30:00Z', 'USER', 'u-1',
        'stock.adjusted', 'Product', n::text, person_id, '{"v":1,"id":"' || id || '","companyId":"'
        || %(company)s::text || '","at":"2026-01-31T09:30:00.000Z","actorType":"USER","actorId":"u-1",'
        || '"action":"stock.adjusted","entityType":"Product","entityId":"' || n || '","person":"' || person
        || '","metadata":{"quantity":-3,"reason":"ADJUSTED","note":"counted again","after":' || n || '}}'
    FROM new
)
INSERT INTO distribu.unsealed (company_id, record_id) SELECT %(company)s, id FROM new ORDER BY n
"""

_CHECK = """
import sys, time
sys.path.insert(0, {folder!r})
import verify_export
began = time.perf_counter()
code = verify_export.main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(f"{{time.perf_counter() - began:.1f}} s, {{int(peak) / 1024:.0f}} MiB")
sys.exit(code)
"""


async def test_a_million_records_are_sealed_and_checked_offline(house: House, tmp_path: Path) -> None:
    """At most 100 us each to seal, in batches, and a verifier whose memory does not grow."""
    shop = await Shop.open(house.distribu)
    ports = house.distribu.ports
    with superuser(house.data_dir) as root:
        root.execute("SET statement_timeout = 0")
        for first in range(1, RECORDS + 1, 100_000):
            given = {"company": shop.company.id, "first": first, "last": first + 99_999}
            root.execute(_FILL, given)
        root.execute("ANALYZE")

    began, count = perf_counter(), 0
    while True:
        now = ports.clock.now()
        make = sealing(ports.notary, now)
        sealed = await ports.seals.seal(make, recorded, limit=SEAL_BATCH, now=now, company_id=shop.company.id)
        if not sealed:
            break
        count += sealed
    cost_us = (perf_counter() - began) / count * 1e6
    assert count == RECORDS + 1
    print(f"\nsealing: {cost_us:.1f} us a record, in batches of {SEAL_BATCH}")
    assert cost_us < 100

    export, kept = tmp_path / "audit.jsonl", tmp_path / "head.json"
    kept.write_bytes(encode(head_view((await heads_of(shop))[-1])))
    began = perf_counter()
    with export.open("wb") as file:
        async for piece in await shop.execute(ExportAudit()):
            file.write(piece)
    size = export.stat().st_size
    print(f"export: {perf_counter() - began:.1f} s, {size / 2**20:.0f} MiB")

    shutil.copy(verify_export.__file__, tmp_path)
    key = ports.notary.keys[0].public
    said = _offline(export, kept, key)
    print(f"offline: {said.stdout.splitlines()[-1]}")
    assert said.returncode == 0, said.stdout
    assert said.stdout.startswith(f"{RECORDS + 2} records")
    assert float(said.stdout.split()[-2]) < 100, "MiB: the log itself is many times that"

    text = export.read_bytes()
    place = text.index(b'"entityId":"777777"')
    with export.open("r+b") as file:
        file.seek(place)
        file.write(b'"entityId":"777778"')
    said = _offline(export, kept, key)
    assert said.returncode == 1
    assert said.stdout.startswith("edited: record 00000000-0000-7000-8000-0000000bde31 at position 777777")


def _offline(export: Path, kept: Path, key: str) -> "subprocess.CompletedProcess[str]":
    """The one file, in a process that has nothing else of ours."""
    program = _CHECK.format(folder=str(export.parent))
    words = ["--key", key, "--head", str(kept), str(export)]
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=600
    )
