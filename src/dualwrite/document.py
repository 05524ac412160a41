"""The YAML that people write, read so that every scalar is text exactly as it stands there.

``no`` stays ``no`` and ``001`` stays ``001``; only an unquoted ``null``, ``~`` or nothing at all is null.  What could
change a meaning unseen (tags, anchors, a key twice, several documents) is refused.  Everything knows its line, and
``Findings`` gathers all that is wrong instead of stopping at the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar

import yaml

from dualwrite.errors import Invalid, Problem
from dualwrite.names import guess

CODES: Final[Mapping[str, str]] = {
    "and_more": "So much is wrong with a file that the rest is not told.",
    "bad_entry": "An entry has a value that it cannot have.",
    "bad_expr": "An `expr:` cannot be read.",
    "bad_filter": "A filter cannot be read.",
    "bad_line": "A column line is not of the form LEFT SYMBOL RIGHT, or says something that makes no sense.",
    "bad_path": "A path is not made of names.",
    "bad_symbol": "A column line has an unknown symbol, or one that does not fit its transforms.",
    "bad_variable": "A ${…} names no environment variable.",
    "duplicate_key": "A key stands twice in one mapping.",
    "duplicate_map": "Two files hold maps of the same name.",
    "missing_key": "An entry that must be there is missing.",
    "no_maps": "The folder of the maps does not exist or cannot be read.",
    "secret": "A password stands in the file itself instead of in an environment variable.",
    "swallowed": "YAML takes a # for the start of a comment, and what follows may have been meant.",
    "too_large": "A file is larger than any that people write: it is not read.",
    "unknown_column": "A schema file declares a column that the table does not have.",
    "unknown_key": "An entry is not known; the nearest known one is named.",
    "unknown_reference": "A path in a schema file goes through a reference that does not exist.",
    "unknown_table": "A schema file declares a table that the system does not have.",
    "unreadable": "A file cannot be read, or is not UTF-8 text.",
    "unset_variable": "An environment variable that a ${…} names is not set.",
    "yaml": "The text is not YAML, or uses tags, anchors, aliases, directives or several documents.",
}
"""The codes of problems in files that people write, and what each means."""
MOST = 200  # problems of one file that are told: nobody reads more
DEEPEST = 40  # levels of nesting; no file of ours needs ten
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # the same events, twenty times as fast
_NULLS = ("", "~", "null")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_COMMENT = re.compile(r"(?P<gap>[ \t]+)(?P<comment>#[^\n\r]*)")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_CLEAR_COMMENT = re.compile(r"#[ \t]+\S")


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar.  ``value`` is None for null; ``swallowed`` is what a ``#`` behind it may have cut off by accident.

    A comment is beyond doubt when two blanks stand before its ``#`` and one, and words, behind it.
    """

    value: str | None
    line: int
    quoted: bool = False
    swallowed: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping, in the order of the file; keys are unique."""

    pairs: tuple[tuple[Text, Node], ...]
    line: int


Node: TypeAlias = Text | Items | Entries
Item = TypeVar("Item")


@dataclass
class Findings:
    """All that is wrong with one file, in the order in which it was noticed.  ``map`` may become known later."""

    file: str
    map: str = ""
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, line: int, message: str, remedy: str = "") -> None:
        """Note one error; where there are very many, that there are more."""
        if len(self.problems) < MOST:
            self.problems.append(Problem(code, message, remedy, file=self.file, line=line))
        elif len(self.problems) == MOST:
            more = f"more than {MOST} things are wrong here"
            self.problems.append(Problem("and_more", more, "correct these first", file=self.file, line=line))

    def raise_if_any(self) -> None:
        """Raise Invalid with everything noted, sorted by line."""
        if self.problems:
            raise Invalid(self.sorted())

    def sorted(self) -> list[Problem]:
        """Everything noted, in the order of the file."""
        return [replace(each, map=self.map) for each in sorted(self.problems, key=lambda problem: problem.line)]


def read(text: str, findings: Findings) -> Node | None:
    """The document in a text; None when it is empty or not YAML (which is noted)."""
    try:
        return _build(text, yaml.parse(text, Loader=_LOADER), findings)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        what = " ".join(part for part in (error.context, error.problem) if part)
        findings.add("yaml", line, f"this is not YAML: {what}", _syntax_hint(text, line))
    except (yaml.YAMLError, ValueError) as error:  # text that cannot be encoded is a ValueError
        findings.add("yaml", 0, f"this is not YAML: {str(error).splitlines()[0]}", "save the file as plain UTF-8 text")
    return None


def _syntax_hint(text: str, line: int) -> str:
    """What to try where YAML gives up; a swallowed ``#`` is the usual suspect in lines about columns."""
    near = text.splitlines()[max(0, line - 2) : line]
    if any(" #" in part for part in near):
        return "a # behind a blank starts a comment: put quotes around a value that holds one"
    return "mind indentation, brackets and quotes; quote values that hold : or #"


@dataclass
class _Open:
    """A sequence or mapping that is being read."""

    mapping: bool
    line: int
    nodes: list[Node] = field(default_factory=list)

    def close(self, findings: Findings) -> Node:
        if not self.mapping:
            return Items(tuple(self.nodes), self.line)
        pairs: dict[tuple[str | None], tuple[Text, Node]] = {}
        for key, value in zip(self.nodes[::2], self.nodes[1::2], strict=True):
            if not isinstance(key, Text):
                findings.add("yaml", key.line, "a key must be text", "quote it, or write a list of pairs")
            elif (key.value,) in pairs:
                findings.add("duplicate_key", key.line, f"{_show(key)} stands here twice", "remove one of them")
            else:
                pairs[(key.value,)] = (key, value)
        return Entries(tuple(pairs.values()), self.line)


def _build(text: str, events: Iterator[yaml.Event], findings: Findings) -> Node | None:
    root = _Open(mapping=False, line=1)
    stack = [root]
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 0
        _refuse(event, line, findings)
        match event:
            case yaml.DocumentStartEvent() if root.nodes:
                findings.add("yaml", line, "a second document starts here", "remove the line ---")
                break
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(stack) > DEEPEST:
                    findings.add("yaml", line, f"nested deeper than {DEEPEST} levels", "check the brackets")
                    return None
                stack.append(_Open(isinstance(event, yaml.MappingStartEvent), line))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                done = stack.pop().close(findings)
                stack[-1].nodes.append(done)
            case yaml.ScalarEvent():
                stack[-1].nodes.append(_scalar(text, event, line, findings))
            case yaml.AliasEvent():
                stack[-1].nodes.append(Text(f"*{event.anchor}", line))
    return root.nodes[0] if root.nodes else None


def _refuse(event: yaml.Event, line: int, findings: Findings) -> None:
    """Note what YAML can do and files of ours must not."""
    if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
        findings.add("yaml", line, "YAML directives are not used here", "remove the line that starts with %")
    if isinstance(event, yaml.AliasEvent):
        findings.add("yaml", line, f"*{event.anchor} is a YAML alias", "quote the value, or write it out")
    elif isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
        if event.anchor:
            findings.add("yaml", line, f"&{event.anchor} is a YAML anchor", "quote the value, or remove the anchor")
        if event.tag:
            findings.add("yaml", line, f"{event.tag} is a YAML tag", "quote the value, or remove the tag")


def _scalar(text: str, event: yaml.ScalarEvent, line: int, findings: Findings) -> Text:
    if event.style:
        if _UNSTORABLE.search(event.value):
            findings.add("yaml", line, "a value holds a character that no system can store", "remove the \\0 or \\ud…")
        return Text(_UNSTORABLE.sub("\ufffd", event.value), line, quoted=True)
    value = None if event.value in _NULLS else str(event.value)
    return Text(value, line, swallowed=_swallowed(text, event.end_mark.index) if event.end_mark else "")


def _swallowed(text: str, end: int) -> str:
    """The comment behind a plain scalar, unless it is beyond doubt."""
    found = _COMMENT.match(text, end)
    if found is None or (found["gap"] != " " and _CLEAR_COMMENT.match(found["comment"])):
        return ""
    return found["comment"].rstrip()


def _show(node: Text) -> str:
    return "null" if node.value is None else repr(node.value)


def swallowed(node: Node, findings: Findings) -> None:
    """Note every ``#`` in this part of the file that may have cut off more than a comment."""
    match node:
        case Text(swallowed=lost) if lost:
            findings.add(
                "swallowed",
                node.line,
                f"YAML takes {lost!r} behind {_show(node)} for a comment",
                "quote the value, or use the long form {left: …, direction: …, right: …}; "
                "a comment needs two blanks before its # and one behind it",
            )
        case Items(nodes=nodes):
            for item in nodes:
                swallowed(item, findings)
        case Entries(pairs=pairs):
            for key, value in pairs:
                swallowed(key, findings)
                swallowed(value, findings)


def entries(node: Node, what: str, known: Collection[str] | None, findings: Findings) -> dict[str, tuple[Text, Node]]:
    """A mapping by its keys, each with its key's text; keys that are not ``known`` are noted and left out.

    Null stands for an empty mapping.
    """
    if isinstance(node, Text) and node.value is None:
        return {}
    if not isinstance(node, Entries):
        findings.add("bad_entry", node.line, f"{what} must be a mapping", "write it as key: value lines")
        return {}
    found: dict[str, tuple[Text, Node]] = {}
    for key, value in node.pairs:
        if key.value is None:
            findings.add("unknown_key", key.line, f"{what} has an empty key", "quote it, or remove it")
        elif known is not None and key.value not in known:
            findings.add("unknown_key", key.line, f"{what} has no entry {key.value!r}", guess(key.value, known))
        else:
            found[key.value] = (key, value)
    return found


def text_of(node: Node, what: str, findings: Findings) -> str | None:
    """A text that is not empty; everything else is noted."""
    if isinstance(node, Text) and node.value and node.value.strip():
        return node.value
    kind = "is empty" if isinstance(node, Text) else "must be a text"
    findings.add("bad_entry", node.line, f"{what} {kind}", "write one value on the line")
    return None


def one_of(node: Node, what: str, known: Collection[str], findings: Findings) -> str | None:
    """One of some words."""
    word = text_of(node, what, findings)
    if word is None or word in known:
        return word
    remedy = guess(word, known) or f"known are: {', '.join(known)}"
    findings.add("bad_entry", node.line, f"{what} cannot be {word!r}", remedy)
    return None


def flag(node: Node, what: str, findings: Findings) -> bool | None:
    """True or false, however it is spelled."""
    word = node.value.lower() if isinstance(node, Text) and node.value else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    findings.add("bad_entry", node.line, f"{what} must be true or false", "write true or false")
    return None


def list_of(
    node: Node, what: str, read_item: Callable[[Node, str, Findings], Item | None], findings: Findings
) -> tuple[Item, ...]:
    """A list that is not empty, each item read by ``read_item``; items that it refuses (None) are left out."""
    if not isinstance(node, Items) or not node.nodes:
        remedy = "write [one, two], or one line each with - before"
        findings.add("bad_entry", node.line, f"{what} must be a list that is not empty", remedy)
        return ()
    read_items = (read_item(item, what, findings) for item in node.nodes)
    return tuple(item for item in read_items if item is not None)


def plain(node: Node, findings: Findings) -> object:
    """The node as dicts, lists, texts and None."""
    match node:
        case Text(value=value):
            return value
        case Items(nodes=nodes):
            return [plain(item, findings) for item in nodes]
        case Entries():
            found = entries(node, "this mapping", None, findings)
            return {key: plain(value, findings) for key, (_, value) in found.items()}


WIDTH = 120  # columns of a written line, where it can be broken at all
_LONGEST_KEY = 500  # YAML wants keys on one line and at most 1024 characters
_PLAIN = re.compile(r"-?\w(?:[\w .$/+@()-]*[\w.$/+@()-])?")


class Quoted(str):
    """A text that is written in quotes even where it could do without."""

    __slots__ = ()


class Verbatim(str):
    """A text full of quotes and backslashes, which is written as it is where that is possible."""

    __slots__ = ()


def quote(text: str | None) -> str:
    """A scalar on one line that reads back as exactly this text, without quotes where it is plain."""
    if text is None:
        return "null"
    if _PLAIN.fullmatch(text) and text not in _NULLS and not isinstance(text, Quoted | Verbatim):
        return str(text)
    if isinstance(text, Verbatim) and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def flow(value: object) -> str:
    """Dicts, lists, texts and None on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return quote(value if value is None or isinstance(value, str) else str(value))


def _key(key: str | None) -> str:
    text = quote(key)
    return f"? {text} " if len(text) > _LONGEST_KEY else text


def block(value: object, indent: int, used: int) -> str:
    """What follows ``key:`` or ``-``: on the same line, of which ``used`` columns are taken, or indented below it."""
    line = flow(value)
    if not value or not isinstance(value, dict | list | tuple) or used + 1 + len(line) <= WIDTH:
        return " " + line
    pad = "\n" + " " * indent
    if isinstance(value, dict):
        return "".join(pad + _entry(key, inner, indent) for key, inner in value.items())
    return "".join(f"{pad}- {block(inner, indent + 2, indent + 2).lstrip()}" for inner in value)


def _entry(key: str | None, value: object, indent: int) -> str:
    text = quote(key)
    if len(text) > _LONGEST_KEY:
        return f"? {text}\n{' ' * indent}:{block(value, indent + 2, indent + 1)}"
    return f"{text}:{block(value, indent + 2, indent + len(text) + 1)}"
