"""The documentation expert: public names without a description, broken links, stale references, README, options."""

from __future__ import annotations

import ast
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from agentpool.agent import Agent
from orchestrator.analysts import markdown
from orchestrator.analysts.entrypoints import load_json, load_toml, table
from orchestrator.analysts.findings import plural
from orchestrator.analysts.languages import DOCUMENTS, is_fixture
from orchestrator.analysts.publicnames import Name, languages, public_names
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_HISTORY = re.compile(
    r"(^|/)(changelog|changes|history|news|release[-_]?notes?|migrat\w*|upgrad\w*)[^/]*(/|$)", re.IGNORECASE
)
_PLACEHOLDER = re.compile(r"(?i)(^|[/._-])(foo|bar|baz|my|your|some|new|example|awesome|path|xxx)([/._-]|$)")
_EXTERNAL = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//|#|/|\{|<|\$|%)", re.IGNORECASE)
_PATH = re.compile(
    r"^[\w.@-]+(?:/[\w.@-]+)+\.(?:py|js|ts|tsx|go|rs|java|kt|rb|php|c|h|cpp|sh|md|rst|toml|ya?ml|json|sql)$"
)
_SITE = (
    "docusaurus.config.js",
    "docusaurus.config.ts",
    "_config.yml",
    ".eleventy.js",
    "eleventy.config.js",
    "hugo.toml",
    "config.toml",
    "gatsby-config.js",
    "astro.config.mjs",
    "book.toml",
    "mkdocs.yml",
    "conf.py",
)
_OPTION = re.compile(r"[\"'](--[a-z][a-z0-9-]{2,})(?:/--[a-z-]+)?[\"']")
_ENVIRONMENT = re.compile(
    r"(?:os\.environ(?:\.get)?[\[(]\s*|os\.getenv\(\s*|envvar=|process\.env\.|os\.Getenv\(\s*|env::var\(\s*|System\.getenv\(\s*)"
    r"[\"']?([A-Z][A-Z0-9_]{3,})"
)
_COMMON_ENV = re.compile(
    r"^(PATH|HOME|USER|SHELL|LANG|LC_\w+|TERM|TMPDIR|EDITOR|PAGER|PWD|CI|NODE_ENV|NO_COLOR|DEBUG|TZ|XDG_\w+"
    r"|COLUMNS|LINES|LESS|VISUAL|SSL_CERT_\w+|HTTPS?_PROXY|ALL_PROXY|NO_PROXY|PYTHON\w+|APPDATA|COMSPEC)$"
)


def run(agent: Agent) -> dict[str, Any]:
    """Check what the project tells its users and developers."""
    return conduct(agent, lambda bench: Documentation(bench).work())


