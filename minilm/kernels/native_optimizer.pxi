# Part of native.pyx: kernels of many arrays at once.

cdef int order(Elements x) noexcept:
    """1: the last axis is side by side, and everything in one piece; 2: the first is; 3: both; 0: neither."""
    cdef ptrdiff_t last = 1, first = 1
    cdef bint from_last = x.fits, from_first = x.fits
    cdef int axes = x.axes
    for i in range(axes):
        if x.view.shape[i] > 1 and x.strides[i] != first:
            from_first = False
        first *= x.view.shape[i]
        if x.view.shape[axes - 1 - i] > 1 and x.strides[axes - 1 - i] != last:
            from_last = False
        last *= x.view.shape[axes - 1 - i]
    return from_last + 2 * from_first


cdef class Lists:
    """Pointers to the arrays of a few lists of one length, and the arrays' sizes."""

    cdef size_t count
    cdef size_t *sizes
    cdef void **starts[4]
    cdef list arrays  # kept alive

    def __cinit__(self, tuples):
        """`tuples`: for each place in the lists, the Elements there."""
        self.arrays, self.count = tuples, len(tuples)
        self.sizes = <size_t *>malloc((self.count + 1) * sizeof(size_t))
        for k in range(4):
            self.starts[k] = <void **>malloc((self.count + 1) * sizeof(void *))
        if self.sizes == NULL or any([self.starts[k] == NULL for k in range(4)]):
            raise MemoryError(f"no memory for pointers to {self.count} arrays")
        cdef Elements x
        for i, together in enumerate(tuples):
            for k, x in enumerate(together):
                self.starts[k][i] = x.start
                self.sizes[i] = x.view.len // x.view.itemsize

    def __dealloc__(self):
        free(self.sizes)
        for k in range(4):
            free(self.starts[k])


def adamw(params, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step):
    """One step of AdamW: `params`, `exp_avgs` and `exp_avg_sqs` are overwritten; see reference.py."""
    settings = lr, beta1, beta2, eps, weight_decay, step
    lengths = [len(arrays) for arrays in (params, grads, exp_avgs, exp_avg_sqs)]
    if len(set(lengths)) > 1:
        raise ValueError(f"adamw: there are {', '.join(map(str, lengths))} params, grads, exp_avgs and exp_avg_sqs")
    groups, others, copies = {"f": [], "d": []}, [], []
    for together in zip(params, grads, exp_avgs, exp_avg_sqs):
        param, grad, exp_avg, exp_avg_sq = together
        if not param.shape == grad.shape == exp_avg.shape == exp_avg_sq.shape:
            raise ValueError(f"adamw: shapes differ: {', '.join(str(a.shape) for a in together)}")
        if not (param.flags.writeable and exp_avg.flags.writeable and exp_avg_sq.flags.writeable):
            raise ValueError(f"adamw: a parameter {param.shape} or its running means are read-only")
        if param.dtype.char not in groups or any([a.dtype != param.dtype for a in together]):
            others.append(together)
            continue
        seen = as_one_sequence(together)
        if seen is None:  # computed on copies, which are written back
            plain = [np.array(a, dtype=plain_type(a), order="C") for a in together]
            copies.append((together, plain))
            seen = [Elements(a) for a in plain]
        groups[param.dtype.char].append(seen)
    for seen in groups.values():
        if seen:
            adamw_of(seen, settings)
    for together, plain in copies:
        for k in (0, 2, 3):
            together[k][...] = plain[k]
    if others:  # of other types
        reference.adamw(*map(list, zip(*others)), *settings)


cdef as_one_sequence(together):
    """The arrays as Elements if memory has their elements in one order; else None."""
    cdef Elements x
    cdef int common = 3
    seen = []
    for array in together:
        x = Elements(array)
        common &= order(x)
        seen.append(x)
    return seen if common else None


cdef adamw_of(list seen, tuple settings):
    cdef Lists lists = Lists(seen)
    cdef minilm_adamw given
    given.count, given.sizes = lists.count, lists.sizes
    given.params, given.grads = lists.starts[0], <const void **>lists.starts[1]
    given.exp_avgs, given.exp_avg_sqs = lists.starts[2], lists.starts[3]
    given.lr, given.beta1, given.beta2, given.eps, given.weight_decay, given.step = settings
    cdef const minilm_reals *table = reals(<Elements>seen[0][0])
    cdef int result
    with nogil:
        result = table.adamw(&given)
    enough_memory(result)


def square_sum(arrays):
    """The sum of the squares of all elements, in float64."""
    total = 0.0
    groups, others = {"f": [], "d": []}, []
    for array in arrays:
        if array.dtype.char not in groups:
            others.append(array)
            continue
        seen = Elements(array)
        groups[array.dtype.char].append([seen if order(seen) else flat(array)])
    for seen in groups.values():
        if seen:
            total += square_sum_of(seen)
    return total + reference.square_sum(others)


cdef double square_sum_of(list seen) except? -1:
    cdef Lists lists = Lists(seen)
    cdef const minilm_reals *table = reals(<Elements>seen[0][0])
    cdef double sum = 0
    cdef int result
    with nogil:
        result = table.square_sum(lists.count, lists.sizes, <const void **>lists.starts[0], &sum)
    enough_memory(result)
    return sum
