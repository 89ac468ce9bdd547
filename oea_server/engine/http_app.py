"""SGLang's app with our routes, for HTTP workers (`--tokenizer-worker-num`), which load no plug-ins."""

from __future__ import annotations

from sglang.srt.entrypoints import http_server

from oea_server import settings
from oea_server.engine import http, runtime

runtime.current = runtime.Runtime(settings.read())
http.add_routes(http_server)
app = http_server.app
