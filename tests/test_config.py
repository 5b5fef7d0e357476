"""Configuration files: what they mean, and what is said when they are wrong."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream import strict_yaml
from efficientad_stream.commands.config import effective
from efficientad_stream.config import (
    Config,
    FileSource,
    ImagesSource,
    PublishConfig,
    SimulatedSource,
    V4l2Source,
    load,
)
from efficientad_stream.core.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent

GOOD = """\
station: st1
recipe: recipes/bottle
source:
  kind: file
  path: clips/belt.mp4
  fps: 25
publish:
  control: tcp://127.0.0.1:7000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    return path


def complaint(path: Path, *overrides: str) -> str:
    """The one line that loading ``path`` ends in, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text.removeprefix(f"{path.parent}{os.sep}")


def test_values_defaults_and_paths(file: Path) -> None:
    config = load(file)
    assert config.station == "st1"
    assert config.source == FileSource(path=str(file.parent / "clips/belt.mp4"), fps=25.0)
    assert config.recipe == str(file.parent / "recipes/bottle")
    assert config.journal.path == str(file.parent / "journal")
    assert config.publish == PublishConfig(control="tcp://127.0.0.1:7000")


def test_an_absolute_path_stays_and_home_is_expanded(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/line")
    file.write_text(GOOD.replace("recipes/bottle", "~/bottle").replace("clips/", "/clips/"))
    config = load(file)
    assert config.recipe == "/home/line/bottle"
    assert isinstance(config.source, FileSource)
    assert config.source.path == "/clips/belt.mp4"


def test_paths_are_short_where_that_means_the_same(file: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    file.write_text(GOOD.replace("recipes/bottle", "a/../b").replace("clips/", "link/../"))
    config = load(file)
    assert config.recipe == str(tmp_path / "b")
    assert isinstance(config.source, FileSource)
    assert config.source.path == str(tmp_path / "link" / ".." / "belt.mp4")


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("{kind: images, path: /a, labelled: true}", ImagesSource(path="/a", labelled=True)),
        ("{kind: v4l2, width: 640}", V4l2Source(width=640)),
        ("{kind: simulated, defect_rate: 0.5}", SimulatedSource(defect_rate=0.5)),
    ],
)
def test_kinds_of_source(file: Path, kind: str, source: object) -> None:
    assert load(file, [f"source={kind}"]).source == source


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  fps: 25", "  fpss: 25", "x.yaml:6: source.fpss: unknown key; did you mean fps?"),
        ("station: st1", "staton: st1", "x.yaml:1: staton: unknown key; did you mean station?"),
        (
            "  fps: 25",
            "  zzz: 25",
            "x.yaml:6: source.zzz: unknown key; "
            "known: kind, path, fps, start_frame, end_frame, loop, grey",
        ),
        (
            "fps: 25",
            "fps: fast",
            "x.yaml:6: source.fps: expected a number from 0 to 100000, got 'fast'",
        ),
        ("fps: 25", "fps: -1", "x.yaml:6: source.fps: expected a number from 0 to 100000, got -1"),
        ("fps: 25", "fps: .nan", "x.yaml:6: .nan is not a finite number"),
        ("fps: 25", "fps: -.inf", "x.yaml:6: -.inf is not a finite number"),
        ("fps: 25", "fps: 1e999", "x.yaml:6: 1e999 is not a finite number"),
        ("fps: 25", "grey: yes", "x.yaml:6: source.grey: expected true or false, got 'yes'"),
        ("fps: 25", "loop: 1", "x.yaml:6: source.loop: expected true or false, got 1"),
        (
            "fps: 25",
            "end_frame: 2.5",
            "x.yaml:6: source.end_frame: expected a whole number of 0 or more, got 2.5",
        ),
        (
            "fps: 25",
            "start_frame: 9\n  end_frame: 9",
            "x.yaml:7: source.end_frame: 9 does not come after start_frame 9",
        ),
        ("fps: 25", "path: other.mp4", "x.yaml:6: source.path: given twice, first in line 5"),
        (
            "kind: file",
            "kind: fil",
            "x.yaml:4: source.kind: unknown source kind 'fil'; did you mean file?",
        ),
        (
            "kind: file",
            "kind: gigabit",
            "x.yaml:4: source.kind: unknown source kind 'gigabit'; "
            "known: file, images, v4l2, simulated",
        ),
        (
            "  kind: file\n",
            "",
            "x.yaml:3: source.kind: missing; expected one of file, images, v4l2, simulated",
        ),
        (
            "  path: clips/belt.mp4\n",
            "",
            "x.yaml:3: source.path: missing; expected text that is not empty",
        ),
        (
            "station: st1\n",
            "",
            "x.yaml:1: station: missing; expected text like ^[A-Za-z0-9_-]{1,32}(?!\\n)$",
        ),
        ("clips/belt.mp4", "''", "x.yaml:5: source.path: expected text that is not empty, got ''"),
        ("clips/belt.mp4", '"a\\0b"', "x.yaml:5: a zero character is not text"),
        (
            "recipe: recipes/bottle",
            "recipe: 3",
            "x.yaml:2: recipe: expected text that is not empty, got 3",
        ),
        (
            "recipe: recipes/bottle",
            "recipe: [a]",
            "x.yaml:2: recipe: expected text that is not empty, got a list",
        ),
        (
            "tcp://127.0.0.1:7000",
            "tcp://127.0.0.1:5560",
            "x.yaml:8: publish.control: tcp://127.0.0.1:5560 is taken by decisions",
        ),
        (
            "tcp://127.0.0.1:7000",
            "7000",
            "x.yaml:8: publish.control: expected text, got 7000",
        ),
        (
            "tcp://127.0.0.1:7000",
            "localhost:7000",
            "x.yaml:8: publish.control: 'localhost:7000' is neither tcp://HOST:PORT "
            "nor a short ipc://PATH",
        ),
        (
            "publish:\n",
            "publish: 3\npublished:\n",
            "x.yaml:8: published: unknown key; did you mean publish?",
        ),
        (
            "  control: tcp://127.0.0.1:7000\n",
            "",
            "x.yaml:7: publish: expected keys and values, got nothing",
        ),
        (
            "  fps: 25",
            "\tfps: 25",
            "x.yaml:6: not YAML: found character '\\t' that cannot start any token",
        ),
        ("fps: 25", "fps: [1", "x.yaml:7: not YAML: expected ',' or ']', but got ':'"),
        (
            "fps: 25",
            "fps: &a 25\n  start_frame: *a",
            "x.yaml:7: aliases (*name) are not supported; write it out",
        ),
        (
            "fps: 25",
            "fps: !!python/name:os.system x",
            "x.yaml:6: the tag python/name:os.system is not supported",
        ),
        ("fps: 25", "fps: !!binary x", "x.yaml:6: the tag binary is not supported"),
        ("fps: 25", "? [a]\n  : 3", "x.yaml:6: a key must be a word"),
        (
            "fps: 25",
            "? |\n    two\n    lines\n  : 3",
            "x.yaml:6: source.two\\nlines\\n: unknown key; known: ",
        ),
    ],
)
def test_what_is_wrong_and_where(file: Path, old: str, new: str, expected: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    file.write_text(text)
    said = complaint(file)
    assert said.startswith(expected) if "two" in expected else said == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "x.yaml:1: the file is empty"),
        (b"# only words\n---\n", "x.yaml:3: expected keys and values, such as station: st1"),
        (b"- a\n- b\n", "x.yaml:1: expected keys and values, such as station: st1"),
        (b"station: st1\nrecipe: caf\xe9\n", "x.yaml:2: not UTF-8 text (byte 0xe9)"),
        (b"a: 1\nb: \x01\n", "x.yaml:2: not YAML: character '\\x01' is not allowed"),
        (b"a: 1\n---\nb: 1\n", "x.yaml:2: not YAML: but found another document"),
        (b"[" * 5000, "x.yaml:1: nested too deeply"),
        (b"a: " + b"[" * 40 + b"]" * 40, "x.yaml:1: nested too deeply"),
        (b"a: " + b"9" * 5000, "x.yaml:1: " + repr("9" * 40) + " is not a whole number"),
        (b"a: 0x8000000000000000", "x.yaml:1: 0x8000000000000000 does not fit into 64 bits"),
        (b'a: "\\UFFFFFFFF"', "x.yaml:1: not YAML: "),
        (b'a: "\\ud800"', "x.yaml:1: half a surrogate pair is not text"),
        (b"#" * (1 << 20) + b"#", "x.yaml:1: larger than 1 MiB; this is no configuration"),
    ],
)
def test_files_that_are_no_configuration(file: Path, data: bytes, expected: str) -> None:
    file.write_bytes(data)
    assert complaint(file).startswith(expected)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert complaint(tmp_path / "a.yaml") == "a.yaml: cannot be read: No such file or directory"
    (tmp_path / "d").mkdir()
    assert complaint(tmp_path / "d") == "d: cannot be read: Is a directory"
    assert complaint(tmp_path / "a\0b").startswith("a\\x00b: cannot be read: ")


def test_a_bom_and_windows_line_ends_are_fine(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(file).station == "st1"
    file.write_bytes(GOOD.replace("fps:", "fpss:").replace("\n", "\r\n").encode())
    assert complaint(file).startswith("x.yaml:6: ")


def test_words_that_older_yaml_takes_for_something_else(file: Path) -> None:
    file.write_text(GOOD.replace("st1", "no") + "heatmaps: {when: off}\ndeadline_ms: 1e2\n")
    config = load(file)
    assert (config.station, config.heatmaps.when, config.deadline_ms) == ("no", "off", 100.0)


def test_overrides(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load(
        file,
        ["source.fps=12.5", "batch.max_frames=1", "recipe=mine", "heatmaps.when=off", "threshold="],
    )
    assert isinstance(config.source, FileSource)
    assert (config.source.fps, config.batch.max_frames) == (12.5, 1)
    assert config.heatmaps.when == "off"
    assert config.threshold is None
    assert config.recipe == str(elsewhere / "mine")
    assert config.source.path == str(file.parent / "clips/belt.mp4")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("source.fpss=3", "source.fpss: unknown key; did you mean fps?"),
        ("source.fps=.nan", ".nan is not a finite number"),
        ("source.fps=[", "not YAML: "),
        ("source={kind: v4l2, fps: 0}", "source.fps: expected a number from 0.1 to 100000, got 0"),
        ("source.fps", "expected KEY=VALUE, such as source.fps=30"),
        ("=3", "expected KEY=VALUE, such as source.fps=30"),
        ("a..b=3", "expected KEY=VALUE, such as source.fps=30"),
        ("station.x=3", "station has no keys"),
        ("source={kind: images}", "source.path: missing; expected text that is not empty"),
    ],
)
def test_overrides_that_are_wrong_are_named(file: Path, override: str, expected: str) -> None:
    assert complaint(file, override).startswith(f"--set {override}: {expected}")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_examples_load(path: Path) -> None:
    config = load(path)
    assert type(config.source).__struct_config__.tag == path.stem


def test_there_is_an_example_for_each_kind_of_source() -> None:
    sources = (FileSource, ImagesSource, V4l2Source, SimulatedSource)
    kinds = {str(source.__struct_config__.tag) for source in sources}
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} == kinds


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    _loads_or_complains(tmp_path_factory, data)


PIECES = """
    station source kind file path fps : - { } [ ] , &a *a !! !!int !x | > ' " \\ \\x \\U # % %YAML
    --- ... ? << ~ 0x 0o8 1e5 .inf 12:30 \ufeff
