"""What `er cache` does with a cache that is there: list, verify, prune, compact, push, pull."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import time

import pandas as pd
from tqdm import tqdm

from er.cache import amounts
from er.cache.compact import compact
from er.cache.drop import keep_only
from er.cache.prune import Candidate, candidates, delete, plan
from er.cache.quota import check_quota
from er.cache.spaces import Listed, chosen, foreign, readable, size, spaces, unreadable
from er.cache.transfer import Travelled, pull, push
from er.cache.verify import examine, repair
from er.choices import Action
from er.config import Config
from er.errors import UserError

OPTIONS = {
    "space": {Action.verify, Action.prune, Action.compact, Action.push, Action.pull},
    "repair": {Action.verify},
    "older_than": {Action.prune},
    "max_bytes": {Action.prune},
    "dry_run": {Action.prune},
    "run": {Action.prune},
    "input": {Action.prune},
    "url": {Action.push, Action.pull},
}
"""What may be set for which actions; elsewhere it would mean nothing."""


def act(config: Config) -> None:
    """Do what `action` says; where not all of it could be done, that is an error."""
    for option, actions in OPTIONS.items():
        if getattr(config, option) and config.action not in actions:
            belongs = ", ".join(sorted(action.name for action in actions))
            raise UserError(f"{option} means nothing for action={config.action.name}: it belongs to {belongs}.")
    ACTIONS[config.action](config)


def show(config: Config) -> None:
    """Write the table of spaces."""
    sys.stdout.write(table(_root(config)))


def verify(config: Config) -> None:
    """Read everything, name what is damaged, lost or not ours, and drop the damaged if that is wanted."""
    verdict = examine(chosen(_root(config), config.space), config.trainer.progress)
    sys.stdout.write(f"{verdict}{_strangers(_root(config))}")
    wrong = f"{len(verdict.damaged)} damaged and {len(verdict.lost)} missing"
    if verdict.whole:
        sys.stdout.write(f"{verdict.segments} segments, {_bytes(verdict.bytes)}: every byte is as it was written\n")
    elif config.repair:
        repair(verdict)
        sys.stdout.write(f"{wrong}: dropped, the next run that wants their entries builds them\n")
    else:
        raise UserError(
            f"{wrong}: `er cache action=verify repair=true` drops them, and the next run builds them again."
        )


def prune(config: Config) -> None:
    """Say which spaces go, and delete them; or, given a corpus, which entries."""
    if config.input or config.run:
        prune_entries(config)
        return
    if not (config.space or config.older_than or config.max_bytes):
        raise UserError(
            "action=prune deletes nothing without being told what: add space=BEGINNING (of a name in action=list), "
            "older_than=30d (not used since), or max_bytes=50GB (the longest unused, until the cache is no larger); or "
            "drop the entries of texts that are gone, with run=RUN input=CORPUS."
        )
    root = _root(config)
    age = amounts.age(config.older_than, "older_than") if config.older_than else 0
    keep = amounts.size(config.max_bytes, "max_bytes") if config.max_bytes else None
    found = candidates(root, config.space, age)
    going = plan(found, float("inf") if keep is None else size(root) - keep)
    for each in going:
        sys.stdout.write(f"{'would delete' if config.dry_run else 'deleting'} {_said(each)}\n")
    busy = [each for each in found if each.busy]
    if not config.dry_run:
        busy += [each for each in going if not delete(each.directory)]
    sys.stdout.write("".join(f"in use, kept: {_said(each)}\n" for each in busy))
    left = size(root) - (sum(each.bytes for each in going) if config.dry_run else 0)
    sys.stdout.write(f"{_bytes(left)} {'would remain' if config.dry_run else 'remain'} in {root}\n{_strangers(root)}")
    if keep is not None and left > keep:
        raise UserError(
            f"{_bytes(left)} are more than max_bytes={config.max_bytes}: the rest is in use, or not activations."
        )
    if config.space and busy:
        raise UserError(f"space={config.space} is in use: try again when the runs that read it have ended.")


def prune_entries(config: Config) -> None:
    """Drop from the spaces of these runs all entries but those of the texts that the corpus still has."""
    from er.commands.predict import STANDARD, files_of, rows_of
    from er.serving.predict import Predictor
    from er.serving.trained import load_run
    from er.serving.wanted import wanted
    from er.tasks import readers

    source = config.input
    if not config.run or source is None or source == STANDARD or config.space or config.older_than or config.max_bytes:
        raise UserError(
            "action=prune run=DIR input=CORPUS keeps what a run needs to answer these texts: name a file or a folder, "
            "and run=DIR, or run=[A,B] for several, and nothing else that says what goes."
        )
    trained = [load_run(run) for run in ([config.run] if isinstance(config.run, str) else config.run)]
    known = readers(trained[0].config.task)
    files = files_of(source, known)
    for directory, keys in wanted(Predictor(trained, config), rows_of(files, known)).items():
        done = keep_only(directory, keys, config.cache.segment_mb << 20, config.dry_run, config.trainer.progress)
        went = "would go" if config.dry_run else "went"
        sys.stdout.write(f"{directory.name[:12]}: {done.gone} entries {went}, {done.kept} of this corpus remain\n")


def merge(config: Config) -> None:
    """Merge the small segments of each space."""
    for directory in readable(chosen(_root(config), config.space)):
        done = compact(directory, config.cache.segment_mb << 20, config.trainer.progress)
        sys.stdout.write(f"{directory.name[:12]}: {done.before} segments, now {done.after}\n")


def send(config: Config) -> None:
    """Send what is not at `url` yet."""
    found = chosen(_root(config), config.space)
    if not found:
        raise UserError(f"No activations in {_root(config)}, so there is nothing to send.")
    sys.stdout.write(_told("sent", push(found, _url(config), config.trainer.progress)))


def fetch(config: Config) -> None:
    """Fetch what is not here yet."""
    root = _root(config)
    done = pull(
        root,
        _url(config),
        config.space,
        lambda need: check_quota(root, need, config.cache.max_bytes),
        config.trainer.progress,
    )
    sys.stdout.write(_told("fetched", done))


ACTIONS: dict[Action, Callable[[Config], None]] = {
    Action.list: show,
    Action.verify: verify,
    Action.prune: prune,
    Action.compact: merge,
    Action.push: send,
    Action.pull: fetch,
}


def table(root: Path) -> str:
    """Write what a cache holds: its spaces as a table, and what cannot be read or is not ours."""
    found = spaces(root)
    rest = "".join(f"{line}\n" for line in unreadable(root)) + _strangers(root)
    if not found:
        return f"no activations in {root}\n{rest}"
    shown = pd.DataFrame([row(each) for each in found]).to_markdown(index=False, tablefmt="simple")
    total = sum(each.bytes for each in found)
    return f"{shown}\n{len(found)} spaces, {_bytes(total)} in {root}\n{rest}{_hint(found)}"


def row(listed: Listed) -> dict[str, object]:
    """Say what a space is and holds."""
    space = listed.space
    return {
        "space": listed.directory.name[:12],
        "model": listed.model,
        "k": space.cut_layer,
        "computed in": space.compute_dtype,
        "stored as": space.storage_dtype,
        "entries": listed.entries,
        "tokens": listed.tokens,
        "size": _bytes(listed.bytes),
        "age": _ago(listed.created),
        "last used": f"{_ago(listed.used)} ago",
    }


def _hint(found: list[Listed]) -> str:
    damaged = sum(each.damaged for each in found)
    return f"{damaged} segments are damaged: `er cache action=verify` names them.\n" if damaged else ""


def _strangers(root: Path) -> str:
    return "".join(f"not ours, left alone: {path}\n" for path in foreign(root))


def _said(each: Candidate) -> str:
    return f"{each.directory.name[:12]}, {_bytes(each.bytes)}, last used {_ago(each.used)} ago"


def _told(did: str, done: Travelled) -> str:
    return f"{done.segments} segments {did}, {_bytes(done.bytes)}; {done.there} were there already\n"


def _ago(when: float) -> str:
    """The time since then, in its largest unit."""
    seconds = max(0.0, time() - when)
    unit = next((unit for unit in ("d", "h", "min") if seconds >= amounts.AGES[unit]), "min")
    return f"{seconds / amounts.AGES[unit]:.0f} {unit}"


def _bytes(count: int) -> str:
    return f"{tqdm.format_sizeof(count)}B"


def _url(config: Config) -> str:
    if not config.url:
        raise UserError(f"action={config.action.name} needs a place: url=s3://bucket/folder, or url=file:///mnt/share.")
    return config.url


def _root(config: Config) -> Path:
    return Path(config.paths.cache).expanduser()
