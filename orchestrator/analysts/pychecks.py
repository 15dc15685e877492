"""Mistakes in Python that its syntax tree and symbol tables show, chosen for few false alarms."""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import symtable
from collections.abc import Iterator

from orchestrator.analysts.findings import Finding, Severity
from orchestrator.analysts.pysource import FunctionNode, PyModule, dotted, exported, is_type_checking

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MODULE_NAMES = frozenset(dir(builtins)) | {
    "__file__", "__path__", "__builtins__", "__annotations__", "__module__", "__qualname__", "__class__",
    "WindowsError", "__debug__", "reveal_type",
}  # fmt: skip
_MUTATORS = frozenset(
    {
        "append",
        "extend",
        "insert",
        "add",
        "update",
        "pop",
        "remove",
        "clear",
        "setdefault",
        "discard",
        "popitem",
        "sort",
    }
)
#: Calls that stop the event loop, and what to await instead.
_BLOCKING = {
    "time.sleep": "asyncio.sleep", "requests.get": "an async client", "requests.post": "an async client",
    "requests.request": "an async client", "urllib.request.urlopen": "an async client or asyncio.to_thread",
    "subprocess.run": "asyncio.create_subprocess_exec", "subprocess.call": "asyncio.create_subprocess_exec",
    "subprocess.check_output": "asyncio.create_subprocess_exec", "os.system": "asyncio.create_subprocess_shell",
}  # fmt: skip
_DEBUGGERS = frozenset({"breakpoint", "pdb.set_trace", "ipdb.set_trace"})
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_NOQA = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|pylint:|pyright:)", re.IGNORECASE)


def check(module: PyModule, source: str, *, is_test: bool, imported_elsewhere: frozenset[str]) -> Iterator[Finding]:
    """Findings of one parsed module.

    Args:
        module: parsed with ``compiled=True``.
        source: its text.
        is_test: test code is held to fewer rules.
        imported_elsewhere: names that other modules import from this one, which are re-exports here.
    """
    tree = module.tree
    if tree is None:
        return
    quiet = {number for number, line in enumerate(source.splitlines(), 1) if _NOQA.search(line)}
    found = [
        *_compiler_warnings(module),
        *_redefinitions(module.path, tree),
        *_bodies(module.path, tree, is_test),
        *_undefined_names(module.path, tree, source),
        *_unused_imports(module.path, tree, imported_elsewhere),
    ]
    yield from (finding for finding in found if finding.line not in quiet)


def _finding(severity: Severity, kind: str, path: str, line: int, message: str, suggestion: str = "") -> Finding:
    return Finding(severity, kind, path, line, message, suggestion)


def _compiler_warnings(module: PyModule) -> Iterator[Finding]:
    for line, message in module.warnings:
        if "assertion is always true" in message:
            yield _finding("high", "assert-tuple", module.path, line, "This assertion tests a tuple and never fails.",
                           "Remove the parentheses around condition and message.")  # fmt: skip
        elif message.startswith(('"is" with', '"is not" with')):  # a literal, which Python 3.13 names the type of
            yield _finding("medium", "is-literal", module.path, line, f"{message.rstrip('?')}?", "Compare with ==.")
        elif "is not callable" in message or "is not subscriptable" in message:
            yield _finding("high", "never-works", module.path, line, message, "A comma is probably missing before.")
        elif "invalid escape sequence" in message:
            yield _finding("low", "invalid-escape", module.path, line,
                           f"{message[0].upper()}{message[1:]}: a warning now, a syntax error in a later Python.",
                           "Use a raw string or double the backslash.")  # fmt: skip


