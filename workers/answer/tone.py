"""The fixed sentences, in the assistant's tone. English, as the model is."""

from __future__ import annotations

from app.assistants.models import Assistant

TONES = ("plain", "friendly", "formal")

_REFUSAL = {
    "plain": "The pages I know do not answer that.",
    "friendly": "I could not find an answer to that in the pages I know.",
    "formal": "I regret that the available pages do not contain an answer to this question.",
}
_CONTACT = {
    "plain": "You can ask a person: {}.",
    "friendly": "A person will gladly help you: {}.",
    "formal": "Please contact us for further assistance: {}.",
}
_NOT_TOLD = {
    "plain": "You have not told me that.",
    "friendly": "You have not told me that yet.",
    "formal": "You have not mentioned that so far.",
}
_TOLD = {
    "plain": "You wrote: “{}”",
    "friendly": "You told me: “{}”",
    "formal": "You mentioned: “{}”",
}
_NOTED = {"plain": "Noted.", "friendly": "Thank you, I have noted that.", "formal": "Thank you, I have taken note of that."}
_WELCOME = {"plain": "You are welcome.", "friendly": "You are welcome.", "formal": "You are most welcome."}
_GOODBYE = {
    "plain": "Goodbye.",
    "friendly": "Goodbye, and come back any time.",
    "formal": "Goodbye, and thank you for your visit.",
}
_READY = {
    "plain": "What else do you want to know?",
    "friendly": "What else would you like to know?",
    "formal": "Is there anything else you would like to know?",
}
_SELF = "I am {name}, the assistant of this website. I answer from its pages and show where each answer stands."


def _in_tone(table: dict[str, str], assistant: Assistant) -> str:
    return table.get(assistant.tone, table["plain"])


def refusal(assistant: Assistant) -> list[str]:
    """What is said when the content has no answer: that, and whom to ask. The nearest pages are listed under a heading of theirs."""
    sentences = [_in_tone(_REFUSAL, assistant)]
    ways = [way for way in (assistant.contact_email, assistant.contact_url) if way]
    if ways:
        sentences.append(_in_tone(_CONTACT, assistant).format(" or ".join(ways)))
    return sentences


def not_told(assistant: Assistant) -> str:
    return _in_tone(_NOT_TOLD, assistant)


def told(assistant: Assistant, words: str) -> str:
    return _in_tone(_TOLD, assistant).format(words)


def noted(assistant: Assistant) -> str:
    return _in_tone(_NOTED, assistant)


def small_talk(assistant: Assistant, kind: str) -> str:
    """The reply to a greeting, thanks, a goodbye, an "ok", or "who are you"."""
    if kind == "hello":
        return assistant.greeting
    if kind == "self":
        return _SELF.format(name=assistant.name)
    return _in_tone({"thanks": _WELCOME, "bye": _GOODBYE, "ok": _READY}[kind], assistant)
