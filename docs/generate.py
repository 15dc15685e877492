"""Write the reference pages that can be made from the program: the command line and HTTP.

python docs/generate.py           writes docs/reference/cli.md and docs/reference/http.md
python docs/generate.py --check   exits with 1 when one of them is not what would be written
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from api.cli.reference import reference
from api.routes.base import Route
from api.routes.table import ALL_ROUTES

REFERENCE = Path(__file__).resolve().parent / "reference"
MADE = "<!-- Made by docs/generate.py; do not edit. -->\n"


def http_page() -> str:
    """Every endpoint with what it needs, takes and answers."""
    parts = [
        f"# HTTP\n\n{MADE}\n",
        "The running sidecar serves this as `/openapi.json` and, to read, as `/docs`; both hold the bodies' forms.",
        "A token goes into `Authorization: Bearer …`; an operator adds `project_id` (query or body) to act in another",
        "project than the token's. Errors have one form and a stable code: see [errors](errors.md).\n",
    ]
    tags: dict[str, list[Route]] = {}
    for route in ALL_ROUTES:
        tags.setdefault(route.tag, []).append(route)
    for tag, routes in tags.items():
        parts.append(f"## {tag.capitalize()}\n")
        parts.append("| endpoint | needs | answers | what it does |")
        parts.append("|---|---|---|---|")
        parts += [_row(route) for route in routes]
        parts.append("")
    return "\n".join(parts)


def _row(route: Route) -> str:
    needs = {"open": "nothing", "any": "any token"}.get(route.permission, f"`{route.permission}`")
    codes = ", ".join(sorted(route.codes))
    answers = f"{route.status}" + (f"; {codes}" if codes else "")
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)
    return f"| {route.method} `{path}` | {needs} | {answers} | {route.summary} |"


PAGES = {"cli.md": reference, "http.md": http_page}


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path = REFERENCE / name
        text = make().rstrip("\n") + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not is_check:
                path.write_text(text, encoding="utf-8")
    if is_check and stale:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run: python docs/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
