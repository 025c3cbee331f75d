"""Keeps the links of the pages true that point at a line of the source.

Such a link carries the code of its line as its title:

    [the loop](../csrc/softmax.c#L41 "for (size_t j = 0; j < n; j++)")

`python docs/links.py` says which links are not true (the test suite asks it too);
`python docs/links.py --mend` moves their line numbers to where the code stands now.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'\]\((?P<path>[^)#\s]+)(?:#(?P<anchor>[^)\s]+))?(?:\s+"(?P<code>[^"]*)")?\)')


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])


def check(page: Path) -> list[str]:
    """What is wrong with the links of a page, one line each."""
    return [problem for match in LINK.finditer(page.read_text("utf-8")) if (problem := _problem(page, match))]


def mend(page: Path) -> int:
    """Move line numbers to where the code stands now; the number of links changed."""
    before = page.read_text("utf-8")
    after = LINK.sub(lambda match: _mended(page, match), before)
    if after != before:
        page.write_text(after, "utf-8")
    return sum(a != b for a, b in zip(before.splitlines(), after.splitlines()))


def _problem(page: Path, match: re.Match[str]) -> str:
    path, anchor, code = match["path"], match["anchor"] or "", match["code"]
    if "://" in path or path.startswith("mailto:"):
        return ""
    target = (page.parent / path).resolve()
    where = f"{page.relative_to(ROOT)}: {path}"
    if not target.exists():
        return f"{where} is not there"
    if not re.fullmatch(r"L\d+", anchor):
        return "" if not code else f"{where} has a title but no line"
    if not code:
        return f"{where}#{anchor} does not carry the code of its line"
    lines = target.read_text("utf-8").splitlines()
    number = int(anchor[1:])
    if number > len(lines) or code not in lines[number - 1]:
        return f"{where}#{anchor} does not say {code!r}"
    return ""


def _mended(page: Path, match: re.Match[str]) -> str:
    if not _problem(page, match) or not match["code"] or not re.fullmatch(r"L\d+", match["anchor"] or ""):
        return match[0]
    lines = (page.parent / match["path"]).resolve().read_text("utf-8").splitlines()
    wanted = int(match["anchor"][1:])
    found = [number for number, line in enumerate(lines, 1) if match["code"] in line]
    if not found:
        return match[0]
    nearest = min(found, key=lambda number: abs(number - wanted))
    return match[0].replace(f"#{match['anchor']}", f"#L{nearest}")


def main() -> int:
    """Check, or mend and then check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mend", action="store_true", help="move line numbers to where the code stands now")
    chosen = parser.parse_args()
    if chosen.mend:
        print(f"{sum(map(mend, pages()))} lines changed")
    problems = [problem for page in pages() for problem in check(page)]
    print("\n".join(problems) or "all links are true")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
