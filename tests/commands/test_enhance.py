"""`llie enhance` from the command line: files, messages, exit codes, and processes that share the work."""

import io
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import llie
from llie import cli
from llie.data.readers import read_image, write_image
from llie.engine.allocator import expect_many_sizes, keep_large_blocks
from llie.engine.distributed import launched_as
from llie.inference import Enhancer
from llie.inference.files import carry_out
from llie.inference.plan import make_plan
from tests.data.photographs import encoded, in_mode
from tests.processes import answers

SMALL = {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}
LAUNCHERS = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_ID",
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*LAUNCHERS, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "net.pth"
    torch.save({"params": llie.create_network("HVISMM", **SMALL).state_dict()}, path)
    return path


@pytest.fixture
def enhance(checkpoint, capsys):
    """Run the command: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["enhance", "--model", str(checkpoint), "--device", "cpu", *words])
        return code, *capsys.readouterr()

    return run


def picture(*paths: str, height: int = 16, width: int = 24) -> None:
    for path in paths:
        write_image(path, np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8))


def written(folder: str = ".") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_one_photo(enhance):
    picture("photo.jpg")
    assert enhance("photo.jpg") == (0, "1 enhanced, written to photo_enhanced.jpg\n", "")
    assert written() == {"photo.jpg", "photo_enhanced.jpg"}
    code, said, _ = enhance("photo.jpg")
    assert (code, said) == (0, "1 skipped, as their results exist (--overwrite replaces them)\n")
    before = Path("photo_enhanced.jpg").stat().st_mtime_ns
    assert enhance("photo.jpg", "--overwrite")[0] == 0
    assert Path("photo_enhanced.jpg").stat().st_mtime_ns > before


def test_several_inputs_and_patterns(enhance):
    picture("a.png", "b.png", "more/c.png")
    assert enhance("*.png", "more", "-o", "out", "--format", "tif", "--suffix", "_x", "--compare")[0] == 0
    assert written("out") == {
        *("a_x.tif", "b_x.tif", "more/c_x.tif"),
        *("a_x_compare.jpg", "b_x_compare.jpg", "more/c_x_compare.jpg"),
    }


def test_failures_and_what_was_left_out(enhance):
    picture("in/a.png", "in/b.png")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    Path("in/notes.txt").write_bytes(b"notes")
    code, said, errors = enhance("in", "-o", "out")
    assert code == 1
    assert said == "2 enhanced, written to out; 1 failed\n"
    lines = errors.splitlines()
    assert lines[0] == "left out: 1 .txt"
    assert lines[1].startswith("failed: in/broken.jpg is a damaged or truncated JPEG") and len(lines) == 2


def test_transparency_and_frames_are_reported(enhance):
    Path("a.png").write_bytes(encoded(in_mode("RGBA"), "PNG"))
    _, _, errors = enhance("a.png", "--format", "jpg")
    assert errors == "transparency was dropped, .jpg has none (the format png keeps it): a.png\n"


def test_strength_and_controls_reach_the_network(enhance, checkpoint):
    picture("a.png")
    image = read_image("a.png")
    assert enhance("a.png", "-o", "none.png", "--strength", "0")[0] == 0
    assert np.array_equal(read_image("none.png"), image)
    assert enhance("a.png", "-o", "half.png", "--strength", "0.5", "--exposure", "1", "--alpha-s", "1.2")[0] == 0
    expected = llie.load(checkpoint, "cpu", strength=0.5, exposure=1, alpha_s=1.2)(image)
    assert np.array_equal(read_image("half.png"), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "--strength", "2"], "strength: 2.0 is not between 0"),
        (["a.png", "--memory", "much"], "memory: 'much' is not an amount of memory; write for instance 4GB"),
        (["a.png", "--denoise", "1"], "denoise"),
        (["a.pgn"], "no such file or folder: a.pgn. Did you mean 'a.png'?"),
        (["empty"], "no images or videos in empty"),
        (["a.png", "--format", "gif"], "no format 'gif' is written"),
        (["a.png", "-o", "a.png"], "overwrite a.png, an input"),
        (["a.png", "-o", "a.png/x"], "a.png is a file"),
        (["a.png", "--model", "hvi-sm"], "or 'HVISMM'?"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_written(enhance, words, message):
    picture("a.png")
    Path("empty").mkdir()
    code, said, errors = enhance(*words)
    assert (code, said) == (2, "")
    assert message in errors and errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert written() == {"a.png"}


@pytest.mark.parametrize("words", [["--quality", "0"], ["--quality", "x"], ["--max-pixels", "many"], []])
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["enhance", *words, *(["a.png"] if words else [])])
    assert caught.value.code == 2


def test_large_images_are_an_option(enhance):
    picture("a.png", height=100, width=100)
    code, _, errors = enhance("a.png", "--max-pixels", "9e3")
    assert code == 1 and "a.png has 100x100 pixels" in errors and "--max-pixels 10000" in errors
    assert enhance("a.png", "--max-pixels", "10000")[0] == 0


@pytest.mark.parametrize(
    "variables",
    [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")],
)
def test_processes_of_a_launcher_share_the_files(enhance, monkeypatch, variables):
    picture(*(f"in/{n}.png" for n in range(5)), "in/sub/x.png")
    done = []
    for rank in range(3):
        monkeypatch.setenv(variables[0], str(rank))
        monkeypatch.setenv(variables[1], "3")
        before = written("out")
        code, said, _ = enhance("in", "-o", "out")
        assert code == 0 and said.startswith(f"process {rank + 1} of 3: 2 enhanced")
        done += written("out") - before
    assert sorted(done) == sorted(written("in")), "each once"


def test_torchrun_shares_the_files():
    """The real launcher, which would stop everything at the first process that fails."""
    Path("in").mkdir()
    Path("in/0.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    picture(*(f"in/{n}.png" for n in range(1, 5)))
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "llie", "enhance", "in"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words, "-o", "out", "--device", "cpu", "--model", "clahe"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [
        "process 1 of 2: 2 enhanced, written to out; 1 failed",
        "process 2 of 2: 2 enhanced, written to out",
    ]
    assert "failed: in/0.png is a damaged" in result.stderr
    assert written("out") == {f"{n}.png" for n in range(1, 5)}


def test_two_machines_of_slurm_share_the_files():
    """What `srun llie enhance` starts: a process on each machine, at the same time, with variables of slurm."""
    picture(*(f"in/{n}.png" for n in range(5)))
    Path("in/5.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    job = {"JOB_ID": "7", "STEP_ID": "0", "STEP_NUM_TASKS": "2", "NTASKS": "2", "STEP_NODELIST": "n[1-2]"}
    words = ["-m", "llie", "enhance", "in", "-o", "out", "--device", "cpu", "--model", "clahe"]
    started = []
    for number in ("0", "1"):
        slurm = {**job, "PROCID": number, "NODEID": number, "LOCALID": "0"}  # LOCALID counts those of one machine
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{f"SLURM_{name}": slurm[name] for name in slurm}}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *words], env=environment, **pipes))
    said = [process.communicate() for process in started]
    assert [out for out, _ in said] == [
        "process 1 of 2: 3 enhanced, written to out\n",
        "process 2 of 2: 2 enhanced, written to out; 1 failed\n",
    ]
    assert [process.returncode for process in started] == [0, 1], "slurm lets the other process go on"
    assert said[0][1] == "" and said[1][1].startswith("failed: in/5.png is a damaged")
    assert written("out") == {f"{n}.png" for n in range(5)}


def test_the_launcher_is_detected(monkeypatch):
    assert launched_as() == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert launched_as() == (0, 1), "the batch script itself, which runs once"
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert launched_as() == (3, 4), "a step may have fewer tasks than the job"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched_as() == (1, 2)


@pytest.fixture
def console(monkeypatch):
    """Runs the command on a console of an encoding: exit code, and the bytes of both its streams."""

    def run(encoding, *words):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        code = cli.main(list(words))
        for stream in streams:
            stream.flush()
        return code, *(stream.buffer.getvalue() for stream in streams)

    return run


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_console_can_print_any_name(checkpoint, console, encoding):
    picture("фото/夜.png")
    Path("фото/kaputt ä.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = console(encoding, "enhance", "фото", "--model", str(checkpoint), "--device", "cpu")
    assert code == 1 and b"Traceback" not in err
    assert Path("фото_enhanced/夜.png").is_file()
    name = "фото_enhanced" if encoding == "utf-8" else r"\u0444\u043e\u0442\u043e_enhanced"
    assert out.decode(encoding).startswith("1 enhanced, written to " + name)


def test_other_commands_print_any_name(console):
    """Options with a name that the console lacks are printed, and their mistakes are."""
    Path("опции.yml").write_text("name: имя\nmodel_typ: x\n", encoding="utf-8")
    for command in (["data", "check", "опции.yml"], ["train", "-opt", "опции.yml", "--print"]):
        code, _, err = console("ascii", *command)
        assert code == 2 and b"\\u043e" in err


def memory_of_each_20th(folder):
    """Bytes that the process holds as it enhances the photographs in a folder."""
    import ctypes

    torch.set_num_threads(1)
    keep_large_blocks()
    expect_many_sizes()
    enhancer = Enhancer(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()), "cpu")
    used = []

    def enhance(image):
        if len(used) % 20 == 0:
            ctypes.CDLL(None).malloc_trim(0)  # what is free, but kept for the next image, does not count
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        return enhancer(image)

    outcome = carry_out(make_plan(folder / "in", folder / "out"), enhance, progress=False)
    assert len(outcome.done) == 200 and not outcome.failures, outcome
    return used[::20]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, which only Linux has")
def test_memory_stays_flat_over_200_photographs():
    """Photographs of 200 sizes, in five formats."""
    random = np.random.default_rng(0)
    smooth = cv2.resize(random.integers(0, 80, (6, 6, 4), dtype=np.uint8), (320, 320))
    Path("in").mkdir()
    for n in range(200):
        height, width = random.integers(200, 320, 2)
        image = smooth[:height, :width]
        if n % 5 == 0:  # with transparency
            cv2.imwrite(f"in/{n:03}.png", image, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        elif n % 20 == 1:  # few, because compressing 16 bits takes long
            cv2.imwrite(f"in/{n:03}.tif", image[..., :3].astype(np.uint16) * 200, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
        else:
            name = f"in/{n:03}{('.bmp', '.jpg', '.webp', '.bmp')[n % 5 - 1]}"
            cv2.imwrite(name, image[..., :3], [cv2.IMWRITE_WEBP_QUALITY, 80] if n % 5 == 3 else [])
    [used] = answers(memory_of_each_20th, Path.cwd())
    growth = (used[-1] - used[3]) / 2**20
    # Keeping each photograph's 8-bit pixels would be 24 MiB, its tensors 100, its compiled convolutions 40.
    assert growth < 20, f"{growth:.0f} MiB more after 180 images than after 60"
