"""`er plan`: what `er train` with the same options would do and take, before it does any of it."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from er.config import CONF
from er.errors import UserError

if TYPE_CHECKING:
    from er.studies.planning import Setting, Total
    from er.studies.profile import Profile
    from er.studies.study import Study


def main() -> None:
    """Keep sweeps from Hydra, which would launch their points, and plan all of them in one go."""
    words = [word for word in sys.argv[1:] if word not in ("-m", "--multirun")]
    sys.argv[1:] = [*(word for word in words if not _sweeps(word)), "hydra.mode=RUN"]

    def command(cfg: DictConfig) -> None:
        """Plan; print it, and write it beside the runs."""
        logging.getLogger("er").setLevel(logging.WARNING)  # what each point and each timed build says is not for here
        plan(words, Path(cfg.paths.runs).expanduser(), cfg.trainer.progress)

    hydra.main(config_path=str(CONF), config_name="plan", version_base="1.3")(command)()


def _sweeps(word: str) -> bool:
    try:
        return OverridesParser.create().parse_overrides([word])[0].is_sweep_override()
    except HydraException:  # an option such as --help, or a mistake that Hydra will name
        return False


def plan(words: list[str], runs: Path, progress: bool) -> None:
    """Survey the points of the sweep, foresee what is to be done, and report it."""
    from er import results
    from er.studies import grid, planning
    from er.studies.foresee import foresee, profile_of
    from er.studies.study import Shelf, survey

    shelf, points = Shelf(), grid.points("train", words)
    study = survey(points, shelf, progress, "plan")
    if not study.runs:
        raise UserError("\n".join(["None of this can be run.", *impossible(study)]))
    profile = profile_of(study)
    settings = foresee(study.runs, shelf, profile)
    total = planning.total(settings)
    digest = hashlib.blake2b(json.dumps(points).encode(), digest_size=6).hexdigest()
    path = runs / "plan" / f"{digest}.json"
    results.write_text(path, json.dumps(record(words, study, settings, total, profile), indent=2, ensure_ascii=False))
    sys.stdout.write(f"{report(study, settings, total, profile)}\n\nevery figure: {path}\n")


def record(words: list[str], study: Study, settings: list[Setting], total: Total, profile: Profile) -> dict[str, Any]:
    """Return the plan as JSON can hold it."""
    from er import results
    from er.training.recycle import device_of

    return {
        "overrides": words,
        "points": study.points,
        "runs": len(study.runs),
        "done": sum(point.done for point in study.runs),
        "impossible": study.impossible,
        "settings": [asdict(setting) for setting in settings],
        "total": asdict(total),
        "profile": {"name": profile.name, "file": str(profile.path), "hardware": profile.hardware},
        "env": results.environment(str(device_of(study.runs[0].config))),
    }


def report(study: Study, settings: list[Setting], total: Total, profile: Profile) -> str:
    """Write the plan for people."""
    import pandas as pd

    from er.commands.bench import table
    from er.tables import common

    done = sum(point.done for point in study.runs)
    head = f"{study.points} points, {len(study.runs)} runs: {done} done, {len(study.runs) - done} to do"
    said, rows = common(pd.DataFrame([row(setting) for setting in settings]))
    named = [{str(name): value for name, value in each.items()} for each in rows.to_dict("records")]
    parts = [head + (f". All: {said}" if said else ""), table(named)]
    if done < len(study.runs):
        parts += [conclusion(settings, total), *worthless(settings), f"Timed on {profile}."]
    return "\n\n".join([*parts, *impossible(study)])


def row(setting: Setting) -> dict[str, Any]:
    """Return a row of the table: what is missing, and seconds an epoch."""
    from er.studies.planning import break_even

    about = {name: getattr(setting, name) for name in ("task", "model", "method", "cut", "arm", "storage")}
    counts = {"runs": setting.done + len(setting.epochs), "done": setting.done}
    epochs = {f"{arm} s": pace.epoch for arm, pace in setting.paces.items()}
    if not setting.recycles:
        return about | counts | epochs
    built = {"MB": setting.missing.bytes / 1e6, "build s": setting.missing.seconds}
    return about | counts | built | epochs | {"even after": break_even(setting, "finetune")}


def conclusion(settings: list[Setting], total: Total) -> str:
    """Say what all of it takes."""
    from er.speed import spoken

    most = max(epochs for setting in settings for epochs in setting.epochs)
    lines = [
        f"Up to {most} epochs a run; early stopping may need fewer. Seconds are those of an epoch of training; the "
        "times below also count evaluation, and what several settings share is built once.",
        f"To be stored: {total.bytes / 1e6:,.0f} MB, in {spoken(total.build)}.",
        f"In all: up to {spoken(total.recycled)} with recycling, {spoken(total.frozen)} with the frozen layers "
        f"recomputed, {spoken(total.finetune)} with everything trained instead.",
    ]
    return "\n".join(lines)


def worthless(settings: list[Setting]) -> list[str]:
    """Say where recycling does not pay, and why; nothing where it does everywhere."""
    from er.studies.planning import verdict

    found = [
        f"- {each.task}, {each.model}, {each.method}, cut at layer {each.cut}, {each.storage}: {reason}"
        for each in settings
        if each.recycles
        for base in ("finetune", "frozen")
        if (reason := verdict(each, base)) is not None
    ]
    return ["\n".join(["Recycling does not pay:", *found])] if found else []


def impossible(study: Study) -> list[str]:
    """Name the points that cannot be run, with the reason."""
    return [
        f"Impossible: {points[0]}{f' and {len(points) - 1} more' if len(points) > 1 else ''}\n  {reason}"
        for reason, points in study.impossible.items()
    ]
