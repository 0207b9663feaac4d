"""`llie serve`: mistakes in the command are one message, before anything listens."""

import socket
import sys

import pytest

from llie import cli


@pytest.fixture
def serve(capsys, monkeypatch):
    """Run the command with a network that loads quickly: exit code, standard output, standard error."""
    monkeypatch.delenv("LLIE_TOKEN", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["serve", "--model", "clahe", "--device", "cpu", *words])
        return code, *capsys.readouterr()

    return run


def test_an_address_that_is_taken(serve):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, said, errors = serve("--port", port)
    assert (code, said) == (2, "")
    assert errors.startswith(f"error: cannot listen on 127.0.0.1, port {port}: Address already in use; choose another")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid, port 8000: "),
        (["--port", "70000"], "cannot listen on 127.0.0.1, port 70000: "),
        (["--token-file", "absent"], "cannot read the token file absent: No such file or directory"),
        (["--model", "clah"], "Did you mean 'CLAHE'?"),
        (["--device", "cuda:99"], "no GPU cuda:99"),
        (["--memory", "much"], "memory: 'much' is not an amount of memory"),
    ],
)
def test_mistakes_are_one_message(serve, words, message):
    code, said, errors = serve(*words)
    assert (code, said) == (2, "")
    errors = errors.splitlines()[-1]
    assert errors.startswith("error: ") and message in errors


@pytest.mark.parametrize("words", [["--queue", "0"], ["--max-bytes", "many"], ["--timeout", "-1"], ["--grace", "x"]])
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", *words])
    assert caught.value.code == 2


@pytest.mark.parametrize("package", ["fastapi_offline", "uvicorn", "prometheus_client", "python_multipart"])
def test_without_the_extra(serve, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, said, errors = serve()
    assert (code, said, errors) == (2, "", f"error: llie serve needs {package}: pip install 'llie[server]'\n")
