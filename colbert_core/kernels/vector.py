"""Vector operations for the kernels, which read like their algorithm and run like hand-written SIMD.

Each operation is one or a few instructions of LLVM's vector language. LLVM turns them into AVX-512, AVX2, NEON or whatever the
processor has: a vector of 64 bytes is one register of AVX-512, two of AVX2, four of NEON. Plain Numba loops that accumulate in
arrays are 20 to 40 times slower, because their sums stay in memory.

Some operations have an instruction that LLVM's own language cannot express. So a kernel is compiled for one of three
instruction sets, and the type of its first argument says which: ``AMX`` (x86 with tiles of bytes), ``VNNI`` (x86 with AVX-512
VNNI) or ``PORTABLE``. All give the same whole numbers.

Addresses are integers. Nothing here checks a bound: the kernels do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel, register_default

if TYPE_CHECKING:
    from collections.abc import Callable


intrinsic: Any = extending.intrinsic  # Any: its annotations count the typing context as an argument of a call


class Vnni(NamedTuple):
    """x86 with AVX-512 F, BW and VNNI."""

    bits: int = 512


class Portable(NamedTuple):
    """Any processor."""

    bits: int = 0


class Amx(NamedTuple):
    """What ``Vnni`` has, and AMX: registers that hold 16 rows of 64 bytes, and an instruction that multiplies two of them."""

    bits: int = 8192


VNNI, PORTABLE, AMX = Vnni(), Portable(), Amx()

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_LANE = {types.int8: _I8, types.uint8: _I8, types.int16: _I16, types.int32: _I32, types.float32: _F32}


class Vector(types.Type):
    """``size`` numbers in one register, or in a few registers that are used as one."""

    def __init__(self, lane: types.Type, size: int) -> None:
        self.lane, self.size = lane, size
        super().__init__(name=f"{size} x {lane}")


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(_LANE[kind.lane], kind.size))


BYTES_64 = Vector(types.uint8, 64)
BYTES_32 = Vector(types.uint8, 32)
BYTES_16 = Vector(types.uint8, 16)
SHORTS_32 = Vector(types.int16, 32)
INTS_16 = Vector(types.int32, 16)
FLOATS_16 = Vector(types.float32, 16)

_ADDRESS = types.int64
"""An address in memory; ``array.ctypes.data`` is that of an array."""


def _operation(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Turn a function that emits instructions, ``emit(builder, *values)``, into an operation for Numba."""

    def make(emit: Callable[..., Any]) -> Any:
        def implement(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return emit(builder, *values)

        def typed(given: tuple[types.Type, ...]) -> Any:
            # None in ``arguments`` accepts the type given, which is that of an instruction set.
            wanted = tuple(actual if kind is None else kind for kind, actual in zip(arguments, given, strict=True))
            return result(*wanted), implement

        calls = {
            1: lambda _, a: typed((a,)),
            2: lambda _, a, b: typed((a, b)),
            3: lambda _, a, b, c: typed((a, b, c)),
            4: lambda _, a, b, c, d: typed((a, b, c, d)),
        }
        call = calls[len(arguments)]
        call.__name__, call.__doc__ = emit.__name__, emit.__doc__
        return intrinsic(call)

    return make


def _has_vnni(isa: Any) -> bool:
    return isa.instance_class in (Vnni, Amx)


def _declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _call(builder: Any, name: str, result: Any, *values: Any) -> Any:
    return builder.call(_declared(builder, name, result, [value.type for value in values]), values)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _splat(builder: Any, value: Any, size: int) -> Any:
    kind = ir.VectorType(value.type, size)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_I32, size), [0] * size))


