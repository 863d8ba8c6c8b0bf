"""Batches that are assembled by a thread of their own, while the steps before them run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from er.timing import Stopwatch
from er.training.turns import hand_over

AHEAD = 2
"""Batches that are ready or under way while a step runs: one hides its own assembling, two also a slow one."""


FETCHED = 4
"""Batches whose activations the disk is asked for before they are assembled: a slow disk has so many steps of time."""


@dataclass(frozen=True)
class Announced:
    """Batches of which each is fetched some batches before its turn."""

    batches: Any
    fetch: Callable[[list[int]], None]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        coming: deque[list[int]] = deque()
        for batch in self.batches:
            self.fetch(batch)
            coming.append(batch)
            if len(coming) > FETCHED:
                yield coming.popleft()
        yield from coming


class Ahead(DataLoader):
    """A loader whose batches come in the same order, and with the same errors, but before they are asked for.

    The clock counts under `phase` what a step waits, and nothing else. The thread ends with the loop, also where that
    ends early. With `ahead=0` there is none: each batch is assembled when it is asked for. Either way `fetch` is told
    of it earlier, so that the disk is at work meanwhile.
    """

    def __init__(
        self,
        *args: Any,
        clock: Stopwatch,
        phase: str,
        ahead: int = AHEAD,
        fetch: Callable[[list[int]], None] = lambda batch: None,
        **options: Any,
    ) -> None:
        self.fetch = fetch
        super().__init__(*args, **options)
        self.clock, self.phase, self.ahead = clock, phase, ahead
        self.given = 0

    @property
    def _index_sampler(self) -> Any:  # what the loader's own iteration draws its batches from
        return Announced(self.batch_sampler, self.fetch)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of this epoch were given; after the last one, none of the next."""
        return {"given": self.given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch behind those that were given."""
        vars(self.batch_sampler)["first"] = state["given"]

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.given = getattr(self.batch_sampler, "first", 0)
        batches = self._begun() if self.ahead else super().__iter__()
        while True:
            hand_over()
            with self.clock(self.phase):
                batch = next(batches, None)
            if batch is None:
                return
            self.given += 1  # not those that are under way: no step has had them
            yield batch

    def _begun(self) -> Iterator[Any]:
        batches = super().__iter__()
        reader = ThreadPoolExecutor(1, "batches-ahead")
        try:
            coming = deque(reader.submit(next, batches, None) for _ in range(self.ahead))
            while (batch := coming.popleft().result()) is not None:
                coming.append(reader.submit(next, batches, None))
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
