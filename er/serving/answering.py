"""A finished run at work: its model, its tokenizer, and the cache of the layers below its cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from er import checks, encoders
from er.cache import ActivationCache
from er.choices import Switch
from er.config import Config
from er.errors import UserError
from er.serving.trained import Trained
from er.tasks import NEW, Task, unlabelled
from er.training import apart, cross_model
from er.training.apart import lowered
from er.training.batches import batches_of
from er.training.data import Split, Tokens
from er.training.methods import assemble
from er.training.module import Batch, RecyclingModule
from er.training.recycle import autocast, encoder, fill, open_cache


def module_of(trained: Trained) -> RecyclingModule:
    """Return the module of a run, with the weights that it trained."""
    task, _ = unlabelled(trained.config.task, trained.labels, [])
    torch.manual_seed(trained.config.seed)
    module = RecyclingModule(assemble(trained.config, trained.k, task), task, trained.config.optim)
    names = {n: id(p) for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}
    if {names.get(name) for name in trained.weights} != set(names.values()):  # some have a second name, below the cut
        raise UserError(f"{trained.directory}: its weights are not those that its method trains. Train again.")
    module.load_state_dict(trained.weights, strict=False)
    return module.eval()


@dataclass
class Answering:
    """A run that answers: `config` is its own, but for where and how activations are kept, and for the device."""

    trained: Trained
    config: Config
    device: torch.device
    module: RecyclingModule = field(init=False)
    cache: ActivationCache | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.module = module_of(self.trained)
        self.tokenizer = encoders.load_tokenizer(self.config.model)
        lower = self.module.lower
        if lower is not None and lower.k > 0 and self.config.cache.mode is not Switch.off:
            self.cache = open_cache(self.config, lower)  # before it moves to the device
        self.module.to(self.device)

    @property
    def space(self) -> str:
        """What activations it shares with other runs: those of one space."""
        named = self.trained.result.identity
        if self.cache is not None:
            return self.cache.space.digest
        whole, k = self.module.lower is None, self.trained.k
        return str((whole, k, named["model"]["source"], named.get("source"), self.config.trainer.precision))

    def tokens(self, task: Task) -> Tokens:
        """Tokenise new texts as the run's own were."""
        first = None
        if checks.separate(self.config):
            first = encoders.first_position(encoders.load_config(self.config.model))
        own = Tokens.of(task.tokenize(self.tokenizer)[NEW], self.tokenizer.pad_token_id, first)
        source = self.config.method.source
        if source is None:
            return own
        tokenizer = encoders.load_tokenizer(source.model)
        theirs = Tokens.of(task.tokenize(tokenizer)[NEW], tokenizer.pad_token_id)
        mine, other = ({NEW: Split(tokens, torch.zeros(len(tokens)))} for tokens in (own, theirs))
        return cross_model.aligned(mine, other, self.config.model, source.model)[NEW].tokens

    def batches(self, tokens: Tokens) -> Iterator[Batch]:
        """Return batches of like length that begin at the cut: with activations, known or just computed."""
        if self.cache is not None and self.config.cache.mode is Switch.on:
            inputs = apart.inputs({NEW: Split(tokens, torch.zeros(len(tokens)))})
            lower = self.module.lower
            assert lower is not None
            fill(self.cache, inputs, encoder(lower, inputs, self.config.trainer.precision, self.device), self.config)
        known = self._known(tokens)
        for rows in (np.flatnonzero(known), np.flatnonzero(~known)):
            split = Split(tokens.rows(rows), torch.zeros(len(rows)))
            if self.cache is not None and known[rows].any():
                split.cache, split.where = self.cache, self.cache.locate(split.tokens.keys())
            by_length = np.argsort(split.tokens.lengths, kind="stable")
            for chosen in batches_of(by_length, self.config.predict.batch_size):
                yield self._begun(split.batch(chosen.tolist())) | {"indices": rows[chosen]}

    def _known(self, tokens: Tokens) -> np.ndarray:
        if self.cache is None:
            return np.zeros(len(tokens), dtype=bool)
        self.cache.refresh()
        there = ~self.cache.absent(tokens.keys())
        return np.asarray(there.reshape(len(tokens), -1).all(axis=1))  # of both texts, where they are encoded apart

    def _begun(self, batch: Batch) -> Batch:
        """Bring a batch to the device, and up to the cut."""
        placed = {name: column.to(self.device) for name, column in batch["inputs"].items()}
        batch = batch | {"inputs": placed}
        if "hidden" in batch:
            batch["hidden"] = batch["hidden"].to(self.device)
        elif self.module.lower is not None:
            with autocast(self.config.trainer.precision, self.device):
                batch["hidden"] = lowered(self.module.lower, batch)
        return batch

    @torch.no_grad()
    def logits(self, batch: Batch) -> list[np.ndarray]:
        """Return the logits of each input of a batch, those of padding left out."""
        with autocast(self.config.trainer.precision, self.device):
            logits = self.module(batch).float()
        rows: list[np.ndarray] = list(logits.cpu().numpy())
        if logits.ndim == 3:
            lengths = batch["inputs"]["attention_mask"].sum(dim=1).tolist()
            rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        return rows
