"""The command line that BasicSR's users know."""

import pytest

from llie.options.command_line import parse_arguments


@pytest.mark.parametrize("flag", ["-opt", "--opt"])
def test_both_spellings_of_opt(flag):
    assert parse_arguments("train", [flag, "a.yml"]).opt == "a.yml"


def test_defaults():
    parsed = parse_arguments("test", ["-opt", "a.yml"])
    assert (parsed.launcher, parsed.auto_resume, parsed.debug, parsed.force_yml, parsed.print, parsed.output) == (
        "none", False, False, [], False, None,
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["--local_rank=1", "--local-rank=1"])
def test_the_launcher_s_rank_is_accepted_in_both_spellings(flag):
    assert parse_arguments("train", [flag, "-opt", "a.yml", "--launcher", "pytorch"]).launcher == "pytorch"


def test_overrides_gather():
    words = ["-opt", "a.yml", "--force_yml", "a:b=1", "c.d=-1", "--debug", "--force_yml", "e=x=y"]
    assert parse_arguments("train", words).force_yml == ["a:b=1", "c.d=-1", "e=x=y"]


@pytest.mark.parametrize("words", [[], ["-opt", "a.yml", "--auto-resum"], ["-opt", "a.yml", "--launcher", "mpi"]])
def test_wrong_command_lines_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        parse_arguments("train", words)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err
