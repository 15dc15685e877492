"""Dangerous calls in Python, by syntax tree: only where an outsider's value could be what reaches them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from orchestrator.analysts.findings import Finding, Severity
from orchestrator.analysts.pysource import dotted

_SHELLS = frozenset(
    {"os.system", "os.popen", "commands.getoutput", "subprocess.getoutput", "subprocess.getstatusoutput"}
)
_PROCESSES = frozenset(
    {
        "subprocess.run",
        "subprocess.call",
        "subprocess.Popen",
        "subprocess.check_output",
        "subprocess.check_call",
        "asyncio.create_subprocess_shell",
    }
)
_UNPICKLE = frozenset(
    {
        "pickle.load",
        "pickle.loads",
        "cPickle.loads",
        "dill.loads",
        "dill.load",
        "marshal.loads",
        "marshal.load",
        "jsonpickle.decode",
        "shelve.open",
        "joblib.load",
        "torch.load",
    }
)
_HTTP = re.compile(
    r"^(requests|httpx|session|client|self\._?(session|client))\.(get|post|put|patch|delete|head|request)$"
)
_SQL = re.compile(r"^\s*(select\b.+\bfrom|insert\s+into|update\b.+\bset|delete\s+from|drop\s+table)\b", re.I | re.S)
_SECRET_NAME = re.compile(r"(?i)(token|secret|password|passwd|session_?id|nonce|salt|otp|api_?key)")


def check(path: str, tree: ast.Module) -> Iterator[Finding]:
    """Findings of one module."""
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _resolved(dotted(node), aliases)
            for severity, kind, message, suggestion in _call(name, node):
                yield Finding(severity, kind, path, node.lineno, message, suggestion)
        elif isinstance(node, ast.Assign):
            yield from _assignment(path, node, aliases)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Local name to what it was imported as: ``from subprocess import run as r`` gives ``r: subprocess.run``."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return found


def _resolved(name: str, aliases: dict[str, str]) -> str:
    first, dot, rest = name.partition(".")
    return f"{aliases[first]}{dot}{rest}" if first in aliases else name


def _call(name: str, node: ast.Call) -> Iterator[tuple[Severity, str, str, str]]:
    first = node.args[0] if node.args else None
    keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    if name in {"eval", "exec"} and first is not None and not _is_constant(first):
        yield "medium", "dynamic-code", f"{name}() runs a computed string as code.", "Use ast.literal_eval or a table."
    elif name in _SHELLS and first is not None and not _is_constant(first):
        yield "high", "shell-injection", f"{name}() gives a computed string to a shell.", "Use subprocess.run([...])."
    elif name in _PROCESSES and first is not None:
        yield from _process(name, first, keywords)
    elif name in _UNPICKLE and name not in {"shelve.open"}:
        if name == "torch.load" and _is_true(keywords.get("weights_only")):
            return
        yield (
            "medium",
            "unsafe-deserialization",
            f"{name}() runs code that its input names.",
            "Use JSON, or make sure that nobody else can write the data.",
        )
    elif name == "yaml.load" and not _is_safe_loader(node, keywords):
        yield (
            "high",
            "unsafe-deserialization",
            "yaml.load() without a safe loader builds any object.",
            "Use yaml.safe_load.",
        )
    elif name in {"tempfile.mktemp", "os.tempnam"}:
        yield "medium", "temp-race", f"{name}() names a file that another can create first.", "Use mkstemp."
    elif name == "ssl._create_unverified_context" or _is_false(keywords.get("verify")):
        yield "medium", "no-tls-verification", "TLS certificates are not checked.", "Leave verification on."
    elif name.endswith((".execute", ".executemany", ".raw")):
        if first is not None and _is_built_sql(first):
            yield "high", "sql-injection", "SQL is put together from values.", "Pass the values as parameters."
    elif name in {"hashlib.md5", "hashlib.sha1"} and not _is_false(keywords.get("usedforsecurity")):
        yield (
            "low",
            "weak-hash",
            f"{name.rpartition('.')[2]} is broken for security.",
            "Use sha256, or usedforsecurity=False.",
        )
    elif name.endswith("extractall") and "filter" not in keywords and "tar" in name.lower():
        yield "medium", "archive-traversal", "A tar archive can write outside the target.", 'Pass filter="data".'
    else:
        yield from _settings(name, node, keywords)


def _process(name: str, first: ast.expr, keywords: dict[str, ast.expr]) -> Iterator[tuple[Severity, str, str, str]]:
    is_shell = _is_true(keywords.get("shell")) or name.endswith("_shell")
    if is_shell and not _is_constant(first):
        severity: Severity = "high" if isinstance(first, ast.JoinedStr | ast.BinOp | ast.Call) else "medium"
        yield (
            severity,
            "shell-injection",
            f"{name}() gives a computed string to a shell.",
            "Pass a list, without shell=True.",
        )


def _settings(name: str, node: ast.Call, keywords: dict[str, ast.expr]) -> Iterator[tuple[Severity, str, str, str]]:
    if name.endswith(".run") and _is_true(keywords.get("debug")) and "app" in name:
        yield (
            "high",
            "debug-server",
            "The debug server gives anyone a Python console.",
            "Read debug from the environment.",
        )
    elif name == "os.chmod" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        mode = node.args[1].value
        if isinstance(mode, int) and mode & 0o002:
            yield "medium", "world-writable", f"Mode {mode:#o} lets every user write.", "Use 0o600 or 0o640."
    elif name.endswith("set_missing_host_key_policy") and "AutoAddPolicy" in ast.dump(node):
        yield "medium", "no-host-key-check", "Unknown SSH hosts are trusted.", "Load known_hosts and reject others."
    elif name.endswith("jwt.decode"):
        options = ast.unparse(keywords["options"]) if "options" in keywords else ""
        is_off = "'verify_signature': False" in options or _is_false(keywords.get("verify"))
        if is_off:
            yield (
                "high",
                "unverified-token",
                "The token's signature is not checked.",
                "Verify it with fixed algorithms.",
            )
    elif (
        _HTTP.match(name)
        and name.startswith("requests.")
        and "timeout" not in keywords
        and None not in [keyword.arg for keyword in node.keywords]
    ):
        yield "low", "no-timeout", f"{name}() without a timeout waits for ever.", "Pass timeout=…"


def _assignment(path: str, node: ast.Assign, aliases: dict[str, str]) -> Iterator[Finding]:
    names = [dotted(target) for target in node.targets]
    if (
        "DEBUG" in names
        and _is_true(node.value)
        and path.rpartition("/")[2] in {"settings.py", "production.py", "prod.py"}
    ):
        yield Finding(
            "medium",
            "debug-setting",
            path,
            node.lineno,
            "DEBUG is on by default: errors show settings and code.",
            "Default to False and read it from the environment.",
        )
    if isinstance(node.value, ast.Call):
        called = _resolved(dotted(node.value), aliases)
        target = next((name for name in names if _SECRET_NAME.search(name)), "")
        if target and re.match(r"random\.(random|randint|choice|choices|randrange|getrandbits|sample)$", called):
            yield Finding(
                "medium",
                "weak-random",
                path,
                node.lineno,
                f"{target} is made with the predictable {called}().",
                "Use the secrets module.",
            )


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple):
        return all(_is_constant(item) for item in node.elts)
    if isinstance(node, ast.BinOp):
        return _is_constant(node.left) and _is_constant(node.right)
    return isinstance(node, ast.Constant)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _is_safe_loader(node: ast.Call, keywords: dict[str, ast.expr]) -> bool:
    loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
    return loader is not None and re.search("(?i)safe|base", dotted(loader)) is not None


def _is_built_sql(node: ast.expr) -> bool:
    """f-string with values, ``%`` or ``+`` with a non-literal, ``.format()`` — around text that reads as SQL."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        return _SQL.match(text) is not None and any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
        left: ast.expr = node.left
        while isinstance(left, ast.BinOp):
            left = left.left
        is_sql = (
            isinstance(left, ast.Constant) and isinstance(left.value, str) and _SQL.match(left.value + " from set ")
        )
        return bool(is_sql) and not _is_constant(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        owner = node.func.value
        return isinstance(owner, ast.Constant) and isinstance(owner.value, str) and bool(_SQL.match(owner.value))
    return False
