"""Activations on disk: what identifies them, how they lie there, how they come back."""

from er.cache.build import Built, Encode, build
from er.cache.index import Locations
from er.cache.key import Space, entry_key, entry_keys
from er.cache.store import ActivationCache

__all__ = ["ActivationCache", "Built", "Encode", "Locations", "Space", "build", "entry_key", "entry_keys"]
