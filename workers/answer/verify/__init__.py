"""The verifier: wording is published sentence by sentence, each once the evidence supports it."""

from workers.answer.verify.check import REASONS, SUPPORTED, Verdict, verify, without_answer

__all__ = ["REASONS", "SUPPORTED", "Verdict", "verify", "without_answer"]
