"""The cache of answers, globs, and frames between the processes."""

from __future__ import annotations

import socket
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.context.cache import ContextCache, Entry, Key
from orchestrator.context.frames import Ask, Stale, Told, decode_answer, decode_ask, encode, receive
from orchestrator.context.globs import compile_globs


def key(task: str, issue_id: str = "i", project_id: str = "p") -> Key:
    return Key(
        project_id=project_id, issue_id=issue_id, agent_type="a", revision="", task=task, max_bytes=1, requirements=()
    )


def entry(size: int) -> Entry:
    return Entry(b"x" * size, '"e"', 1, 1, "")


def test_the_least_recently_used_goes_first() -> None:
    """The cache grew without bound, or dropped what is used most."""
    cache = ContextCache(10_000)
    for name in ("a", "b"):
        cache.put(key(name), entry(3000))
    assert cache.get(key("a")) is not None
    cache.put(key("c"), entry(3000))
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is not None
    assert cache.size_bytes <= 10_000
    cache.put(key("d"), entry(50_000))
    assert cache.get(key("d")) is None
    assert len(cache) == 2


def test_clearing_counts_what_it_frees() -> None:
    """The figures of DELETE /api/cache were wrong."""
    cache = ContextCache(100_000)
    cache.put(key("a"), entry(100))
    cache.put(key("b"), entry(200))
    cache.put(key("a", issue_id="other"), entry(300))
    cache.put(key("a", project_id="q"), entry(400))
    before = cache.size_bytes
    cleared = cache.clear("p", "i")
    assert cleared.entries_removed == 2
    assert before - cache.size_bytes == cleared.bytes_freed
    assert cache.clear("p").entries_removed == 1
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("glob", "path", "is_chosen"),
    [
        ("*.py", "a/b/c.py", True), ("*.py", "a.pyc", False), ("/a.py", "a.py", True), ("/a.py", "b/a.py", False),
        ("docs/**", "docs/x/y.md", True), ("docs/**", "a/docs/x.md", False), ("docs", "a/docs/x.md", True),
        ("build/", "build/x", True), ("build/", "build", False), ("**/x.md", "x.md", True), ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True), ("READ[MN]E*", "readme.md", True), ("[!a].py", "a.py", False), ("a?c", "abc", True),  # noqa: E501
        ("*auth*", "src/Auth/login.py", True), ("a\\*b", "a*b", True), ("a\\*b", "axb", False),
        ("[!]", "[!]", True), ("[z-a]", "[z-a]", True), ("[!]a].py", "b.py", True), ("[!]a].py", "].py", False),
    ],
)  # fmt: skip
def test_globs_choose_as_git_does(glob: str, path: str, is_chosen: bool) -> None:
    """A profile's glob chose other files than the same line in .gitignore."""
    pattern = compile_globs((glob,))
    assert pattern is not None
    assert (pattern.match(path) is not None) is is_chosen


@pytest.mark.parametrize(
    ("glob", "path"),
    [("*a" * 20 + "b", "a" * 200), ("a" + "*" * 20 + "b", "a" * 200), ("**/a/" * 20 + "b", "a/" * 200 + "c")],
)
def test_no_glob_takes_long(glob: str, path: str) -> None:
    """A glob of a project's own file was tried in billions of ways, and all projects waited for it."""
    pattern = compile_globs((glob,))
    assert pattern is not None
    assert pattern.match(path) is None
    assert pattern.match(path[:-1] + "b") is not None


_GLOBS = st.lists(st.sampled_from(["*", "**", "**/", "/", "a", "b", "ab", "?", "[ab]", "[!a]"]), min_size=1, max_size=9)


@given(_GLOBS.map("".join), st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "c"]), min_size=1, max_size=5))
def test_globs_choose_what_they_say(glob: str, parts: list[str]) -> None:
    """A pattern that tries only the nearest match of a star overlooked a farther one that was needed."""
    pattern = compile_globs((glob,))
    chosen = pattern is not None and pattern.match("/".join(parts)) is not None
    names = glob.strip("/").split("/")
    if "/" not in glob.rstrip("/"):
        names.insert(0, "**")
    ends = range(1, len(parts) + (not glob.endswith("/")))  # a matched directory brings all below it
    assert chosen is (bool(glob.strip("/")) and any(_agree(names, parts[:end]) for end in ends))


def _agree(names: list[str], parts: list[str]) -> bool:
    """Whether names with wildcards are these parts, tried in every way."""
    if not names or not parts:
        return not names and not parts
    if names == ["**"]:
        return True
    if names[0] == "**":
        return any(_agree(names[1:], parts[skipped:]) for skipped in range(len(parts)))
    return fnmatchcase(parts[0], names[0]) and _agree(names[1:], parts[1:])


def test_frames_survive_the_socket_and_a_torn_one_is_the_end() -> None:
    """Half a message of a dying process was taken for a message."""
    left, right = socket.socketpair()
    with left, right:
        left.sendall(encode(Ask(number=7, what="search", root="/r", query="q")))
        payload = receive(right)
        assert payload is not None
        assert decode_ask(payload).query == "q"
        for message in (Told(number=1, body=b"\0\xff"), Stale(root="/r", epoch=3)):
            left.sendall(encode(message))
            payload = receive(right)
            assert payload is not None
            assert decode_answer(payload) == message
        left.sendall(encode(Stale(root="/r", epoch=3))[:-1])
        left.shutdown(socket.SHUT_WR)
        assert receive(right) is None
