"""What a sink warned the user of."""


class Warned:
    """Each line once, as a run tells it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines += [line] * (line not in self.lines)
