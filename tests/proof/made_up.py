"""Six invented articles with questions, small enough for a tiny model and a few seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = ("Ardle", "Brenn", "Corvik", "Dunmere", "Elsby", "Farrow")
SHIPS = ("Heron", "Plover", "Curlew", "Dunlin", "Avocet", "Bittern")


def articles() -> list[dict[str, str]]:
    made = []
    for i, name in enumerate(NAMES):
        text = (
            f"{name} Mill is a water mill in the valley of {name}. It was built in {1701 + 13 * i} "
            f"by {SHIPS[i]} Holt. The mill has {4 + i} stones and a wheel of oak. Its owner is "
            f"{SHIPS[-1 - i]} Marsh. It was sold in {1850 + 7 * i}."
        )
        made.append({"title": f"{name} Mill", "text": text})
    return made


def questions() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for i, name in enumerate(NAMES):
        title = f"{name} Mill"
        rows = [
            ("In what year was it put up?", [str(1701 + 13 * i)]),
            ("Who put it up?", [f"{SHIPS[i]} Holt", f"the miller {SHIPS[i]} Holt"]),
            ("How many stones turn in it?", [str(4 + i)]),
            ("To whom does it belong?", [f"{SHIPS[-1 - i]} Marsh"]),
            ("In what year did it change hands?", [str(1850 + 7 * i)]),
            ("Of what is the wheel?", ["oak"]),
        ]
        for n, (question, answers) in enumerate(rows):
            made.append({"document": title, "id": f"{i}-{n}", "question": question,
                         "answers": answers})  # fmt: skip
    made[0]["context"] = "Ardle Mill was built in 1701."
    return made


def write(folder: Path) -> tuple[Path, Path]:
    """documents.jsonl and questions.jsonl in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "documents.jsonl", folder / "questions.jsonl"
    for path, rows in zip(paths, (articles(), questions()), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths
