"""Typed look-ups in a mapping of environment variables; each error names the variable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class SettingsError(ValueError):
    """A variable has a value that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Typed look-ups in a mapping of variables; each error names the variable."""

    env: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """The value, trimmed; None where it is not set or blank."""
        return self.env.get(name, "").strip() or None

    def values(self, name: str) -> list[str]:
        """A semicolon list; empty parts (a trailing semicolon) do not count."""
        return [part.strip() for part in (self.text(name) or "").split(";") if part.strip()]

    def boolean(self, name: str, *, default: bool) -> bool:
        """A yes or no, in any of the usual words.

        Raises:
            SettingsError: the value cannot be that.
        """
        value = self.text(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise SettingsError(f"{name} must be true or false, not {value!r}")

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of some words, in any case of letters.

        Raises:
            SettingsError: the value cannot be that.
        """
        return one_of(name, self.text(name) or default, allowed)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds.

        Raises:
            SettingsError: the value cannot be that.
        """
        value = self.text(name)
        return default if value is None else bounded(name, value, int, low, high)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within bounds.

        Raises:
            SettingsError: the value cannot be that.
        """
        value = self.text(name)
        return default if value is None else bounded(name, value, float, low, high)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The word of `allowed` that a value is, in any case of letters.

    Raises:
        SettingsError: the value cannot be that.
    """
    by_folded = {option.lower(): option for option in allowed}
    if value.lower() not in by_folded:
        raise SettingsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return by_folded[value.lower()]


def bounded(name: str, value: str, kind: Callable[[str], T], low: T, high: T) -> T:
    """A value as a number within bounds.

    Raises:
        SettingsError: the value cannot be that.
    """
    try:
        number = kind(value)
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {value!r}") from None
    if not low <= number <= high:  # type: ignore[operator]  # T is int or float
        raise SettingsError(f"{name} must be between {low} and {high}, not {value}")
    return number
