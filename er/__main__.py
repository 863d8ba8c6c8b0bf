"""`er VERB [Hydra overrides]`: finds the command and hands over."""

from __future__ import annotations

import importlib
import sys

VERBS = {
    "train": "one run: fill the cache, train above the cut, evaluate, write result.json; -m sweeps",
    "plan": "what `train` with the same options would take: disk, hours, and whether recycling pays; runs nothing",
    "search-cut": "how deep a model can be cut for a task: short runs at every layer, all from one pass",
    "cache": "fill the cache for one cut or several (cut=3,6,9); action=list, verify, prune, compact, push, pull",
    "bench": "time the arms of one model and cut, paired in one process",
    "predict": "predictions of trained runs for new texts, from the cache, filling what is missing",
    "export": "a trained run as a checkpoint or an adapter that plain transformers and adapters load",
    "report": "everything under a runs folder as tables, figures and one page, with warm and cold speedups",
}

USAGE = """\
er: embedding recycling. Run the lower layers of a language model once, train and predict from the cache.

usage: er VERB [GROUP=OPTION | KEY=VALUE ...] [-m]

{verbs}

er VERB --help lists the options of a verb; er VERB --cfg job shows the configuration that would run.
"""


def main() -> None:
    """Run `er` from the command line."""
    verb, *overrides = sys.argv[1:] or ["--help"]
    usage = USAGE.format(verbs="\n".join(f"  {name:12}{does}" for name, does in VERBS.items()))
    if verb in ("-h", "--help", "help"):
        sys.stdout.write(usage)
    elif verb in VERBS:
        # Hydra's parser takes no override behind a flag, yet `-m` is what one puts anywhere.
        sweep = [flag for flag in overrides if flag in ("-m", "--multirun")]
        sys.argv = [f"er {verb}", *(each for each in overrides if each not in sweep), *sweep]
        importlib.import_module(f"er.commands.{verb.replace('-', '_')}").main()
    else:
        sys.stderr.write(f"er: there is no verb {verb!r}; the verbs are {', '.join(VERBS)}.\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
