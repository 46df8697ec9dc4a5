"""serve: the live page's process. No frame comes to it; what it shows it asks the run for. Knows no request."""

import asyncio

from pipeline.serve.server import listen, serve
from pipeline.stage import Emit, SourceStage


class Serve(SourceStage):
    """Listens from the start, answers from when all stages are ready, and emits nothing."""

    def prepare(self) -> None:
        self._listener = listen(self.kit.settings.serve)

    def run(self, emit: Emit) -> None:
        asyncio.run(serve(self._listener, self.kit.settings.serve, self.kit.endpoints, self.kit.stopped))
