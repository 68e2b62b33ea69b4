"""Regular expressions of Go (RE2 syntax), written for Python's `re`, or refused by name.

skopeo and regsync match tags with Go's package regexp. What both languages write alike and mean
alike stays as it is; what they write differently is translated; what Go refuses, as lookaheads
and possessive repetition, or what cannot be said here, is refused, and never read as something
else. Only whether a tag matches counts, and a tag is ASCII: `[A-Za-z0-9_.-]`. So greediness,
captures, line ends and `(?s)`, `(?m)`, `(?U)` mean nothing, and are left out.

Spec: https://github.com/google/re2/wiki/Syntax, and Go's regexp/syntax.
"""

from __future__ import annotations

import re

from ocimirror.errors import UsageError

_DIGIT, _UPPER, _LOWER = "0-9", "A-Z", "a-z"
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t\x20",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": _DIGIT,
    "graph": "!-~",
    "lower": _LOWER,
    "print": r"\x20-~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r\x20",
    "upper": _UPPER,
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
# (Of the characters that a tag can have, which are all that will be compared.)
_UNICODE = {
    "L": _UPPER + _LOWER,
    "Lu": _UPPER,
    "Ll": _LOWER,
    "N": _DIGIT,
    "Nd": _DIGIT,
    "P": r"_.\-",
    "Pc": "_",
    "Pd": r"\-",
    "Po": ".",
    "Latin": _UPPER + _LOWER,
}
_SAME = {
    **{f"\\{letter}": f"\\{letter}" for letter in "dDwWbBAfnrtv"},
    r"\a": r"\x07",
    r"\s": r"[\t\n\f\r\x20]",
    r"\S": r"[^\t\n\f\r\x20]",
    r"\z": r"\Z",
}
_TOKEN = re.compile(
    r"""(?P<quoted>\\Q(?P<text>.*?)(?:\\E|\Z))
    | (?P<unicode>\\(?P<not>[pP])(?:\{(?P<caret>\^?)(?P<class>\w+)\}|(?P<short>\w)))
    | (?P<hex>\\x(?:\{(?P<braced>[0-9A-Fa-f]+)\}|(?P<two>[0-9A-Fa-f]{2})))
    | (?P<octal>\\(?:0[0-7]{0,2}|[1-7][0-7]{1,2}))
    | (?P<escape>\\.)
    | (?P<flags>\(\?(?P<on>[imsU]*)(?P<off>-[imsU]+)?(?P<end>[:)]))
    | (?P<named>\(\?P?<(?P<name>\w+)>)
    | (?P<strange>\(\?.?.?)
    | (?P<repeat>(?:[*+?]|\{(?P<least>[0-9]+)(?P<comma>,?)(?P<most>[0-9]*)\})\??)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_MAX_REPEAT = 1000
_STRANGE = {
    "(?=": "a lookahead",
    "(?!": "a lookahead",
    "(?<": "a lookbehind",
    "(?>": "an atomic group",
    "(?#": "a comment",
}


def python_regex(text: str) -> str:
    """Return an expression of Go as one of Python that matches the same tags.

    Raises:
        UsageError: Go refuses it, or Python has nothing like it.
    """
    if any(ord(character) > 0x7F for character in text):
        raise _refused(text, "characters beyond ASCII, which no tag has")
    return _Translator(text).translated()


def _refused(text: str, what: str) -> UsageError:
    return UsageError(f"the regular expression {text[:300]!r} is not carried over: {what}")


class _Translator:
    def __init__(self, text: str) -> None:
        self._text = text
        self._out: list[str] = []
        # Of each open group: how many `(?i:` were opened in it, which hold until it ends.
        self._scopes: list[list[str]] = [[]]
        self._names: set[str] = set()
        self._repeated = False

    def translated(self) -> str:
        position = 0
        while position < len(self._text):
            if self._text[position] == "[":
                position = self._class(position + 1)
                self._repeated = False
                continue
            match = _TOKEN.match(self._text, position)
            assert match is not None  # noqa: S101 - `other` takes anything
            self._take(match)
            position = match.end()
        self._out.append(")" * len(self._scopes[-1]))
        if len(self._scopes) > 1:
            raise self._refuse("a parenthesis that is not closed")
        return "".join(self._out)

    def _refuse(self, what: str) -> UsageError:
        return _refused(self._text, what)

    def _take(self, match: re.Match[str]) -> None:
        kind, said = str(match.lastgroup), match[0]
        for group in ("quoted", "unicode", "hex", "octal", "flags", "named", "repeat"):
            if match[group] is not None:
                kind = group
        if kind == "repeat":
            self._repeat(match)
            return
        self._repeated = False
        if kind == "quoted":
            self._out.append("".join(map(_literal, match["text"])))
        elif kind == "unicode":
            inside, negative = self._unicode(match)
            self._out.append(f"[{'^' * negative}{inside}]")
        elif kind in ("hex", "octal"):
            self._out.append(_literal(self._character(match)))
        elif kind == "escape":
            self._out.append(self._escape(said))
        elif kind == "flags":
            self._flags(match)
        elif kind == "named":
            if match["name"] in self._names:
                raise self._refuse(f"two groups called {match['name']}")
            self._names.add(match["name"])
            self._open("(?:")
        elif kind == "strange":
            shown = next((told for begin, told in _STRANGE.items() if said.startswith(begin)), said)
            raise self._refuse(f"{shown}, which Go has not")
        else:
            self._other(said)

    def _other(self, said: str) -> None:
        if said == "(":
            self._open("(?:")
        elif said == ")":
            if len(self._scopes) == 1:
                raise self._refuse("a parenthesis that was not opened")
            self._out.append(")" * len(self._scopes.pop()) + ")")
        elif said == "|":
            scope = self._scopes[-1]
            self._out.append(")" * len(scope) + "|" + "".join(scope))
        elif said == "\\":
            raise self._refuse("a backslash at its end")
        else:
            self._out.append(said if said in "^$." else _literal(said))

    def _open(self, begin: str) -> None:
        self._out.append(begin)
        self._scopes.append([])

    def _flags(self, match: re.Match[str]) -> None:
        """Of the flags, only whether case counts makes a difference."""
        on, off = "i" in match["on"], "i" in (match["off"] or "")
        begin = f"(?{'i' * (on and not off)}{'-i' * off}:" if on or off else "(?:"
        if match["end"] == ":":
            self._open(begin)
        elif on or off:
            self._out.append(begin)
            self._scopes[-1].append(begin)

    def _repeat(self, match: re.Match[str]) -> None:
        said = match[0]
        if self._repeated:
            raise self._refuse(f"a repetition of a repetition ({said}), which Go has not")
        least, most = match["least"], match["most"]
        if least is not None:
            numbers = [int(number) for number in (least, most) if number and len(number) < 6]
            if max(numbers, default=_MAX_REPEAT + 1) > _MAX_REPEAT or len(most or least) > 5:
                raise self._refuse(f"more than {_MAX_REPEAT} repetitions")
            if most and not match["comma"]:
                raise self._refuse(f"a repetition as {said}")
        self._out.append(said)
        self._repeated = True

    def _escape(self, said: str) -> str:
        if said in _SAME:
            return _SAME[said]
        if said[1].isalnum():
            raise self._refuse(f"{said}, which Go has not")
        return _literal(said[1])

    def _character(self, match: re.Match[str]) -> str:
        if match["octal"] is not None:
            code = int(match[0][1:], 8)
        else:
            digits = match["braced"] or match["two"]
            code = int(digits, 16) if len(digits) <= 8 else 0x110000
        if code > 0x7F:
            raise self._refuse(f"{match[0]}, which no tag has")
        return chr(code)

    def _unicode(self, match: re.Match[str]) -> tuple[str, bool]:
        name = match["class"] or match["short"]
        if name not in _UNICODE:
            raise self._refuse(f"the class of characters {match[0]}")
        return _UNICODE[name], (match["not"] == "P") != bool(match["caret"])

    def _class(self, position: int) -> int:
        """Translate what follows a bracket; return where the class ends."""
        out, first = ["["], True
        if self._text[position : position + 1] == "^":
            out.append("^")
            position += 1
        while position < len(self._text):
            if self._text[position] == "]" and not first:
                self._out.append("".join(out) + "]")
                return position + 1
            first = False
            position, inside, single = self._item(position)
            after = self._text[position : position + 2]
            if single and after[:1] == "-" and after[1:] not in ("", "]"):
                position, high, also = self._item(position + 1)
                if not also:
                    raise self._refuse("a range of characters that ends in a class")
                inside = f"{inside}-{high}"
            out.append(inside)
        raise self._refuse("a bracket that is not closed")

    def _item(self, position: int) -> tuple[int, str, bool]:
        """Return where an item of a class ends, how Python has it, and if it is one character."""
        posix = re.compile(r"\[:(\^?)(\w+):\]", re.ASCII).match(self._text, position)
        if posix is not None:
            if posix[2] not in _POSIX:
                raise self._refuse(f"the class of characters {posix[0]}")
            inside = _POSIX[posix[2]]
            return posix.end(), _complement(inside) if posix[1] else inside, False
        character = self._text[position]
        if character != "\\":
            return position + 1, _in_class(character), True
        match = _TOKEN.match(self._text, position)
        if match is None or match["quoted"] is not None:
            raise self._refuse(r"\Q between brackets")
        if match["unicode"] is not None:
            inside, negative = self._unicode(match)
            return match.end(), _complement(inside) if negative else inside, False
        if match["hex"] is not None or match["octal"] is not None:
            return match.end(), _in_class(self._character(match)), True
        said = match[0]
        if said in (r"\b", r"\B", r"\A", r"\z") or len(said) == 1:
            raise self._refuse(f"{said} between brackets")
        if said in (r"\s", r"\S"):
            spaces = r"\t\n\f\r\x20"
            return match.end(), _complement(spaces) if said == r"\S" else spaces, False
        if said not in _SAME:
            self._escape(said)  # (or refuse it)
            return match.end(), _in_class(said[1]), True
        return match.end(), _SAME[said], said[1] not in "dDwW"


def _complement(inside: str) -> str:
    """Return the characters of tags that a class does not have."""
    pattern = re.compile(f"[{inside}]")
    parts = (_UPPER, _LOWER, _DIGIT, "_", ".", r"\-")
    whole = re.compile(r"[A-Za-z0-9_.-]", re.ASCII)
    tags = [chr(code) for code in range(0x80) if whole.match(chr(code))]
    others = [c for c in tags if not pattern.match(c)]
    kept = [part for part in parts if all(c in others for c in tags if re.match(f"[{part}]", c))]
    single = [c for c in others if not re.match(f"[{''.join(kept)}]" if kept else "(?!)", c)]
    return "".join([*kept, *map(_in_class, single)]) or r"\x00"


def _in_class(character: str) -> str:
    return f"\\{character}" if character in r"\]^[-&|~" else character


def _literal(character: str) -> str:
    return f"\\{character}" if character in r"\.^$*+?{}[]|()" else character
