"""Chapter 12. Reading: where in a text does the answer to a question stand?

    python examples/12_question_answering.py [FOLDER]

The questions are made by rule from Shakespeare's plays: who enters, where the scene is. FOLDER holds a
pretrained BERT; without one a very small one begins from nothing, and learns what an entrance looks like.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import minilm as ml
from minilm import BertConfig, BertForQuestionAnswering, BertTokenizer
from minilm.data import answer_windows, best_answers, corpora, read_squad
from minilm.data.questions import Settings, guess_first, guess_nearest, make_questions
from minilm.evaluation import squad_scores
from minilm.optim import AdamW

ml.manual_seed(0)

print("1. Questions by rule, in the format of SQuAD: a passage, a question, where its answer begins")
found = []
settings = Settings(count=2000, no_answer=0.0, length=250, only=("enters", "scene"))
for part in make_questions(corpora.shakespeare(), settings):
    path = Path(tempfile.mkdtemp()) / "squad.json"
    path.write_text(json.dumps(part), encoding="utf-8")
    found.append(read_squad(path).questions)
train, unseen = found
assert not {q.context for q in train} & {q.context for q in unseen}
assert not {q.title for q in train} & {q.title for q in unseen}  # other plays
print(f"   {len(train)} to learn from, {len(unseen)} to test on, of other plays; one of them:")
one = min(train, key=lambda q: len(q.context) + len(q.question))
print("   | " + one.context.replace("\n", "\n   | "))
print(f"   {one.question} {one.answers[0].text!r}, at {one.answers[0].start}")
assert one.context[one.answers[0].start :].startswith(one.answers[0].text)

print("\n2. Guessing, as far as it goes")
for how, guess in (("the first name", guess_first), ("the name nearest to the question's words", guess_nearest)):
    print(f"   {how}: {squad_scores(unseen, guess(unseen)).exact.mean():.1%} of the answers")
guessed = max(squad_scores(unseen, guess(unseen)).exact.mean() for guess in (guess_first, guess_nearest))

print("\n3. A model with two scores for each token: that the answer begins here, that it ends here")
small = len(sys.argv) == 1
if small:
    tokenizer = BertTokenizer.train([f"{q.question} {q.context}" for q in train], vocab_size=1500)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(len(tokenizer), max_position_embeddings=192, hidden_dropout_prob=0.0, **shape)
    model = BertForQuestionAnswering(config)
else:
    tokenizer = BertTokenizer.from_pretrained(sys.argv[1])
    model = BertForQuestionAnswering.from_pretrained(sys.argv[1])
learnt, tests = (answer_windows(tokenizer, part, 192, 48, 40) for part in (train, unseen))
row = learnt.rows[0]
answer = row["input_ids"][row["start_positions"] : row["end_positions"] + 1]
print(f"   {len(learnt.rows)} windows; the answer in the first: {tokenizer.decode(answer)!r}")

B, epochs = 8, 10 if small else 2
optimizer = AdamW(model.parameters(), lr=2e-3 if small else 1e-4)
order, losses = np.random.default_rng(0), []
for epoch in range(epochs):
    model.train()
    numbers = order.permutation(len(learnt.rows))
    for at in range(0, len(numbers), B):
        batch = tokenizer.pad([learnt.rows[i] for i in numbers[at : at + B]], return_tensors="ml")
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"   epoch {epoch + 1}: loss {np.mean(losses[-20:]):.3f}")
assert np.mean(losses[-20:]) < np.mean(losses[:20])

print("\n4. Plays that it has not read")
model.eval()
starts, ends = [], []
with ml.no_grad():
    for at in range(0, len(tests.rows), 64):
        batch = tokenizer.pad(tests.rows[at : at + 64], return_tensors="ml")
        names = ("input_ids", "attention_mask", "token_type_ids")
        output = model(**{name: batch[name] for name in names})
        starts += list(output.start_logits.numpy())
        ends += list(output.end_logits.numpy())
said = best_answers(starts, ends, tests, unseen)
for question, prediction in list(zip(unseen, said))[:4]:
    print(f"   {question.question[:90]}\n      {prediction.text[:50]!r}; right: {question.answers[0].text[:30]!r}")
scores = squad_scores(unseen, {prediction.id: prediction.text for prediction in said})
print(f"   exact: {scores.exact.mean():.1%}, where guessing gives {guessed:.1%}; F1 {scores.f1.mean():.1%}")
assert scores.exact.mean() > guessed + 0.1
