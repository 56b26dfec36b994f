"""The files of the page: what they may not have in them, and colours that can be read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import creamas_sc

STATIC = Path(creamas_sc.__file__).parent / "page" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
# What makes markup or code of a text, or a style that the page's policy refuses.
FORBIDDEN = (
    *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc"),
    *("eval(", "new Function", '"style"', "javascript:", "import(", "</script", "<!--"),
)
# Text on its ground; WCAG 2.2 asks for 4.5, and for 3 of what is no text.
TEXTS = ("text", "quiet", "accent", "bad", "warn")
MARKS = ("edge", *(f"category-{number}" for number in range(1, 9)))


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_put_users_texts_in_as_text(file: Path) -> None:
    content = file.read_text()
    assert [word for word in FORBIDDEN if word in content] == []
    assert "https:" not in content
    assert content.startswith('"use strict";\n')
    assert len(content.splitlines()) <= 300


class Page(HTMLParser):
    """Notes elements and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def elements() -> list[tuple[str, dict[str, str | None]]]:
    page = Page()
    page.feed((STATIC / "index.html").read_text())
    return page.elements


def test_the_page_has_nothing_inline() -> None:
    for tag, attributes in elements():
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag == "script":
            assert (STATIC.parent / (attributes["src"] or "")).is_file()
    scripts = [str(attributes["src"]) for tag, attributes in elements() if tag == "script"]
    assert sorted(scripts) == [f"static/{file.name}" for file in SCRIPTS]


def test_what_is_named_is_there() -> None:
    """Labels, titles and the elements that scripts ask for."""
    ids = {attributes["id"] for _, attributes in elements() if "id" in attributes}
    for _, attributes in elements():
        for name in ("for", "aria-labelledby", "list"):
            assert attributes.get(name) in {None, *ids, "artifact-title"}
    asked = {
        name for file in SCRIPTS for name in re.findall(r'byId\("([\w-]+)"\)', file.read_text())
    }
    assert asked <= ids


def scheme(dark: bool) -> dict[str, str]:
    """The colours of a scheme, by name."""
    light, _, rest = (
        (STATIC / "page.css").read_text().partition("@media (prefers-color-scheme: dark)")
    )
    text = rest.partition("\n}\n")[0] if dark else light
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))


def luminance(colour: str) -> float:
    """Source: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(dark: bool) -> None:
    colours = scheme(dark)
    for ground in ("ground", "raised"):
        for name in TEXTS:
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in MARKS:
        assert contrast(colours[name], colours["ground"]) >= 3, name
