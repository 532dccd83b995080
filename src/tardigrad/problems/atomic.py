"""Entries of a shared array that are changed only if nobody else has changed them meanwhile.

Rules of this file:

- bits are compared, not values: 0 and -0 differ, and a NaN equals itself;
- no entry waits for another, and no order between entries is promised.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any


@lru_cache
def atomic() -> SimpleNamespace:
    """``load(array, i)`` and ``replace(array, i, old, new)`` for compiled code, on float32 and float64. i is not checked.

    `replace` writes `new` if the entry has the bits of `old`, and says whether it did: in one step, so that of several
    threads which replace the same `old` one alone succeeds.
    """
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    def place_of(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, Any]:
        """The address of an entry, as that of an integer of its size."""
        kind = signature.args[0]
        values = context.make_array(kind)(context, builder, arguments[0])
        word = ir.IntType(kind.dtype.bitwidth)
        place = cgutils.get_item_pointer(context, builder, kind, values, [arguments[1]])
        return builder.bitcast(place, word.as_pointer()), word

    @intrinsic
    def load(_: Any, array: Any, i: Any) -> Any:  # noqa: ARG001 (numba looks at the names)
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place, word = place_of(context, builder, signature, arguments)
            bits = builder.load_atomic(place, "monotonic", word.width // 8)
            return builder.bitcast(bits, context.get_value_type(signature.return_type))

        return array.dtype(array, types.intp), emit

    @intrinsic
    def replace(_: Any, array: Any, i: Any, old: Any, new: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place, word = place_of(context, builder, signature, arguments)
            expected, wanted = (builder.bitcast(value, word) for value in arguments[2:])
            found = builder.cmpxchg(place, expected, wanted, "monotonic", "monotonic")
            return builder.extract_value(found, 1)

        return types.boolean(array, types.intp, array.dtype, array.dtype), emit

    return SimpleNamespace(load=load, replace=replace)
