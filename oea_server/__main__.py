"""`python -m oea_server`: the same as `oea-server`."""

from oea_server.cli import app

if __name__ == "__main__":
    app(prog_name="oea-server")
