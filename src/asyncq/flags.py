"""How flags are read: whole numbers, and settings that may stay open, which are None until somebody else decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import tyro


def alias(*names: str) -> Any:
    """Other spellings of a flag."""
    return tyro.conf.arg(aliases=list(names))


def plain(kind: str) -> Any:
    """Show `kind` in --help, and no default."""
    return tyro.conf.arg(metavar=kind, help_behavior_hint="")


def whole(text: str) -> int:
    """500000, 500_000 and 5e5 are the same. Raises ValueError where `text` is no whole number."""
    try:
        return int(text)
    except ValueError:
        if not float(text).is_integer():
            raise
        return int(float(text))


NUMBERS = tyro.constructors.ConstructorRegistry()


@NUMBERS.primitive_rule
def _whole_numbers(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    if kind.type is not int:
        return None

    def read(words: list[str]) -> int:
        try:
            return whole(words[0])
        except ValueError:
            raise ValueError(f"{words[0]!r} is no INT") from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=read,
        is_instance=lambda value: type(value) is int,
        str_from_instance=lambda value: [str(value)],
    )


Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE [MODULE ...]", help_behavior_hint="")]
Assignments = Annotated[tuple[str, ...], plain("NAME=VALUE [NAME=VALUE ...]")]
OpenInt = Annotated[int | None, plain("INT")]
OpenFloat = Annotated[float | None, plain("FLOAT")]
OpenStr = Annotated[str | None, plain("STR")]


def _auto(kind: str, parse: Callable[[str], Any], *, many: bool = False) -> Any:
    def read(words: list[str]) -> Any:
        if words == ["auto"]:
            return None
        try:
            values = tuple(parse(word) for word in words)
        except (KeyError, ValueError):
            raise ValueError(f"{' '.join(words)!r} is no {kind}") from None
        return values if many else values[0]

    def show(value: Any) -> list[str]:
        if value is None:
            return ["auto"]
        return [str(single) for single in (value if many else (value,))]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar=kind,
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=show,
    )


# the word auto leaves these open: the machine, the method or the environment decides
AutoInt = Annotated[int | None, _auto("INT", whole), plain("INT")]
AutoFloat = Annotated[float | None, _auto("FLOAT", float), plain("FLOAT")]
AutoFloats = Annotated[
    tuple[float, ...] | None, _auto("FLOAT [FLOAT ...]", float, many=True), plain("FLOAT [FLOAT ...]")
]
AutoBool = Annotated[
    bool | None, _auto("{True,False}", {"True": True, "False": False}.__getitem__), plain("{True,False}")
]
AutoStr = Annotated[str | None, _auto("STR", str), plain("STR")]
