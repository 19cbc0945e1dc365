"""`python -m autodidact prove`: options, the folder, and the order of things. Loads no torch until
it works."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autodidact import settings as all_settings
from autodidact.errors import SettingError
from autodidact.proof import plan
from autodidact.proof.work import Work
from autodidact.settings import Settings

DEFAULT_MINUTES = 10.0


def prove(
    documents: Annotated[Path, typer.Option(help="JSON lines with title and text.")],
    questions: Annotated[
        Path, typer.Option(help="JSON lines with document, question, answers (and context).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of this proof; the same one goes on.")],
    articles: Annotated[int, typer.Option(min=4, help="Half taught, half control.")] = 8,
    questions_per_article: Annotated[
        int, typer.Option(min=0, help="At most this many are asked; 0 asks all.")
    ] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="How often lots are drawn.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, help="Training minutes of an arm.")
    ] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Minutes for everything; sets --minutes.")
    ] = None,
    cycles: Annotated[
        int, typer.Option(min=1, help="Teach in so many consecutive cycles on one adapter.")
    ] = 1,
    controls: Annotated[
        str, typer.Option(help="Of placebo, shuffled-within, shuffled-between, naive, aa.")
    ] = "naive,aa",
    model: Annotated[str | None, typer.Option(help="Base model; default as the learner.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="CPU threads; 0: all.")] = None,
    estimate: Annotated[bool, typer.Option(help="Say how long it takes, and stop.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Prove on articles and human questions that it learns: taught against control, by lot."""
    if minutes is not None and budget_minutes is not None:
        raise SettingError("--minutes and --budget-minutes: give one of them")
    if minutes is None and budget_minutes is None:
        minutes = DEFAULT_MINUTES
    tree = all_settings.load(config, model=model)
    parameters = {
        "articles": articles,
        "questions_per_article": questions_per_article,
        "seeds": seeds,
        "minutes": minutes,
        "budget_minutes": budget_minutes,
        "cycles": cycles,
        "controls": _controls(controls),
    }
    begun = time.monotonic()
    try:
        _prove(tree, documents, questions, out, parameters, threads, estimate, begun)
    except KeyboardInterrupt:
        _say("interrupted: the same command goes on from here")
        raise typer.Exit(130) from None


