import sys

import pytest

from oea_server.client.server import Server

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


def test_an_interrupted_start_leaves_no_server_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Server) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "is_up", interrupt)
    server = Server(command=SLEEPER)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert server.process is not None
    assert server.process.poll() is not None


def test_a_log_is_left_only_where_something_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "is_up", lambda self: True)
    with Server(command=SLEEPER) as well:
        assert well.log.exists()
    assert not well.log.exists()
    ill = Server(command=SLEEPER)
    with pytest.raises(ZeroDivisionError), ill:
        raise ZeroDivisionError
    assert ill.log.exists()
    ill.log.unlink()


def test_a_command_that_ends_is_reported_with_its_log() -> None:
    with pytest.raises(RuntimeError, match=r"did not start; the end of .*\n(.*\n)*.*why it ended"):
        Server(command=(sys.executable, "-c", "print('why it ended')")).start()


@pytest.mark.parametrize(
    ("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_it_is_asked_where_it_listens(host: str, asked: str) -> None:
    said = "import sys; print(sys.argv[sys.argv.index('--host') + 1:])"
    server = Server(command=(sys.executable, "-c", said), host=host)
    assert server.url == f"http://{asked}:{server.port}"
    server.spawn().wait()
    assert server.tail() == str([host, "--port", str(server.port)])
