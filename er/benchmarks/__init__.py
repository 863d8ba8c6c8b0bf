"""The arms of one model and cut, timed side by side."""