def _same(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _loading(kind: Vector) -> Any:
    @_operation(kind, _ADDRESS)
    def load(builder: Any, address: Any) -> Any:
        lanes = ir.VectorType(_LANE[kind.lane], kind.size)
        value = builder.load(_pointer(builder, address, lanes))
        value.align = 1
        return value

    return load


load_bytes_64, load_bytes_32, load_bytes_16, load_shorts_32, load_ints_16, load_floats_16 = map(
    _loading, (BYTES_64, BYTES_32, BYTES_16, SHORTS_32, INTS_16, FLOATS_16)
)


@intrinsic
def store(_: Any, address: Any, vector: Any) -> Any:
    """Write a vector to memory."""

    def implement(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        builder.store(values[1], _pointer(builder, values[0], values[1].type)).align = 1
        return context.get_dummy_value()

    return types.void(_ADDRESS, vector), implement


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Ask the processor to fetch the 64 bytes around an address, which need not exist."""

    def implement(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to read, to keep, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), _pointer(builder, values[0], _I8), *flags)
        return context.get_dummy_value()

    return types.void(_ADDRESS), implement


@_operation(BYTES_64, _ADDRESS)
def repeated_4_bytes(builder: Any, address: Any) -> Any:
    """Load four bytes and repeat them 16 times."""
    value = builder.load(_pointer(builder, address, _I32))
    value.align = 1
    return builder.bitcast(_splat(builder, value, 16), ir.VectorType(_I8, 64))


@_operation(FLOATS_16, _ADDRESS)
def repeated_float(builder: Any, address: Any) -> Any:
    """Load a float32 and repeat it 16 times."""
    value = builder.load(_pointer(builder, address, _F32))
    value.align = 1
    return _splat(builder, value, 16)


@_operation(types.int64, _ADDRESS)
def byte_at(builder: Any, address: Any) -> Any:
    """Load a byte."""
    return builder.zext(builder.load(_pointer(builder, address, _I8)), _I64)


@intrinsic
def set_byte(_: Any, address: Any, value: Any) -> Any:
    """Write a byte."""

    def implement(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        builder.store(builder.trunc(values[1], _I8), _pointer(builder, values[0], _I8))
        return context.get_dummy_value()

    return types.void(_ADDRESS, types.int64), implement


@_operation(BYTES_64, BYTES_16)
def four_times(builder: Any, value: Any) -> Any:
    """Repeat 16 bytes four times."""
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, 64), list(range(16)) * 4))


@_operation(BYTES_16, BYTES_64)
def first_16(builder: Any, value: Any) -> Any:
    """Take the first 16 bytes."""
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, 16), list(range(16))))


@_operation(INTS_16, types.int32)
def same_ints(builder: Any, value: Any) -> Any:
    """Put a number into every lane."""
    return _splat(builder, value, 16)


@_operation(FLOATS_16, types.float32)
def same_floats(builder: Any, value: Any) -> Any:
    """Put a number into every lane."""
    return _splat(builder, value, 16)


@_operation(INTS_16, None, INTS_16, BYTES_64, BYTES_64)
def _dot_vnni(builder: Any, _: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", sums.type, sums, unsigned, signed)


@_operation(INTS_16, None, INTS_16, BYTES_64, BYTES_64)
def _dot_portable(builder: Any, _: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    # Multiply bytes 0 and 2 of each four as pairs of 16 bits, then bytes 1 and 3: LLVM turns each sum of two products into one
    # multiply-and-add (pmaddwd on x86). Its partial.reduce.add does not say which products end up in which lane.
    pairs, wide = ir.VectorType(_I16, 32), ir.VectorType(_I32, 32)
    eight = _same(pairs, 8)
    unsigned, signed = builder.bitcast(unsigned, pairs), builder.bitcast(signed, pairs)
    low = (builder.and_(unsigned, _same(pairs, 255)), builder.ashr(builder.shl(signed, eight), eight))
    high = (builder.lshr(unsigned, eight), builder.ashr(signed, eight))
    for one, other in (low, high):
        products = builder.mul(builder.sext(one, wide), builder.sext(other, wide))
        lanes = [ir.Constant(ir.VectorType(_I32, 16), list(range(first, 32, 2))) for first in (0, 1)]
        even, odd = (builder.shuffle_vector(products, products, places) for places in lanes)
        sums = builder.add(sums, builder.add(even, odd))
    return sums


@intrinsic
def dot(context: Any, isa: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """Add to each of 16 sums the products of four unsigned and four signed bytes."""
    chosen = _dot_vnni if _has_vnni(isa) else _dot_portable
    return chosen._defn(context, isa, sums, unsigned, signed)


@_operation(BYTES_64, None, BYTES_64, BYTES_64)
def _look_up_vnni(builder: Any, _: Any, table: Any, places: Any) -> Any:
    return _call(builder, "llvm.x86.avx512.pshuf.b.512", places.type, table, places)


@_operation(BYTES_64, None, BYTES_64, BYTES_64)
def _look_up_portable(builder: Any, _: Any, table: Any, places: Any) -> Any:
    return _halved(builder, table, places)


def _halved(builder: Any, table: Any, places: Any) -> Any:
    """Look up entries of a table of 16. Each bit of a place halves the candidates: LLVM has no shuffle by variable places."""
    size = places.type.count
    left = [builder.shuffle_vector(table, table, ir.Constant(ir.VectorType(_I32, size), [entry] * size)) for entry in range(16)]
    for bit in range(4):
        mask = _same(places.type, 1 << bit)
        is_set = builder.icmp_unsigned("!=", builder.and_(places, mask), _same(places.type, 0))
        left = [builder.select(is_set, odd, even) for even, odd in zip(left[::2], left[1::2], strict=True)]
    return left[0]


@intrinsic
def look_up(context: Any, isa: Any, table: Any, places: Any) -> Any:
    """Look up 64 entries of a table of 16 bytes, at places from 0 to 15. The vector holds the table four times."""
    chosen = _look_up_vnni if _has_vnni(isa) else _look_up_portable
    return chosen._defn(context, isa, table, places)


@_operation(FLOATS_16, None, FLOATS_16, INTS_16)
def _look_up_floats_vnni(builder: Any, _: Any, table: Any, places: Any) -> Any:
    return _call(builder, "llvm.x86.avx512.permvar.sf.512", table.type, table, places)


@_operation(FLOATS_16, None, FLOATS_16, INTS_16)
def _look_up_floats_portable(builder: Any, _: Any, table: Any, places: Any) -> Any:
    return _halved(builder, table, places)


@intrinsic
def look_up_floats(context: Any, isa: Any, table: Any, places: Any) -> Any:
    """Look up 16 entries of a table of 16 numbers, at places from 0 to 15."""
    chosen = _look_up_floats_vnni if _has_vnni(isa) else _look_up_floats_portable
    return chosen._defn(context, isa, table, places)


@_operation(INTS_16, BYTES_16)
def as_ints(builder: Any, value: Any) -> Any:
    """Convert bytes to whole numbers."""
    return builder.zext(value, ir.VectorType(_I32, 16))


@intrinsic
def bits_at(_: Any, vector: Any, shift: Any, mask: Any) -> Any:
    """Shift each byte right and mask it. The mask has to drop the bits that come from the neighbouring byte."""

    def implement(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        bytes_, shift_, mask_ = values
        size = bytes_.type.count
        pairs = ir.VectorType(_I16, size // 2)
        by = _splat(builder, builder.trunc(shift_, _I16), size // 2)
        shifted = builder.bitcast(builder.lshr(builder.bitcast(bytes_, pairs), by), bytes_.type)
        return builder.and_(shifted, _splat(builder, builder.trunc(mask_, _I8), size))

    return vector(vector, types.int64, types.int64), implement


@intrinsic
def larger(_: Any, one: Any, other: Any) -> Any:
    """Take the larger number in each lane."""
    name = {types.uint8: "umax", types.float32: "maxnum"}.get(one.lane, "smax")

    def implement(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        kind = values[0].type
        letter = "f" if one.lane is types.float32 else "i"
        width = 32 if letter == "f" else kind.element.width
        return _call(builder, f"llvm.{name}.v{kind.count}{letter}{width}", kind, *values)

    return one(one, one), implement


@_operation(types.boolean, FLOATS_16, FLOATS_16, FLOATS_16, FLOATS_16)
def any_not_below(builder: Any, one: Any, bar: Any, other: Any, other_bar: Any) -> Any:
    """Tell whether any lane of the first vector is not below the second, or of the third not below the fourth."""
    lanes = builder.or_(builder.fcmp_ordered(">=", one, bar), builder.fcmp_ordered(">=", other, other_bar))
    return builder.icmp_unsigned("!=", builder.bitcast(lanes, ir.IntType(16)), ir.Constant(ir.IntType(16), 0))


@_operation(types.int64, SHORTS_32, SHORTS_32)
def where_larger(builder: Any, one: Any, other: Any) -> Any:
    """Return 32 bits: which lanes of the first vector hold the larger number."""
    return builder.zext(builder.bitcast(builder.icmp_signed(">", one, other), _I32), _I64)


@_operation(types.int64, INTS_16, INTS_16)
def where_larger_ints(builder: Any, one: Any, other: Any) -> Any:
    """Return 16 bits: which lanes of the first vector hold the larger number."""
    return builder.zext(builder.bitcast(builder.icmp_signed(">", one, other), _I16), _I64)


@_operation(types.int64, types.int64)
def lowest_bit(builder: Any, value: Any) -> Any:
    """Return the number of the lowest bit that is set; the value must not be 0."""
    return _call(builder, "llvm.cttz.i64", _I64, value, ir.Constant(_I1, 1))


@_operation(INTS_16, INTS_16, INTS_16, INTS_16, INTS_16)
def chosen_ints(builder: Any, one: Any, other: Any, if_larger: Any, if_not: Any) -> Any:
    """Take the third number in each lane where the first is larger than the second, else the fourth."""
    return builder.select(builder.icmp_signed(">", one, other), if_larger, if_not)


@_operation(INTS_16, FLOATS_16, FLOATS_16, INTS_16)
def counted_larger(builder: Any, one: Any, other: Any, count: Any) -> Any:
    """Add one to the count in each lane where the first number is larger than the second."""
    return builder.add(count, builder.zext(builder.fcmp_ordered(">", one, other), count.type))


@_operation(FLOATS_16, INTS_16)
def as_floats(builder: Any, value: Any) -> Any:
    """Convert whole numbers to floats."""
    return builder.sitofp(value, ir.VectorType(_F32, 16))


def _half(first: int) -> Any:
    @_operation(FLOATS_16, SHORTS_32)
    def half(builder: Any, value: Any) -> Any:
        lanes = ir.Constant(ir.VectorType(_I32, 16), list(range(first, first + 16)))
        return builder.sitofp(builder.shuffle_vector(value, value, lanes), ir.VectorType(_F32, 16))

    return half


first_floats, last_floats = _half(0), _half(16)


@_operation(INTS_16, INTS_16, INTS_16)
def both(builder: Any, one: Any, other: Any) -> Any:
    """Add whole numbers in each lane."""
    return builder.add(one, other)


@_operation(FLOATS_16, FLOATS_16, FLOATS_16)
def plus(builder: Any, one: Any, other: Any) -> Any:
    """Add floats in each lane."""
    return builder.fadd(one, other)


@_operation(FLOATS_16, FLOATS_16, FLOATS_16)
def less(builder: Any, one: Any, other: Any) -> Any:
    """Subtract floats in each lane."""
    return builder.fsub(one, other)


@_operation(FLOATS_16, FLOATS_16, FLOATS_16)
def times(builder: Any, one: Any, other: Any) -> Any:
    """Multiply floats in each lane."""
    return builder.fmul(one, other)


@_operation(FLOATS_16, FLOATS_16, FLOATS_16, FLOATS_16)
def times_plus(builder: Any, one: Any, other: Any, added: Any) -> Any:
    """Multiply two floats and add the third in each lane, rounding once where the processor can."""
    return _call(builder, "llvm.fmuladd.v16f32", one.type, one, other, added)


def _rounded(builder: Any, value: Any, least: float, most: float, lane: Any) -> Any:
    kind = value.type
    value = _call(builder, "llvm.maxnum.v16f32", kind, value, _same(kind, least))
    value = _call(builder, "llvm.minnum.v16f32", kind, value, _same(kind, most))
    whole = builder.fptosi(_call(builder, "llvm.rint.v16f32", kind, value), ir.VectorType(_I32, 16))
    return builder.trunc(whole, ir.VectorType(lane, 16))


def _joined(builder: Any, one: Any, other: Any) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, 32), list(range(32))))


@_operation(SHORTS_32, FLOATS_16, FLOATS_16)
def as_shorts(builder: Any, one: Any, other: Any) -> Any:
    """Round two vectors to 16 bits; numbers out of range become the nearest that fits."""
    return _joined(builder, *(_rounded(builder, value, -32768.0, 32767.0, _I16) for value in (one, other)))


@_operation(BYTES_32, FLOATS_16, FLOATS_16)
def as_bytes(builder: Any, one: Any, other: Any) -> Any:
    """Round two vectors to whole numbers from 0 to 255."""
    return _joined(builder, *(_rounded(builder, value, 0.0, 255.0, _I8) for value in (one, other)))


@_operation(types.int64, BYTES_32)
def sum_of_bytes(builder: Any, value: Any) -> Any:
    """Add up all bytes."""
    wide = builder.zext(value, ir.VectorType(_I32, 32))
    return builder.zext(_call(builder, "llvm.vector.reduce.add.v32i32", _I32, wide), _I64)


@_operation(types.int64, INTS_16)
def sum_of_ints(builder: Any, value: Any) -> Any:
    """Add up all lanes."""
    return builder.sext(_call(builder, "llvm.vector.reduce.add.v16i32", _I32, value), _I64)


@_operation(types.float32, FLOATS_16)
def sum_of_floats(builder: Any, value: Any) -> Any:
    """Add up all lanes: one half to the other, until one number is left."""
    for size in (8, 4, 2, 1):
        parts = [ir.Constant(ir.VectorType(_I32, size), list(range(first, first + size))) for first in (0, size)]
        one, other = (builder.shuffle_vector(value, value, part) for part in parts)
        value = builder.fadd(one, other)
    return builder.extract_element(value, ir.Constant(_I32, 0))


@_operation(types.float32, FLOATS_16)
def largest_of_floats(builder: Any, value: Any) -> Any:
    """Take the largest lane."""
    return _call(builder, "llvm.vector.reduce.fmax.v16f32", _F32, value)


@_operation(types.boolean, None)
def _wide_vnni(_builder: Any, _: Any) -> Any:
    return ir.Constant(_I1, 1)


@_operation(types.boolean, None)
def _wide_portable(_builder: Any, _: Any) -> Any:
    return ir.Constant(_I1, 0)


@intrinsic
def has_wide_registers(context: Any, isa: Any) -> Any:
    """Tell whether 64 bytes are one register, and there are 32 of them; a kernel keeps fewer sums at a time where not.

    A constant at compile time.
    """
    chosen = _wide_vnni if _has_vnni(isa) else _wide_portable
    return chosen._defn(context, isa)


@intrinsic
def has_tiles(context: Any, isa: Any) -> Any:
    """Tell whether the instruction set has tiles. A constant at compile time."""
    chosen = _wide_vnni if isa.instance_class is Amx else _wide_portable
    return chosen._defn(context, isa)


@extending.typeof_impl.register(Vnni)
def _typeof_vnni(value: Vnni, _: Any) -> types.Type:
    return types.NamedUniTuple(types.int64, 1, Vnni)


@extending.typeof_impl.register(Portable)
def _typeof_portable(value: Portable, _: Any) -> types.Type:
    return types.NamedUniTuple(types.int64, 1, Portable)


@extending.typeof_impl.register(Amx)
def _typeof_amx(value: Amx, _: Any) -> types.Type:
    return types.NamedUniTuple(types.int64, 1, Amx)


# Tiles: registers of 16 rows of 64 bytes. These operations emit nothing for an instruction set without them.

_TILE = 16  # rows
_WHOLE_TILES = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[_TILE] * 8, *[0] * 8])  # how ``ldtilecfg`` reads it


def _on_tiles(builder: Any, name: str, *values: Any) -> None:
    _call(builder, f"llvm.x86.{name}", ir.VoidType(), *values)


def _tile(number: int) -> Any:
    return ir.Constant(_I8, number)


@intrinsic
def use_tiles(_: Any, isa: Any) -> Any:
    """Shape the tiles, which this thread can use from now on until ``release_tiles``."""

    def implement(context: Any, builder: Any, _signature: Any, _values: Any) -> Any:
        if isa.instance_class is Amx:
            kind = ir.ArrayType(_I8, len(_WHOLE_TILES))
            config = builder.module.globals.get("whole_tiles")
            if config is None:
                config = ir.GlobalVariable(builder.module, kind, "whole_tiles")
                config.linkage, config.global_constant = "internal", True
                config.initializer = ir.Constant(kind, bytearray(_WHOLE_TILES))
            _on_tiles(builder, "ldtilecfg", builder.bitcast(config, _I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(isa), implement


@intrinsic
def release_tiles(_: Any, isa: Any) -> Any:
    """Say that the tiles are not used any more, so that the system need not save 8 kB when another thread gets the core."""

    def implement(context: Any, builder: Any, _signature: Any, _values: Any) -> Any:
        if isa.instance_class is Amx:
            _on_tiles(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(isa), implement


@intrinsic
def multiply_tiles(_: Any, isa: Any, rows: Any, width: Any, query: Any, start: Any, to: Any) -> Any:
    """Multiply 16 rows with the 32 vectors of a query block, as ``products`` does; ``width`` is a multiple of 64."""

    def implement(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        if isa.instance_class is Amx:
            _, rows_, width_, query_, start_, to_ = values
            line = ir.Constant(_I64, 128)  # bytes of 32 sums, and of four components of 32 query vectors

            def at(address: Any, more: int = 0) -> Any:
                return _pointer(builder, builder.add(address, ir.Constant(_I64, more)), _I8)

            for half in (0, 1):  # every row of a tile of sums starts alike, so its lines are no bytes apart
                _on_tiles(builder, "tileloadd64", _tile(half), at(start_, 64 * half), ir.Constant(_I64, 0))
            with cgutils.for_range(builder, builder.udiv(width_, ir.Constant(_I64, 64))) as loop:
                row = builder.add(rows_, builder.mul(loop.index, ir.Constant(_I64, 64)))
                part = builder.add(query_, builder.mul(loop.index, ir.Constant(_I64, 64 * 32)))
                _on_tiles(builder, "tileloadd64", _tile(2), at(row), width_)
                for half in (0, 1):
                    _on_tiles(builder, "tileloadd64", _tile(3 + half), at(part, 64 * half), line)
                    _on_tiles(builder, "tdpbusd", _tile(half), _tile(2), _tile(3 + half))
            for half in (0, 1):
                _on_tiles(builder, "tilestored64", _tile(half), at(to_, 64 * half), line)
        return context.get_dummy_value()

    return types.void(isa, *[_ADDRESS] * 5), implement


# Sums of products


@njit(forceinline=True)
def products(isa: Any, rows: int, n: int, query: int, width: int, start: int, to: int) -> None:
    """Multiply up to 16 rows with the 32 vectors of a query block, and write each row's 32 sums after those of the one before.

    With tiles, 16 rows take 2.7 ns each where ``dots`` takes 12, if all addresses are multiples of 64, and 8 if they are not.

    Args:
        isa: the instruction set; ``use_tiles`` was called.
        rows: address of rows of ``width`` unsigned bytes.
        n: how many there are, from 1 to 16. With tiles, fewer than 16 take longer than 16.
        query: address of a block of signed bytes, *Shape:* (width / 4, 32, 4).
        width: bytes of a row, a multiple of 16.
        start: address of 32 int32, with which the sums start.
        to: address of room for 16 times 32 int32; what is written beyond n of them means nothing.
    """
    if has_tiles(isa) and n == 16 and width % 64 == 0:
        multiply_tiles(isa, rows, width, query, start, to)
    else:
        for i in range(0, n, 4):
            # Beyond the last row take the last one again.
            row_0, row_1 = rows + i * width, rows + min(i + 1, n - 1) * width
            row_2, row_3 = rows + min(i + 2, n - 1) * width, rows + min(i + 3, n - 1) * width
            a0, b0, a1, b1, a2, b2, a3, b3 = dots(isa, row_0, row_1, row_2, row_3, query, width, start)
            store_of_four(to + i * 128, a0, b0, a1, b1, a2, b2, a3, b3)


@njit(forceinline=True)
def dots(isa: Any, row_0: int, row_1: int, row_2: int, row_3: int, query: int, width: int, start: int) -> Any:
    """Multiply four rows with the 32 vectors of a query block; return the dot products as eight times 16 sums.

    Args:
        isa: the instruction set.
        row_0, row_1, row_2, row_3: addresses of rows of ``width`` unsigned bytes.
        query: address of a block of signed bytes, *Shape:* (width / 4, 32, 4).
        width: bytes of a row, a multiple of 16.
        start: address of 32 int32, with which the sums start.
    """
    first, last = load_ints_16(start), load_ints_16(start + 64)
    a0, a1, a2, a3 = first, first, first, first
    b0, b1, b2, b3 = last, last, last, last
    if has_wide_registers(isa):
        # An addition to a sum takes five cycles, and two begin in each cycle: 16 sums keep the processor busy, 8 do not.
        zero = same_ints(np.int32(0))
        c0, c1, c2, c3, d0, d1, d2, d3 = zero, zero, zero, zero, zero, zero, zero, zero
        for place in range(0, width, 8):
            one, other = load_bytes_64(query + place * 32), load_bytes_64(query + place * 32 + 64)
            x = repeated_4_bytes(row_0 + place)
            a0, b0 = dot(isa, a0, x, one), dot(isa, b0, x, other)
            x = repeated_4_bytes(row_1 + place)
            a1, b1 = dot(isa, a1, x, one), dot(isa, b1, x, other)
            x = repeated_4_bytes(row_2 + place)
            a2, b2 = dot(isa, a2, x, one), dot(isa, b2, x, other)
            x = repeated_4_bytes(row_3 + place)
            a3, b3 = dot(isa, a3, x, one), dot(isa, b3, x, other)
            one, other = load_bytes_64(query + place * 32 + 128), load_bytes_64(query + place * 32 + 192)
            x = repeated_4_bytes(row_0 + place + 4)
            c0, d0 = dot(isa, c0, x, one), dot(isa, d0, x, other)
            x = repeated_4_bytes(row_1 + place + 4)
            c1, d1 = dot(isa, c1, x, one), dot(isa, d1, x, other)
            x = repeated_4_bytes(row_2 + place + 4)
            c2, d2 = dot(isa, c2, x, one), dot(isa, d2, x, other)
            x = repeated_4_bytes(row_3 + place + 4)
            c3, d3 = dot(isa, c3, x, one), dot(isa, d3, x, other)
        a0, a1, a2, a3 = both(a0, c0), both(a1, c1), both(a2, c2), both(a3, c3)
        b0, b1, b2, b3 = both(b0, d0), both(b1, d1), both(b2, d2), both(b3, d3)
    else:
        for place in range(0, width, 4):
            one = load_bytes_64(query + place * 32)
            a0 = dot(isa, a0, repeated_4_bytes(row_0 + place), one)
            a1 = dot(isa, a1, repeated_4_bytes(row_1 + place), one)
            a2 = dot(isa, a2, repeated_4_bytes(row_2 + place), one)
            a3 = dot(isa, a3, repeated_4_bytes(row_3 + place), one)
        for place in range(0, width, 4):
            other = load_bytes_64(query + place * 32 + 64)
            b0 = dot(isa, b0, repeated_4_bytes(row_0 + place), other)
            b1 = dot(isa, b1, repeated_4_bytes(row_1 + place), other)
            b2 = dot(isa, b2, repeated_4_bytes(row_2 + place), other)
            b3 = dot(isa, b3, repeated_4_bytes(row_3 + place), other)
    return a0, b0, a1, b1, a2, b2, a3, b3


@njit(forceinline=True)
def store_of_four(address: int, a0: Any, b0: Any, a1: Any, b1: Any, a2: Any, b2: Any, a3: Any, b3: Any) -> None:
    """Write what ``dots`` gave for four rows, each row's 32 numbers after those of the one before."""
    store(address, a0)
    store(address + 64, b0)
    store(address + 128, a1)
    store(address + 192, b1)
    store(address + 256, a2)
    store(address + 320, b2)
    store(address + 384, a3)
    store(address + 448, b3)


@njit(forceinline=True)
def dot_floats(isa: Any, row_0: int, row_1: int, row_2: int, row_3: int, query: int, dim: int) -> Any:
    """Multiply four rows of float32 with the 32 vectors of a query block; return the dot products as eight times 16 sums.

    Args:
        isa: the instruction set.
        row_0, row_1, row_2, row_3: addresses of rows of ``dim`` float32.
        query: address of a block of float32, *Shape:* (dim, 32).
        dim: components of a row.
    """
    zero = same_floats(np.float32(0))
    a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
    if has_wide_registers(isa):
        c0, c1, c2, c3, d0, d1, d2, d3 = zero, zero, zero, zero, zero, zero, zero, zero
        for d in range(0, dim // 2 * 8, 8):
            one, other = load_floats_16(query + d * 32), load_floats_16(query + d * 32 + 64)
            x = repeated_float(row_0 + d)
            a0, b0 = times_plus(x, one, a0), times_plus(x, other, b0)
            x = repeated_float(row_1 + d)
            a1, b1 = times_plus(x, one, a1), times_plus(x, other, b1)
            x = repeated_float(row_2 + d)
            a2, b2 = times_plus(x, one, a2), times_plus(x, other, b2)
            x = repeated_float(row_3 + d)
            a3, b3 = times_plus(x, one, a3), times_plus(x, other, b3)
            one, other = load_floats_16(query + d * 32 + 128), load_floats_16(query + d * 32 + 192)
            x = repeated_float(row_0 + d + 4)
            c0, d0 = times_plus(x, one, c0), times_plus(x, other, d0)
            x = repeated_float(row_1 + d + 4)
            c1, d1 = times_plus(x, one, c1), times_plus(x, other, d1)
            x = repeated_float(row_2 + d + 4)
            c2, d2 = times_plus(x, one, c2), times_plus(x, other, d2)
            x = repeated_float(row_3 + d + 4)
            c3, d3 = times_plus(x, one, c3), times_plus(x, other, d3)
        for d in range(dim // 2 * 8, dim * 4, 4):
            one, other = load_floats_16(query + d * 32), load_floats_16(query + d * 32 + 64)
            x = repeated_float(row_0 + d)
            a0, b0 = times_plus(x, one, a0), times_plus(x, other, b0)
            x = repeated_float(row_1 + d)
            a1, b1 = times_plus(x, one, a1), times_plus(x, other, b1)
            x = repeated_float(row_2 + d)
            a2, b2 = times_plus(x, one, a2), times_plus(x, other, b2)
            x = repeated_float(row_3 + d)
            a3, b3 = times_plus(x, one, a3), times_plus(x, other, b3)
        a0, a1, a2, a3 = plus(a0, c0), plus(a1, c1), plus(a2, c2), plus(a3, c3)
        b0, b1, b2, b3 = plus(b0, d0), plus(b1, d1), plus(b2, d2), plus(b3, d3)
    else:
        for d in range(0, dim * 4, 4):
            one = load_floats_16(query + d * 32)
            a0 = times_plus(repeated_float(row_0 + d), one, a0)
            a1 = times_plus(repeated_float(row_1 + d), one, a1)
            a2 = times_plus(repeated_float(row_2 + d), one, a2)
            a3 = times_plus(repeated_float(row_3 + d), one, a3)
        for d in range(0, dim * 4, 4):
            other = load_floats_16(query + d * 32 + 64)
            b0 = times_plus(repeated_float(row_0 + d), other, b0)
            b1 = times_plus(repeated_float(row_1 + d), other, b1)
            b2 = times_plus(repeated_float(row_2 + d), other, b2)
            b3 = times_plus(repeated_float(row_3 + d), other, b3)
    return a0, b0, a1, b1, a2, b2, a3, b3
