"""`python -m oea_server`: the same as `oea-server`."""

from oea_server.cli import run

if __name__ == "__main__":
    run()
