"""Python modules as their syntax tree tells: imports, functions with complexity, public names and their docstrings."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

import msgspec

from orchestrator.analysts.lexical import Function

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_BRANCHES = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.match_case,
    ast.Assert,
)  # fmt: skip


class PyImport(msgspec.Struct, frozen=True):
    """One imported thing.

    Attributes:
        module: dotted module as written, without leading dots.
        name: the name taken from it (``*`` for all), empty for ``import module``.
        level: leading dots.
        line: 1-based.
        is_deferred: inside a function, or under ``if TYPE_CHECKING`` — not done when the module is imported.
        is_guarded: inside ``try`` with a handler, so that it may fail.
    """

    module: str
    name: str
    level: int
    line: int
    is_deferred: bool
    is_guarded: bool


class PublicName(msgspec.Struct, frozen=True):
    """A class, function or method that is part of the module's surface: ``kind`` class | function | method."""

    name: str
    kind: str
    line: int
    has_docstring: bool
    is_annotated: bool


class PyModule(msgspec.Struct, frozen=True):
    """One parsed module. ``tree`` is None when it does not parse; then ``error`` and ``error_line`` say why."""

    path: str
    tree: ast.Module | None
    error: str = ""
    error_line: int = 0
    warnings: tuple[tuple[int, str], ...] = ()


def parse(path: str, data: bytes, *, compiled: bool = False) -> PyModule:
    """Parse one module; with ``compiled`` the compiler's own errors and warnings are had too. Never raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tree = ast.parse(data, filename=path)
            if compiled:
                compile(tree, path, "exec", dont_inherit=True)
        except SyntaxError as error:
            return PyModule(path, None, error.msg or "invalid syntax", error.lineno or 0)
        except (ValueError, RecursionError, MemoryError, LookupError) as error:
            return PyModule(path, None, str(error) or type(error).__name__, 0)
    told = tuple((warning.lineno, str(warning.message)) for warning in caught if issubclass(warning.category, Warning))
    return PyModule(path, tree, warnings=told)


def complexity(node: FunctionNode) -> int:
    """Cyclomatic complexity (McCabe, 1976): 1 + branches; nested functions count for themselves, not here."""
    total = 1
    stack: list[ast.AST] = list(node.body)
    while stack:
        current = stack.pop()
        if isinstance(current, (*_FUNCTIONS, ast.ClassDef)):
            continue
        if isinstance(current, _BRANCHES):
            total += 1
        elif isinstance(current, ast.BoolOp):
            total += len(current.values) - 1
        stack.extend(ast.iter_child_nodes(current))
    return total


def functions(path: str, tree: ast.Module) -> list[Function]:
    """All functions and methods with dotted names, in order."""
    found: list[Function] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _FUNCTIONS):
                name = f"{prefix}{child.name}"
                found.append(Function(path, name, child.lineno, child.end_lineno or child.lineno, complexity(child)))
                visit(child, f"{name}.")
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                visit(child, prefix)

    visit(tree, "")
    return found


def imports(tree: ast.Module) -> list[PyImport]:
    """Everything imported anywhere in the module."""
    found: list[PyImport] = []

    def visit(node: ast.AST, deferred: bool, guarded: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(PyImport(name.name, "", 0, child.lineno, deferred, guarded) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend(
                    PyImport(child.module or "", name.name, child.level, child.lineno, deferred, guarded)
                    for name in child.names
                )
            elif isinstance(child, _FUNCTIONS):
                visit(child, True, guarded)
            elif isinstance(child, ast.If) and is_type_checking(child.test):
                for statement in child.body:
                    visit(ast.Module([statement], []), True, guarded)
                visit(ast.Module(child.orelse, []), deferred, guarded)
            elif isinstance(child, ast.Try):
                visit(child, deferred, True)
            elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                visit(child, deferred, guarded)

    visit(tree, False, False)
    return found


def is_type_checking(test: ast.expr) -> bool:
    """Whether a condition is ``TYPE_CHECKING`` (or ``typing.TYPE_CHECKING``)."""
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def exported(tree: ast.Module) -> set[str] | None:
    """The names of a literal ``__all__``; None when there is none."""
    names: set[str] | None = None
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else _target(node)
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            names = (names or set()) | {
                value.value
                for value in ast.walk(node)
                if isinstance(value, ast.Constant) and isinstance(value.value, str)
            }
    return names


def _target(node: ast.stmt) -> list[ast.expr]:
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def public_names(tree: ast.Module) -> Iterator[PublicName]:
    """The module's public classes, functions and methods.

    Left out are names with a leading underscore, properties' setters, overloads, overriding one-liners' dunders, and,
    where there is ``__all__``, functions and classes that it does not name.
    """
    allowed = exported(tree)
    for node in tree.body:
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if allowed is not None and node.name not in allowed:
            continue
        if isinstance(node, ast.ClassDef):
            yield PublicName(node.name, "class", node.lineno, ast.get_docstring(node) is not None, True)
            for member in node.body:
                if isinstance(member, _FUNCTIONS) and not member.name.startswith("_") and not _is_secondary(member):
                    yield _public_function(member, f"{node.name}.{member.name}", "method")
        elif not _is_secondary(node):
            yield _public_function(node, node.name, "function")


def _public_function(node: FunctionNode, name: str, kind: str) -> PublicName:
    return PublicName(name, kind, node.lineno, ast.get_docstring(node) is not None, is_annotated(node))


def is_annotated(node: FunctionNode) -> bool:
    """Whether the return value and every argument but ``self`` and ``cls`` have annotations."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    named = [one for index, one in enumerate(arguments) if not (index == 0 and one.arg in {"self", "cls"})]
    extra = [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    return node.returns is not None and all(one.annotation is not None for one in [*named, *extra])


def _is_secondary(node: FunctionNode) -> bool:
    names = {dotted(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter", "deleter", "override"})


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name, attribute or call of one; empty for anything else."""
    parts: list[str] = []
    current: ast.AST = node.func if isinstance(node, ast.Call) else node
    while isinstance(current, ast.Attribute):
        parts.append(current.attr)
        current = current.value
    if isinstance(current, ast.Name):
        parts.append(current.id)
        return ".".join(reversed(parts))
    return ""
