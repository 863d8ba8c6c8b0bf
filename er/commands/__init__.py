"""One verb a file, each thin."""
