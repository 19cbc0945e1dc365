"""Reasons of a refusal: what names a rule does so by a field, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from autodidact.types.cycle import RULES, Reason, Verdict, failed, lines, reasons_from_json

REASONS = (
    Reason("general", "+0.140 nat over the base: too far"),
    Reason("general", "and over the parent"),
    Reason("", "the study process ended with exit code 1: MemoryError"),
)


def test_reasons_come_back_from_json_as_they_were() -> None:
    stored = json.loads(json.dumps([asdict(reason) for reason in REASONS]))
    assert reasons_from_json(stored) == REASONS


def test_what_versions_before_wrote_as_one_text_is_read_too() -> None:
    assert reasons_from_json(list(lines(REASONS))) == REASONS
    for rule in RULES:
        assert reasons_from_json([f"{rule}: why"]) == (Reason(rule, "why"),)


@pytest.mark.parametrize("stored", [None, [], {}, "general: x"])
def test_where_no_reason_is_stored_there_is_none(stored: object) -> None:
    assert reasons_from_json(stored) == ()


def test_a_verdict_names_each_rule_once_and_tells_every_reason() -> None:
    verdict = Verdict(False, REASONS)
    assert verdict.rules == failed(REASONS) == ("general",)
    assert verdict.lines == (
        "general: +0.140 nat over the base: too far",
        "general: and over the parent",
        "the study process ended with exit code 1: MemoryError",
    )
