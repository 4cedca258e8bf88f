"""Byte-level BPE as the base model was trained with, built from the vocabulary and merges inside its GGUF."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from retnet_core.gguf import Gguf

END = "<|im_end|>"
START = "<|im_start|>"
_CONTROL = 3
"""GGUF's token type of a control token, such as `<|im_start|>`."""


class Tokenizer:
    """Text to token ids and back. Control tokens written in the text (`<|im_start|>`, `<|im_end|>`) are parsed as such.

    Whoever puts untrusted text into a prompt removes control tokens from it first: `escape` does that.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], control: Sequence[str]) -> None:
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        self._inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        # Digits are single tokens, so that a number is read and copied digit by digit, and a citation is always one token.
        self._inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
        self._inner.decoder = decoders.ByteLevel()
        self._inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        self._control = tuple(control)
        self._bytes = [token.encode() if token in set(control) else _bytes_of(token) for token in tokens]
        digest = hashlib.sha256()
        for part in (*tokens, "\0", *merges, "\0", *control):
            digest.update(part.encode() + b"\n")
        self.fingerprint: str = digest.hexdigest()
        self.end_id: int = self.token_id(END)

    @classmethod
    def from_gguf(cls, file: Gguf) -> Tokenizer:
        """The tokenizer whose vocabulary, merges and token types stand in the GGUF's metadata."""
        tokens = file.metadata["tokenizer.ggml.tokens"]
        kinds = file.metadata["tokenizer.ggml.token_type"]
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
        return cls(tokens, file.metadata["tokenizer.ggml.merges"], control)

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Token ids of the text; nothing is added before or after it. Bytes that the vocabulary lacks are left out: in the base's, six control
        characters and the lead bytes of planes without characters."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, control tokens included; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._bytes[number] for number in ids).decode("utf-8", "replace")

    def token_bytes(self, number: int) -> bytes:
        """The UTF-8 bytes of one token; a character may be spread over several tokens."""
        return self._bytes[number]

    def token_id(self, token: str) -> int:
        """The id of the text that is exactly one token, such as `"0"` or `"<|im_end|>"`. Raises `KeyError` otherwise."""
        ids = self._inner.encode(token, add_special_tokens=False).ids
        if len(ids) != 1:
            raise KeyError(f"{token!r} is {len(ids)} tokens, not one")
        return ids[0]

    def escape(self, text: str) -> str:
        """The text with control tokens broken up by a space, so that a page or a visitor cannot open a turn of their own."""
        for token in self._control:
            text = text.replace(token, token[:1] + " " + token[1:])
        return text

    def detokenizer(self) -> Detokenizer:
        """A fresh incremental detokenizer for one answer."""
        return Detokenizer(self)


class Detokenizer:
    """Ids in, text out, never half a character: the bytes of an unfinished character wait for the token that completes it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, number: int) -> str:
        """The text that this id completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(number))

    def flush(self) -> str:
        """What is left at the end of the answer: empty, or U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (`bytes_to_unicode` of its encoder), from stand-in to byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


_ALPHABET = byte_alphabet()


def _bytes_of(token: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:
        return token.encode()
