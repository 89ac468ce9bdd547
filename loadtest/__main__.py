"""``python -m loadtest``."""

from loadtest.cli import app
from oea_server.terminal import forgiving

if __name__ == "__main__":
    with forgiving():
        app()
