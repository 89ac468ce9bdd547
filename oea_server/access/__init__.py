"""Who may do what at the HTTP port: keys, the door in front of SGLang's app, what the door asks
itself.

Knows ASGI and no SGLang; `oea_server.engine.locks` puts it in front of SGLang's app.
"""
