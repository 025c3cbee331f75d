"""Side by side with PyTorch, JAX and NumPy, on the same chip: what `minilm bench` runs.

    bench.py      the driver: the chip, then each case with all peers in turn, then the report
    cases.py      what is measured: sizes, arithmetic, bytes
    data.py       the same weights and batches for everyone, from one seed
    peers.py      the driver's end of the pipe to a peer's process; worker.py is the other end
    ours.py  ours_models.py  torch_peer.py  torch_models.py  jax_peer.py  numpy_peer.py    the peers
    chip.py       arithmetic and bandwidth that this machine has
    memory.py  imports.py    the two workloads that need fresh processes
    judge.py      losses that must be equal, figures above what the chip can do
    report.py  table.py  roofline.py    JSON, tables, the picture

Nothing in minilm imports this; the command `minilm bench` does, when it is called.
"""
