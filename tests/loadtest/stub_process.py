"""The stub as a process that is started, told to end, and started again: --host H --port P, before
them how it ends."""

from __future__ import annotations

import os
import signal
import sys

import uvicorn

from tests.loadtest.stub import Stub

if __name__ == "__main__":
    ends, port = sys.argv[1], int(sys.argv[-1])
    app = Stub({"vanilla": 0.01, "oea": 0.01})._app()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    )
    if ends == "cuts":
        server.handle_exit = lambda *_: os._exit(0)  # type: ignore[method-assign]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when it is done
    server.run()
