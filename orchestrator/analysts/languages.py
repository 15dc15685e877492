"""Which language a file is in and what part it plays (source, test, documentation, vendored…), by its path alone."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final, Literal

Role = Literal["source", "test", "docs", "example", "tooling", "generated", "vendored", "data"]

#: Extension to language. Names are those that GitHub shows.
EXTENSIONS: Final = MappingProxyType(
    {
        "py": "Python", "pyi": "Python", "pyw": "Python",
        "js": "JavaScript", "mjs": "JavaScript", "cjs": "JavaScript", "jsx": "JavaScript",
        "ts": "TypeScript", "tsx": "TypeScript", "mts": "TypeScript", "cts": "TypeScript",
        "go": "Go", "rs": "Rust", "java": "Java", "kt": "Kotlin", "kts": "Kotlin", "scala": "Scala",
        "c": "C", "h": "C", "cc": "C++", "cpp": "C++", "cxx": "C++", "hpp": "C++", "hh": "C++",
        "cs": "C#", "fs": "F#", "vb": "Visual Basic", "swift": "Swift", "m": "Objective-C", "dart": "Dart",
        "rb": "Ruby", "php": "PHP", "pl": "Perl", "lua": "Lua", "ex": "Elixir", "exs": "Elixir", "erl": "Erlang",
        "hs": "Haskell", "clj": "Clojure", "ml": "OCaml", "r": "R", "jl": "Julia", "zig": "Zig", "nim": "Nim",
        "cls": "Apex", "trigger": "Apex", "sol": "Solidity", "groovy": "Groovy",
        "sh": "Shell", "bash": "Shell", "zsh": "Shell", "ksh": "Shell", "ps1": "PowerShell", "bat": "Batch",
        "vue": "Vue", "svelte": "Svelte", "html": "HTML", "htm": "HTML", "css": "CSS", "scss": "SCSS", "less": "Less",
        "sql": "SQL", "graphql": "GraphQL", "gql": "GraphQL", "proto": "Protocol Buffers", "tf": "Terraform",
        "md": "Markdown", "markdown": "Markdown", "mdx": "Markdown", "rst": "reStructuredText", "adoc": "AsciiDoc",
        "json": "JSON", "jsonc": "JSON", "yaml": "YAML", "yml": "YAML", "toml": "TOML", "xml": "XML", "ini": "INI",
        "ipynb": "Jupyter Notebook",
    }
)  # fmt: skip

FILENAMES: Final = MappingProxyType(
    {"Dockerfile": "Dockerfile", "Containerfile": "Dockerfile", "Makefile": "Makefile", "Jenkinsfile": "Groovy",
     "Rakefile": "Ruby", "Gemfile": "Ruby", "go.mod": "Go module"}
)  # fmt: skip

#: Languages in which programs are written: what "main language" is chosen from.
PROGRAMMING: Final = frozenset(EXTENSIONS.values()) - {
    "HTML", "CSS", "SCSS", "Less", "SQL", "GraphQL", "Protocol Buffers", "Terraform", "Markdown", "reStructuredText",
    "AsciiDoc", "JSON", "YAML", "TOML", "XML", "INI", "Jupyter Notebook",
}  # fmt: skip
DOCUMENTS: Final = frozenset({"Markdown", "reStructuredText", "AsciiDoc"})

_VENDORED = re.compile(
    r"(^|/)(vendor|vendored|node_modules|third_party|third-party|bower_components|Pods|_vendor|\.yarn|site-packages)/"
)
_GENERATED = re.compile(
    r"(^|/)(dist|build|out|generated|__generated__|gen)/|\.min\.(js|css)$|_pb2(_grpc)?\.pyi?$|\.pb\.go$|\.g\.dart$"
    r"|(^|/)(package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock|uv\.lock|Cargo\.lock"
    r"|go\.sum|composer\.lock|Gemfile\.lock|Pipfile\.lock|pdm\.lock)$|\.snap$|\.map$"
)
_TEST = re.compile(
    r"(^|/)(tests?|testing|test[_-]?(?:helpers?|utils?|support)|__tests__|spec|specs|e2e|testdata|test_data|fixtures|__fixtures__|__mocks__|cypress)/"
    r"|(^|/)(test_[^/]*|[^/]*_test|conftest|tests?|testing)\.[A-Za-z]+$|(^|/)[^/]+[._](test|spec)\.[A-Za-z]+$"
    r"|(^|/)[^/]*(Test|Tests|IT|Spec)\.(java|kt|scala|cs|swift|groovy)$"
)
_FIXTURE = re.compile(r"(^|/)(testdata|test_data|fixtures?|__fixtures__|snapshots?|golden|cassettes|samples?)/")
_EXAMPLE = re.compile(r"(^|/)_?(examples?|samples?|demos?|tutorials?|playground|templates?|cookiecutter[^/]*)/")
_DOCS = re.compile(r"(^|/)(docs?|documentation|website|site|man)/")
_TOOLING = re.compile(
    r"(^|/)(scripts?|tools?|tooling|ci|\.ci|\.github|\.circleci|hack|benchmarks?|benches|bench|perf|internal-rules)/|^\.[^/]+/"
    r"|(^|/)(setup|noxfile|tasks|fabfile|dodo)\.py$|(^|/)[^/]+\.config\.[cm]?[jt]s$|(^|/)\.[^/]+\.[cm]?js$"
    r"|(^|/)(gulpfile|Gruntfile|Makefile)\.js$"
)


def language_of(path: str) -> str | None:
    """The language of ``path`` by file name, or None when unknown."""
    name = path.rpartition("/")[2]
    if name in FILENAMES:
        return FILENAMES[name]
    if name.startswith("Dockerfile"):
        return "Dockerfile"
    stem, dot, extension = name.rpartition(".")
    return EXTENSIONS.get(extension.lower()) if dot and stem else None


def role_of(path: str, language: str | None) -> Role:
    """What part ``path`` plays; the first that fits of vendored, generated, test, example, docs, tooling, source."""
    if _VENDORED.search(path):
        return "vendored"
    if _GENERATED.search(path):
        return "generated"
    if _TEST.search(path):
        return "test"
    if _EXAMPLE.search(path):
        return "example"
    if language in DOCUMENTS or _DOCS.search(path):
        return "docs"
    if _TOOLING.search(path):
        return "tooling"
    return "source" if language in PROGRAMMING else "data"


def is_fixture(path: str) -> bool:
    """Whether ``path`` is input for tests (often wrong on purpose) rather than code that runs."""
    return _FIXTURE.search(path) is not None
