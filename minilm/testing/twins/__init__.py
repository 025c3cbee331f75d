"""A model beside its PyTorch twin: where they part, and why. `minilm.testing.compare` is the way in.

comparison.py        runs both and lines up values, gradients and steps
report.py            the rows, and how they are printed
tracing.py           writes down what a model does: modules by hooks, operations by watchers
calls.py             an operation under one name, whichever library ran it
torch_calls.py       PyTorch's operations as such calls
explaining.py        narrows the first difference down and tries the causes
causes.py            the causes in operations; add your own there
optimizer_causes.py  the causes in an optimiser's steps
"""
