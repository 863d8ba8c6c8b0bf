"""All that a runs folder holds, as tables, figures and one page: what was run, what it cost and what was gained."""
