"""From files to reports, as a fine-tuning command goes: all parts fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from minilm import BertTokenizer
from minilm.data import (
    DataLoader,
    LabelMap,
    answer_windows,
    best_answers,
    label_ids,
    read_classification,
    read_conll,
    read_squad,
    tag_windows,
    text_rows,
    word_tags,
)
from minilm.evaluation import (
    classification_measures,
    confusion_matrix,
    squad_measures,
    squad_scores,
    tagging_measures,
    write_report,
)

TEXT = "the king of france and the queen of spain rode to london " * 20
TOKENIZER = BertTokenizer.train(TEXT, vocab_size=120)


def test_texts(tmp_path: Path, eval_extra: None) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "the king,male\nthe queen,female\nqueen of spain,female\n" * 4)
    examples = read_classification(tmp_path / "a.csv")
    labels = LabelMap.of(example.label for example in examples if example.label)
    ids = label_ids(examples, labels)
    rows = text_rows(TOKENIZER, examples, ids).rows
    loader = DataLoader(rows, batch_size=5, collate_fn=lambda part: TOKENIZER.pad(part, return_tensors="ml"))
    seen = np.concatenate([batch.labels.numpy() for batch in loader])
    texts = [text for batch in loader for text in TOKENIZER.batch_decode(batch.input_ids, skip_special_tokens=True)]
    assert texts == [example.text for example in examples]
    predicted = np.array(["queen" not in text for text in texts], dtype=np.int64)
    assert seen.tolist() == ids.tolist() == predicted.tolist()
    measures = classification_measures(ids, predicted, resamples=20)
    matrix = confusion_matrix(ids, predicted, len(labels))
    write_report(tmp_path / "r.md", "Kings", measures, 12, 0.5, 10**8, confusion=matrix, names=labels.names)
    report = (tmp_path / "r.md").read_text()
    assert "| accuracy | 1.0000 |" in report
    assert "| male | 0 | 4 |" in report


def test_tags(tmp_path: Path, eval_extra: None) -> None:
    (tmp_path / "a.conll").write_text("the O\nking O\nof O\nfrance B-LOC\n\nlondon B-LOC\n")
    sentences = read_conll(tmp_path / "a.conll")
    labels = LabelMap.of(tag for sentence in sentences for tag in sentence.tags)
    windows = tag_windows(TOKENIZER, sentences, labels, max_length=5, overlap=1)
    batch = TOKENIZER.pad(windows.rows, return_tensors="np")
    assert batch.labels.shape == batch.input_ids.shape
    assert (batch.labels == -100).any()
    tags = word_tags(batch.labels, windows, sentences, labels)
    assert tagging_measures([sentence.tags for sentence in sentences], tags, resamples=5)["f1"].value == 1


def test_questions(tmp_path: Path) -> None:
    context = "The king of France and the queen of Spain rode to London."
    where = {"text": "London", "answer_start": context.index("London")}
    asked = [
        {"id": "a", "question": "Where to?", "answers": [where]},
        {"id": "b", "question": "The king?", "answers": [], "is_impossible": True},
    ]
    data = {"data": [{"paragraphs": [{"context": context, "qas": asked}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(data))
    file = read_squad(tmp_path / "dev.json")
    windows = answer_windows(TOKENIZER, file.questions, max_length=24, doc_stride=4, max_question_length=10)
    batch = TOKENIZER.pad(windows.rows, return_tensors="np")
    start, end = (np.zeros(batch.input_ids.shape) for _ in range(2))
    for logits, positions in ((start, batch.start_positions), (end, batch.end_positions)):
        logits[np.arange(len(positions)), positions] = 5
    found = best_answers(start, end, windows, file.questions, no_answer=file.has_unanswerable)
    assert {prediction.id: prediction.text for prediction in found} == {"a": "London", "b": ""}
    scores = squad_scores(file.questions, {prediction.id: prediction.text for prediction in found})
    assert squad_measures(scores, resamples=5)["f1"].value == 100