def main(argv: list[str]) -> None:
    """The command with these arguments, as a program of its own would take them."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(prove)
    app(args=argv, standalone_mode=False)


def _prove(
    tree: Settings,
    documents: Path,
    questions: Path,
    out: Path,
    parameters: dict[str, Any],
    threads: int | None,
    estimate: bool,
    begun: float,
) -> None:
    work = Work(out)
    protocol, facts = _prepared(tree, documents, questions, work, parameters, threads, estimate)
    budget = parameters["budget_minutes"]
    budget_s = None if budget is None else budget * 60 - (time.monotonic() - begun)
    minutes = parameters["minutes"]
    trained = sum(arm.kind != "naive" for arm in protocol.material.arms)
    whole_s = 2 * 60 * trained * minutes if budget_s is None else budget_s
    costs = _costs(protocol, whole_s, keep=not estimate)
    if minutes is None:
        minutes = plan.minutes_left(
            protocol.units(costs, 0.0), protocol.material.arms, budget_s or 0.0
        )
    everything = protocol.units(costs, minutes)
    whole = sum(unit.seconds for unit in everything) / 60
    asked = sum(map(len, protocol.material.items.values()))
    _say(
        f"estimate: {whole:.0f} minutes for {len(protocol.material.arms)} arms with {minutes:.1f} "
        f"minutes of training each, and {asked} questions"
    )
    _say(f"of these: {_shares(everything)}")
    if budget is not None and whole > budget * 1.02:
        _say(
            f"that is more than the {budget:g} minutes given: an arm trains "
            f"{plan.LEAST_MINUTES:g} minutes at least; ask fewer questions to save time"
        )
    if estimate:
        return
    facts["minutes"] = protocol.run(costs, parameters["minutes"], budget_s)
    _report(work, protocol, facts, begun)


def _prepared(
    tree: Settings,
    documents: Path,
    questions: Path,
    work: Work,
    parameters: dict[str, Any],
    threads: int | None,
    estimate: bool,
) -> tuple[Any, dict[str, Any]]:
    """The protocol on the loaded model, and what the result says about both."""
    from autodidact.models import bases
    from autodidact.proof import data, protocol

    def arms(titles: Any) -> list[plan.TrialArm]:
        return plan.arms(
            titles, parameters["articles"], parameters["seeds"], parameters["cycles"],
            parameters["controls"],
        )  # fmt: skip

    def read(fits: Any) -> Any:
        return protocol.material(
            documents, questions, arms, parameters["questions_per_article"], fits,
            "placebo" in parameters["controls"],
        )  # fmt: skip

    read(lambda dialogue: True)  # what is wrong with the files is said before a model is fetched
    fixed = (tree.home / "base.json").exists()
    home = tree.home if fixed else work.folder
    base = bases.resolve(tree.model, tree.revision, home, _say, tree.rounding)
    identity = {
        **parameters,
        "documents": data.digest(documents),
        "questions": data.digest(questions),
        "model": base.name,
        "model_sha256": base.sha256,
        "training": protocol.settings_of(tree.training),
    }
    if not estimate:
        work.begin(identity)

    from autodidact import engine as engines
    from autodidact.models import loading
    from autodidact.models.prompts import dialogue_ids
    from autodidact.proof.arms import School
    from autodidact.training import anchors

    count = loading.threads_for(tree.training.threads if threads is None else threads, spare=True)
    loaded = loading.load(base.path, count)
    _quiet()
    _say(loaded.description)
    engine = engines.Engine(loaded)
    school = School(engine, tree.training, autocast=loading.half_precision_pays(engine.base))

    def fits(dialogue: Any) -> bool:
        room = protocol.window(loaded.context) // 2 - protocol.REPLY_ROOM
        return len(dialogue_ids(loaded, dialogue)[0]) <= room

    made = protocol.Protocol(school, read(fits), work, _say, protocol.wikitext_path())
    facts = {
        "parameters": identity,
        "model": {
            "name": base.name, "sha256": base.sha256, "parameters": loaded.parameters,
            "description": loaded.description, "context": loaded.context,
            "recipe": {"rank": school.recipe.rank, "learning_rate": school.recipe.learning_rate,
                       "batch_size": school.recipe.batch_size,
                       "kl_weight": school.recipe.kl_weight},
        },
    }  # fmt: skip
    if work.has("anchors"):
        school.use(anchors.read(work.get("anchors")["anchors"]))
    return made, facts


def _quiet() -> None:
    """Keep from the terminal what libraries tell programmers: of texts longer than the context,
    which are cut later, and of names that change. After the import, which sets levels itself."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft)\.")


def _costs(protocol: Any, budget_s: float, *, keep: bool) -> plan.Costs:
    from autodidact.proof import estimate as trials
    from autodidact.training import anchors

    work: Work = protocol.work
    if work.has("trial"):
        return plan.Costs(**work.get("trial")["costs"])
    _say("trying out how long everything takes")
    begun = time.monotonic()
    costs = trials.trial(protocol, budget_s)
    if work.has("anchors"):
        protocol.school.use(anchors.read(work.get("anchors")["anchors"]))
    if keep:
        work.put("trial", {"costs": costs, "seconds": time.monotonic() - begun})
    return plan.Costs(**costs)


def _report(work: Work, protocol: Any, facts: dict[str, Any], begun: float) -> None:
    from autodidact.proof import page, plots, results
    from autodidact.proof.work import write

    _say("analysing")
    permute = "aa" in facts["parameters"]["controls"]
    result = results.collect(work, protocol.material, facts, permute=permute)
    write(work.folder / "result.json", result)
    plots.draw(result, work.folder)
    (work.folder / "report.md").write_text(page.markdown(result), encoding="utf-8")
    minutes = (time.monotonic() - begun) / 60
    _say(f"done after {minutes:.1f} minutes (this run): {work.folder / 'report.md'}")


def _shares(units: Sequence[plan.Unit]) -> str:
    """Minutes by kind of work."""
    minutes: dict[str, float] = {}
    for unit in units:
        minutes[unit.what] = minutes.get(unit.what, 0.0) + unit.seconds / 60
    return ", ".join(f"{what} {value:.1f}" for what, value in minutes.items())


def _controls(given: str) -> list[str]:
    named = [name.strip() for name in given.split(",") if name.strip()]
    for name in named:
        if name not in plan.CONTROLS:
            raise SettingError(f"--controls: {name[:40]!r} is none of {', '.join(plan.CONTROLS)}")
    return [name for name in plan.CONTROLS if name in named]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
