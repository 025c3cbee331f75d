# Part of native.pyx: losses.

cdef class Scores:
    """What both directions of cross_entropy are given: checked, and as C sees it."""

    cdef minilm_scores c
    cdef Elements x, target, weight  # kept alive

    def __cinit__(self, str kernel, x, target, weight, ignore_index, label_smoothing):
        check_types(kernel, x, x, "the elements")
        if x.ndim != 2 or target.shape != x.shape[:1]:
            raise ValueError(f"{kernel}: x {x.shape} and target {target.shape} must be (N, V) and (N,)")
        if target.dtype.kind not in "iu":
            raise ValueError(f"{kernel}: the target must be integers, not {target.dtype}")
        self.weight = vector(kernel, "weight", weight, x.shape[1], x)
        wrong = ((target < 0) | (target >= x.shape[1])) & (target != ignore_index)
        if wrong.any():
            raise IndexError(f"{kernel}: the target {target[wrong][0]} is none of the {x.shape[1]} classes")
        self.x, self.target = rows(x), flat(np.asarray(target, np.int64))
        self.c.rows, self.c.columns = x.shape
        self.c.x, self.c.x_row = self.x.start, self.x.strides[0]
        self.c.target = <const int64_t *>self.target.start
        self.c.weight = start_of(self.weight)
        self.c.weight_sum = x.shape[1] if weight is None else weight.sum(dtype=np.float64)
        self.c.ignore_index, self.c.label_smoothing = ignore_index, label_smoothing


def cross_entropy(x, target, weight, ignore_index, label_smoothing):
    """The loss of each row: x (N, V), target (N), weight (V) or None -> losses (N), lse (N) in float64."""
    if x.size == 0:
        return reference.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    cdef Scores scores = Scores("cross_entropy", x, target, weight, ignore_index, label_smoothing)
    losses, lse = empty(x.shape[:1], plain_type(x)), empty(x.shape[:1], np.dtype("float64"))
    cdef Elements to = Elements(losses, True), lses = Elements(lse, True)
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.cross_entropy(&scores.c, to.start, <double *>lses.start)
    return losses, lse


def cross_entropy_backward(dloss, x, target, weight, lse, ignore_index, label_smoothing):
    """dx_c = dloss ((1 - s) weight_t (p_c - [c = t]) + s / V (p_c sum of weights - weight_c))."""
    check_types("cross_entropy_backward", dloss, x, "dloss and x")
    if x.ndim != 2 or dloss.shape != x.shape[:1] or lse.shape != x.shape[:1]:
        raise ValueError(f"cross_entropy_backward: dloss {dloss.shape} and lse {lse.shape} must be (N,): x is {x.shape}")
    if x.size == 0:
        return empty(x.shape, plain_type(x))
    cdef Scores scores = Scores("cross_entropy_backward", x, target, weight, ignore_index, label_smoothing)
    dx = empty(x.shape, plain_type(x))
    cdef Elements to = result_rows(dx), dlosses = flat(dloss), lses = flat(np.asarray(lse, np.float64))
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.cross_entropy_backward(&scores.c, dlosses.start, <const double *>lses.start, to.start)
    return dx


def linear_cross_entropy(x, weight, target, ignore_index, scale):
    """losses (N), dx (N, C), dweight (V, C) of the scores x weight^T, some rows at a time: see reference.py."""
    check_types("linear_cross_entropy", x, weight, "x and weight")
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or target.shape != x.shape[:1]:
        raise ValueError(f"linear_cross_entropy: x {x.shape}, weight {weight.shape} and target {target.shape} do not "
                         "fit: (N, C), (V, C) and (N,) were expected")
    N, V = x.shape[0], weight.shape[0]
    losses = empty((N,), x.dtype)
    dx = None if scale is None else empty(x.shape, x.dtype)
    dweight = None if scale is None else empty(weight.shape, weight.dtype)
    if scale is not None and not N:
        dweight[...] = 0
    block = max(1, reference.LOGITS // max(V, 1))
    scores = empty((min(block, N), V), x.dtype)
    for start in range(0, N, block):
        here = slice(start, min(start + block, N))
        part = scores[: here.stop - start]
        matmul(x[here], weight.T, out=part)
        losses[here], lse = cross_entropy(part, target[here], None, ignore_index, 0.0)
        if scale is not None:
            scales = np.full(len(part), scale, x.dtype)
            part = cross_entropy_backward(scales, part, target[here], None, lse, ignore_index, 0.0)
            matmul(part, weight, out=dx[here])
            matmul(part.T, x[here], out=dweight, accumulate=start > 0)
    return losses, dx, dweight
