"""Video files: what is in them is kept, and whatever stops the work, what was done can be played."""

import errno
import signal
import subprocess
import sys
import weakref
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
import torch

from llie.errors import Stopped, UserError, run_command

pytest.importorskip("av", reason="needs PyAV: pip install 'llie[video]'")

import av

from llie.inference.video import Encoding, enhance_video, formats, reserved_file
from llie.inference.video.reading import open_video
from tests.inference.clips import cut_short, frames_of, make_clip, packets_of, times_of

UNEVEN = [0, 0.1, 0.35, 0.4, 1, 1.2, 1.25, 2, 2.1, 2.5, 2.6, 3]


@pytest.fixture(autouse=True)
def small_reserve(monkeypatch):
    monkeypatch.setattr(reserved_file, "_RESERVE", 1000)


def brighten(image: torch.Tensor) -> torch.Tensor:
    return (image * 3).clamp(max=1)


def facts(path) -> dict[str, object]:
    """What must not change."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frame = next(file.decode(stream))
        return {
            "size": (frame.width, frame.height),
            "rate": stream.average_rate,
            "frames": stream.frames,
            "time base": stream.time_base,
            "turned": frame.rotation,
            "colour": (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc),
            "aspect": stream.sample_aspect_ratio,
            "language": stream.language,
            "title": file.metadata.get("title"),
            "maker": file.metadata.get("com.apple.quicktime.make"),
            "chapters": [(chapter["start"] * chapter["time_base"], chapter["metadata"]) for chapter in file.chapters()],
            "streams": [(stream.type, stream.name) for stream in file.streams],
        }


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_all_but_the_light_is_kept(tmp_path, ending):
    source = make_clip(
        tmp_path / f"clip.{ending}",
        times=UNEVEN,
        subtitles="mov_text",
        rotation=90,
        colour=(1, 2, 1, 1),
        aspect=Fraction(4, 3),
        metadata={"title": "Night", "com.apple.quicktime.make": "Someone"},
        chapters=[{"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "First"}}],
        options={"movflags": "use_metadata_tags"},
    )
    result = enhance_video(brighten, source, tmp_path / f"out.{ending}")
    assert result.frames == 12 and result.notes == []
    assert facts(result.path) == facts(source)
    assert times_of(result.path) == times_of(source)
    assert packets_of(result.path, "audio") == packets_of(source, "audio")
    assert packets_of(result.path, "subtitle") == packets_of(source, "subtitle")
    before, after = (
        np.mean([frame.to_ndarray(format="rgb24").mean() for frame in frames_of(p)]) for p in (source, result.path)
    )
    assert after / before == pytest.approx(3, rel=0.03)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, result.path.name]


@pytest.mark.parametrize(
    ("source_ending", "ending", "codec"),
    [
        ("mkv", "mkv", "libx264"), ("mp4", "mkv", "libx264"), ("mkv", "mp4", "libx264"), ("ts", "ts", "libx264"),
        ("ts", "mp4", "libx264"), ("webm", "webm", "libvpx-vp9"), ("avi", "mkv", "mpeg4"),
    ],
)  # fmt: skip
def test_times_and_sound_in_other_containers(tmp_path, source_ending, ending, codec):
    sound = None if source_ending in ("webm", "avi") else "aac"
    times = [number / 4 for number in range(12)]
    source = make_clip(tmp_path / f"clip.{source_ending}", codec=codec, sound=sound, times=times)
    result = enhance_video(brighten, source, tmp_path / f"out.{ending}")
    assert result.frames == len(frames_of(source))
    before, after = np.array(times_of(source), float), np.array(times_of(result.path), float)
    if source_ending == "ts":  # the clock of a broadcast begins anywhere
        before, after = before - before[0], after - after[0]
    assert np.allclose(before, after, atol=1e-3)
    if sound:
        with av.open(str(source)) as one, av.open(str(result.path)) as other:
            samples = [sum(frame.samples for frame in file.decode(audio=0)) for file in (one, other)]
        assert abs(samples[0] - samples[1]) <= 1024  # at most the run-up of the codec


def test_srt_in_matroska_and_what_a_container_cannot_hold(tmp_path):
    source = make_clip(tmp_path / "clip.mkv", subtitles="srt")
    kept = enhance_video(brighten, source, tmp_path / "out.mkv")
    assert packets_of(kept.path, "subtitle") == packets_of(source, "subtitle")
    lost = enhance_video(brighten, source, tmp_path / "out.mp4")
    assert len(lost.notes) == 1 and "subtitle" in lost.notes[0] and "mkv" in lost.notes[0]


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("h264", "yuv444p"), ("vp9", "yuv420p"), ("av1", "yuv420p")],
)
def test_odd_sizes(tmp_path, codec, pixel_format):
    source = make_clip(tmp_path / "clip.mkv", size=(63, 47), codec="ffv1", sound=None)
    result = enhance_video(brighten, source, tmp_path / "out.mkv", encoding=Encoding(codec=codec))
    frame = frames_of(result.path)[0]
    assert (frame.width, frame.height, frame.format.name) == (63, 47, pixel_format)
    assert any("odd" in note for note in result.notes) == (codec == "h264")


@pytest.mark.parametrize(("codec", "kept"), [("h264", True), ("hevc", True), ("vp9", False)])
def test_10_bits_stay_where_the_codec_has_them(tmp_path, codec, kept):
    source = make_clip(tmp_path / "clip.mkv", pixel_format="yuv420p10le", sound=None)
    result = enhance_video(brighten, source, tmp_path / "out.mkv", encoding=Encoding(codec=codec))
    bits = 10 if kept or "yuv420p10le" in [f.name for f in av.codec.Codec("libvpx-vp9", "w").video_formats] else 8
    assert frames_of(result.path)[0].format.components[0].bits == bits
    assert any("bits" in note for note in result.notes) == (bits == 8)


def test_pixel_format_and_quality_are_choices(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", sound=None)
    fine = enhance_video(brighten, source, tmp_path / "fine.mp4", encoding=Encoding(crf=5, pixel_format="yuv444p"))
    rough = enhance_video(brighten, source, tmp_path / "rough.mp4", encoding=Encoding(crf=45))
    assert frames_of(fine.path)[0].format.name == "yuv444p"
    assert rough.path.stat().st_size < fine.path.stat().st_size / 2


@pytest.mark.parametrize(
    ("encoding", "name", "message"),
    [
        (Encoding(codec="h246"), "out.mp4", "Did you mean.*h264"),
        (Encoding(codec="aac"), "out.mp4", "encodes no video"),
        (Encoding(codec="h264"), "out.webm", "webm.*h264"),
        (Encoding(crf=99), "out.mp4", "0 .*51"),
        (Encoding(codec="ffv1", crf=20), "out.mkv", "no --crf"),
        (Encoding(pixel_format="yuv420"), "out.mp4", "Did you mean.*yuv420p"),
        (None, "out.gif", "not as .gif"),
        (None, "clip.mp4", "is the input"),
    ],
)
def test_mistakes_are_reported_before_any_work(tmp_path, encoding, name, message):
    source = make_clip(tmp_path / "clip.mp4", sound=None)
    with pytest.raises(UserError, match=message):
        enhance_video(lambda image: pytest.fail("worked"), source, tmp_path / name, encoding=encoding)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_part_of_a_video(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", subtitles="mov_text")
    result = enhance_video(brighten, source, tmp_path / "out.mp4", start=1.1, end=2.25)
    assert times_of(result.path) == [Fraction(3, 20) + Fraction(number, 4) for number in range(4)]
    sound = [time + Fraction(11, 10) for _, time in packets_of(result.path, "audio")]
    assert sound == [time for _, time in packets_of(source, "audio") if 1.1 <= time < 2.25]
    for start, end, message in ((5, None, "ends at 0:03"), (2, 1, "not behind"), (-1, None, "negative")):
        with pytest.raises(UserError, match=message):
            enhance_video(brighten, source, tmp_path / "none.mp4", start=start, end=end)
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize(("ending", "options"), [("mp4", {"movflags": "faststart"}), ("mkv", {})])
def test_of_a_video_cut_short_what_is_readable_is_written(tmp_path, ending, options):
    source = cut_short(make_clip(tmp_path / f"clip.{ending}", options=options), 0.6)
    target = tmp_path / f"out.{ending}"
    with pytest.raises(UserError, match=r"clip.* is damaged or cut short; .*out.* has what could be read, 0:0.*frames"):
        enhance_video(brighten, source, target)
    assert 4 <= len(frames_of(target)) < 12


def test_files_without_a_readable_video(tmp_path):
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    index_lost = cut_short(make_clip(tmp_path / "lost.mp4"), 0.5)
    cases = {
        sound: "no video stream, only audio",
        text: "not a video",
        index_lost: "not a video, or is damaged or cut short",
        tmp_path / "missing.mp4": "no such file",
    }
    for source, message in cases.items():
        with pytest.raises(UserError, match=message):
            enhance_video(brighten, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_ctrl_c_leaves_a_playable_file(tmp_path, capsys):
    source, partial = make_clip(tmp_path / "clip.mp4"), tmp_path / "out.partial.mp4"
    done = []

    def stopped(image):
        done.append(image)
        if len(done) == 5:
            signal.raise_signal(signal.SIGINT)
        return brighten(image)

    with pytest.raises(Stopped, match=r"out.partial.mp4 has the first 0:01.2 \(5 frames\)"):
        enhance_video(stopped, source, tmp_path / "out.mp4")
    assert times_of(partial) == times_of(source)[:5]
    assert len(list(tmp_path.iterdir())) == 2
    done.clear()
    assert run_command(lambda: enhance_video(stopped, source, tmp_path / "out.mp4")) == 130
    assert "5 frames" in capsys.readouterr().err
    enhance_video(brighten, source, tmp_path / "out.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}, "the partial result is superseded"


@pytest.mark.parametrize("started_with", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def test_a_second_ctrl_c_ends_at_once_and_leaves_nothing_unfinished(tmp_path, started_with):
    """Shells start what runs in their background with Ctrl-C ignored."""
    done = []

    def stopped(image):
        done.append(image)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return image

    before = signal.signal(signal.SIGINT, started_with)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            enhance_video(stopped, make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4")
        assert signal.getsignal(signal.SIGINT) == started_with
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(caught.value, Stopped) and len(done) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(("ending", "subtitles"), [("mp4", None), ("mp4", "mov_text"), ("mkv", None), ("ts", None)])
def test_a_full_disk_loses_nothing_that_was_written(tmp_path, monkeypatch, ending, subtitles):
    def put(self, data):
        if self._reserve.exists() and self.tell() > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    monkeypatch.setattr(reserved_file.ReservedFile, "_put", put)
    source = make_clip(tmp_path / "clip.mp4", times=[number / 4 for number in range(60)], subtitles=subtitles)
    target = tmp_path / f"out.partial.{ending}"
    with pytest.raises(
        UserError, match=rf"cannot write .*out.{ending}: No space left .*; .*partial.* has what was done"
    ):
        enhance_video(
            brighten, source, tmp_path / f"out.{ending}", encoding=Encoding(codec="mpeg4")
        )  # it keeps no frames back
    assert 8 <= len(frames_of(target)) < 60
    assert times_of(target)[:8] == pytest.approx(times_of(source)[:8], abs=2 if ending == "ts" else 1e-3)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_file_that_can_no_longer_be_written_keeps_what_is_in_it(tmp_path, ending):
    resource = pytest.importorskip("resource", reason="needs a limit of file sizes, which Windows lacks")
    source, target = make_clip(tmp_path / "clip.mp4", times=[n / 4 for n in range(40)]), tmp_path / f"out.{ending}"
    whole = enhance_video(brighten, source, target).path.stat().st_size
    target.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole * 2 // 3, limits[1]))
    try:
        message = rf"cannot write .*out.{ending}: File too large; .*out.partial.{ending} has the first 0:0"
        with pytest.raises(UserError, match=message):
            enhance_video(brighten, source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 8 <= len(frames_of(tmp_path / f"out.partial.{ending}")) < 40
    assert len(list(tmp_path.iterdir())) == 2


def test_a_frame_that_the_network_cannot_do_ends_the_video_there(tmp_path):
    done = []

    def fails(image):
        done.append(image)
        if len(done) == 4:
            raise UserError("no memory")
        return image

    with pytest.raises(UserError, match=r"no memory; .*out.partial.mp4 has what was done until then, 0:00.8 \(3 fr"):
        enhance_video(fails, make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4")
    assert len(frames_of(tmp_path / "out.partial.mp4")) == 3


def test_without_pyav_a_call_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "has_pyav", lambda: False)
    with pytest.raises(UserError, match=r"clip.mp4 is a video, .*pip install 'llie\[video\]'"):
        enhance_video(brighten, tmp_path / "clip.mp4", tmp_path / "out.mp4")


def test_the_package_is_imported_without_pyav():
    program = "import sys; sys.modules['av'] = None; import llie.inference.video, llie.inference.files"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_frames_are_not_collected(tmp_path):
    alive: list[weakref.ref] = []

    def watched(image):
        alive.append(weakref.ref(image))
        assert sum(reference() is not None for reference in alive) <= 2
        return image * 1

    enhance_video(watched, make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4")
    assert len(alive) == 12


def test_a_raw_stream_states_no_times(tmp_path):
    source = make_clip(tmp_path / "clip.h264", sound=None, format="h264")
    result = enhance_video(brighten, source, tmp_path / "out.mp4")
    assert result.frames == len(frames_of(source)) == 12
    times = times_of(result.path)
    assert len(set(times)) == 12 and times == sorted(times)


def test_the_log_of_pyav_is_off_while_a_file_is_read(tmp_path):
    """With it on, closing a file can wait for a decoding thread for ever; older torchvision turns it on."""
    clip = make_clip(tmp_path / "a.mp4")
    av.logging.set_level(av.logging.ERROR)
    with closing(open_video(clip)):
        assert av.logging.get_level() is None
