"""What a request costs the engine, and what a GPU costs: two small TOML files.

[models."BAAI/bge-m3"]      # measured on the machine whose `speed` is 1
request_ms = 3.0            # each engine request
item_ms = 0.5               # each text in it
token_ms = 0.01             # each token of them

[gpus.A4000]
price_per_s = 0.00016       # in any currency
speed = 1.0                 # how many times as fast as where the models were measured
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SizingError(ValueError):
    """A file or a number cannot be used; the message says which."""


@dataclass(frozen=True, slots=True)
class EngineCost:
    """Milliseconds of the engine's time: for each request, item and token."""

    request_ms: float
    item_ms: float
    token_ms: float = 0.0

    def on(self, speed: float, tokens: float) -> "ServiceTime":
        """The same in seconds for items of so many tokens, on a GPU `speed` times as fast.

        A request's own cost is the CPU's work, which no GPU makes less.
        """
        item_ms = self.item_ms + self.token_ms * tokens
        return ServiceTime(self.request_ms / 1e3, item_ms / speed / 1e3)


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Seconds that the engine works: `request_s` for a request, and `item_s` for each item."""

    request_s: float
    item_s: float

    def of(self, items: int) -> float:
        """Seconds for one request of so many items."""
        return self.request_s + self.item_s * items

    def items_per_s(self, items: int) -> float:
        """The rate with requests of so many items, one after the other."""
        return items / self.of(items)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of machine: its name, its price in any currency, and its relative speed."""

    name: str
    price_per_s: float
    speed: float = 1.0


def read_costs(path: Path) -> dict[str, EngineCost]:
    """Read the models' costs by name.

    Raises:
        SizingError: the file cannot be read, or a figure is missing or impossible.
    """
    return {
        name: EngineCost(
            _number(name, entry, "request_ms"),
            _number(name, entry, "item_ms"),
            _number(name, entry, "token_ms", 0.0),
        )
        for name, entry in _table(path, "models").items()
    }


def read_gpus(path: Path) -> list[Gpu]:
    """Read the kinds of machines.

    Raises:
        SizingError: the file cannot be read, or a figure is missing or impossible.
    """
    gpus = [
        Gpu(name, _number(name, entry, "price_per_s"), _number(name, entry, "speed", 1.0))
        for name, entry in _table(path, "gpus").items()
    ]
    for gpu in gpus:
        if not gpu.speed:
            raise SizingError(f"{gpu.name}: speed must be more than 0")
    return gpus


def _table(path: Path, name: str) -> Mapping[str, Mapping[str, object]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SizingError(f"{path.name}: {error.strerror}") from None
    except ValueError as error:
        raise SizingError(f"{path.name} is no TOML: {error}") from None
    table = content.get(name)
    if not isinstance(table, dict) or not all(isinstance(each, dict) for each in table.values()):
        raise SizingError(f"{path.name} must have tables [{name}.NAME]")
    return table


def _number(
    where: str, entry: Mapping[str, object], name: str, default: float | None = None
) -> float:
    value = entry.get(name, default)
    # A bool is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SizingError(f"{where}: {name} must be a number")
    if not 0 <= value < math.inf:
        raise SizingError(f"{where}: {name} must be 0 or more")
    return float(value)
