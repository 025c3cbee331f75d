"""Chapter 6. Attention in tiles: the same result without the (T, T) matrix, forward and backward.

    y = softmax(q k^T / sqrt(D)) v        q, k, v (T, D), one head; its weights are a matrix (T, T)

A sum can be taken in parts; softmax seems to need a whole row at once, for its largest score and its total.
It does not: both can be kept up to date while keys come by (Milakov & Gimelshein 2018). So attention
needs memory for a tile only (Rabe & Staats 2021), and its gradient too (Dao et al. 2022, FlashAttention).
T time (positions), D channels of a head. docs/attention.md says more.
"""

import math
import time
import tracemalloc

import numpy as np

import minilm as ml
from minilm.nn import functional as F

ml.set_num_threads(1)  # times below are those of one core
rng = np.random.default_rng(0)


def normal(*shape):
    """Random numbers in float32."""
    return rng.standard_normal(shape, dtype=np.float32)


print("1. The formula, and what its matrix takes")


def plain(q, k, v, causal=False):
    """The result (T, D) and the weights (T, T), which the gradient needs again."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        scores[np.triu_indices(len(q), 1)] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return weights @ v, weights


T, D = 300, 16
q, k, v = normal(T, D), normal(T, D), normal(T, D)
y, weights = plain(q, k, v)
exact = plain(*(x.astype(np.float64) for x in (q, k, v)))[0]
assert np.allclose(y, exact, atol=3e-6)
assert np.allclose(y, F.scaled_dot_product_attention(*map(ml.from_numpy, (q, k, v))).numpy(), atol=3e-6)
print("        T    q, k, v, y with D = 64      weights      (float32, one head of one layer)")
for length in (512, 2048, 8192, 32768):
    linear, square = 4 * 4 * length * 64, 4 * length * length
    print(f"   {length:6,}         {linear / 2**20:7.1f} MB        {square / 2**20:8.0f} MB")
assert square == 32768 / 256 * linear
print("   The weights grow with T^2, and each is written, read, and used for only 2 D multiply-adds.")

print("\n2. Softmax in one pass: when a larger score comes, what was added up so far shrinks to fit")
print("   total = sum of e^(s - m), m the largest score so far. If m grows to n, each term becomes")
print("   e^(s - n) = e^(s - m) e^(m - n), so the total is multiplied by e^(m - n) and is right again.")


def largest_and_total(scores):
    """The largest score m, and the sum of e^(s - m), each score looked at once."""
    largest, total = -math.inf, 0.0
    for score in scores:
        now = max(largest, score)
        total = total * math.exp(largest - now) + math.exp(score - now)
        largest = now
    return largest, total


largest, total = -math.inf, 0.0
scores = (k @ q[0] / math.sqrt(D)).tolist()  # those of position 0
for seen in (1, 2, 3, 30, T):
    largest, total = largest_and_total(scores[:seen])
    print(f"   after {seen:3} scores: the last {scores[seen - 1]:6.3f}, the largest {largest:6.3f}, total {total:8.4f}")
assert largest == max(scores)
assert math.isclose(total, math.fsum(math.exp(score - max(scores)) for score in scores))
assert math.isclose(math.exp(scores[7] - largest) / total, weights[0, 7], rel_tol=1e-5)

print("\n3. One row of attention in one pass: the mixture of values shrinks along with the total")


def one_row(query, k, v):
    """The result (D,) for one query, and its lse = log of the sum of e^score, with one key at a time."""
    largest, total, mixture = -math.inf, 0.0, np.zeros(v.shape[1])
    for key, value in zip(k, v):
        score = float(query @ key) / math.sqrt(len(query))
        now = max(largest, score)
        shrink, weight = math.exp(largest - now), math.exp(score - now)
        total = total * shrink + weight
        mixture = mixture * shrink + weight * value
        largest = now
    return mixture / total, largest + math.log(total)


row, lse = one_row(q[0], k, v)
assert np.allclose(row, exact[0], atol=1e-6)
assert math.isclose(lse, math.log(math.fsum(math.exp(score) for score in scores)), rel_tol=1e-6)
print(f"   It differs from the formula in float64 by {abs(row - exact[0]).max():.0e} at most.")
halves = [one_row(q[0], k[part], v[part]) for part in (slice(0, 100), slice(100, T))]
lse_of_both = np.logaddexp(halves[0][1], halves[1][1])
joined = sum(part * math.exp(its_lse - lse_of_both) for part, its_lse in halves)
assert np.allclose(joined, row, atol=1e-6)
assert math.isclose(lse_of_both, lse, rel_tol=1e-6)
print("   Keys 0 ... 99 and keys 100 ... 299 by themselves, each result times e^(its lse - lse of both),")
print("   add up to the same: the keys may lie with different threads, or on different machines.")

print("\n4. Tiles: many queries and many keys at a time, so that the work is products of matrices again")
ROWS, KEYS = 128, 256


def tiled(q, k, v, causal=False):
    """The result (T, D), the lse of each row (T, 1), and how many tiles were computed."""
    T, tiles = len(q), 0
    y, lse = np.empty_like(v), np.empty((T, 1), v.dtype)
    for i in range(0, T, ROWS):
        queries = q[i : i + ROWS] / np.sqrt(q.shape[1], dtype=q.dtype)
        largest = np.full((len(queries), 1), -np.inf, q.dtype)
        total, mixture = np.zeros_like(largest), np.zeros((len(queries), v.shape[1]), v.dtype)
        for j in range(0, i + len(queries) if causal else T, KEYS):  # causal: no key after the last query
            scores = tile_of_scores(queries, k[j : j + KEYS], i, j, causal)
            now = np.maximum(largest, scores.max(1, keepdims=True))
            scores -= now
            weights = np.exp(scores, out=scores)
            shrink = np.exp(largest - now)  # 0 at first, when largest is minus infinity
            total = total * shrink + weights.sum(1, keepdims=True)
            mixture = mixture * shrink + weights @ v[j : j + KEYS]
            largest = now
            tiles += 1
        y[i : i + ROWS], lse[i : i + ROWS] = mixture / total, largest + np.log(total)
    return y, lse, tiles


def tile_of_scores(queries, keys, i, j, causal):
    """Queries i, i + 1 ... with keys j, j + 1 ...; only a tile that the diagonal crosses has anything to mask."""
    scores = queries @ keys.T
    if causal and j + len(keys) - 1 > i:
        scores[j + np.arange(len(keys)) > i + np.arange(len(queries))[:, None]] = -np.inf
    return scores


y_tiled, lse, tiles = tiled(q, k, v)
assert np.allclose(y_tiled, exact, atol=3e-6)
assert tiles == math.ceil(T / ROWS) * math.ceil(T / KEYS)
errors = [abs(result - exact).max() for result in (y_tiled, y)]
print(
    f"   {tiles} tiles of {ROWS} x {KEYS}; they differ from float64 by {errors[0]:.0e}, the formula by {errors[1]:.0e}."
)
wild = tiled(q * 100, k, v)[0]  # scores of several hundred, whose e^s is beyond float32
assert np.allclose(wild, plain(q.astype(np.float64) * 100, k.astype(np.float64), v)[0], atol=1e-3)
print("   With scores in the hundreds, too: no exponent is ever above 0.")

print("\n5. Causal: tiles above the diagonal hold nothing, and are not computed")
T, D = 1024, 64
q, k, v = normal(T, D), normal(T, D), normal(T, D)
y_causal, lse, tiles = tiled(q, k, v, causal=True)
assert np.allclose(y_causal, plain(q, k, v, causal=True)[0], atol=1e-5)
for i in range(0, T, ROWS):
    marks = ["." if j >= i + ROWS else "/" if j + KEYS - 1 > i else "#" for j in range(0, T, KEYS)]
    print("      " + "".join(marks))
whole = tiled(q, k, v)[2]
assert tiles < 0.65 * whole
print(f"   # whole, / masked, . left out: {tiles} of {whole} tiles; with longer texts it nears one half.")

print("\n6. Backward: from (q, k, v, y, lse) the weights of any tile are there again")
print("   p = e^(s - lse) are the weights; forward was y = p v. So dv = p^T dy, and dp = dy v^T. Softmax's")
print("   rule is ds = p (dp - sum_j dp_j p_j), where the sum runs over a whole row. But dp_j is dy . v_j,")
print("   hence sum_j p_j (dy . v_j) = dy . (sum_j p_j v_j) = dy . y: no row of (T, T) is needed.")


def plain_backward(dy, q, k, v, weights):
    """dq, dk, dv with the weights (T, T) kept."""
    scale = 1 / math.sqrt(q.shape[1])
    dv, dweights = weights.T @ dy, dy @ v.T
    dscores = weights * (dweights - (dweights * weights).sum(1, keepdims=True))
    return dscores @ k * scale, dscores.T @ q * scale, dv


def tiled_backward(dy, q, k, v, y, lse, causal=False):
    """dq, dk, dv, each tile of weights computed anew."""
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    scale = 1 / np.sqrt(q.shape[1], dtype=q.dtype)
    along = (dy * y).sum(1, keepdims=True)  # (T, 1): sum_j dp_j p_j
    for i in range(0, len(q), ROWS):
        rows = slice(i, i + ROWS)
        for j in range(0, min(i + ROWS, len(q)) if causal else len(q), KEYS):
            keys = slice(j, j + KEYS)
            p = tile_of_scores(q[rows] * scale, k[keys], i, j, causal)
            p -= lse[rows]
            np.exp(p, out=p)
            dv[keys] += p.T @ dy[rows]
            ds = dy[rows] @ v[keys].T
            ds -= along[rows]
            ds *= p
            dq[rows] += ds @ k[keys] * scale
            dk[keys] += ds.T @ q[rows] * scale
    return dq, dk, dv


dy = normal(T, D)
for causal in (False, True):
    y, weights = plain(q, k, v, causal)
    inputs = [ml.tensor(x, requires_grad=True) for x in (q, k, v)]
    F.scaled_dot_product_attention(*inputs, is_causal=causal).backward(ml.from_numpy(dy))
    ours = tiled_backward(dy, q, k, v, *tiled(q, k, v, causal)[:2], causal)
    for name, gradient, formula, tape in zip("qkv", ours, plain_backward(dy, q, k, v, weights), inputs):
        assert np.allclose(gradient, formula, atol=3e-5), name
        assert np.allclose(gradient, tape.grad.numpy(), atol=3e-5), name
print("   dq, dk and dv equal those of the formula and those of minilm's own attention, causal or not.")
dy64, q64, k64, v64, u = (x[:150].astype(np.float64) for x in (dy, q, k, v, normal(T, D)))
h = 1e-6
up, down = (tiled(q64 + sign * h * u, k64, v64, True)[0] for sign in (1, -1))
moved = (dy64 * (up - down)).sum() / (2 * h)
formula = (tiled_backward(dy64, q64, k64, v64, *tiled(q64, k64, v64, True)[:2], True)[0] * u).sum()
assert math.isclose(moved, formula, rel_tol=1e-6)
print(f"   And q moved a little, in float64: {moved:.8f}; by the gradient: {formula:.8f}.")

print("\n7. What it costs: 7 products of tiles instead of 6, and no memory that grows with T^2")


def both_plain(dy, q, k, v, causal):
    """Forward and backward by the formula."""
    _, weights = plain(q, k, v, causal)
    return plain_backward(dy, q, k, v, weights)


def both_tiled(dy, q, k, v, causal):
    """Forward and backward in tiles."""
    y, lse, _ = tiled(q, k, v, causal)
    return tiled_backward(dy, q, k, v, y, lse, causal)


def cost(function, *args):
    """The milliseconds of this thread at best, and the most memory held at a time, in MB."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        function(*args)
        seconds.append(time.thread_time() - began)
    tracemalloc.start()
    function(*args)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(seconds) * 1e3, memory / 2**20


print("           forward and backward             in tiles               in tiles, causal")
taken = []
for T in (512, 1024, 2048, 4096):
    args = [normal(T, D) for _ in range(4)]
    costs = [cost(both_plain, *args, False), cost(both_tiled, *args, False), cost(both_tiled, *args, True)]
    print(f"   T {T:4}" + "".join(f"   {ms:8.1f} ms {mb:6.1f} MB" for ms, mb in costs))
    taken.append([mb for _, mb in costs])
formula, in_tiles, _ = (last / first for first, last in zip(taken[0], taken[-1]))
assert formula > 40 > 9 > in_tiles
print(f"   T eight times as large takes {formula:.0f} times the memory by the formula, {in_tiles:.1f} times in tiles.")
