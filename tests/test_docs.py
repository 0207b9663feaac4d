"""README, guide and notebook do what they say: examples run, commands parse, option files exist, figures match."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

import llie
from llie import cli, registry
from llie.data.readers import write_image
from llie.inference.catalogue import parameters
from llie.options import load_options, schema
from llie.options.command_line import parse_arguments
from tests.export.files import brighten
from tests.inference.clips import make_clip

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDE = REPOSITORY / "docs"
PAGES = sorted(
    page
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[!.]*/README.md"), *GUIDE.rglob("*.md"))
    if page.name != "CHANGELOG.md"
)
SMALL = ["num_gpu=0", "train.total_iter=2", "val.val_freq=2", "datasets.train.num_worker_per_gpu=0"]
SMALL += ["logger.use_tb_logger=false"]
# Commands of other programs that the pages may show.
OTHERS = {"cd", "export", "source", "python3", "unset", "curl", "docker"}


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


class Titled:
    """A block with a title is a file of that name, which later blocks of the page may use."""

    _lexer = RawFencedCodeBlockLexer(re.compile(r'(?P<language>\w+) title="(?P<title>[^"]+)"$\n', re.MULTILINE))

    def __call__(self, document: Document) -> list[Region]:
        regions = list(self._lexer(document))
        for region in regions:
            region.parsed, region.evaluator = region.lexemes, self.write
        return regions

    @staticmethod
    def write(example: Example) -> None:
        path = Path(example.parsed["title"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.parsed["source"], encoding="utf-8")
        if path.suffix == ".yml":
            load_options(path)


def yaml_fragment(example: Example) -> None:
    """A part of an option file: with the demo's options around it, it resolves."""
    fragment = Path("options/train/fragment_of_the_guide.yml")
    text = example.parsed
    fragment.write_text(text if "_base_:" in text else f"_base_: demo.yml\n{text}", encoding="utf-8")
    load_options(fragment)


def shell_commands(example: Example) -> None:
    for line in example.parsed.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            command(words)


def command(words: list[str]) -> None:
    """Check one command line; run it where that is quick and its input is there."""
    program, *rest = words
    if program in ("torchrun", "srun") or (program == "python" and rest[:1] == ["-m"]):
        rest = rest[next(i for i, word in enumerate(rest) if word.endswith((".py", "llie"))) :]
        program = "python"
    if program == "python":
        script, *rest = rest
        if script == "llie":
            return llie_command(rest)
        verb = {"llie/train.py": "train", "llie/test.py": "test"}.get(script)
        if verb is None:
            assert (REPOSITORY / script).is_file(), script
            return
        return llie_command([verb, *rest])
    if program == "llie":
        return llie_command(rest)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets), words
    elif program == "pip":
        assert rest[0] == "install"
        for extra in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert set(extra.split(",")) <= extras(), words
    elif program == "sh":
        assert (REPOSITORY / rest[0]).is_file(), words
    else:
        assert program in OTHERS, f"a command that this test does not know: {shlex.join(words)}"


def extras() -> set[str]:
    text = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    return set(re.findall(r'"(\w+)": ', text.partition("extras_require")[2].partition("entry_points")[0]))


def llie_command(words: list[str]) -> None:
    verb, *rest = words
    try:
        options = parse_arguments(verb, rest) if verb in ("train", "test") else cli.build_parser().parse_args(words)
    except SystemExit as exit:
        assert exit.code == 0, f"not a valid command: llie {shlex.join(words)}"
        return
    if verb in ("train", "test"):
        load_options(options.opt, options.force_yml, verb)
        if not (REPOSITORY / options.opt).exists():  # the page's own file
            assert cli.main([*words, "--output", str(Path("experiments").resolve()), "--force_yml", *SMALL]) == 0
    elif words[:2] == ["data", "check"]:
        load_options(options.options, phase="data")
    elif verb in ("enhance", "compare"):
        assert cli.main(words) == 0


