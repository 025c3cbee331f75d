"""Chapter 5. Matmul in six steps: the same product, from 2% of what the processor can do to nearly all.

    c = a b,   c[i, j] = sum over k of a[i, k] b[k, j]        a (M, K), b (K, N), c (M, N)

Every step does the same 2 M K N operations. What differs is how often the multipliers wait: for the sum
before, for a load, for memory. So each step is estimated first, then timed. Five are loops in Numba that
you can read; the last is the product that minilm computes with, csrc/gemm.c. docs/matmul.md says more.
"""

import time

import numba
import numpy as np

import minilm as ml
from minilm import kernels
from minilm.device import available_cpus

ml.set_num_threads(1)  # first one core alone; the others join at the end

print("1. What a core can do, and a model of it")
LANES = 8  # numbers of float32 in a vector of 256 bits


def at_most(multiply_adds, loads, stores, chains, lanes=LANES, latency=4):
    """The share of the peak that a loop can reach whose body has so many vector instructions.

    Each cycle can begin two multiply-adds, two loads and one store (nearly so in every x86 core since 2013).
    A multiply-add takes 4 cycles, and the next one on the same sum has to wait for it: `chains` sums that
    are independent of each other can be under way at once.
    """
    cycles = max(multiply_adds / 2, loads / 2, stores, latency * multiply_adds / chains)
    return multiply_adds / 2 / cycles * lanes / LANES


assert at_most(multiply_adds=8, loads=0, stores=0, chains=8) == 1
assert at_most(multiply_adds=8, loads=0, stores=0, chains=4) == 0.5
peak = max(kernels.measure_peak(0.02) for _ in range(20))
print(f"   multiply-adds on registers alone: {peak:.0f} GFLOP/s with one core; that is the peak below")
print("   8 sums of 8 numbers each must be under way to reach it: 2 a cycle times 4 cycles until ready")


def aligned(x):
    """A copy of x that begins at a multiple of 64 bytes, so that vectors do not lie across two cache lines."""
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[:] = x
    return copy


M = K = N = 960
rng = np.random.default_rng(0)
a, b = (aligned(rng.integers(-8, 9, (M, N)).astype(np.float32)) for _ in range(2))  # (M, K), (K, N)
assert np.array_equal(a @ b, a.astype(np.int64) @ b.astype(np.int64))  # below 2^24: exact, in any order
print(f"   a, b and c are {M} x {N} in float32, {a.nbytes / 1e6:.1f} MB each: more than the nearer caches hold")


def show(name, multiply, a=a, b=b, estimate=None, clock=time.thread_time):
    """Check multiply(a, b, c) against NumPy, and print its best speed.

    The clock is this thread's: it stands still while other programs have the core.
    """
    c = aligned(np.full((len(a), b.shape[1]), np.nan, np.float32))
    multiply(a, b, c)  # the first call compiles
    assert np.array_equal(c, a @ b), name
    seconds = []
    while len(seconds) < 3 or sum(seconds) < 0.2:
        began = clock()
        multiply(a, b, c)
        seconds.append(clock() - began)
    speed = 2e-9 * a.size * b.shape[1] / min(seconds)
    expected = "" if estimate is None else f"   at most {estimate:6.1%}"
    print(f"   {name:<28} {speed:7.1f} GFLOP/s   {speed / peak:6.1%} of the peak{expected}")


print("\n2. Step one, the definition: three loops, i j k")


