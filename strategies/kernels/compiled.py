"""How loops are compiled, and the two words of assembly that Python has no spelling for.

Compiled code is kept beside the source, or in the user's cache where that cannot be written; where neither can, it is
compiled anew in each process. Nothing is compiled with `fastmath`: sums of floats keep their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code that runs without the interpreter's lock.

    A division by zero is infinite: where it may raise an error, no loop takes eight steps at once.
    """
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # there is no place to keep it
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))


_WORD = ir.IntType(64)


def _ones(_: Any, word: Any) -> Any:
    """The number of set bits of a 64-bit word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return numba.types.uint64(numba.types.uint64), generate


def _trailing(_: Any, word: Any) -> Any:
    """The place of the lowest set bit of a 64-bit word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.types.int64(numba.types.uint64), generate


def _word_at(_: Any, flat: Any, at: Any) -> Any:
    """The eight bytes from place `at` of a flat array of bytes, wherever they lie, as a little-endian word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), _WORD.as_pointer())
        word = builder.load(place)
        word.align = 1
        return word

    return numba.types.uint64(flat, numba.types.int64), generate


ones: Any = intrinsic(_ones)
trailing: Any = intrinsic(_trailing)
word_at: Any = intrinsic(_word_at)
