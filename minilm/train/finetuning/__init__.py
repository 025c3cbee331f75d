"""Fine-tuning: a pretrained BERT learns to classify texts, to tag words or to find answers, as a run like any other."""