class Documentation:
    """One look at one project's documentation."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._tree = bench.tree
        self._documents = [file for file in self._tree.of(DOCUMENTS) if not self._is_aside(file)]
        self._anchors: dict[str, set[str]] = {}

    def work(self) -> None:
        """The README first, since it is read first."""
        self._bench.step("reading the README", 10, self._check_readme)
        self._bench.step(f"checking links in {plural(len(self._documents), 'document')}", 25, self._check_links)
        self._bench.step("looking for stale references", 45, self._check_references)
        self._bench.step("counting documented public names", 60, self._check_names)
        self._bench.step("comparing options with the documentation", 80, self._check_options)
        self._bench.step("checking examples", 90, self._check_examples)
        self._conclude()

    def _is_aside(self, file: SourceFile) -> bool:
        return file.role in {"vendored", "test", "generated"} or is_fixture(file.path) or "/." in f"/{file.path}"

    def _check_readme(self) -> None:
        readme = next((file for file in self._documents if re.match(r"(?i)readme\b", file.path)), None)
        if readme is None:
            bare = next((file for file in self._tree.files if re.match(r"(?i)readme(\.txt)?$", file.path)), None)
            is_linked = any(self._bench.root.glob("[Rr][Ee][Aa][Dd][Mm][Ee]*"))
            if bare is None and not is_linked and self._tree.files:
                advice = "Say what it is, how to install and how to use it."
                self._report.add("high", "no-readme", "There is no README.", suggestion=advice)
            return
        text = (self._tree.text(readme.path) or "").lower()
        wanted = {
            "how to install it": r"install|pip |npm |cargo |go get|docker|brew|setup|started|clone|documentation",
            "how to use it": r"usage|example|quick ?start|started|```|::\s*$|how to|tutorial|guide|documentation",
        }
        missing = [what for what, pattern in wanted.items() if not re.search(pattern, text, re.MULTILINE)]
        if missing:
            self._report.add(
                "medium", "readme-gap", f"The README does not say {' or '.join(missing)}.", path=readme.path
            )
        if len(text) < 300:
            self._report.add("low", "readme-gap", "The README is only a few lines long.", path=readme.path)
        names = " ".join(file.path.lower() for file in self._tree.files if "/" not in file.path)
        if "licen" not in names and "copying" not in names:
            self._report.add("medium", "no-license", "There is no licence file: nobody may use the project.")
        self._report.metrics["documents"] = len(self._documents)

    def _check_links(self) -> None:
        checked = skipped = 0
        for file in self._documents:
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all links were checked: time was up")
                break
            text = self._tree.text(file.path)
            if text is None:
                continue
            is_site = self._is_site_page(file.path, text)
            found = markdown.links(text) if file.language == "Markdown" else markdown.rst_links(text)
            for link in found:
                target = link.target.replace("\\", "")
                if target.startswith("#") and not is_site and file.language == "Markdown":
                    checked += 1
                    self._check_anchor(file.path, link.line, file.path, target[1:])
                    continue
                if _EXTERNAL.match(target) or re.search(r"\{\{|\{%|::|^[\[`]", target):
                    continue
                path, _, anchor = target.partition("#")
                path = unquote(path.partition("?")[0])
                if "src/" in file.path and self._tree.get("Cargo.toml") and not path.endswith((".md", ".png")):
                    continue  # rustdoc resolves names of items and its own pages
                if is_site and not re.search(r"\.(md|markdown|png|jpe?g|svg|gif)$", path):
                    skipped += 1
                    continue
                checked += 1
                self._check_target(file, link, path, anchor, is_site)
        self._report.metrics |= {"links_checked": checked, "links_left_to_the_site_generator": skipped}

    def _is_site_page(self, path: str, text: str) -> bool:
        """Whether a site generator, not GitHub, resolves the page's links: front matter, or its configuration above."""
        parts = path.split("/")
        above = ["/".join([*parts[:depth], name]) for depth in range(1, len(parts)) for name in _SITE]
        return (
            text.startswith("---\n")
            or any(self._tree.get(name) for name in above)
            or (len(parts) > 1 and any(self._tree.get(name) for name in ("mkdocs.yml", "docusaurus.config.js")))
        )

    def _check_target(self, file: SourceFile, link: markdown.Link, path: str, anchor: str, is_site: bool) -> None:
        base = posixpath.dirname(file.path)
        target = posixpath.normpath(posixpath.join(base, path))
        if target.startswith(".."):
            return
        candidates = [target, f"{target}.md", f"{target}.rst", f"{target}/README.md", f"{target}/index.md"]
        candidates += [re.sub(r"\.html$", end, target) for end in (".md", ".rst")]
        if file.language == "reStructuredText" and path.startswith("/"):
            return
        hit = next((one for one in candidates if self._tree.has(one)), None)
        if hit is None and "://" in path:
            self._report.add(
                "medium",
                "broken-link",
                f"The link to {link.target} is read as a file's name: something stands before the address.",
                path=file.path,
                line=link.line,
                suggestion="Take away what surrounds the address.",
                weight=2.0 if "/" not in file.path else 1.0,
            )
        elif hit is None and not (self._bench.root / target).exists():
            self._report.add(
                "medium",
                "broken-link",
                f"The link to {link.target} leads nowhere: there is no {target}.",
                path=file.path,
                line=link.line,
                suggestion=self._nearest(target),
                weight=2.0 if "/" not in file.path else 1.0,
            )
        elif hit is not None and anchor and hit.endswith(".md") and not is_site:
            self._check_anchor(file.path, link.line, hit, anchor)

    def _check_anchor(self, path: str, line: int, target: str, anchor: str) -> None:
        if target not in self._anchors:
            self._anchors[target] = {one.lower() for one in markdown.anchors(self._tree.text(target) or "")}
        wanted = unquote(anchor).lower()
        known = self._anchors[target]
        if wanted and wanted not in known and wanted != "top" and not re.match(r"l\d+", wanted):
            self._report.add(
                "low",
                "broken-anchor",
                f"{target} has no heading for #{anchor}.",
                path=path,
                line=line,
                suggestion="Name an existing heading.",
            )

    def _nearest(self, target: str) -> str:
        name = target.rpartition("/")[2]
        same = [file.path for file in self._tree.files if file.path.rpartition("/")[2] == name][:2]
        return f"There is {' and '.join(same)}." if same else "Mend or remove the link."

    def _check_references(self) -> None:
        """Paths in inline code whose directory is there while the file is not."""
        for file in self._documents:
            if _HISTORY.search(file.path) or self._bench.deadline.is_over:
                continue
            for code, line in markdown.inline_code(self._tree.text(file.path) or ""):
                if not _PATH.match(code) or self._tree.has(code):
                    continue
                beside = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), code))
                is_there = self._tree.has(beside) or (self._bench.root / code).exists()
                parent = posixpath.dirname(code)
                if is_there or _PLACEHOLDER.search(code) or not self._tree.has(parent):
                    continue
                self._report.add(
                    "low",
                    "stale-reference",
                    f"Names {code}, which is not there.",
                    path=file.path,
                    line=line,
                    suggestion=self._nearest(code),
                )

    def _check_names(self) -> None:
        found: list[Name] = []
        for file in self._tree.of(languages(), {"source"}):
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all public names were read: time was up")
                break
            if not self._tree.is_generated(file.path):
                found.extend(public_names(self._tree, file))
        bare: dict[str, list[Name]] = defaultdict(list)
        methods = {name.name.rpartition(".")[2] for name in found if name.is_documented and "." in name.name}
        for name in found:
            is_inherited = "." in name.name and name.name.rpartition(".")[2] in methods
            if not name.is_documented and not is_inherited:
                bare[name.path].append(name)
        documented = len(found) - sum(len(names) for names in bare.values())
        rate = documented / len(found) if found else None
        self._report.metrics |= {
            "public_names": len(found),
            "public_names_documented": documented,
            "name_coverage": round(rate, 3) if rate is not None else None,
        }
        order = {path: index for index, path in enumerate(self._bench.earlier.paths("public_modules"))}
        ranked = sorted(bare, key=lambda path: (order.get(path, len(order)), -len(bare[path]), path))
        self._report.artifacts["undocumented"] = [
            {"path": path, "names": [name.name for name in bare[path]][:20], "count": len(bare[path])}
            for path in ranked
        ]
        for path in ranked[:8]:
            names = bare[path]
            shown = ", ".join(name.name for name in names[:5]) + (
                f" and {len(names) - 5} more" if len(names) > 5 else ""
            )
            self._report.add(
                "low",
                "undocumented-names",
                f"{plural(len(names), 'public name')} without a description: {shown}.",
                path=path,
                line=names[0].line,
                suggestion="Say what each is for, what it takes and what it gives.",
                weight=len(order) - order.get(path, len(order)) + len(names) / 100,
            )
        if order:
            givers = ", ".join(self._bench.earlier.givers("public_modules"))
            self._report.decisions.append(f"Ranked undocumented names by the public modules that {givers} listed.")

    def _check_options(self) -> None:
        prose = "\n".join(
            self._tree.text(file.path) or ""
            for file in self._tree.files
            if file.language in DOCUMENTS or file.path.endswith((".txt", ".1", ".adoc", ".html"))
        )
        if not prose or not self._documents:
            return
        options: dict[str, str] = {}
        variables: dict[str, str] = {}
        for file in self._tree.of({"Python", "JavaScript", "TypeScript", "Go", "Rust", "Java"}, {"source"}):
            text = self._tree.text(file.path) or ""
            if re.search(r"add_argument|@(?:\w+\.)?option\(|\.option\(|yargs|commander", text):
                for match in _OPTION.finditer(text):
                    options.setdefault(match[1], file.path)
            for match in _ENVIRONMENT.finditer(text):
                variables.setdefault(match[1], file.path)
        self._tell_missing("undocumented-option", "command-line option", options, prose)
        own = {name: path for name, path in variables.items() if not _COMMON_ENV.match(name)}
        self._tell_missing("undocumented-variable", "environment variable", own, prose)

    def _tell_missing(self, kind: str, what: str, found: dict[str, str], prose: str) -> None:
        missing = sorted(name for name in found if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", prose))
        self._report.metrics[f"{kind}s"] = f"{len(missing)} of {len(found)}"
        if missing:
            self._report.artifacts[f"{kind}s"] = [{"name": name, "path": found[name]} for name in missing]
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            self._report.add(
                "low",
                kind,
                f"{plural(len(missing), what)} not mentioned in any document: {shown}.",
                path=found[missing[0]],
                suggestion="Describe them where users look.",
            )

    def _check_examples(self) -> None:
        for file in self._documents:
            if not re.match(r"(?i)readme[^/]*\.md$", file.path):
                continue  # further pages show fragments on purpose
            for line, message in _broken_examples(self._tree.text(file.path) or ""):
                self._report.add(
                    "low",
                    "broken-example",
                    f"The Python example does not parse: {message}.",
                    path=file.path,
                    line=line,
                    suggestion="Readers paste it: make it whole.",
                )

    def _conclude(self) -> None:
        report = self._report
        kinds = Counter(finding.kind for finding in report.ranked())
        version = table(load_toml(self._tree, "pyproject.toml"), "project").get("version") or load_json(
            self._tree, "package.json"
        ).get("version")
        log = next((file for file in self._documents if _HISTORY.search(file.path) and "/" not in file.path), None)
        if (
            log is not None
            and isinstance(version, str)
            and "dev" not in version
            and version not in (self._tree.text(log.path) or "")
        ):
            report.add(
                "info", "changelog-behind", f"{log.path} does not mention the current version {version}.", path=log.path
            )
        rate = report.metrics.get("name_coverage")
        report.metrics["kinds"] = dict(kinds)
        report.summary = (
            f"{plural(len(self._documents), 'document')}, "
            f"{plural(report.metrics.get('links_checked', 0), 'link')} checked: "
            f"{kinds['broken-link']} broken, {plural(kinds['broken-anchor'], 'wrong anchor')}, "
            f"{plural(kinds['stale-reference'], 'stale reference')}."
            + (
                f" {rate:.0%} of {report.metrics['public_names']} public names are described."
                if rate is not None
                else ""
            )
        )
        grave = [one for one in report.ranked() if one.severity in {"high", "medium"}]
        report.next_steps.extend(f"Mend {one.kind} in {one.place}" for one in grave[:5])


def _broken_examples(text: str) -> Iterator[tuple[int, str]]:
    """Python blocks that do not parse, those left aside that are sessions, fragments or templates."""
    for block in markdown.code_blocks(text):
        if block.language not in {"python", "py", "python3"} or ">>>" in block.text or "{%" in block.text:
            continue
        if re.search(
            r"^\s*(\.\.\.|…|\$ |async for|await |%|!)|<[a-z_ -]+>|[^.]\.\.\.[^.\])]", block.text, re.MULTILINE
        ):
            continue
        if block.text.startswith((" ", "\t")):
            continue
        try:
            ast.parse(block.text)
        except SyntaxError as error:
            yield block.line + (error.lineno or 1) - 1, error.msg or "invalid syntax"
        except ValueError:
            continue
