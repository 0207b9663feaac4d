"""Which files become which results."""

import os
import sys
from pathlib import Path

import pytest

from llie.errors import UserError
from llie.inference import plan as planning
from llie.inference.plan import make_plan
from tests.data.photographs import encoded, in_mode

PNG = encoded(in_mode("RGB"), "PNG")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(PNG)


def jobs(*args, **options) -> dict[str, str]:
    return {job.source.as_posix(): job.target.as_posix() for job in make_plan(*args, **options).jobs}


def test_beside_the_input(here):
    put("a.jpg", "b/c.PNG")
    assert jobs("a.jpg") == {"a.jpg": "a_enhanced.jpg"}
    assert jobs(["a.jpg", "b/c.PNG"]) == {"a.jpg": "a_enhanced.jpg", "b/c.PNG": "b/c_enhanced.PNG"}
    assert jobs("a.jpg", suffix="_bright", format="WEBP") == {"a.jpg": "a_bright.webp"}


def test_a_folder_becomes_a_folder_beside_it(here):
    put("holiday/a.jpg", "holiday/more/b.png")
    expected = {"holiday/a.jpg": "holiday_enhanced/a.jpg", "holiday/more/b.png": "holiday_enhanced/more/b.png"}
    assert jobs("holiday") == jobs("holiday/") == expected
    put("holiday_enhanced/a.jpg")  # from an earlier run
    assert jobs("holiday") == jobs(["holiday", "holiday_enhanced"]) == jobs("holi*") == expected
    os.chdir("holiday")
    assert list(jobs(".")) == ["a.jpg", "more/b.png"]
    assert {Path(target) for target in jobs(".").values()} == {
        here / "holiday_enhanced/a.jpg",
        here / "holiday_enhanced/more/b.png",
    }


def test_into_a_folder(here):
    put("in/a.jpg", "in/more/b.png", "c.tif")
    assert jobs("in", "out") == {"in/a.jpg": "out/a.jpg", "in/more/b.png": "out/more/b.png"}
    assert jobs("c.tif", "out") == {"c.tif": "out/c.tif"}
    assert jobs("c.tif", "out.v2/") == {"c.tif": "out.v2/c.tif"}
    assert jobs(["c.tif", "in/a.jpg"], "out", suffix="_x") == {"c.tif": "out/c_x.tif", "in/a.jpg": "out/a_x.jpg"}


def test_several_folders_keep_their_names(here):
    put("day1/1.jpg", "day2/1.jpg")
    expected = {"day1/1.jpg": "out/day1/1.jpg", "day2/1.jpg": "out/day2/1.jpg"}
    assert jobs(["day1", "day2"], "out") == jobs("day?", "out") == expected


def test_to_a_file(here):
    put("a.nef", "b.jpg")
    assert jobs("b.jpg", "x/y.tif") == {"b.jpg": "x/y.tif"}
    with pytest.raises(UserError, match="a single image"):
        make_plan(["a.nef", "b.jpg"], "out.jpg")
    with pytest.raises(UserError, match="a single image"):
        make_plan(".", "out.jpg")
    with pytest.raises(UserError, match=r"\.jgp is not an image format.*Did you mean '\.jpg'.*slash"):
        make_plan("b.jpg", "out.jgp")
    with pytest.raises(UserError, match="leave one out"):
        make_plan("b.jpg", "out.png", format="jpg")
    (here / "file").write_bytes(b"")
    with pytest.raises(UserError, match="is a file, not a folder"):
        make_plan("b.jpg", "file")
    with pytest.raises(UserError, match="file is a file"):
        make_plan("b.jpg", "file/more")


def test_patterns(here):
    put("a.jpg", "b.jpg", "c.png", "deep/d.jpg", ".hidden.jpg", "[x].jpg")
    assert list(jobs("*.jpg", "out")) == ["[x].jpg", "a.jpg", "b.jpg"]
    assert list(jobs("**/*.jpg", "out")) == ["[x].jpg", "a.jpg", "b.jpg", "deep/d.jpg"]
    assert list(jobs("[x].jpg", "out")) == ["[x].jpg"]
    assert list(jobs(["*.jpg", "a.jpg", "./a.jpg"], "out")) == ["[x].jpg", "a.jpg", "b.jpg"], "each once"
    with pytest.raises(UserError, match=r"no such file or folder: \*\.gif"):
        make_plan("*.gif")
    with pytest.raises(UserError, match=r"no such file or folder: c\.pgn\. Did you mean 'c\.png'"):
        make_plan(["a.jpg", "c.pgn"])


