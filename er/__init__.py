"""Embedding recycling: run the lower layers of a language model once, train and predict from the cache."""