@numba.njit
def three_loops(a, b, c):
    """One element of c at a time."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


print("   One sum, one number at a time: each addition (3 cycles, alone) waits for the one before, and no")
print("   vector helps: floating-point sums depend on their order, and the compiler must keep it. And k")
print("   walks down a column of b, each number in another cache line: 64 bytes are moved for 4.")
show("i j k", three_loops, a=a[:96], estimate=at_most(1, loads=2, stores=0, chains=1, lanes=1, latency=3))

print("\n3. Step two, another order: i k j")
FUSED = {"contract"}  # a b + c may be rounded once: one instruction instead of two


@numba.njit(fastmath=FUSED)
def rows_of_b(a, b, c):
    """A row of c is the sum of the rows of b, each times a number of a."""
    c[:] = 0
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            factor = a[i, k]
            for j in range(b.shape[1]):
                c[i, j] += factor * b[k, j]


print("   The same products, but j walks along rows, all 64 bytes of a line are used, and neighbours are")
print("   different sums: 8 of them make a vector. Now each multiply-add loads b and c and stores c.")
show("i k j", rows_of_b, estimate=at_most(1, loads=2, stores=1, chains=N // LANES))

print("\n4. Step three, two rows of c and four of b at once: what is loaded is used several times")


@numba.njit(fastmath=FUSED)
def rows_together(a, b, c):
    """As before, with two i and four k together."""
    c[:] = 0
    for i in range(0, a.shape[0], 2):
        c0, c1 = c[i], c[i + 1]
        for k in range(0, a.shape[1], 4):
            p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            q0, q1, q2, q3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            for j in range(len(c0)):
                c0[j] = c0[j] + p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j]
                c1[j] = c1[j] + q0 * b0[j] + q1 * b1[j] + q2 * b2[j] + q3 * b3[j]


print("   8 multiply-adds for 6 loads and 2 stores: by this count no unit has to wait any more. (That")
print("   b is far away costs little: its rows come in order, and are fetched ahead.) But c still goes back")
print("   and forth between registers and cache, for every four k.")
show("i k j, two i and four k", rows_together, estimate=at_most(8, loads=6, stores=2, chains=2 * N // LANES))

print("\n5. Step four, a tile in the registers, and b packed in the order in which it is read")
ANY_ORDER = FUSED | {"reassoc", "nsz"}  # a sum over k may be cut into 8 partial sums, one a lane


@numba.njit(fastmath=ANY_ORDER)
def tiles(a, columns, c, ks):
    """Add to c the sums over the k in the slice ks; columns (N, K) are those of b.

    A tile of c, 4 x 4, stays in registers while k runs.
    """
    for j in range(0, c.shape[1], 4):
        b0, b1, b2, b3 = columns[j, ks], columns[j + 1, ks], columns[j + 2, ks], columns[j + 3, ks]
        for i in range(0, c.shape[0], 4):
            a0, a1, a2, a3 = a[i, ks], a[i + 1, ks], a[i + 2, ks], a[i + 3, ks]
            c00 = c01 = c02 = c03 = c10 = c11 = c12 = c13 = np.float32(0)
            c20 = c21 = c22 = c23 = c30 = c31 = c32 = c33 = np.float32(0)
            for k in range(len(a0)):
                x, y, z, w = b0[k], b1[k], b2[k], b3[k]
                c00, c01, c02, c03 = c00 + a0[k] * x, c01 + a0[k] * y, c02 + a0[k] * z, c03 + a0[k] * w
                c10, c11, c12, c13 = c10 + a1[k] * x, c11 + a1[k] * y, c12 + a1[k] * z, c13 + a1[k] * w
                c20, c21, c22, c23 = c20 + a2[k] * x, c21 + a2[k] * y, c22 + a2[k] * z, c23 + a2[k] * w
                c30, c31, c32, c33 = c30 + a3[k] * x, c31 + a3[k] * y, c32 + a3[k] * z, c33 + a3[k] * w
            add_row(c[i], j, c00, c01, c02, c03)
            add_row(c[i + 1], j, c10, c11, c12, c13)
            add_row(c[i + 2], j, c20, c21, c22, c23)
            add_row(c[i + 3], j, c30, c31, c32, c33)


@numba.njit
def add_row(row, j, x, y, z, w):
    """Add four sums to a row of c, from column j on."""
    row[j] += x
    row[j + 1] += y
    row[j + 2] += z
    row[j + 3] += w


def unpacked_tiles(a, b, c):
    """Tiles straight from b, whose columns are not neighbours in memory."""
    c[:] = 0
    tiles(a, b.T, c, slice(0, len(b)))


def packed_tiles(a, b, c):
    """Copy b first, so that k runs along its rows: K N moves, for 2 M K N operations."""
    c[:] = 0
    tiles(a, aligned(b.T), c, slice(0, len(b)))


print("   16 multiply-adds for 8 loads, no store until the end, 16 sums at once. Each number is used four")
print("   times. But 8 neighbours k fill a vector with one load only if they are neighbours in memory:")
show("tiles 4 x 4, b as it is", unpacked_tiles, a=a[:96])
show("tiles 4 x 4, b packed", packed_tiles, estimate=at_most(16, loads=8, stores=0, chains=16))

print("\n6. Step five, blocks that fit the caches")
ROWS, DEPTH = 96, 960  # 96 x 960 numbers are 369 kB, for the second cache; 4 columns 15 kB, for the first


@numba.njit
def blocks(a, columns, c):
    """A few rows of a and a part of K at a time, which stay in the second cache while the columns go by."""
    for k in range(0, a.shape[1], DEPTH):
        for i in range(0, a.shape[0], ROWS):
            tiles(a[i : i + ROWS], columns, c[i : i + ROWS], slice(k, k + DEPTH))


def packed_blocks(a, b, c):
    """Pack b, then take blocks."""
    c[:] = 0
    blocks(a, aligned(b.T), c)


print("   All of a comes by again for each 4 columns of b: 4 bytes from far away for 8 operations. Blocks")
print(f"   of {ROWS} rows come from the second cache instead, and only b from far away: 4 bytes for {2 * ROWS}.")
without_blocks, with_blocks = 4 / (2 * 4), 4 / (2 * ROWS)  # bytes for an operation
assert without_blocks / with_blocks == ROWS / 4
far, near = peak * without_blocks, peak * with_blocks
print(f"   At the peak: {far:.0f} GB/s without blocks, {near:.1f} with. A third cache can give either:")
show("blocks of packed tiles", packed_blocks)
large, narrow = (aligned(rng.integers(-8, 9, shape).astype(np.float32)) for shape in ((3200, 3200), (3200, 192)))
print(f"   but memory does not. For a of 3200 x 3200, {large.nbytes / 1e6:.0f} MB, times b of 3200 x 192:")
show("tiles, no blocks", packed_tiles, large, narrow)
show("blocks", packed_blocks, large, narrow)

print("\n7. Step six, C: all this with the registers chosen by hand")
print("   A number of a times a vector of b, so the lanes need no adding up at the end; tiles as large as")
print("   the registers allow (14 x 32 with AVX-512); blocks in all three directions; any size and strides.")
show("NumPy's @", lambda a, b, c: np.matmul(a, b, out=c))
missing = kernels.why_not("native")
if missing:
    print(f"   csrc/gemm.c is left out here:\n   {missing:.96}")
else:
    share = at_most(14 * 2, loads=2 + 14, stores=0, chains=14 * 2)  # 2 vectors of b, 14 numbers of a
    with kernels.use("native"):
        show("csrc/gemm.c", lambda a, b, c: kernels.matmul(a, b, out=c), estimate=share)
        odd = kernels.matmul(a[:7, :11].T, b[:7, ::3])  # (11, 7) times (7, 320), neither contiguous
    assert np.array_equal(odd, a[:7, :11].T @ b[:7, ::3])
    if available_cpus() > 1:
        ml.set_num_threads(available_cpus())
        peak = max(kernels.measure_peak(0.02) for _ in range(20))
        print(f"   Threads share the tiles of c, and no sum: with {available_cpus()} cores (peak {peak:.0f} GFLOP/s)")
        with kernels.use("native"):
            show("csrc/gemm.c, all cores", lambda a, b, c: kernels.matmul(a, b, out=c), clock=time.perf_counter)
        show("NumPy's @, all cores", lambda a, b, c: np.matmul(a, b, out=c), clock=time.perf_counter)
print("   Bytes are moved and sums wait; arithmetic is cheap. The same thought, for attention: chapter 6.")
