"""BERT beside PyTorch: what `bert_report.py` and the two `bert_..._reference.py` are made of.

    turns.py        a run of ours and the same in PyTorch, step for step, in turn
    agreement.py    numbers that must be equal, on the same weights
    article.py      the lines with which Hugging Face's users fine-tune, run by both
    sections.py     the parts of the report: what each needs, measures and says
    store.py        figures in files, whole, so that a report can go on where it ended
    page.py         figures as Markdown; pictures.py: as curves and bars
    machine.py      where it was measured, and whether others computed meanwhile

Nothing in minilm imports this.
"""
