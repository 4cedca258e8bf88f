"""Finding what answers: MiniLM tuned to bring a question near its passage and sentence, and a reader of both that says whether they fit."""
