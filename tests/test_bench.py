"""minilm bench: what it refuses, what it writes, and that a brief run works from the command to the picture."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minilm import cli

cli._find_benchmarks()

from minilm_benchmarks import bench, cases, data, judge, memory, peers, readme, report, table  # noqa: E402
from minilm_benchmarks.cases import MINILM, NUMPY, TORCH, Case  # noqa: E402
from minilm_benchmarks.judge import Result, Row  # noqa: E402

ROOT = Path(cli.__file__).parents[1]
CHIP = {
    "exact": True, "threads": 2, "gflops_one": 100.0, "gflops_all": 200.0, "bf16_factor": 2.0,
    "small_bytes": 100, "large_bytes": 10**6,
    "gbs_small_one": 40.0, "gbs_small_all": 80.0, "gbs_large_one": 10.0, "gbs_large_all": 20.0,
}  # fmt: skip
PRODUCT = Case("W5", "X Y", "gemm", {}, (MINILM, NUMPY), flops=2e9, traffic=1e6, bound="flops")  # 10 ms at best


def command(*args, cwd):
    return subprocess.run(
        [sys.executable, "-m", "minilm.cli", "bench", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def found(*rows, **changes):
    """A report of these rows."""
    return {**report.report(list(rows), CHIP, {"minilm": "1"}, 2, 3, False), **changes}


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    """`minilm bench --brief --only W1,W5,W8`: the process, and its folder."""
    folder = tmp_path_factory.mktemp("bench")
    done = command("--brief", "--only", "W1,W5,W8", "--against", "numpy", "--json", "new/out.json", cwd=folder)
    return done, folder / "new"


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "least"),
    [
        (PRODUCT, 0.010),
        (Case("W2", "", "gpt", {}, (), flops=2e9, bound="flops", precision="bfloat16"), 0.005),
        (Case("W7", "", "softmax", {}, (), traffic=2e9, bound="bytes", tensor_bytes=80), 0.025),  # from a cache
        (Case("W7", "", "adamw", {}, (), traffic=2e9, bound="bytes", tensor_bytes=8000), 0.100),
        (Case("W8", "", "chain"), None),
    ],
)
def test_the_limit_is_arithmetic_at_the_peak_or_bytes_at_the_bandwidth(case, least):
    assert judge.least_seconds(case, CHIP) == pytest.approx(least)


def test_a_figure_above_the_limit_is_refused(capsys, monkeypatch, tmp_path):
    row = Row(PRODUCT, {MINILM: Result([0.0090, 0.0091, 0.0089]), NUMPY: Result([0.020, 0.020, 0.020])})
    judge.refuse_impossible(row, CHIP)
    assert "111% of what the chip can do" in row.results[MINILM].refused
    assert row.results[NUMPY].refused == ""
    assert row.ratio(NUMPY) is None  # a wrong figure compares with nothing
    shown = found(row)
    assert "REFUSED" in table.cell(shown["rows"][0], MINILM)
    assert "REFUSED" in table.markdown(shown)
    monkeypatch.setattr(bench, "measure", lambda options, console: shown)
    assert bench.run(bench.Options((MINILM,), ("W5",), 1, 1)) == 1
    assert "W5 X Y, minilm: 111% of what the chip can do" in capsys.readouterr().err


def test_a_busy_machine_does_not_lower_the_limit():
    """What the chip did while others computed is not all that it can do."""
    disturbed = {**CHIP, "gflops_all": 110.0, "gbs_large_all": 8.0}
    assert judge.least_seconds(PRODUCT, disturbed) == pytest.approx(0.010)
    adamw = Case("W7", "", "adamw", {}, (), traffic=1e9, bound="bytes", tensor_bytes=8000)
    assert judge.least_seconds(adamw, disturbed) == pytest.approx(0.1)
    assert judge.busy(disturbed)
    assert not judge.busy(CHIP)


def test_a_figure_at_the_limit_stands():
    row = Row(PRODUCT, {MINILM: Result([0.0099, 0.0099, 0.0099]), NUMPY: Result([0.011, 0.011, 0.011])})
    judge.refuse_impossible(row, CHIP)
    assert not row.results[MINILM].refused
    shown = found(row)
    assert table.failures(shown) == []
    assert table.cell(shown["rows"][0], NUMPY) == "11.0 ms  1.11x  91%"


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    """A clock that halves for one round changes both sides of that round."""
    row = Row(PRODUCT, {MINILM: Result([0.02, 0.04, 0.05]), NUMPY: Result([0.03, 0.06, 0.05])})
    assert row.ratio(NUMPY) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("precision", "theirs", "differs"),
    [
        ("float32", [4.0, 3.0002], ""),
        ("float32", [4.0, 3.0006], "at step 2 its loss is 3.000600, ours 3.000000"),
        ("float32", [4.0, float("nan")], "at step 2"),
        ("float32", [4.0], "1 losses, ours 2"),
        ("bfloat16", [4.0, 3.03], ""),
        ("bfloat16", [4.0, 3.1], "at step 2"),
    ],
)
def test_losses_must_be_equal(precision, theirs, differs):
    case = Case("W1", "", "gpt", precision=precision)
    said = judge.losses_differ(case, [4.0, 3.0], theirs)
    assert differs in said
    assert bool(said) == bool(differs)


class Planted:
    """A peer in this process that trains, but whose losses are not ours."""

    def __init__(self, losses):
        self.losses, self.timed = losses, 0

    def ask(self, do, **request):
        self.timed += do == "time"
        return {"losses": {"losses": self.losses}, "time": {"seconds": [0.1]}}.get(do, {})


def test_a_peer_with_other_losses_is_not_timed_and_fails_the_run(tmp_path):
    (case,) = cases.cases(["W1"], brief=True)
    both = {MINILM: Planted([2.0, 1.9]), TORCH: Planted([2.0, 1.8])}
    options = bench.Options((MINILM, TORCH), ("W1",), 2, 1, brief=True)
    row = bench.measure_case(case, both, options, tmp_path / "data.npz")
    assert "not equal within 0.0001" in row.results[TORCH].error
    assert (both[MINILM].timed, both[TORCH].timed) == (2, 0)
    assert len(table.failures(found(row))) == 1


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--only", "W1,W99"], ["there is no workload 'W99'", "W1, W2"]),
        (["--only", ","], ["--only names no workload"]),
        (["--against", "tensorflow"], ["there is no library 'tensorflow'", "torch, jax, numpy"]),
        (["--rounds", "0"], ["rounds must be at least 1, not 0"]),
        (["--threads", "100000"], ["threads must be at most"]),
    ],
)
def test_a_mistake_is_one_line(args, parts, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["minilm", "bench", *args])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capfd.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.startswith("minilm: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_a_library_asked_for_by_name_must_be_there(monkeypatch):
    monkeypatch.setattr(bench, "installed", lambda peer: False)
    with pytest.raises(bench.BenchError, match="jax is not installed"):
        bench.Options.parse("jax", None, None, None, False)
    assert bench.Options.parse(None, None, None, None, False).peers == (MINILM,)


# --- a peer's process -------------------------------------------------------------------------------


def test_a_peer_that_fails_says_why_and_lives_on():
    with peers.Peer(NUMPY, 1) as peer:
        with pytest.raises(peers.PeerError, match=r"FileNotFoundError.*missing\.npz"):
            peer.ask("prepare", case=PRODUCT.as_dict(), data_file="missing.npz")
        assert peer.ask("drop") == {}


def test_a_peer_that_dies_says_its_last_words_and_starts_again(monkeypatch):
    with peers.Peer(NUMPY, 1) as peer:
        with monkeypatch.context() as m:
            m.setattr(peers, "_START", "import sys; sys.exit('the library is broken')")
            with pytest.raises(peers.PeerError, match="ended with code 1: the library is broken"):
                peer.ask("drop")
        assert peer.ask("drop") == {}


def test_a_peer_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(peers, "_START", "import time; time.sleep(60)")
    with peers.Peer(NUMPY, 1, timeout=0.2) as peer, pytest.raises(peers.PeerError, match="no answer in"):
        peer.ask("drop")


def test_what_a_library_prints_does_not_disturb_its_answers(monkeypatch):
    talking = "import minilm_benchmarks.numpy_peer as n; n.set_threads = lambda t: print('hello'); main({peer"
    monkeypatch.setattr(peers, "_START", peers._START.replace("main({peer", talking))
    with peers.Peer(NUMPY, 1) as peer:
        assert set(peer.ask("version")) == {"version"}


def test_memory_sees_what_a_call_held_and_gave_back():
    import numpy as np

    def call():
        held = np.ones(2**23, np.float64)  # 64 MiB
        time.sleep(0.1)
        del held

    before = memory.resident()
    if not before:
        pytest.skip("this system does not say")
    for measured in (memory.peak, memory._sampled):
        assert 60 * 2**20 < measured(call) - before < 90 * 2**20


# --- a brief run ------------------------------------------------------------------------------------


def test_a_brief_run_works(brief):
    done, _ = brief
    assert done.stderr == ""
    assert done.returncode == 0
    for word in ("W1", "W5", "W8", "GFLOP/s", "BRIEF"):
        assert word in done.stdout


def test_the_json_file_has_everything(brief):
    written = report.read(brief[1] / "out.json")
    assert {"date", "machine", "python", "versions", "threads", "rounds", "chip", "busy", "rows"} <= set(written)
    assert {"minilm", "numpy"} <= set(written["versions"])
    assert set(CHIP) == set(written["chip"])
    assert [row["workload"] for row in written["rows"]] == ["W1", "W5", "W5", "W8"]
    for row in written["rows"]:
        ours = row["results"][MINILM]
        assert ours["error"] == ours["refused"] == ""
        assert ours["seconds"] > 0
        assert len(ours["rounds"]) == written["rounds"] == 1
        assert (ours["gflops"] is None) == (row["workload"] == "W8")
        assert ours["ratio"] is None
    product = written["rows"][1]["results"]
    assert product[NUMPY]["ratio"] == pytest.approx(product[NUMPY]["seconds"] / product[MINILM]["seconds"])
    assert product[MINILM]["share"] == pytest.approx(product[MINILM]["gflops"] / judge.peak(written["chip"]))
    assert len(written["rows"][0]["results"][MINILM]["losses"]) == 2


def test_the_picture_lies_beside_it(brief):
    from matplotlib import pyplot

    assert pyplot.imread(brief[1] / "out.png").shape == (720, 1080, 4)


def test_the_table_goes_into_the_readme(tmp_path):
    page = tmp_path / "README.md"
    page.write_text((ROOT / "benchmarks" / "README.md").read_text("utf-8"), "utf-8")
    row = Row(PRODUCT, {MINILM: Result([0.02]), NUMPY: Result([0.03])})
    for _ in range(2):  # the second replaces the first
        readme.write(found(row), page)
        text = page.read_text("utf-8")
        assert text.count("| W5 | X Y | 20.0 ms  50% | 30.0 ms  1.50x  33% |") == 1
        assert "Not measured yet" not in text
        assert text.startswith("# Benchmarks")


# --- sizes ------------------------------------------------------------------------------------------


def test_arithmetic_and_parameters_are_those_of_the_models():
    import minilm as ml
    from minilm_benchmarks.ours_models import Encoder

    s = cases.GPTS["W1"]
    config = ml.models.GPTConfig(vocab_size=s["V"], block_size=s["T"], n_layer=s["n_layer"], n_head=4, n_embd=128)
    model = ml.models.GPT(config)
    assert sum(p.numel() for p in model.parameters()) == cases.gpt_parameters(s)
    attention = 12 * s["n_layer"] * s["n_embd"] * s["T"]  # PaLM counts all pairs; ours those that see each other
    causal = attention * (s["T"] + 1) / (2 * s["T"])
    tokens = s["B"] * s["T"]
    assert cases.gpt_flops(s) == pytest.approx(tokens * (model.flops_per_token() - attention + causal))
    tiny = cases.TINY_ENCODER
    assert sum(p.numel() for p in Encoder(tiny).parameters()) == cases.encoder_parameters(tiny)
    for kind in cases.GATES:
        s = {"kind": kind, **cases.TINY_RECURRENT}
        shape = (kind, s["V"], s["T"], s["n_layer"], s["n_embd"], s["n_hidden"])
        recurrent = ml.models.RecurrentLM(ml.models.RecurrentConfig(*shape))
        assert sum(p.numel() for p in recurrent.parameters()) == cases.recurrent_parameters(s)
        tokens, first = s["B"] * s["T"], cases.GATES[kind] * s["n_hidden"] * s["n_embd"]
        once = 6 * (tokens - s["V"]) * first  # what need not be done at each place
        assert cases.recurrent_flops(s) == tokens * recurrent.flops_per_token() - once
    assert cases.gpt_parameters(cases.GPTS["W3"]) == pytest.approx(cases.GPT2_PARAMETERS, rel=0.01)


def test_everyone_gets_the_same_data(tmp_path):
    (case,) = cases.cases(["W1"], brief=True)
    for name in ("a", "b"):
        data.write(case, tmp_path / f"{name}.npz")
    first, second = (data.read(str(tmp_path / f"{name}.npz")) for name in "ab")
    assert {name: array.tobytes() for name, array in first.items()} == {n: a.tobytes() for n, a in second.items()}
    assert (first["tokens"][:, 1:] == first["targets"][:, :-1]).all()


def test_importing_minilm_does_not_load_the_benchmarks():
    program = "import sys, minilm, minilm.cli; print(any('benchmarks' in name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
