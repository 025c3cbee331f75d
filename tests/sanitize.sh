#!/usr/bin/env bash
# The C part under sanitizers: tests/sanitize.sh PYTHON [options of pytest]
#
#   1. the pool of threads alone, a plain C program: under Address- and UndefinedBehaviorSanitizer, and under
#      ThreadSanitizer, to which a Python around it would be noise;
#   2. the kernels' tests, in a copy of the tree with an extension of its own: the one in use stays as it is.
#
# Needs gcc and its libasan, libubsan and libtsan, which come with it on most systems.
set -euo pipefail
cd "$(dirname "$0")/.."
python="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
shift
export CC="${CC:-gcc}"

tree=build/sanitize
rm -rf "$tree"
mkdir -p "$tree"

# allocator_may_return_null=1: some tests want more memory than there is, and see it refused.
export ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
# ThreadSanitizer needs its addresses free; systems that scatter programs over many bits of them take some at times.
run=""
if setarch "$(uname -m)" -R true 2>/dev/null; then run="setarch $(uname -m) -R"; fi
for checks in address,undefined thread; do
    echo "the pool of threads, -fsanitize=$checks"
    "$CC" -std=gnu11 -O1 -g -Wall -Wextra -Werror -pthread "-fsanitize=$checks" -fno-sanitize-recover=all \
        -Icsrc tests/csrc/pool_test.c csrc/pool.c -o "$tree/pool_test"
    $run "$tree/pool_test"
done

echo "the extension, with checks compiled in"
cp -R csrc minilm tests pyproject.toml setup.py LICENSE README.md "$tree"
cd "$tree"
rm -f minilm/kernels/native.c minilm/kernels/native.*.so
export MINILM_SANITIZE=address,undefined
MINILM_REQUIRE_NATIVE=1 "$python" setup.py --quiet build_ext --inplace

# The interpreter is compiled without checks: what intercepts malloc has to be in the process before it.
preload="$("$CC" -print-file-name=libasan.so) $("$CC" -print-file-name=libubsan.so)"
# detect_leaks=0: an interpreter frees little at its end, and every bit of that would be reported.
export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"

# --capture=sys: what C writes, a report above all, goes past pytest to the terminal before the process ends; by the
# environment, since a test runs pytest in its turn, for each instruction set.
export PYTEST_ADDOPTS="--capture=sys -p no:cacheprovider"
# Left out are Numba, whose code cannot be checked, and the tests that only compile.
echo "the kernels' tests"
MINILM_REQUIRE=native PYTHONPATH="$PWD" LD_PRELOAD="$preload" "$python" -m pytest tests/kernels -k "not numba" \
    --ignore tests/kernels/test_build.py --ignore tests/kernels/test_pool_c.py "$@"
