"""Figures as they lie in the page: the same picture in fewer bytes, as an address that needs no network.

A vector figure loses what no reader sees: metadata, names that nothing refers to, digits beyond a hundredth of a
point. A raster figure keeps every pixel and is only coded better. Equal files give equal bytes.
"""

import base64
import io
import re
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
from markupsafe import Markup

SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
DECIMALS = 2  # of a point, 1/72 inch: finer than any screen or printer
UNESCAPED = " !$()*+,/:;=?@[]^`{|}~'"  # what may stand in a data address between the double quotes of an attribute
LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}(?![\de])")
REFERENCE = re.compile(r"#([\w.-]+)")
ALONG = re.compile(r"translate\((\S+) 0\)")
TRANSLATION = re.compile(r"translate\(([^ )]+) ([^ )]+)\)")


def _rounded(text: str) -> str:
    """The text with every long decimal number cut to the digits that show."""
    return LONG_NUMBER.sub(lambda found: f"{round(float(found[0]), DECIMALS) + 0.0:g}", text)


def _path(commands: str) -> str:
    """A path's commands with no more than the spaces that they need."""
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(" ".join(commands.split())))


def _transform(text: str) -> str:
    """Translations cut to the digits that show; scales stay exact, since they multiply."""
    return TRANSLATION.sub(lambda found: f"translate({_rounded(found[1])} {_rounded(found[2])})", text)


def _style(text: str) -> str:
    return re.sub(r"([:;]) ", r"\1", text)


COMPACT = {"d": _path, "x": _rounded, "y": _rounded, "transform": _transform, "style": _style}


def _shorten_names(root: ElementTree.Element) -> None:
    """Give all that is referred to the shortest names, and take those away that nothing refers to."""
    referred = set(REFERENCE.findall(" ".join(value for one in root.iter() for value in one.attrib.values())))
    names: dict[str, str] = {}
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in referred:
            element.set("id", names.setdefault(name, f"n{len(names)}"))
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, REFERENCE.sub(lambda found: f"#{names.get(found[1], found[1])}", value))


def _unwrap_bare_groups(parent: ElementTree.Element) -> None:
    """Put the children of groups that say nothing in the place of the group."""
    children: list[ElementTree.Element] = []
    for child in parent:
        _unwrap_bare_groups(child)
        children += list(child) if child.tag == f"{{{SVG}}}g" and not child.attrib else [child]
    parent[:] = children


def compact_svg(text: str) -> str:
    """The same drawing as `text`, an SVG document, without what doesn't show."""
    root = ElementTree.fromstring(text)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        if element.tag != f"{{{SVG}}}style":
            element.text = element.text and element.text.strip()
        element.tail = None
        for name, compact in COMPACT.items():
            if name in element.attrib:
                element.set(name, compact(element.attrib[name]))
        if XLINK in element.attrib:
            element.set("href", "".join(element.attrib.pop(XLINK).split()))
        shift = ALONG.fullmatch(element.get("transform", ""))
        if (
            shift and element.tag == f"{{{SVG}}}use" and "x" not in element.attrib
        ):  # how matplotlib places letters along a line
            del element.attrib["transform"]
            element.set("x", f"{float(shift[1]):.1f}".removesuffix(".0"))
    _shorten_names(root)
    _unwrap_bare_groups(root)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")


def _webp(path: Path) -> bytes:
    """The pixels of a PNG file, all of them, coded better than PNG can."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8)
    coded = io.BytesIO()
    matplotlib.image.imsave(coded, pixels, format="webp", pil_kwargs={"lossless": True, "quality": 100, "method": 4})
    return coded.getvalue()


def size_px(path: Path) -> tuple[int, int]:
    """Width and height of the figure at `path` in pixels of CSS: the page keeps its place before it is drawn."""
    if path.suffix == ".png":
        height, width = matplotlib.image.imread(path).shape[:2]
        return width, height
    root = ElementTree.parse(path).getroot()
    width, height = (round(float(root.attrib[name].removesuffix("pt")) * 4 / 3) for name in ("width", "height"))
    return width, height


def data_uri(path: Path) -> Markup:
    """The figure at `path`, an SVG or PNG file, as a data address that can stand in an attribute as it is."""
    if path.suffix == ".png":
        return Markup("data:image/webp;base64," + base64.b64encode(_webp(path)).decode("ascii"))
    drawing = compact_svg(path.read_text(encoding="utf-8")).replace("'", "&apos;").replace('"', "'")
    return Markup("data:image/svg+xml," + quote(drawing, safe=UNESCAPED))