def _redefinitions(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Functions silently replaced by a later one of the same name in the same body."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.Module | ast.ClassDef):
            continue
        seen: dict[str, ast.stmt] = {}
        used: set[str] = set()
        for node in owner.body:
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                before = seen.get(node.name)
                if before is not None and node.name not in used and not node.decorator_list and node.name != "_":
                    what = "test" if node.name.startswith(("test_", "Test")) else "definition"
                    yield _finding(
                        "high" if what == "test" else "medium", "redefinition", path, node.lineno,
                        f"{node.name} is defined again; the {what} in line {before.lineno} is never "
                        f"{'run' if what == 'test' else 'used'}.", "Rename one of them.",
                    )  # fmt: skip
                seen = {**seen, node.name: node} if not node.decorator_list else _without(seen, node.name)
            else:
                used |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _without(seen: dict[str, ast.stmt], name: str) -> dict[str, ast.stmt]:
    return {key: value for key, value in seen.items() if key != name}


def _bodies(path: str, tree: ast.Module, is_test: bool) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            if not is_test:
                yield from _mutable_defaults(path, node)
            if isinstance(node, ast.AsyncFunctionDef):
                yield from _blocking_calls(path, node)
        elif isinstance(node, ast.Try):
            yield from _handlers(path, node, is_test)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name | ast.Call):
            name = dotted(node.exc)
            if name == "NotImplemented":
                yield _finding("medium", "raise-notimplemented", path, node.lineno,
                               "NotImplemented is no exception: raising it gives a TypeError.",
                               "Raise NotImplementedError.")  # fmt: skip
        elif isinstance(node, ast.Dict) and not is_test:
            yield from _duplicate_keys(path, node)
        elif isinstance(node, ast.Call) and not is_test and dotted(node) in _DEBUGGERS:
            message = f"{dotted(node)}() stops the program here."
            yield _finding("medium", "debugger-left", path, node.lineno, message, "Remove it.")  # fmt: skip
        for body in _statement_lists(node):
            for before, after in itertools.pairwise(body):
                if isinstance(before, ast.Return | ast.Raise | ast.Continue | ast.Break):
                    if _is_generator_mark(after):
                        break
                    yield _finding("low", "unreachable", path, after.lineno,
                                   f"Never reached: the statement before ({type(before).__name__.lower()}) leaves.",
                                   "Remove it, or move it up.")  # fmt: skip
                    break


def _statement_lists(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list) and len(body) > 1:
            yield body


