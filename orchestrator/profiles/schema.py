"""The JSON schema of a profile's front matter, made from the types that it is checked with."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.profiles.authored import FrontMatter
from orchestrator.profiles.requirements import REQUIREMENTS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def profile_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) that editors can check front matter with.

    It is as strict as the parser, but for rules between keys, which ``validation`` checks.
    """
    (root,), definitions = msgspec.json.schema_components([FrontMatter], ref_template="#/$defs/{name}")
    front_matter = definitions.pop(root["$ref"].rpartition("/")[2])
    requirements = definitions["AuthoredContext"]["properties"]["requirements"]
    requirements["items"] = {"enum": list(REQUIREMENTS)}
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = definition["description"].partition("\n\n")[0].replace("\n", " ")
    document = {
        "$schema": DIALECT,
        "title": "Front matter of a profile",
        "description": front_matter.pop("description").partition("\n\n")[0],
        **{key: value for key, value in front_matter.items() if key != "title"},
        "$defs": dict(sorted(definitions.items())),
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return plain
