"""Chapter 1. Tensors: numbers in rows, with a type, a shape and some memory.

A tensor is what every other chapter computes with. This one shows where its numbers live, how two
of different types and shapes are combined, and ends with a linear model that predicts prices.
"""

import numpy as np

import minilm as ml

print("1. A tensor has a shape and an element type")
x = ml.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
assert x.shape == (2, 3)
assert x.dtype == ml.float32
print(f"   x = {x.tolist()}")
print(f"   shape {x.shape}: 2 rows of 3; {x.numel()} elements of {x.dtype}, {x.element_size()} bytes each")

print("\n2. Operations on two types take the wider one")
i = ml.tensor([1, 2, 3])
half, single, double = (ml.ones(3, dtype=dtype) for dtype in (ml.float16, ml.float32, ml.float64))
for name, result, expected in [
    ("int64   + float32", i + single, ml.float32),
    ("float16 + float32", half + single, ml.float32),
    ("float32 + float64", single + double, ml.float64),
    ("int64   / int64  ", i / i, ml.float32),
    ("float16 * 2.5    ", half * 2.5, ml.float16),
]:
    assert result.dtype == expected
    print(f"   {name} -> {result.dtype}")
print("   Integers give way to floats, a Python number to a tensor of its kind; a quotient is no integer.")

print("\n3. Broadcasting: an axis of size 1 is repeated to fit, without copying anything")
column, row = ml.tensor([[10.0], [20.0]]), ml.tensor([[1.0, 2.0, 3.0]])
table = column + row
assert table.tolist() == [[11, 12, 13], [21, 22, 23]]
assert np.shares_memory(column.expand(2, 3).numpy(), column.numpy())
print(f"   {column.shape} + {row.shape} -> {table.shape}: {table.tolist()}")
refusal = ""
try:
    ml.ones(2, 3) + ml.ones(2, 4)
except ml.MinilmError as error:
    refusal = str(error)
assert "3 is not 4" in refusal
print(f"   What does not fit is refused: {refusal}")

print("\n4. A view is another way to look at the same memory")
a = ml.arange(6)
b = a.reshape(2, 3).transpose(0, 1)  # still the memory of a
b[0, 1] = 100
assert a.tolist() == [0, 1, 2, 100, 4, 5]
assert np.shares_memory(a.numpy(), b.numpy())
print(f"   b = a.reshape(2, 3).transpose(0, 1); after b[0, 1] = 100, a is {a.tolist()}")
c = a.clone()
c[0] = -1
assert a[0].item() == 0
print(f"   c = a.clone() has memory of its own: after c[0] = -1, a[0] is still {a[0].item()}")

print("\n5. Indexing")
m = ml.arange(12).reshape(3, 4)
for text, result, expected in [
    ("m[1]          a row", m[1], [4, 5, 6, 7]),
    ("m[:, -1]      the last column", m[:, -1], [3, 7, 11]),
    ("m[::2, 1:3]   every other row, two columns", m[::2, 1:3], [[1, 2], [9, 10]]),
    ("m[[2, 0], 1]  rows 2 and 0, in that order", m[[2, 0], 1], [9, 1]),
    ("m[m > 8]      wherever a condition holds", m[m > 8], [9, 10, 11]),
]:
    assert result.tolist() == expected
    print(f"   {text:<44} {result.tolist()}")

print("\n6. Matrix products: rows times columns, the last axis against the last but one")
p, q = ml.tensor([[1.0, 2.0], [3.0, 4.0]]), ml.tensor([[5.0, 6.0], [7.0, 8.0]])
assert (p @ q).tolist() == [[19, 22], [43, 50]]
print(f"   p @ q = {(p @ q).tolist()}; its first element is 1 * 5 + 2 * 7 = {(p @ q)[0, 0].item():g}")
batch = ml.ones(7, 2, 3) @ ml.ones(3, 5)
assert batch.shape == (7, 2, 5)
print(f"   Axes before the last two are a batch: (7, 2, 3) @ (3, 5) -> {batch.shape}")

print("\n7. Reductions make an axis disappear, or of size 1 with keepdim")
assert x.sum().item() == 21
assert x.sum(0).tolist() == [5, 7, 9]
assert x.mean(-1, keepdim=True).shape == (2, 1)
print(f"   x.sum() = {x.sum().item():g}, x.sum(0) = {x.sum(0).tolist()}, x.mean(-1) = {x.mean(-1).tolist()}")
normal = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
assert ml.allclose(normal.mean(-1), ml.zeros(2))
assert ml.allclose(normal.std(-1), ml.ones(2))
print(f"   (2, 3) - (2, 1) broadcasts, so rows get mean 0, deviation 1: {normal.tolist()}")

print("\n8. NumPy, both ways, without a copy")
array = np.zeros(3, np.float32)
t = ml.from_numpy(array)
t += 1
assert array.tolist() == [1, 1, 1]
print(f"   t = ml.from_numpy(array): after t += 1 the array is {array.tolist()}")
back = t.numpy()
back[0] = 9
assert t.tolist() == [9, 1, 1]
print(f"   back = t.numpy(): after back[0] = 9 the tensor is {t.tolist()}")

print("\n9. A linear model predicts: price = area * w0 + rooms * w1 + b")
houses = ml.tensor([[50.0, 2.0], [80.0, 3.0], [120.0, 5.0]])  # (B, 2): square metres, rooms
weight, bias = ml.tensor([3.0, 10.0]), ml.tensor(20.0)  # thousands per square metre and per room
prices = houses @ weight + bias  # (B, 2) @ (2,) + () -> (B,)
for (area, rooms), price in zip(houses.tolist(), prices.tolist()):
    by_hand = area * 3 + rooms * 10 + 20
    assert price == by_hand
    print(
        f"   {area:5g} m2, {rooms:g} rooms: {area:3g} * 3 + {rooms:g} * 10 + 20 = {by_hand:g}, the model says {price:g}"
    )
print("   One line predicts any number of houses. Where the weights come from is chapter 2.")
