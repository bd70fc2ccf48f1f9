"""Values of the tools' options: parsed by the functions that `run` uses, with mistakes told in click's words."""

from collections.abc import Callable
from typing import Any

import click


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make a callback that parses one value, or each of several; a mistake names the option."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(parse(part) for part in value)
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback
