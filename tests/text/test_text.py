"""Importing minilm stays fast: the tokenizers library is loaded only when a BPE tokenizer is."""

from __future__ import annotations

import subprocess
import sys


def test_the_tokenizers_library_is_imported_only_when_used() -> None:
    code = (
        "import sys, minilm.data, minilm.text\n"
        "t = minilm.text.CharTokenizer.train('abc')\n"
        "assert type(t).from_json(t.to_json()).decode(t.encode('cab')) == 'cab'\n"
        "assert 'tokenizers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
