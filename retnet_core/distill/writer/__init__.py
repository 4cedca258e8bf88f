"""A language model larger than the student, which writes what the student is trained on. For writing only: never shipped, never served."""