"""
WORDS = st.sampled_from([*PIECES.split(), "\n", "\n  ", " ", "\t"])


@given(st.lists(WORDS | st.characters(), max_size=40).map("".join))
def test_any_pieces_of_yaml_are_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    _loads_or_complains(tmp_path_factory, text.encode("utf-8", "surrogatepass"))


NOISE = st.lists(WORDS, min_size=1, max_size=4).map("".join)


@given(line=st.sampled_from(GOOD.splitlines()), noise=NOISE, after=st.booleans())
def test_a_damaged_config_is_a_config_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, line: str, noise: str, after: bool
) -> None:
    damaged = GOOD.replace(line, line + noise if after else noise + line)
    _loads_or_complains(tmp_path_factory, damaged.encode())


def _loads_or_complains(factory: pytest.TempPathFactory, data: bytes) -> None:
    path = factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(load(path), Config)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


LOOKALIKES = [
    "1e3",
    "off",
    "no",
    "012",
    "0o7",
    "0x1F",
    "~",
    "null",
    "1_000",
    "1:30",
    "<<",
    ".inf",
    "-",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"))
    | st.sampled_from(LOOKALIKES)
    | st.just(""),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcxyz_.-", min_size=1), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(VALUES.filter(lambda v: v is not None))
def test_what_is_dumped_is_read_back_as_the_same(value: object) -> None:
    read = strict_yaml.parse(strict_yaml.dump(value).encode()).value
    assert read == value
    assert type(read) is type(value)


@given(
    fps=st.floats(0, 100_000),
    station=st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
    threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_the_effective_config_loads_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, fps: float, station: str, threshold: float | None
) -> None:
    config = Config(
        station=station,
        recipe="/r",
        threshold=threshold,
        source=ImagesSource(path="/a", fps=fps),
    )
    path = tmp_path_factory.getbasetemp() / "shown.yaml"
    path.write_text(effective(config))
    first = load(path)
    path.write_text(effective(first))
    assert load(path) == first
    assert (first.station, first.threshold) == (station, threshold)
    assert isinstance(first.source, ImagesSource)
    assert math.isclose(first.source.fps, fps, rel_tol=0, abs_tol=0)
