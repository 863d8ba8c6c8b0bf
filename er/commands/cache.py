"""`er cache`: fill the cache for one cut or several, and show what it holds."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from er.checks import cut_layer, settings
from er.config import CONF, Action, Config, Model
from er.errors import UserError

if TYPE_CHECKING:
    from er.cache.spaces import Listed

log = logging.getLogger(__name__)

SEVERAL = re.compile(r"cut=([\d.]+(?:,[\d.]+)+)")


def main() -> None:
    """Read `cut=3,6,9` as a list, as `cut=[3,6,9]` is: without -m, Hydra would refuse it."""
    if not {"-m", "--multirun"} & set(sys.argv):
        sys.argv = [SEVERAL.sub(r"cut=[\1]", word) if SEVERAL.fullmatch(word) else word for word in sys.argv]
    command()


@hydra.main(config_path=str(CONF), config_name="cache", version_base="1.3")
def command(cfg: DictConfig) -> None:
    """Do what `action` says."""
    config = settings(cfg)
    if config.action is Action.list:
        sys.stdout.write(table(Path(config.paths.cache).expanduser()))
    else:
        build(config)


def build(config: Config) -> None:
    """Make sure that the activations of the task exist at every cut; the layers run once."""
    import torch

    from er import encoders
    from er.tasks import load_task
    from er.training.cuts import fill_cuts
    from er.training.data import Tokens
    from er.training.run import data_folder, tokenized

    model, given = recycled(config)
    depth = encoders.depth(encoders.load_config(model))
    cuts = sorted({cut_layer(cut, depth) for cut in given})
    if cuts[0] == 0:
        raise UserError(f"cut={given}: layer 0 is the embeddings, which cost nothing to compute. Set it to 1 or more.")
    splits = tokenized(config, load_task(config.task, data_folder(config)))
    tokens = Tokens.joined([split.tokens for split in splits.values()])
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    torch.manual_seed(config.seed)  # where model.random asks for random weights, they are those of the run
    for cache in fill_cuts(encoders.load_model(model), cuts, tokens, config, device):
        where = cache.locate(tokens.keys())
        count, size = len(set(tokens.keys().tolist())), cache.nbytes(where) / 1e6
        place = f"{model.name}, cut at layer {cache.space.cut_layer} of {depth}"
        log.info("%s: %d entries, %.1f MB in %s", place, count, size, cache.directory)


def recycled(config: Config) -> tuple[Model, list[int | float]]:
    """Return the model whose activations the method recycles, and the cuts that are wanted of it."""
    method = config.method
    if not method.recycles:
        raise UserError(f"method={method.name} recycles nothing, so there is nothing to cache. Try method=reduced.")
    model, cut = (config.model, method.cut) if method.source is None else (method.source.model, method.source.cut)
    return model, cut if isinstance(cut, list) else [cut]


def table(root: Path) -> str:
    """Write the spaces of a cache as a table."""
    import pandas as pd

    from er.cache.spaces import spaces

    found = spaces(root)
    if not found:
        return f"no activations in {root}\n"
    shown = pd.DataFrame([row(each) for each in found]).to_markdown(index=False, tablefmt="simple")
    total = sum(each.bytes for each in found)
    return f"{shown}\n{len(found)} spaces, {total / 1e6:,.1f} MB in {root}\n"


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
        "MB": round(listed.bytes / 1e6, 1),
    }