def test_results_of_an_earlier_run_are_no_inputs(here):
    put("a.jpg", "a_enhanced.jpg", "a_enhanced_compare.jpg", "other_enhanced.jpg")
    assert jobs("*.jpg") == {"a.jpg": "a_enhanced.jpg", "other_enhanced.jpg": "other_enhanced_enhanced.jpg"}
    assert jobs("a_enhanced.jpg") == {"a_enhanced.jpg": "a_enhanced_enhanced.jpg"}, "asked for by name"
    put("in/a.jpg", "in/out/a.jpg")
    assert jobs("in", "in/out") == {"in/a.jpg": "in/out/a.jpg"}


def test_inputs_are_never_overwritten(here):
    put("in/a.png", "a.png", "b/a.png")
    (here / "link").symlink_to(here / "in")
    for source, output, options in [
        ("in", "in", {}),
        ("in", "link", {}),
        ("in/a.png", "in", {}),
        ("in/a.png", "in/a.png", {}),
        ("a.png", None, {"suffix": ""}),
        ("in", None, {"suffix": ""}),
        (["a.png", "b/a.png"], "b", {}),
    ]:
        with pytest.raises(UserError, match="would overwrite"):
            make_plan(source, output, **options)


def test_two_results_of_one_name(here):
    put("1/a.png", "2/a.png", "1/a.jpg", "1/a.npy", "3/a.bmp", "3/a.gif")
    with pytest.raises(UserError, match=r"would both become out/a\.png"):
        make_plan(["1/a.png", "2/a.png"], "out")
    assert jobs("1", "out") == {"1/a.jpg": "out/a.jpg", "1/a.npy": "out/a_npy.png", "1/a.png": "out/a.png"}
    assert jobs("3", "out", format="png") == {"3/a.bmp": "out/a_bmp.png", "3/a.gif": "out/a_gif.png"}


def test_formats_that_are_only_read_become_others(here, monkeypatch):
    monkeypatch.setattr(planning, "missing_package", lambda suffix: None)
    put("in/a.nef", "in/b.CR3", "in/c.gif", "in/d.npy", "in/e.heic")
    assert list(jobs("in", "out").values()) == ["out/a.jpg", "out/b.jpg", "out/c.png", "out/d.png", "out/e.heic"]
    assert list(jobs("in/a.nef", "out", format="tif").values()) == ["out/a.tif"]


def test_what_is_left_out_is_counted_with_what_helps(here, monkeypatch):
    monkeypatch.setattr(planning, "missing_package", lambda suffix: "x" if suffix in (".heic", ".dng") else None)
    put("in/a.png", "in/b.HEIC", "in/c.txt", "in/d.dng", "in/e.dng", "in/.DS_Store", "in/f.avif")
    (here / "in" / "Makefile").write_bytes(b"")
    plan = make_plan("in", "out")
    assert [job.source.name for job in plan.jobs] == ["a.png", "f.avif"]
    assert plan.left_out_text == (
        "left out: 1 without ending, 2 .dng, 1 .heic, 1 .txt (llie reads .dng, .heic after: pip install 'llie[photo]')"
    )
    put("only/a.heic")
    with pytest.raises(UserError, match=r"no images or videos in only.*left out: 1 \.heic.*pip install"):
        make_plan("only")
    (here / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images or videos in empty \(subfolders are searched, too\)$"):
        make_plan("empty")


def test_named_files_are_judged_by_their_content(here):
    put("a.png", "picture.dat")
    (here / "notes.txt").write_bytes(b"hello")
    plan = make_plan(["a.png", "picture.dat", "notes.txt"], "out")
    assert [job.target.name for job in plan.jobs] == ["a.png", "picture.png"]
    assert plan.left_out_text == "left out: 1 .txt"
    assert list(jobs("notes.txt", "out")) == ["notes.txt"], "alone, so that it fails and says why"


def test_linked_folders(here):
    put("disk/b.png", "in/a.png")
    (here / "in" / "linked").symlink_to(here / "disk")
    (here / "in" / "loop").symlink_to(here / "in")
    assert jobs("in", "out") == {"in/a.png": "out/a.png", "in/linked/b.png": "out/linked/b.png"}


def test_comparisons_lie_beside_results(here):
    put("in/a.png", "b.jpg")
    plan = make_plan(["in", "b.jpg"], compare=True)
    assert [job.comparison.as_posix() for job in plan.jobs] == ["in_enhanced/a_compare.jpg", "b_enhanced_compare.jpg"]
    put("two/a.png", "two/a_compare.jpg")
    with pytest.raises(UserError, match="would both become"):
        make_plan("two", "out", compare=True)


def test_processes_share_all_jobs(here):
    put(*(f"in/{n}.png" for n in range(7)), "in/x.txt")
    plan = make_plan("in", "out")
    parts = [plan.share(rank, 3) for rank in range(3)]
    assert sorted(job for part in parts for job in part.jobs) == sorted(plan.jobs)
    assert max(len(part.jobs) for part in parts) == 3
    assert [bool(part.left_out) for part in parts] == [True, False, False], "reported once"


def test_unknown_formats(here, monkeypatch):
    put("a.png")
    with pytest.raises(UserError, match=r"no format 'jpgg' is written.*Did you mean 'jpg'"):
        make_plan("a.png", format="jpgg")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"pip install 'llie\[photo\]'"):
        make_plan("a.png", format="heic")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs another user than root, who may write everywhere")