def console_session(example: Example) -> None:
    """Commands after `$ `, with what they print; `...` stands for anything."""
    for session in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        line, _, expected = session.partition("\n")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            cli.main(shlex.split(line)[1:])
        same = doctest.OutputChecker().check_output(
            expected, printed.getvalue(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
        assert same, f"{line}\nprints\n{printed.getvalue()}"


SYBIL = Sybil(
    [
        Titled(),
        PythonCodeBlockParser(),
        CodeBlockParser("yaml", yaml_fragment),
        CodeBlockParser("bash", shell_commands),
        CodeBlockParser("console", console_session),
        SkipParser(),
    ]
)


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory):
    """What the pages assume to be there: option files, a demo run, photographs, pairs, weights."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(REPOSITORY / "options", folder / "options")
    random = np.random.default_rng(0)
    pairs = [("train", n) for n in range(4)] + [("val", n) for n in range(2)]
    for split, number in pairs:
        bright = random.integers(60, 255, (100, 110, 3), dtype=np.uint8)
        write_image(folder / f"datasets/demo/{split}/high/{number}.png", bright)
        write_image(folder / f"datasets/demo/{split}/low/{number}.png", bright // 8)
    network = llie.create_network("HVISMM", channels=[4, 4, 8, 16], heads=[1, 2, 4, 8])
    (folder / "experiments/demo/models").mkdir(parents=True)
    torch.save({"params": network.state_dict()}, folder / "experiments/demo/models/net_g_best.pth")
    save_file(network.state_dict(), folder / "weights.safetensors")
    brighten(folder / "dawn.onnx")
    dark = random.integers(0, 40, (48, 64, 3), dtype=np.uint8)
    for name in ("photo.jpg", "night.tif", "holiday/beach.jpg", "holiday/day 2/bar.png"):
        write_image(folder / name, dark)
    make_clip(folder / "clip.mp4", times=[0, 0.5, 1, 1.5, 2, 2.5])
    return folder


@pytest.fixture
def workplace(example_folder, tmp_path, monkeypatch):
    shutil.copytree(example_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for entries in registry.REGISTRIES:
        monkeypatch.setattr(entries, "_entries", dict(iter(entries)))
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_of(page, workplace):
    for example in SYBIL.parse(page):
        example.evaluate()


def test_the_guide_builds(tmp_path):
    """Strictly: a broken link, a page outside the navigation or a name that mkdocstrings cannot find is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY)}
    built = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list(GUIDE.rglob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<!-- table:" not in text, page
        # Links may lead anywhere; nothing is fetched from elsewhere when a page is opened.
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(https?:)?//", text)
        loaded += re.findall(r"<link(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(https?:)?//", text)
        assert not loaded, page


def test_the_notebook_runs(workplace):
    """Its cells are plain Python, without commands of IPython."""
    cells = json.loads((REPOSITORY / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "save it without outputs"
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exec(compile(code, "quickstart.ipynb", "exec"), {"__name__": "notebook"})


@pytest.mark.parametrize("page", [page for page in PAGES if GUIDE not in page.parents], ids=name_of)
def test_links_of(page):
    """Pages outside the guide, which MkDocs does not look at."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_option_that_does_something_says_what():
    def silent(section, path=""):
        for name, key in section.items():
            if isinstance(key, Mapping):
                yield from silent(key, f"{path}{name}.")
            elif key.no_effect is None and not key.about:
                yield path + name

    for section in (schema.SCHEMA, schema.DATASET, schema.TRAIN_DATASET, schema.SPLIT):
        assert not list(silent(section))


def test_every_extra_is_documented():
    text = (GUIDE / "getting-started.md").read_text(encoding="utf-8")
    assert not [extra for extra in extras() if f"[{extra}]" not in text]


def test_the_readme_names_the_main_commands():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for line in (
        "python llie/train.py -opt options/train/LOLv2_real.yml",
        "python llie/test.py -opt options/test/SMID.yml",
        "torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500",
    ):
        assert line in text, line


def test_the_readme_counts_parameters_right():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(([^)]+)\) \|.*\| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 8
    for name, page, count in rows:
        assert parameters(name) == count, name
        assert (REPOSITORY / page).is_file()


AMERICAN = re.compile(
    r"\b(colors?|grays?|centers?|\w*normaliz\w+|optimiz\w+|initializ\w+|behaviors?|organiz\w+|recogniz\w+|summariz\w+|"
    r"analyz\w+|neighbors?|labeled|quantiz\w+|visualiz\w+|minimiz\w+|maximiz\w+|equaliz\w+)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_prose_has_british_spelling(page):
    """Code and titles of papers keep their own."""
    prose = re.sub(r"```.*?```|`[^`]*`|HVI: A New Color Space", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert AMERICAN.findall(prose) == []
