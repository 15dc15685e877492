"""What keeps git from starting the programs that a repository's own configuration names (git-config(1)).

What is fixed goes to git as ``-c`` options. Names that a repository chose (of filters and hooks) go through the
environment: ``-c`` is divided at the first ``=``, so that of a driver ``a=b`` it would set something else.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.context.gitsettings import Settings

#: Keys that make git start programs, write, or answer in another form; overridden on every call.
_HARMLESS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.quotePath=false",
    "core.untrackedCache=false",
    "core.preloadIndex=true",
    "core.splitIndex=false",
    "core.sshCommand=false",
    "core.gitProxy=false",
    "core.alternateRefsCommand=false",
    "core.askPass=true",
    "credential.helper=",
    "diff.external=",
    "diff.orderFile=/dev/null",
    "diff.suppressBlankEmpty=false",
    "diff.trustExitCode=false",
    "gc.auto=0",
    "log.showRoot=true",
    "log.showSignature=false",
    "gpg.program=false",
    "gpg.openpgp.program=false",
    "gpg.ssh.program=false",
    "gpg.x509.program=false",
    "maintenance.auto=false",
    "protocol.allow=never",
    "safe.directory=*",
    "status.submoduleSummary=false",
    "submodule.recurse=false",
    "color.ui=false",
)
HARMLESS_OPTIONS = tuple(part for setting in _HARMLESS for part in ("-c", setting))
#: Set in the environment, to see in git's list of settings that it looks there: it does since 2.31.
_MARK = ("sidecar.isRead", "true")
#: Whose settings are not the repository's: what they name is trusted.
_PERSONAL = frozenset(("system", "global", "command"))
#: What makes a trusted filter, git-lfs, start programs of the repository's choice.
_LFS_PROGRAMS = ("lfs.extension.", "lfs.customtransfer.", "lfs.standalonetransferagent")


class NotDisarmed(Exception):
    """This git cannot be told to leave a repository's programs alone."""


def disarmed(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The settings that empty every content filter of the repository's own configuration and disable every hook that
    a configuration defines (git 2.54). External diffs and text conversions are switched off by options of the calls.

    Raises NotDisarmed when git would not read them.
    """
    is_lfs_led = any(scope not in _PERSONAL and name.lower().startswith(_LFS_PROGRAMS) for scope, name, _ in settings)
    filters, hooks = set(), set()
    for scope, name, _ in settings:
        driver = name.rpartition(".")[0]
        section = driver.partition(".")[0].lower()
        if section == "filter" and (is_lfs_led or scope not in _PERSONAL):
            filters.add(driver)
        elif section == "hook":
            hooks.add(driver)
    if filters and ("command", _MARK[0].lower(), _MARK[1]) not in settings:
        raise NotDisarmed("the configuration names filters; git 2.31 or newer can be told not to run them")
    parts = (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false"))
    found = [(f"{driver}.{part}", value) for driver in sorted(filters) for part, value in parts]
    return (*found, *((f"{hook}.enabled", "false") for hook in sorted(hooks)))


def as_environment(overrides: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The variables through which git takes these settings as they are, whatever is in their names."""
    variables: dict[str, str] = {}
    count = 0
    for count, (key, value) in enumerate((_MARK, *overrides), 1):
        variables |= {f"GIT_CONFIG_KEY_{count - 1}": key, f"GIT_CONFIG_VALUE_{count - 1}": value}
    return {"GIT_CONFIG_COUNT": str(count), **variables}
