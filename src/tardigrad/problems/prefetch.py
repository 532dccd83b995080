"""A compiled function that asks for a place of an array before it is needed.

Rules of this file:

- it changes nothing but time: where a machine has no such instruction, nothing happens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache
def prefetch(to_write: bool) -> Any:
    """``f(array, i)`` for compiled code: ``array[i]`` will be read soon, or written where `to_write`. i is not checked."""
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    def declare(_: Any, array: Any, i: Any) -> Any:  # noqa: ARG001 (numba looks at the names)
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = signature.args[0]
            values = context.make_array(kind)(context, builder, arguments[0])
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            place = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, values, [arguments[1]]), byte)
            declared = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, declared, "llvm.prefetch.p0")
            builder.call(function, [place, number(int(to_write)), number(3), number(1)])  # 3: into the nearest cache; 1: data
            return context.get_dummy_value()

        return types.void(array, types.intp), emit

    return intrinsic(declare)
