"""SGLang's app with our routes and its keys, for HTTP workers (`--tokenizer-worker-num`).

SGLang loads no plug-ins in them, and does without keys there: it asserts that there is no API key,
and ignores an admin key."""

from __future__ import annotations

import os
from typing import Any

from sglang.srt.entrypoints import http_server
from sglang.srt.plugins import load_plugins

from oea_server.access import keys
from oea_server.access.keys import Keys
from oea_server.engine import http, locks, plugin, warmup

plugin.in_http_worker = True
load_plugins()
has = Keys(keys.api(os.environ), keys.admin(os.environ))
init = http_server.init_multi_tokenizer


async def init_multi_tokenizer() -> Any:
    """SGLang's, which wants no API key, and then the key: the worker's own warm-up sends it."""
    server_args = await init()
    if has.api:
        locks.write(server_args, {"api_key": has.api})
        # not in 0.5.17, which reads the arguments
        if publish := getattr(http_server, "publish", None):
            publish(server_args, role="tokenizer")
    return server_args


http_server.init_multi_tokenizer = init_multi_tokenizer
warmup.sign(http_server)
app = http_server.app
http.add_routes_and_locks(http_server, has)
