from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream import strict_yaml
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import EXPOSURES, FITS
from efficientad_stream.core.placement import Rect
from efficientad_stream.core.recipe import (
    Geometry,
    Quantiles,
    Recipe,
    ThresholdChoice,
    recipe_from_mapping,
    recipe_to_mapping,
)

number = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@st.composite
def quantiles(draw: st.DrawFn) -> Quantiles:
    low = [draw(st.floats(0, 1e6)) for _ in range(2)]
    high = [value + draw(st.floats(1e-3, 1e3)) for value in low]
    return Quantiles(low[0], high[0], low[1], high[1])


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    size = st.integers(4, 32).map(lambda n: 32 * n)
    height, width = draw(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    region = Rect(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    mask = draw(st.just("") | st.from_regex("[0-9a-f]{64}", fullmatch=True))
    fit, region_or_none = draw(st.sampled_from(FITS)), draw(st.sampled_from([None, region]))
    bound = bool(mask or region_or_none or fit == "letterbox" or draw(st.booleans()))
    return Geometry(
        draw(size), draw(size), draw(st.sampled_from([1, 3])), draw(st.sampled_from(EXPOSURES)),
        fit, region_or_none, (height, width) if bound else None, mask,
    )  # fmt: skip


recipes = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    revision=st.integers(1, 1 << 40),
    size=st.sampled_from(["S", "M"]),
    geometry=geometries(),
    quantiles=quantiles(),
    threshold=st.builds(ThresholdChoice, number, text, text, st.integers(0, 10**6)),
    model_sha256=st.from_regex("[0-9a-f]{64}", fullmatch=True),
    training=st.dictionaries(
        st.text("abcdefgh_", min_size=1, max_size=8), number | text | st.integers(-(2**40), 2**40)
    ),
)


def plain() -> dict[str, Any]:
    return {
        "format": 1,
        "name": "tiles",
        "revision": 2,
        "size": "S",
        "input": {"height": 256, "width": 384, "channels": 3},
        "quantiles": {"qa_st": 0.1, "qb_st": 0.2, "qa_ae": 0.3, "qb_ae": 0.5},
        "threshold": {"value": 0.4, "method": "manual", "data": "by eye", "good_parts": 0},
        "model_sha256": "ab" * 32,
        "training": {"steps": 5},
    }


@given(recipes)
def test_what_is_written_is_read_back_to_the_last_bit(recipe: Recipe) -> None:
    written = strict_yaml.dump(recipe_to_mapping(recipe)).encode()
    assert recipe_from_mapping(strict_yaml.parse(written).value) == recipe


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("format",), 2, "format: is not 1"),
        (("name",), "../etc", "name: '../etc'"),
        (("name",), 5, "name: 5 is not text"),
        (("revision",), 0, "revision: 0"),
        (("revision",), True, "revision: True is not a whole number"),
        (("size",), "L", "size: 'L'"),
        (("input",), [1, 2], "input: not a mapping"),
        (("input", "height"), 100, "input.height: 100"),
        (("input", "width"), 2048, "input.width: 2048"),
        (("input", "channels"), 4, "input.channels: 4"),
        (("quantiles", "qa_st"), 0.2, "quantiles: the b quantile"),
        (("quantiles", "qa_ae"), math.nan, "quantiles.qa_ae: not a finite number"),
        (("quantiles", "qb_ae"), "much", "quantiles.qb_ae: 'much' is not a number"),
        (("threshold", "value"), math.nan, "threshold.value: nan"),
        (("threshold", "value"), None, "threshold.value: None is not a number"),
        (("threshold", "method"), 1, "threshold.method: 1 is not text"),
        (("model_sha256",), "zz", "model_sha256: not 64"),
        (("training", "steps"), [1], "training.steps: neither text nor a number"),
        (("colour",), 1, "colour: unknown key"),
        (("input", "colour"), 1, "input.colour: unknown key"),
        (("input", "fit"), "squeeze", "input.fit: 'squeeze' is none of"),
        (("input", "fit"), 3, "input.fit: 3 is not text"),
        (("input", "fit"), "letterbox", "input.frame: missing"),
        (("input", "frame"), [5, 5], "input.frame: not a mapping"),
        (("input", "frame"), {"height": 5}, "input.frame.width: missing"),
        (("input", "frame"), {"height": 5, "width": 5.0}, "input.frame.width: 5.0 is not a whole"),
        (("input", "frame"), {"height": 5, "width": -5}, "input.frame: -5 x 5 pixels"),
        (("input", "region"), None, "input.region: not a mapping"),
        (("input", "region"), "0,0,5,5", "input.region: not a mapping"),
        (("input", "region"), {"x": True}, "input.region.x: True is not a whole number"),
        (
            ("input", "region"),
            {"x": 0, "y": 0, "width": 5, "height": 5, "depth": 5},
            "input.region.depth: unknown key",
        ),
        (
            ("input", "region"),
            {"x": 0, "y": 0, "width": 5, "height": 5},
            "input.frame: missing",
        ),
        (("input", "mask_sha256"), "ab", "input.mask_sha256: not 64"),
        (("input", "mask_sha256"), 7, "input.mask_sha256: 7 is not text"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str, ...], value: object, complaint: str) -> None:
    mapping = plain()
    inner = mapping
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ArtifactError) as caught:
        recipe_from_mapping(mapping)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["", "input", "quantiles", "threshold"])
def test_a_missing_key_is_named(section: str) -> None:
    for key in list(plain()[section] if section else plain()):
        mapping = plain()
        del (mapping[section] if section else mapping)[key]
        name = f"{section}.{key}" if section else key
        with pytest.raises(ArtifactError, match=f"^{name}: missing$"):
            recipe_from_mapping(mapping)


@pytest.mark.parametrize("value", [None, [], "tiles", 1])
def test_a_file_that_is_no_mapping(value: object) -> None:
    with pytest.raises(ArtifactError, match="the file: not a mapping"):
        recipe_from_mapping(value)


def test_a_number_in_a_notation_that_yaml_1_1_takes_for_text() -> None:
    mapping = plain()
    mapping["quantiles"]["qa_st"] = "1e-5"
    assert recipe_from_mapping(mapping).quantiles.qa_st == 1e-5


def test_the_first_recipes_stretch_any_frame_as_it_is() -> None:
    assert recipe_from_mapping(plain()).geometry == Geometry(256, 384)
    written = recipe_to_mapping(recipe_from_mapping(plain()))
    assert written["input"] == {**plain()["input"], "exposure": "as_is"}, "nothing else is written"


junk = st.none() | st.booleans() | st.integers() | number | text | st.lists(st.integers())


@given(
    st.sampled_from(["fit", "frame", "region", "mask_sha256"]),
    junk | st.dictionaries(st.sampled_from([*Rect._fields, "z"]), junk),
)
def test_any_junk_is_one_line(key: str, value: object) -> None:
    mapping = plain()
    mapping["input"][key] = value
    try:
        recipe_from_mapping(mapping)
    except ArtifactError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("input.")
