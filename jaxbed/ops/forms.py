"""Which exact lowering of an operation runs.

Every operation of this package has a reference form, "lax", and one or more forms that
compute the same values and gradients in another way. "auto" picks by backend and shape,
which is decided while tracing and costs nothing at run time.

    with forms.forced("lax"):
        ...                       # every operation traced in here uses its reference
    depthwise_conv(x, kernel, form="shift")        # one call; wins over the context

The choice is part of the jit cache key, so a function that was traced under one choice is
traced again under another.
"""

import contextlib
from collections.abc import Iterator

import jax

_FORCED = jax.make_user_context("auto")


@contextlib.contextmanager
def forced(form: str) -> Iterator[None]:
    """Makes every operation that offers `form` use it; the others keep their own choice."""
    with _FORCED(form):
        yield


def choose(form: str | None, *, offered: tuple[str, ...], auto: str) -> str:
    """Returns the form to trace: the argument, else the context, else `auto`.

    Args:
        form: the caller's explicit choice; None leaves it to the context.
        offered: the names of the operation's forms, "lax" among them.
        auto: the operation's own choice for this backend and shape.

    Raises:
        ValueError: `form` is given and not offered.
    """
    if form is not None and form != "auto":
        if form not in offered:
            raise ValueError(f"form must be one of {offered}, got {form!r}")
        return form
    context = _FORCED.value
    return context if form is None and context in offered else auto
