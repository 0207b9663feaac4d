"""Registries: names to classes, plugins, and arguments checked before anything is built."""

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llie.errors import UserError
from llie.registry import LoadedPlugins, Registry, argument_names, build, check_arguments, load_plugins

REPOSITORY = Path(__file__).resolve().parents[2]


class Square:
    def __init__(self, side: int, colour: str = "red"):
        self.side, self.colour = side, colour


def anything(**arguments):
    return arguments


@pytest.fixture
def shapes() -> Registry:
    registry = Registry("shape")
    registry.register(Square)
    registry.register(anything)
    return registry


def test_every_way_of_registering(shapes):
    @shapes.register()
    class Circle: ...

    @shapes.register
    class Line: ...

    @shapes.register(name="dot")
    class Point: ...

    assert shapes.keys() == ["Circle", "Line", "Square", "anything", "dot"]
    assert shapes.get("dot") is Point
    assert "Circle" in shapes
    assert "Triangle" not in shapes


def test_an_unknown_name_lists_the_nearest_and_all(shapes):
    with pytest.raises(
        UserError, match=r"no shape is called 'Sqare'\. Did you mean 'Square'\? Known: Square, anything"
    ):
        shapes.get("Sqare")


def test_two_classes_with_one_name_are_reported_with_their_files(shapes):
    with pytest.raises(UserError, match=r"the shape 'Square' is registered twice, by .*test_registry\.py:.*rename one"):

        @shapes.register(name="Square")
        class Other: ...


def test_registering_the_same_class_again_is_harmless(shapes):
    shapes.register(Square)
    assert shapes.get("Square") is Square


def test_build_checks_and_fits_the_arguments(shapes):
    assert build(shapes, {"type": "Square", "side": 2e1}).side == 20
    assert build(shapes, {"type": "Square"}, side=3).side == 3
    assert build(shapes, {"type": "anything", "x": 1}) == {"x": 1}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"side": 1}, "here: 'type' is missing"),
        ({"type": "Square"}, "here: Square needs the argument 'side'"),
        (
            {"type": "Square", "side": 1, "color": "red"},
            "here: Square takes no argument 'color'. Did you mean 'colour'?",
        ),
        ({"type": "Square", "side": "1"}, "here.side: Square expects an integer, not '1'"),
    ],
)
def test_wrong_specifications(shapes, spec, told):
    with pytest.raises(UserError) as caught:
        build(shapes, spec, where="here")
    assert told in str(caught.value)


def test_argument_names():
    assert argument_names(Square) == ["side", "colour"]
    assert argument_names(anything, ["a", "b"]) == ["a", "b"]
    assert check_arguments(Square, {"side": 1.0}, "x") == {"side": 1}


def plugin(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def test_a_plugin_is_looked_for_beside_the_option_file_then_here(tmp_path, monkeypatch):
    plugin(tmp_path, "plugin_a.py", "import sys; sys.plugin_found = 'beside'")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plugin(tmp_path / "here", "plugin_b.py", "import sys; sys.plugin_found = 'here'")
    load_plugins(["plugin_a.py"], beside=tmp_path)
    assert sys.plugin_found == "beside"
    load_plugins(["plugin_b.py"], beside=tmp_path)
    assert sys.plugin_found == "here"


def test_a_plugin_runs_once_and_its_classes_can_be_pickled(tmp_path):
    plugin(tmp_path, "plugin_c.py", "import sys\nsys.plugin_runs = getattr(sys, 'plugin_runs', 0) + 1\nclass C: ...")
    load_plugins(["plugin_c.py", "plugin_c.py"], beside=tmp_path)
    assert sys.plugin_runs == 1
    [module] = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(tmp_path / "plugin_c.py")]
    assert isinstance(pickle.loads(pickle.dumps(module.C())), module.C)


def test_a_process_that_unpickles_loads_the_plugins_first(tmp_path):
    """What a spawned worker does: it has imported nothing, and BasicSR's classes need their stub, too."""
    plugin(tmp_path, "plugin_w.py", "class W:\n    colour = 'red'")
    load_plugins(["plugin_w.py"], beside=tmp_path)
    [module] = [m for m in sys.modules.values() if getattr(m, "__file__", None) == str(tmp_path / "plugin_w.py")]
    (tmp_path / "sent").write_bytes(pickle.dumps((LoadedPlugins(), module.W())))
    code = (
        f"import pickle, sys; _, w = pickle.load(open({str(tmp_path / 'sent')!r}, 'rb'))\n"
        "print(w.colour, 'torchvision.transforms.functional_tensor' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout == "red True\n", done.stderr


def test_two_plugins_of_one_name_are_two(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        plugin(
            tmp_path / folder, "same.py", f"import sys; sys.plugin_seen = getattr(sys, 'plugin_seen', '') + '{folder}'"
        )
    load_plugins(["x/same.py", "y/same.py"], beside=tmp_path)
    assert sys.plugin_seen == "xy"


def test_missing_plugins_are_told_from_broken_ones(tmp_path):
    with pytest.raises(UserError, match="no file"):
        load_plugins(["nowhere.py"], beside=tmp_path)
    with pytest.raises(UserError, match=r"no module named 'llie\.nowhere'"):
        load_plugins(["llie.nowhere"])
    plugin(tmp_path, "broken.py", "import a_module_that_is_not_there")
    with pytest.raises(UserError, match=r"broken\.py, line 1: ModuleNotFoundError: .*'a_module_that_is_not_there'"):
        load_plugins(["broken.py"], beside=tmp_path)
    plugin(tmp_path, "broken.py", "import sys; sys.plugin_mended = True")
    load_plugins(["broken.py"], beside=tmp_path)  # a failed one is tried again
    assert sys.plugin_mended


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("plugin_d.py", "x = 1\ndef f(:\n", "plugin_d.py, line 2: SyntaxError: invalid syntax"),
        ("plugin_e.py", "x = 1\n\nx.y\n", "plugin_e.py, line 3: AttributeError: 'int' object has no attribute 'y'"),
        ("plugin_h.py", "import json\n\njson.loads('[')\n", "plugin_h.py, line 3: JSONDecodeError: Expecting value"),
        ("plugin_f", "x = 1\ndef f(:\n", "plugin_f.py, line 2: SyntaxError: invalid syntax"),
        ("plugin_g", "1 / 0\n", "plugin_g.py, line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_plugin_is_reported_with_file_and_line(tmp_path, monkeypatch, name, text, told):
    plugin(tmp_path, name.removesuffix(".py") + ".py", text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_plugins([name], beside=tmp_path)
    assert str(caught.value).startswith(f"plugins: {tmp_path / told}")


def test_the_script_imports_nothing_twice():
    """`python llie/train.py` puts llie/ on the path, where `import archs.x` would register everything again."""
    code = (
        "import runpy, sys; sys.argv = ['llie/train.py', '-opt', 'options/train/LOLv1.yml', '--print'];\n"
        "sys.path[0] = 'llie'\n"
        "try: runpy.run_path('llie/train.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not any(name.split('.')[0] in ('archs', 'losses', 'data', 'registry') for name in sys.modules)\n"
        "assert 'llie' not in sys.path\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "HVISMM" in done.stdout


def test_no_file_of_ours_hides_one_of_python():
    """With llie/ first on the path, llie/logging.py would be `import logging` for everyone."""
    ours = {path.stem for path in (REPOSITORY / "llie").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not ours & set(sys.stdlib_module_names) - {"test"}  # test.py is a command, its line one repairs the path


@pytest.mark.parametrize(
    "error", [ValueError("the side must be positive\nat length"), RuntimeError(), AssertionError()]
)
def test_values_that_a_class_refuses_are_reported_in_one_line(shapes, error):
    @shapes.register()
    class Cube:
        def __init__(self, side: int):
            raise error

    with pytest.raises(UserError, match=f"network_g: Cube cannot be built .*{type(error).__name__}") as told:
        build(shapes, {"type": "Cube", "side": -1}, "network_g")
    assert "\n" not in str(told.value)
