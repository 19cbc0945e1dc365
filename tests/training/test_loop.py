"""The one training loop: any loss, any pace, stopped anywhere and gone on with."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from autodidact.models.loading import LoadedBase
from autodidact.training import loop
from autodidact.training.anchors import Anchor
from autodidact.training.feed import FixedOrder
from autodidact.training.objectives import AnswerLoss
from autodidact.training.pace import Clock
from autodidact.training.passes import Passes
from autodidact.training.recipe import Recipe
from autodidact.training.sequences import TrainingSequence
from autodidact.training.sft import Trainer

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(
    rank=4, learning_rate=0.01, batch_size=2, kl_weight=0.5, anchor_tokens=24, autocast=False,
    seed=3,
)  # fmt: skip
ANCHORS = [Anchor(tuple((7 * i + j * j) % 300 + 5 for j in range(24))) for i in range(6)]
ROWS = [TrainingSequence((5, 6 + i, 9), (-100, 6 + i, 9), "question", 1) for i in range(4)]
EARLY = [TrainingSequence((5, 40, 41), (-100, 40, 41), "question", 1)]


@dataclass(frozen=True)
class Steps:
    """So many steps, the first ones early; more or fewer once the pace is known."""

    steps: int
    first: int = 0
    later: int | None = None

    def fraction(self, clock: Clock) -> float:
        return clock.step / clock.steps

    def early(self, clock: Clock) -> bool:
        return clock.step < self.first

    def corrected(self, clock: Clock, recent_s: Sequence[float]) -> int:
        return self.later if self.later is not None and clock.step >= 2 else clock.steps


def feed() -> FixedOrder[TrainingSequence]:
    batches = itertools.cycle([ROWS[:2], ROWS[2:], ROWS[1:3]])
    return FixedOrder(itertools.repeat(EARLY), batches)


def trainer(llama: LoadedBase) -> Trainer[TrainingSequence]:
    return Trainer(llama, AnswerLoss(), RECIPE, ANCHORS)


def weights(of: Trainer[TrainingSequence]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in of.parameters.values()]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_stopped_and_gone_on_with_equals_undisturbed(
    llama: LoadedBase, tmp_path: Path, stop_at: int
) -> None:
    pace = Steps(6, first=2)
    whole = trainer(llama)
    clock, ended = loop.train(whole, feed(), pace, tmp_path / "a", lambda *_: None, None)
    assert ended
    assert (clock.step, clock.early, clock.steps) == (6, 2, 6)

    stop = threading.Event()

    def follow(clock: Clock, recent_s: Sequence[float]) -> None:
        if clock.step == stop_at:
            stop.set()

    first = trainer(llama)
    halted, ended = loop.train(first, feed(), pace, tmp_path / "b", follow, stop)
    assert not ended
    assert halted.step == stop_at
    second = trainer(llama)
    told: list[int] = []
    resumed, ended = loop.train(
        second, feed(), pace, tmp_path / "b", lambda c, _: told.append(c.step)
    )
    assert ended
    assert told == list(range(stop_at + 1, 7))
    assert resumed.losses == clock.losses
    assert resumed.began_at == halted.began_at
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_what_is_waited_before_a_step_is_no_time_of_it(llama: LoadedBase, tmp_path: Path) -> None:
    told: list[float] = []
    begun = time.monotonic()
    clock, _ = loop.train(
        trainer(llama), feed(), Steps(4), tmp_path / "r",
        lambda _, recent_s: told.append(recent_s[-1]), before_step=lambda: time.sleep(0.5),
    )  # fmt: skip
    assert time.monotonic() - begun >= 2.0
    assert clock.trained_s == pytest.approx(sum(told))
    assert clock.trained_s <= time.monotonic() - begun - 2.0


@pytest.mark.parametrize("after", [0, 2])
def test_asked_to_stop_while_it_waits_no_further_step_is_done(
    llama: LoadedBase, tmp_path: Path, after: int
) -> None:
    stop = threading.Event()
    told: list[int] = []

    def before_step() -> None:
        if len(told) == after:
            stop.set()

    clock, ended = loop.train(
        trainer(llama), feed(), Steps(6), tmp_path / "r",
        lambda clock, _: told.append(clock.step), stop, before_step,
    )  # fmt: skip
    assert not ended
    assert clock.step == len(told) == after
    assert trainer(llama).restore(tmp_path / "r")[0].step == after
    assert (tmp_path / "r").exists() == bool(after), "nothing was done, nothing is left behind"


def test_a_save_that_was_cut_off_between_its_two_moves_is_found(
    llama: LoadedBase, tmp_path: Path
) -> None:
    made = trainer(llama)
    made.step(ROWS, 0.5)
    made.save(tmp_path / "resume", Clock(step=1))
    (tmp_path / "resume").rename(tmp_path / "resume.new")
    assert trainer(llama).restore(tmp_path / "resume") == (Clock(step=1), "")


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("keep", [0, 30, None])
def test_a_damaged_state_is_begun_anew(
    llama: LoadedBase, tmp_path: Path, file: str, keep: int | None
) -> None:
    made = trainer(llama)
    made.step(ROWS, 0.5)
    made.save(tmp_path / "resume", Clock(step=1))
    path = tmp_path / "resume" / file
    path.unlink() if keep is None else path.write_bytes(path.read_bytes()[:keep])
    again = trainer(llama)
    before = weights(again)
    assert again.restore(tmp_path / "resume") == (Clock(), "")
    assert all(torch.equal(a, b) for a, b in zip(weights(again), before, strict=True))


def test_a_state_that_another_version_left_is_begun_anew(llama: LoadedBase, tmp_path: Path) -> None:
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "state.json").write_text('{"step": 9, "random": []}')
    assert trainer(llama).restore(tmp_path / "resume") == (Clock(), "")


@pytest.mark.parametrize(("planned", "later"), [(8, 4), (3, 6)])
def test_the_pace_is_corrected_on_the_way(
    llama: LoadedBase, tmp_path: Path, planned: int, later: int
) -> None:
    clock, ended = loop.train(
        trainer(llama), feed(), Steps(planned, later=later), tmp_path / "r", lambda *_: None
    )
    assert ended
    assert clock.step == clock.steps == later


@dataclass(frozen=True)
class Preference:
    """One reply that is to become likelier than another."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