def _is_generator_mark(node: ast.stmt) -> bool:
    """``raise …; yield`` makes a function a generator on purpose."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom | ast.Await)


def _mutable_defaults(path: str, node: FunctionNode) -> Iterator[Finding]:
    positional = [*node.args.posonlyargs, *node.args.args]
    pairs = [*zip(positional[len(positional) - len(node.args.defaults) :], node.args.defaults, strict=True)]
    pairs += [(arg, value) for arg, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value]
    for argument, default in pairs:
        is_literal = isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp)
        is_call = isinstance(default, ast.Call) and dotted(default) in {"list", "dict", "set"}
        if (is_literal or is_call) and _is_changed(node, argument.arg):
            yield _finding("medium", "mutable-default", path, default.lineno,
                           f"{node.name} changes its default for {argument.arg}, which all calls share.",
                           f"Take None as the default and make a new one inside {node.name}.")  # fmt: skip


def _is_changed(node: FunctionNode, name: str) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in inner.targets):
            return False
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
            owner = inner.func.value
            if isinstance(owner, ast.Name) and owner.id == name and inner.func.attr in _MUTATORS:
                return True
        is_stored = isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Store | ast.Del)
        if is_stored and isinstance(inner, ast.Subscript) and dotted(inner.value) == name:
            return True
        if isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name) and inner.target.id == name:
            return True
    return False


def _blocking_calls(path: str, node: ast.AsyncFunctionDef) -> Iterator[Finding]:
    stack: list[ast.AST] = list(node.body)
    while stack:
        current = stack.pop()
        if isinstance(current, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(current, ast.Call) and dotted(current) in _BLOCKING:
            name = dotted(current)
            yield _finding(
                "medium",
                "blocking-in-async",
                path,
                current.lineno,
                f"{name}() in async {node.name} stops the whole event loop.",
                f"Use {_BLOCKING[name]}.",
            )
        stack.extend(ast.iter_child_nodes(current))


def _handlers(path: str, node: ast.Try, is_test: bool) -> Iterator[Finding]:
    for handler in node.handlers:
        does_raise = any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
        if handler.type is None and not does_raise:
            yield _finding("medium", "bare-except", path, handler.lineno,
                           "A bare except also swallows KeyboardInterrupt and SystemExit.",
                           "Name the exceptions that are expected, or at least Exception.")  # fmt: skip
        is_broad = handler.type is not None and dotted(handler.type) in {"Exception", "BaseException"}
        if is_broad and not is_test and all(isinstance(inner, ast.Pass) for inner in handler.body):
            yield _finding("low", "swallowed-exception", path, handler.lineno,
                           "except Exception: pass hides every mistake in the block.",
                           "Name the exceptions that are expected, or log.")  # fmt: skip
    for statement in node.finalbody:
        for inner in ast.walk(statement):
            if isinstance(inner, (*_FUNCTIONS, ast.Lambda)):
                break
            if isinstance(inner, ast.Return):
                yield _finding(
                    "medium",
                    "return-in-finally",
                    path,
                    inner.lineno,
                    "return in finally throws away any exception in flight.",
                    "Return after the block.",
                )


def _duplicate_keys(path: str, node: ast.Dict) -> Iterator[Finding]:
    seen: dict[object, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str | int | bytes):
            continue
        mark = (type(key.value), key.value)
        if mark in seen and ast.dump(seen[mark]) != ast.dump(value):
            yield _finding("medium", "duplicate-key", path, key.lineno,
                           f"The key {str(key.value)[:60]!r} is given twice with different values; the last one wins.",
                           "Keep one.")  # fmt: skip
        seen[mark] = value


def _undefined_names(path: str, tree: ast.Module, source: str) -> Iterator[Finding]:
    """Names that no scope binds, by the compiler's own symbol tables: using them raises NameError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(name.name == "*" for name in node.names):
            return
        if isinstance(node, ast.Call) and dotted(node) in {"exec", "globals", "vars", "locals"}:
            return
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__" and node in tree.body:
            return
        if isinstance(node, ast.ExceptHandler) and node.type is not None and "NameError" in ast.unparse(node.type):
            return
    try:
        top = symtable.symtable(source, path, "exec")
    except (SyntaxError, ValueError, RecursionError):
        return
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    bound |= {child.get_name() for child in top.get_children()}
    missing: set[str] = set()
    tables = [top]
    while tables:
        current = tables.pop()
        tables.extend(current.get_children())
        for symbol in current.get_symbols():
            name = symbol.get_name()
            if symbol.is_global() and symbol.is_assigned():
                bound.add(name)
            elif symbol.is_referenced() and (symbol.is_global() or current is top) and name not in _MODULE_NAMES:
                missing.add(name)
    missing -= bound
    if not missing:
        return
    lines = {
        node.id: node.lineno
        for node in sorted(
            (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)),
            key=lambda node: -node.lineno,
        )
    }
    for word in sorted(missing & lines.keys()):
        yield _finding("high", "undefined-name", path, lines[word], f"{word} is not defined anywhere in this module.",
                       "Import or define it; using it raises NameError.")  # fmt: skip


def _unused_imports(path: str, tree: ast.Module, imported_elsewhere: frozenset[str]) -> Iterator[Finding]:
    if path.endswith(("__init__.py", "__main__.py", "conftest.py", ".pyi")):
        return
    bound: dict[str, tuple[int, str]] = {}
    skipped = _guarded_statements(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        for name in node.names:
            if name.name != "*" and name.asname != name.name:
                local = name.asname or name.name.split(".")[0]
                bound.setdefault(local, (node.lineno, name.name))
    used = _used_names(tree) | (exported(tree) or set()) | imported_elsewhere
    for local, (line, origin) in bound.items():
        if local not in used and not local.startswith("_"):
            yield _finding(
                "low", "unused-import", path, line, f"{origin} is imported but not used.", "Remove the import."
            )


def _guarded_statements(tree: ast.Module) -> set[int]:
    """Imports whose only purpose may be to be tried: inside ``try``, or under ``if TYPE_CHECKING`` for comments."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and is_type_checking(node.test)):
            found |= {id(inner) for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)}
    return found


def _used_names(tree: ast.Module) -> set[str]:
    """Every name that is read, and every word in a string (annotations, doctests and ``getattr`` use names so)."""
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            used.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.update(_IDENTIFIER.findall(node.value))
    return used
