"""`llie enhance` on videos, through the real command with the network that ships."""

import errno
import signal
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from llie import cli
from llie.data.readers import write_image

pytest.importorskip("av", reason="needs PyAV: pip install 'llie[video]'")

import av

from llie.inference import smoothing
from llie.inference.video import enhance as loop
from llie.inference.video import formats, reserved_file
from tests.inference.clips import cut_short, frames_of, make_clip, packets_of, times_of


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(reserved_file, "_RESERVE", 1000)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def enhance(capsys):
    """Run the command: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["enhance", "--device", "cpu", *words])
        return code, *capsys.readouterr()

    return run


def written() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def brightness(path: str) -> float:
    return float(np.mean([frame.to_ndarray(format="gray").mean() for frame in frames_of(Path(path))]))


def table(path: str) -> list[tuple[object, ...]]:
    """The streams of a file."""
    with av.open(path) as file:
        return [
            (stream.type, stream.name, stream.time_base, stream.language)
            + ((stream.width, stream.height, stream.pix_fmt, stream.frames) if stream.type == "video" else ())
            for stream in file.streams
        ]


def test_a_clip_with_sound_and_subtitles(enhance):
    make_clip(Path("clip.mp4"), subtitles="mov_text", rotation=90)
    assert enhance("clip.mp4") == (0, "1 enhanced, written to clip_enhanced.mp4\n", "")
    assert written() == {"clip.mp4", "clip_enhanced.mp4"}
    assert brightness("clip_enhanced.mp4") > 1.5 * brightness("clip.mp4")
    assert table("clip_enhanced.mp4") == table("clip.mp4") and len(table("clip.mp4")) == 3
    assert times_of(Path("clip_enhanced.mp4")) == times_of(Path("clip.mp4"))
    for kind in ("audio", "subtitle"):
        assert packets_of(Path("clip_enhanced.mp4"), kind) == packets_of(Path("clip.mp4"), kind)
    code, said, _ = enhance("clip.mp4")
    assert (code, said) == (0, "1 skipped, as their results exist (--overwrite replaces them)\n")
    before = Path("clip_enhanced.mp4").stat().st_mtime_ns
    assert enhance("clip.mp4", "--overwrite", "--strength", "0.5")[0] == 0
    assert Path("clip_enhanced.mp4").stat().st_mtime_ns > before


def test_photographs_and_videos_in_a_folder(enhance):
    write_image("trip/photo.png", np.full((16, 24, 3), 30, np.uint8))
    Path("trip/day").mkdir()
    make_clip(Path("trip/day/clip.mkv"), times=[0, 0.25])
    make_clip(Path("other.mp4"), times=[0, 0.25], sound=None)
    assert enhance("trip", "other.mp4", "-o", "out", "--compare") == (0, "3 enhanced, written to out\n", "")
    results = {"out/trip/photo.png", "out/trip/photo_compare.jpg", "out/trip/day/clip.mkv", "out/other.mp4"}
    assert {name for name in written() if name.startswith("out")} == results
    assert cv2.imread("out/trip/photo.png").mean() > 40
    assert len(frames_of(Path("out/trip/day/clip.mkv"))) == 2


def test_section_codec_quality_and_pixel_format(enhance):
    make_clip(Path("clip.mp4"), pixel_format="yuv420p10le")
    words = ["--start", "0:01", "--end", "2.3", "--codec", "hevc", "--crf", "30", "--smooth", "0"]
    assert enhance("clip.mp4", "-o", "part.mp4", *words)[0] == 0
    assert table("part.mp4")[0][:2] == ("video", "hevc") and table("part.mp4")[0][-2] == "yuv420p10le"
    assert times_of(Path("part.mp4")) == [Fraction(number, 4) for number in range(6)]
    assert enhance("clip.mp4", "--format", "mkv", "--pixel-format", "yuv444p")[0] == 0
    assert frames_of(Path("clip_enhanced.mkv"))[0].format.name == "yuv444p"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clip.mp4", "--codec", "h246"], "no codec 'h246'"),
        (["clip.mp4", "--codec", "h264", "--format", "webm"], "webm files cannot hold h264"),
        (["clip.mp4", "--crf", "99"], "--crf 99 is not between 0 (best) and 51"),
        (["clip.mp4", "--pixel-format", "yuv420"], "Did you mean 'yuv420p'"),
        (["clip.mp4", "--start", "2", "--end", "1"], "--end 0:01 is not behind --start 0:02"),
        (["clip.mp4", "--smooth", "-1"], "--smooth -1 is not a number of seconds"),
        (["clip.mp4", "-o", "out.jpg"], "clip.mp4 is a video, but the output out.jpg has the name of an image"),
        (["photo.png", "--end", "3"], "--end is for videos, and there are none"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_written(enhance, words, message):
    make_clip(Path("clip.mp4"), times=[0, 0.25], sound=None)
    write_image("photo.png", np.full((16, 24, 3), 30, np.uint8))
    code, said, errors = enhance(*words)
    assert (code, said) == (2, "") and errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert message in errors
    assert written() == {"clip.mp4", "photo.png"}


def test_without_the_extra(enhance, monkeypatch):
    monkeypatch.setattr(formats, "has_pyav", lambda: False)
    Path("clip.mp4").write_bytes(b"")
    code, _, errors = enhance("clip.mp4")
    assert code == 2
    assert errors == "error: clip.mp4 is a video, for which llie needs PyAV: pip install 'llie[video]'\n"


@pytest.mark.parametrize("time", ["x", "1:2:3:4", "-1", "1:-2", "nan", ""])
def test_invalid_times(time):
    with pytest.raises(SystemExit) as caught:
        cli.main(["enhance", "clip.mp4", f"--start={time}"])
    assert caught.value.code == 2


def test_what_fails_does_not_stop_the_rest(enhance):
    Path("in").mkdir()
    make_clip(Path("in/good.mp4"), times=[0, 0.25], sound=None)
    cut_short(make_clip(Path("in/short.mkv")), 0.6)
    cut_short(make_clip(Path("in/unreadable.mp4")), 0.5)
    with av.open("in/sound.mp4", "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        block.sample_rate = 8000
        file.mux([*stream.encode(block), *stream.encode(None)])
    code, said, errors = enhance("in", "-o", "out")
    assert code == 1 and said == "1 enhanced, written to out/good.mp4; 3 failed\n"
    lines = sorted(errors.splitlines())
    assert len(lines) == 3 and all(line.startswith("failed: in/") for line in lines)
    assert "short.mkv is damaged or cut short; out/short.mkv has what could be read" in lines[0]
    assert "sound.mp4 has no video stream, only audio" in lines[1]
    assert "unreadable.mp4 is not a video, or is damaged or cut short" in lines[2]
    assert {name for name in written() if name.startswith("out")} == {"out/good.mp4", "out/short.mkv"}


def test_an_odd_size_and_uneven_times(enhance):
    times = [0, 0.1, 0.35, 0.4, 1]
    make_clip(Path("clip.mkv"), codec="ffv1", sound=None, size=(63, 47), times=times)
    code, _, errors = enhance("clip.mkv")
    assert code == 0 and "63x47 is an odd size" in errors and len(errors.splitlines()) == 1
    frame = frames_of(Path("clip_enhanced.mkv"))[0]
    assert (frame.width, frame.height) == (63, 47)
    assert times_of(Path("clip_enhanced.mkv")) == times_of(Path("clip.mkv"))


def test_ctrl_c_leaves_a_playable_file_that_the_next_run_replaces(enhance, monkeypatch):
    class Interrupted(smoothing.Steady):
        def __call__(self, frame, time):
            if time == 1:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(frame, time)

    make_clip(Path("clip.mp4"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Steady", Interrupted)
        code, said, errors = enhance("clip.mp4")
    assert (code, said) == (130, "")
    assert errors == "interrupted: clip_enhanced.partial.mp4 has the first 0:01.2 (5 frames)\n"
    assert len(frames_of(Path("clip_enhanced.partial.mp4"))) == 5
    assert packets_of(Path("clip_enhanced.partial.mp4"), "audio")
    assert enhance("clip.mp4")[0] == 0
    assert written() == {"clip.mp4", "clip_enhanced.mp4"}


def test_a_disk_that_fills_up_keeps_what_was_written_and_ends_the_work(enhance, monkeypatch):
    Path("in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(Path("in", name), times=[number / 4 for number in range(60)])

    def put(self, data):
        if self._reserve.exists() and self.tell() > 20_000:  # until the file gives up its reserve
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    words = ["in", "-o", "out", "--codec", "mpeg4"]  # which keeps no frames back
    with monkeypatch.context() as patch:
        patch.setattr(reserved_file.ReservedFile, "_put", put)
        code, said, errors = enhance(*words)
    assert code == 1 and said == "1 failed; 1 not tried; run the same command again to continue\n"
    message = "failed: cannot write out/a.mp4: No space left on device; out/a.partial.mp4 has what was done until"
    assert errors.startswith(message) and len(errors.splitlines()) == 1
    assert 8 <= len(frames_of(Path("out/a.partial.mp4"))) < 60
    assert {name for name in written() if name.startswith("out")} == {"out/a.partial.mp4"}
    assert enhance(*words)[:2] == (0, "2 enhanced, written to out\n")
    assert {name for name in written() if name.startswith("out")} == {"out/a.mp4", "out/b.mp4"}


def test_a_file_that_may_not_grow_keeps_what_was_written(enhance):
    """As on a FAT file system, whose files have 4 GB at most: there, giving up the reserve does not help."""
    resource = pytest.importorskip("resource")
    make_clip(Path("clip.mp4"), times=[number / 4 for number in range(40)])
    assert enhance("clip.mp4", "-o", "whole.mp4")[0] == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path("whole.mp4").stat().st_size * 2 // 3, limits[1]))
    try:
        code, said, errors = enhance("clip.mp4", "-o", "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, said) == (1, "1 failed\n")
    message = "failed: cannot write out.mp4: File too large; out.partial.mp4 has the first 0:0"
    assert errors.startswith(message) and len(errors.splitlines()) == 1
    assert 8 <= len(frames_of(Path("out.partial.mp4"))) < 40
    assert written() == {"clip.mp4", "whole.mp4", "out.partial.mp4"}
