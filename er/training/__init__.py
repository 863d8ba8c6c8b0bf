"""Training above the cut: data, module, heads, methods."""
