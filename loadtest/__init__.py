"""Load on a server that runs: Locust's users, A/B by live switching, soak and chaos. See
docs/load-testing.md.

Nothing here is imported by `oea_server`: Locust patches the standard library for gevent when it is
imported."""
