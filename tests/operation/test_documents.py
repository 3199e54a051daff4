"""What README and docs/ say is where: links, files, the map of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def anchors(document: Path) -> set[str]:
    """What a link to one of its headings ends with."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = document.parent / path if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_is_there(name: str) -> None:
    for path in re.findall(r"`((?:mover|workers|config|tests)/[\w/.-]*\.\w+)", (ROOT / name).read_text()):
        assert (ROOT / path).exists(), path


def test_the_map_names_every_package() -> None:
    """In the table at the end of architecture.md; `v2/` there stands beside `mover/library/v1/`."""
    table = (ROOT / "docs/architecture.md").read_text().partition("## Where what stands")[2]
    named = set()
    for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        named |= {Path(first), *(Path(first).parent / other for other in others)}
    inits = [path.relative_to(ROOT) for top in ("mover", "workers") for path in (ROOT / top).glob("*/**/__init__.py")]
    packages = {path.parent for path in inits}
    assert packages - named == set()
    assert all((ROOT / path).exists() for path in named)