def test_unwritable_folder_is_named_before_anything_is_done(here):
    put("a.png")
    (here / "out").mkdir(mode=0o500)
    for place in ("out", "out/deeper"):
        with pytest.raises(UserError, match=f"cannot write results into {place}"):
            make_plan("a.png", place)


def test_unwritable_folder_as_the_system_says(here, monkeypatch):
    put("a.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write results into out/more: .*choose another folder"):
        make_plan("a.png", "out/more")


def test_videos_beside_photographs(here):
    put("trip/a.jpg", "trip/b.MP4", "trip/c.avi", "trip/d.mkv", "e.mov")
    assert jobs("trip", "out") == {
        "trip/a.jpg": "out/a.jpg",
        "trip/b.MP4": "out/b.MP4",
        "trip/c.avi": "out/c.mp4",
        "trip/d.mkv": "out/d.mkv",
    }
    assert jobs("e.mov") == {"e.mov": "e_enhanced.mov"}
    assert jobs("e.mov", "x/y.webm") == {"e.mov": "x/y.webm"}
    assert list(jobs("trip", "out", format="webm").values()) == ["out/a.jpg", "out/b.webm", "out/c.webm", "out/d.webm"]
    assert list(jobs("trip", "out", format="png").values()) == ["out/a.png", "out/b.MP4", "out/c.mp4", "out/d.mkv"]
    assert [job.comparison is None for job in make_plan("trip", "out", compare=True).jobs] == [False, True, True, True]


def test_unfinished_videos_are_no_inputs(here):
    put("a.mp4", "a_enhanced.mp4", "a_enhanced.partial.mp4")
    assert jobs("*.mp4") == {"a.mp4": "a_enhanced.mp4"}


def test_programs_whose_names_end_like_videos(here):
    put("in/a.png")
    (here / "in" / "page.ts").write_text("export const answer = 42\n" * 20)
    (here / "in" / "film.ts").write_bytes((b"G" + bytes(187)) * 3)
    plan = make_plan("in", "out")
    assert [job.source.name for job in plan.jobs] == ["a.png", "film.ts"] and plan.left_out_text == "left out: 1 .ts"


@pytest.mark.parametrize(
    ("source", "output", "format", "message"),
    [
        ("a.mp4", "b.jpg", None, r"a\.mp4 is a video, but the output b\.jpg has the name of an image"),
        ("a.png", "b.mp4", None, r"a\.png is no video, but the output b\.mp4 has the name of a video"),
        ("a.mp4", "b.avi", None, r"videos are written as m4v mkv mov mp4 ts webm, not as \.avi"),
        ("a.mp4", None, "png", "png is for images, and there are none"),
        ("a.png", None, "mkv", "mkv is for videos, and there are none"),
        (["a.mp4", "c.mp4"], "b.mp4", None, "several videos need a folder"),
        ("a.mp4", "a.mp4", None, "would overwrite a.mp4, an input"),
    ],
)
def test_mistakes_with_videos(here, source, output, format, message):
    put("a.mp4", "c.mp4", "a.png")
    with pytest.raises(UserError, match=message):
        make_plan(source, output, format=format)


def test_videos_need_a_package(here, monkeypatch):
    monkeypatch.setattr(planning, "has_pyav", lambda: False)
    put("in/a.png", "in/b.mp4", "in/c.txt")
    text = "left out: 1 .mp4, 1 .txt (llie reads .mp4 after: pip install 'llie[video]')"
    assert make_plan("in", "out").left_out_text == text