class PreferenceLoss:
    """Another loss on another kind of rows (Rafailov et al. 2023, without its reference term)."""

    right: Sequence[bool] = ()

    def shares(self, batch: Sequence[Preference]) -> Sequence[float]:
        return [1 / len(batch)] * len(batch)

    def __call__(self, passes: Passes, batch: Sequence[Preference]) -> torch.Tensor:
        margin = self._likelihood(passes, [p.chosen for p in batch])
        margin = margin - self._likelihood(passes, [p.rejected for p in batch])
        return -F.logsigmoid(margin).mean()

    def _likelihood(self, passes: Passes, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        logits = passes.logits(rows, [range(len(row) - 1) for row in rows]).log_softmax(-1)
        tokens = torch.tensor([token for row in rows for token in row[1:]])
        said = logits.gather(-1, tokens[:, None])[:, 0].split([len(row) - 1 for row in rows])
        return torch.stack([row.sum() for row in said])


def test_another_loss_goes_through_the_same_loop(llama: LoadedBase, tmp_path: Path) -> None:
    pairs = [Preference((5, 60, 61), (5, 70, 71)), Preference((5, 62), (5, 72, 73))]
    loss = PreferenceLoss()
    learner = Trainer(llama, loss, RECIPE, ANCHORS)
    clock, ended = loop.train(
        learner, FixedOrder(iter(()), itertools.repeat(pairs)), Steps(12), tmp_path / "r",
        lambda *_: None,
    )  # fmt: skip
    assert ended
    assert clock.losses[-1] < clock.losses[0] / 2
