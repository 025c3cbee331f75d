"""Every figure of BERT in one report, each measured beside PyTorch on the same machine in the same run.

    python benchmarks/bert_report.py --sentiment FILE.tsv --tags FILE.conllu        about an hour on two quiet cores
    python benchmarks/bert_report.py --tags FILE.conllu --only tags                 one section
    python benchmarks/bert_report.py --sentiment FILE.tsv --quick                   a few steps, to see that all runs

or, in a checkout, `make report-bert SENTIMENT=FILE.tsv TAGS=FILE.conllu`. The report is OUT/report.md, with pictures
beside it and raw figures in OUT/figures. Each section is written as soon as it is measured, and is not measured again
while its data, weights and settings are the same: what was interrupted goes on where it was. Sections without data are
left out, and the report says what they need.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from minilm.display import Display, clock
from minilm.errors import MinilmError, MissingExtraError

DEFAULT_OUT = Path("runs/bert-report")
NEEDED = {"torch": "torch", "transformers": "transformers", "sklearn": "scikit-learn"}


class UsageError(MinilmError, ValueError):
    """An argument that cannot be, found before anything is measured."""


def check_packages() -> None:
    """Raise MissingExtraError unless what is compared with is installed."""
    absent = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise MissingExtraError(f"the report compares with packages that are missing: pip install {' '.join(absent)}")


def parsed(arguments: list[str] | None) -> Any:
    """The command line; files are there, and OUT is no file. Errors: UsageError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"the report's folder (default: {DEFAULT_OUT})")
    parser.add_argument("--model", help="a pretrained BERT: a folder or a name; by default MiniLM of its package")
    parser.add_argument("--sentiment", type=Path, help="labelled texts (TSV, CSV, JSON lines); the last fifth tests")
    parser.add_argument("--tags", type=Path, help="a CoNLL-U file; the last fifth of its sentences tests")
    parser.add_argument("--corpus", type=Path, help="a UTF-8 text to pre-train on; by default the Shakespeare here")
    parser.add_argument("--questions", type=Path, nargs=2, metavar=("TRAIN", "VALID"), help="two SQuAD files")
    parser.add_argument("--steps", type=int, help="of pre-training; by default those of minilm pretrain-bert")
    parser.add_argument("--only", action="append", metavar="SECTION", help="one section; may be repeated")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument("--quick", action="store_true", help="a few steps of each: only whether everything runs")
    given = parser.parse_args(arguments)
    for path in (given.sentiment, given.tags, given.corpus, *(given.questions or ())):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: there is no such file")
    if given.steps is not None and given.steps < 1:
        raise UsageError(f"--steps is {given.steps}; it must be at least 1")
    if given.out.exists() and not given.out.is_dir():
        raise UsageError(f"{given.out}: is a file, and the report needs a folder")
    return given


def report(options: Any) -> Path:
    """Measure what is not measured yet, and write the report. Errors: MinilmError, OSError, before anything starts."""
    from bert_sections import page, store
    from bert_sections.machine import Watch, described, now
    from bert_sections.sections import SECTIONS, Given, model_folder

    names = [section.name for section in SECTIONS]
    for name in options.only or ():
        if name not in names:
            raise UsageError(f"--only {name}: the sections are {', '.join(names)}")
    given = Given(
        out=options.out,
        model=model_folder(options.model),
        corpus=options.corpus,
        sentiment=options.sentiment,
        tags=options.tags,
        questions=None if options.questions is None else tuple(options.questions),
        quick=options.quick,
        **({} if options.steps is None else {"pretraining_steps": options.steps}),
    )
    wanted = [section for section in SECTIONS if not options.only or section.name in options.only]
    for section in wanted:
        if not section.missing(given):
            section.check(given)
    given.out.mkdir(parents=True, exist_ok=True)
    records = {name: record for name in names if (record := store.kept(given.out, name)) is not None}
    here, missing, began = described(), {}, Watch()
    with Display(Console()) as display:
        for section in wanted:
            missing[section.name] = section.missing(given)
            if missing[section.name]:
                display.say(f"{section.name}: left out, for want of {missing[section.name]}")
                continue
            if not options.again and store.same(records.get(section.name), section.settings(given)):
                display.say(f"{section.name}: measured on {records[section.name]['measured']['date']}")
                continue
            display.say(f"{section.name}: {section.title}")
            watch = Watch()
            figures = section.measure(given, display)
            measured = {**here, "date": now(), "seconds": watch.seconds(), "others": watch.others()}
            records[section.name] = {"settings": section.settings(given), "figures": figures, "measured": measured}
            store.keep(given.out, section.name, records[section.name])
            page.write(given.out, records, missing, {**here, "date": now()})
            display.say(f"  done in {clock(watch.seconds())}; {clock(began.seconds())} in all")
        path = page.write(given.out, records, missing, {**here, "date": now()})
        display.say(f"the report: {path}")
    return path


def main(arguments: list[str] | None = None) -> int:
    """See the module; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    try:
        options = parsed(arguments)
        check_packages()
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # new heads and the like are no news
        report(options)
    except (MinilmError, OSError) as error:
        print(f"bert_report: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bert_report: interrupted; the sections that are done are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
