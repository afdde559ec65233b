"""Figures in the page: what is seen stays as it was, the bytes are fewer, and nothing in them ends the attribute."""

import base64
import io
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from inferometer.plotting import save, style
from inferometer.report.embed import DECIMALS, compact_svg, data_uri, size_px

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A figure with all that charts here hold: lines, bands, points, a map of colours, letters, a clip path."""
    path = tmp_path_factory.mktemp("figure") / "figure.svg"
    with style():
        drawn, (left, right) = plt.subplots(ncols=2, figsize=(6, 3))
        x = np.linspace(0, 7, 300)
        left.plot(x, np.sin(x), label="a 'quoted' & <tagged> #1 50 %")
        left.fill_between(x, np.sin(x) - 0.1, np.sin(x) + 0.1, alpha=0.3)
        left.errorbar([1, 2], [0, 0.5], yerr=0.2, fmt="o")
        left.legend()
        right.imshow(np.arange(12.0).reshape(3, 4))
        right.set_ylabel("α → ∞", rotation=45)
    save(drawn, path, 60)
    return path


def numbers(document: str, name: str) -> list[float]:
    """All numbers in the attributes of that name, in the document's order."""
    values = [element.get(name, "") for element in ElementTree.fromstring(document).iter()]
    return [float(number) for value in values for number in NUMBER.findall(value)]


def test_every_line_stays_where_it_was(figure: Path) -> None:
    before = figure.read_text(encoding="utf-8")
    after = compact_svg(before)
    old, new = numbers(before, "d"), numbers(after, "d")
    assert len(old) == len(new) > 600
    assert np.abs(np.array(old) - np.array(new)).max() <= 0.5 * 10**-DECIMALS + 1e-9
    for name in ("width", "height", "viewBox"):
        assert numbers(before, name) == numbers(after, name)


def test_every_letter_stays_where_it_was(figure: Path) -> None:
    """Shifts along a line, as transformations before and as places after."""
    before = figure.read_text(encoding="utf-8")
    uses = {
        kind: [element for element in ElementTree.fromstring(text).iter() if element.tag.endswith("}use")]
        for kind, text in (("before", before), ("after", compact_svg(before)))
    }
    assert len(uses["before"]) == len(uses["after"]) > 50
    for old, new in zip(uses["before"], uses["after"], strict=True):
        shift = re.fullmatch(r"translate\((\S+) 0\)", old.get("transform", ""))
        place = float(shift[1]) if shift else float(old.get("x", "0"))
        assert float(new.get("x", "0")) == pytest.approx(place, abs=0.05)


def test_every_reference_leads_somewhere_and_nothing_else_is_named(figure: Path) -> None:
    after = ElementTree.fromstring(compact_svg(figure.read_text(encoding="utf-8")))
    names = {element.attrib["id"] for element in after.iter() if "id" in element.attrib}
    values = [value for element in after.iter() for value in element.attrib.values()]
    used = {name for value in values for name in re.findall(r"(?:url\(|^)#(n\d+)", value)}
    assert names == used
    assert len(names) > 20


def test_it_is_smaller_and_says_nothing_of_its_making(figure: Path) -> None:
    before = figure.read_text(encoding="utf-8")
    uri = data_uri(figure)
    assert len(uri) < 0.8 * len(before)
    assert "Matplotlib" in before
    assert "Matplotlib" not in uri
    assert "<!--" in before
    assert "%3C!--" not in uri


def test_the_address_holds_the_drawing_and_nothing_that_ends_it(figure: Path) -> None:
    uri = data_uri(figure)
    assert not set(uri) & set('"<>&#\n')
    kind, content = uri.split(",", 1)
    assert kind == "data:image/svg+xml"
    drawing = compact_svg(figure.read_text(encoding="utf-8"))
    assert ElementTree.canonicalize(unquote(content)) == ElementTree.canonicalize(drawing)
    assert data_uri(figure) == uri, "equal files give equal bytes"


def test_the_page_knows_how_large_a_figure_is(figure: Path, tmp_path: Path) -> None:
    assert size_px(figure) == (576, 288), "6 by 3 inches of 96 pixels"
    matplotlib.image.imsave(tmp_path / "figure.png", np.zeros((40, 60, 3), dtype=np.uint8))
    assert size_px(tmp_path / "figure.png") == (60, 40)


def test_a_group_that_moves_its_children_is_kept() -> None:
    moved = '<g transform="translate(3 0)"><path d="M0 0"/></g>'
    document = f'<svg xmlns="http://www.w3.org/2000/svg"><g id="a">{moved}</g></svg>'
    assert compact_svg(document) == f'<svg xmlns="http://www.w3.org/2000/svg">{moved}</svg>'


def test_every_pixel_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    matplotlib.image.imsave(path, pixels)
    kind, content = data_uri(path).split(",")
    assert kind == "data:image/webp;base64"
    again = matplotlib.image.imread(io.BytesIO(base64.b64decode(content)), format="webp")
    np.testing.assert_array_equal(again[..., :3], pixels)
