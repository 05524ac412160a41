"""Writes the library anew from the published facts: ``python -m dualwrite.library FACTS [KEYS]``.

``FACTS`` is a folder with a JSON file for each map, ``KEYS`` a file with the integration keys that are published.  The
same facts always give the same files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dualwrite.mapping.d365 import read_export
from dualwrite.mapping.d365_keys import Keys, read_keys, with_key
from dualwrite.mapping.jsontext import read_json
from dualwrite.mapping.writing import write_map
from dualwrite.names import slug

FOLDER = Path(__file__).parent / "maps"


def converted(facts: Path, keys: Path | None = None) -> Mapping[str, str]:
    """The text of every map's file, by its name."""
    known = read_keys(keys.read_text(encoding="utf-8"), str(keys)) if keys else Keys({})
    found: dict[str, str] = {}
    for path in sorted(facts.glob("*.json")):
        name, text = _converted(path, known)
        if name in found:
            raise SystemExit(f"{path}: another map would be {name}, too")
        found[name] = text
    return found


def _converted(path: Path, keys: Keys) -> tuple[str, str]:
    text = path.read_text(encoding="utf-8")
    source = str(read_json(text, str(path)).get("source_article", "")).rpartition("/")[2]
    (table_map,) = read_export(text, str(path)).maps
    header = f"# Published by Microsoft ({source}); see NOTICE.\n" if source else ""
    return f"{slug(table_map.name)}.yaml", header + write_map(with_key(table_map, keys))


def main(arguments: Sequence[str]) -> None:
    """Write all files; those that are not among them go."""
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: python -m dualwrite.library FACTS [KEYS]")
    found = converted(*map(Path, arguments))
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.yaml"):
        path.unlink()
    for name, text in found.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
