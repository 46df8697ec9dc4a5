"""Who runs: the plan, the workers as processes or threads, and the supervisor that compares the two. Knows no format,
no network and no picture."""
