"""Chapter 12. Reading comprehension: where in a text does the answer to a question stand, or is it not there at all?

    python examples/12_question_answering.py

The model does not write an answer. For each token of the text it gives two scores: that the answer begins here, and
that it ends here. For a question that the text does not answer both are to be at the first token, [CLS]. The questions
are made from Shakespeare by rule. What lies around the model stands here; what a pretrained one reaches on such
questions, and the command that trains it, is in docs/fine-tuning.md.
B batch, T time (positions).
"""

import json
import tempfile
from pathlib import Path
from textwrap import shorten, wrap

import numpy as np

import minilm as ml
from minilm import BertConfig, BertForQuestionAnswering, BertTokenizer
from minilm.data import answer_windows, best_answers, corpora, read_squad
from minilm.data.questions import Settings, guess_first, guess_nearest, make_questions
from minilm.evaluation import squad_scores
from minilm.evaluation.squad import exact_match, f1_score

ml.manual_seed(0)


def squad(data):
    """The questions of SQuAD's JSON, by way of a file: the reader checks that each answer stands where it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return read_squad(path).questions


print("1. Questions that rules make of Shakespeare: a context, a question, and where its answer begins")
text = corpora.shakespeare()[1_000_000:1_400_000]
plays = squad(make_questions(text, Settings(count=200, length=120))[0])
for beginning, answered in (("Who answers", True), ("Where is scene", True), ("Who enters", True), ("Who", False)):
    question = next(q for q in plays if q.question.startswith(beginning) and bool(q.answers) == answered)
    print("\n".join(wrap(" ".join(question.context.split()), 95, initial_indent="   ", subsequent_indent="   ")))
    print(f"      {shorten(question.question, 90)}")
    for answer in question.answers:
        end = answer.start + len(answer.text)
        assert question.context[answer.start : end] == answer.text
        print(f"      characters {answer.start} to {end}: {answer.text!r}")
    if not question.answers:
        print("      this context does not say")

print("\n2. A window is [CLS] question [SEP] context [SEP]; the labels are the answer's first and last token")
tokenizer = BertTokenizer.train([f"{q.question} {q.context}" for q in plays], vocab_size=1500)
asked = max(plays, key=lambda q: len(q.context) if q.answers else 0)
windows = answer_windows(tokenizer, [asked], max_length=256)
row, (start, end) = windows.rows[0], (windows.rows[0]["start_positions"], windows.rows[0]["end_positions"])
first, last = windows.offsets[0][start][0], windows.offsets[0][end][1]  # characters of the context
assert asked.context[first:last] == asked.answers[0].text
answer = tokenizer.decode(row["input_ids"][start : end + 1])
print(f"   {len(row['input_ids'])} tokens; from {start} to {end}: {answer!r}")
windows = answer_windows(tokenizer, [asked], max_length=64, doc_stride=16, max_question_length=32)
assert len(windows.rows) > 1
for row, offsets in zip(windows.rows, windows.offsets):
    place, of_context = (row["start_positions"], row["end_positions"]), offsets[offsets[:, 0] >= 0]
    print(f"   of 64 tokens: characters {of_context[0][0]:3} to {of_context[-1][1]:3}, labels {place}")
print("   Windows overlap, so that an answer on the edge is whole in one; (0, 0) is [CLS]: not in here.")

print("\n3. Two measures: EM, the same but for capitals, punctuation and articles; F1, the words in common")
for found, right in (("the Tower", "Tower"), ("Tower of London", "the Tower"), ("London", "the Tower")):
    print(f"   {found!r:18} for {right!r:12} EM {exact_match(found, right):.0f}   F1 {f1_score(found, right):.2f}")
assert exact_match("the Tower", "Tower") == 1
precision, recall = 1 / 3, 1 / 1  # of the three words found one is right; of the one wanted all are found
assert f1_score("Tower of London", "the Tower") == 2 * precision * recall / (precision + recall)


print("\n4. How far guessing goes, without reading: what a model has to beat")
answerable = [q for q in plays if q.answers]
for how, guess in (("the first that fits", guess_first), ("the one nearest to the question's words", guess_nearest)):
    scores = squad_scores(answerable, guess(answerable))
    print(f"   {how + ':':41} EM {scores.exact.mean():4.0%}   F1 {scores.f1.mean():4.0%}")
    assert 0 < scores.exact.mean() < 0.75
    assert scores.exact.mean() <= scores.f1.mean()
silent = squad_scores(plays, {q.id: "" for q in plays})
print(f"   {'saying always that there is no answer:':41} EM {silent.exact.mean():4.0%}   (all questions)")
assert silent.exact.mean() == (len(plays) - len(answerable)) / len(plays)

print("\n5. The loss: cross-entropy over the T places, of the beginning and of the end")
windows = answer_windows(tokenizer, plays[:8], max_length=128, doc_stride=32, max_question_length=32)
batch = tokenizer.pad(windows.rows, return_tensors="ml")
shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
model = BertForQuestionAnswering(BertConfig(len(tokenizer), max_position_embeddings=128, **shape)).eval()
with ml.no_grad():
    output = model(**batch)
B, T = output.start_logits.shape
by_hand = 0.0
for logits, name in ((output.start_logits, "start_positions"), (output.end_logits, "end_positions")):
    logits, places = logits.numpy().astype(np.float64), batch[name].numpy()
    assert logits.shape == batch["input_ids"].shape
    log_shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand += -log_shares[np.arange(B), places].mean() / 2
print(f"   {B} windows of {T}: {output.loss.item():.4f}, by hand {by_hand:.4f}; ln {T} is {np.log(T):.4f}")
assert abs(output.loss.item() - by_hand) < 1e-4
assert abs(by_hand - np.log(T)) < 0.5  # untrained: all places are about as likely

print("\n6. From scores to an answer: the best pair of a beginning and an end, not the best of each")
asked = next(q for q in plays if q.question.startswith("Who answers") and q.answers)
windows = answer_windows(tokenizer, [asked], max_length=128, doc_stride=32, max_question_length=32)
row = windows.rows[0]
T, right = len(row["input_ids"]), (row["start_positions"], row["end_positions"])
start, end = np.full(T, -4.0), np.full(T, -4.0)  # set by hand, as a model in doubt might give them
context = np.flatnonzero(windows.offsets[0][:, 0] >= 0)
start[right[0]], end[right[1]] = 3.0, 2.5
start[context[-2]] = 3.5  # the best beginning stands behind the best end: no answer is that way round
end[0], start[0] = 2.0, 2.0  # [CLS]: there is no answer
assert start.argmax() > end.argmax()
(said,) = best_answers([start], [end], windows, [asked], no_answer=True)
print(f"   {shorten(asked.question, 90)}")
print(f"   best beginning {start.argmax()}, best end {end.argmax()}; best pair {right}: {said.text!r}")
assert said.text == asked.answers[0].text
print(f"   scores: {said.candidates[0].score} for it, {start[0] + end[0]} for none; the difference decides")
assert said.null_difference == (start[0] + end[0]) - said.candidates[0].score
for threshold in (0.0, -2.0):
    (said,) = best_answers([start], [end], windows, [asked], no_answer=True, null_threshold=threshold)
    print(f"   none has to be more than {threshold} above it: {said.text or 'no answer'!r}")
assert said.text == ""
print("   The threshold is chosen on questions that were not learnt from, so that EM is highest there.")
