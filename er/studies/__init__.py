"""Many runs: what a study or sweep asks for, in which order, what it takes, and where to cut."""
