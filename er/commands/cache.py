"""`er cache`: fill the cache for one cut or several, or do what else `action` says."""

from __future__ import annotations

import logging
import re
import sys

import hydra
from omegaconf import DictConfig

from er.checks import cut_layer, settings
from er.choices import Action
from er.config import CONF, Config, Model
from er.errors import UserError

log = logging.getLogger(__name__)

SEVERAL = re.compile(r"cut=([\d.]+(?:,[\d.]+)+)")
SPACE = re.compile(r"space=([0-9a-f]+)")


def main() -> None:
    """Read `cut=3,6,9` as the list `cut=[3,6,9]`, which Hydra would refuse without -m, and `space=3e12` as text."""
    if not {"-m", "--multirun"} & set(sys.argv):
        sys.argv = [SEVERAL.sub(r"cut=[\1]", word) if SEVERAL.fullmatch(word) else word for word in sys.argv]
    sys.argv = [SPACE.sub(r"space='\1'", word) if SPACE.fullmatch(word) else word for word in sys.argv]
    command()


@hydra.main(config_path=str(CONF), config_name="cache", version_base="1.3")
def command(cfg: DictConfig) -> None:
    """Do what `action` says."""
    config = settings(cfg)
    if config.action is Action.build:
        build(config)
    else:
        from er.commands import upkeep

        upkeep.act(config)


def build(config: Config) -> None:
    """Make sure that the activations of the task exist at every cut; the layers run once."""
    import numpy as np
    import torch

    from er import encoders
    from er.cache.index import once
    from er.tasks import load_task
    from er.training import apart
    from er.training.cuts import fill_cuts
    from er.training.recycle import device_of
    from er.training.run import data_folder, tokenized

    model, given = recycled(config)
    depth = encoders.depth(encoders.load_config(model))
    cuts = sorted({cut_layer(cut, depth) for cut in given})
    if cuts[0] == 0:
        raise UserError(f"cut={given}: layer 0 is the embeddings, which cost nothing to compute. Set it to 1 or more.")
    splits = tokenized(config, load_task(config.task, data_folder(config)))
    tokens = apart.inputs(splits)
    torch.manual_seed(config.seed)  # where model.random asks for random weights, they are those of the run
    keys = np.concatenate([split.tokens.keys() for split in splits.values()])
    for cache in fill_cuts(encoders.load_model(model), cuts, tokens, config, device_of(config)):
        where = cache.locate(keys)
        count, size = len(once(where)), cache.nbytes(where) / 1e6
        place = f"{model.name}, cut at layer {cache.space.cut_layer} of {depth}"
        log.info("%s: %d entries, %.1f MB in %s", place, count, size, cache.directory)
    if where.ndim == 2:
        log.info(apart.saving(where))


def recycled(config: Config) -> tuple[Model, list[int | float]]:
    """Return the model whose activations the method recycles, and the cuts that are wanted of it."""
    method = config.method
    if not method.recycles:
        raise UserError(f"method={method.name} recycles nothing, so there is nothing to cache. Try method=reduced.")
    model, cut = (config.model, method.cut) if method.source is None else (method.source.model, method.source.cut)
    return model, cut if isinstance(cut, list) else [cut]
