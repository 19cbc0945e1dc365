"""The other process of the reload part: publishes checkpoints beside a server that streams.

    python benchmarks/load/publisher.py PLAN.json RESULT.json

As nice as the learner (10) and without torch: the adapters lie ready in files. One version after
another is published, each once the one before is live; old ones are deleted as the learner does.
PLAN: `model`, `home`, `address`, `pid` of the server, `first` (number of the first version),
`count`, `config` and `weights` (files; the weights are taken in turn), `keep`, `settle_s`,
`quiet` (after this many reloads there are no quiet windows any more). RESULT, one entry a version,
times of time.monotonic: `publishing`, `published`, `live` (null: not within a minute), `quiet`
(a window as long as the reload's, without one, for comparison; null: none), `rss` and `pss` in MiB.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autodidact import checkpoints
from autodidact.models import bases
from benchmarks.load import servers, shapes

NICENESS = 10
LOOK_S = 0.1
LIVE_S = 60.0


def run(plan: dict[str, Any]) -> list[dict[str, Any]]:
    home = Path(plan["home"])
    base = bases.resolve(plan["model"], "", home, lambda line: None)
    config = Path(plan["config"]).read_bytes()
    weights = [Path(path).read_bytes() for path in plan["weights"]]
    rows = []
    for number in range(plan["count"]):
        version = plan["first"] + number
        row: dict[str, Any] = {"version": version, "publishing": time.monotonic(), "quiet": None}
        shapes.publish(home, base, version, config, weights[version % len(weights)])
        row["published"] = time.monotonic()
        row["live"] = _live(plan["address"], version)
        checkpoints.retain(home, plan["keep"])
        time.sleep(plan["settle_s"])
        row |= servers.memory_mib(plan["pid"])
        rows.append(row)
        if row["live"] is None:
            break
        if number < plan["quiet"]:
            since = time.monotonic()
            time.sleep(row["live"] + plan["settle_s"] - row["publishing"])
            row["quiet"] = [since, time.monotonic()]
    return rows


def _live(address: str, version: int) -> float | None:
    deadline = time.monotonic() + LIVE_S
    while time.monotonic() < deadline:
        if servers.health_of(address).get("version") == version:
            return time.monotonic()
        time.sleep(LOOK_S)
    return None


def main() -> None:
    plan, result = (Path(argument) for argument in sys.argv[1:3])
    os.nice(NICENESS)
    result.write_text(json.dumps(run(json.loads(plan.read_text("utf-8")))), "utf-8")


if __name__ == "__main__":
    main()
