# Part of native.pyx: functions of single elements.

cdef apply(str kernel, minilm_function f, x):
    """f of each element; the result lies in memory as x does, if that is in one piece."""
    check_types(kernel, x, x, "the elements")
    turned = x.flags.f_contiguous and x.ndim > 1
    if turned:
        x = x.T
    y = empty(x.shape, plain_type(x))
    cdef Elements source = flat(x), to = Elements(y.reshape(-1), True)
    cdef size_t count = to.view.shape[0]
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.pointwise(f, count, source.start, to.start)
    return y.T if turned else y


def exp(x):
    """e^x."""
    return apply("exp", MINILM_EXP, x)


def tanh(x):
    """(e^x - e^-x) / (e^x + e^-x)."""
    return apply("tanh", MINILM_TANH, x)


def sigmoid(x):
    """1 / (1 + e^-x)."""
    return apply("sigmoid", MINILM_SIGMOID, x)


def erf(x):
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    return apply("erf", MINILM_ERF, x)


cdef bint by_tanh(str kernel, approximate) except -1:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"{kernel}: approximate is {approximate!r}, not 'none' or 'tanh'")
    return approximate == "tanh"


def gelu(x, approximate="none"):
    """x P(x), P the share of the normal distribution below x, or its approximation by tanh."""
    return apply("gelu", MINILM_GELU_TANH if by_tanh("gelu", approximate) else MINILM_GELU, x)


def relu(x):
    """0 where x <= 0, else x, also NaN."""
    return apply("relu", MINILM_RELU, x)


def gelu_backward(dy, x, approximate="none"):
    """dx = dy (P(x) + x P'(x))."""
    return back("gelu_backward", MINILM_GELU_TANH if by_tanh("gelu_backward", approximate) else MINILM_GELU, dy, x)


def relu_backward(dy, y):
    """dx = 0 where y <= 0, else dy."""
    return back("relu_backward", MINILM_RELU, dy, y)


cdef back(str kernel, minilm_function f, dy, x):
    """The gradient of f at x (of relu: at its result), laid out as both are, if that is in one piece."""
    check_types(kernel, dy, x, "dy and x")
    if dy.shape != x.shape:
        raise ValueError(f"{kernel}: dy {dy.shape} and x {x.shape} must have one shape")
    turned = x.flags.f_contiguous and dy.flags.f_contiguous and x.ndim > 1
    if turned:
        dy, x = dy.T, x.T
    dx = empty(x.shape, plain_type(x))
    cdef Elements dys = flat(dy), xs = flat(x), to = Elements(dx.reshape(-1), True)
    cdef size_t count = to.view.shape[0]
    cdef const minilm_reals *table = reals(to)
    with nogil:
        if f == MINILM_RELU:
            table.relu_backward(count, dys.start, xs.start, to.start)
        else:
            table.gelu_backward(f == MINILM_GELU_TANH, count, dys.start, xs.start, to.start)
    return dx.T if turned else dx
