"""What visitors tell of themselves and ask for later: statements, questions and answers made of parts, so that few are alike.

The first way of telling and the first way of asking of each kind are for measuring, and never trained on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from retnet_core.distill.mixture.words import Words, digits, value


@dataclass(frozen=True, slots=True)
class Kind:
    """A fact: `{v}` is its value. The first way of asking, and of telling where there are three, is for measuring."""

    name: str
    values: str  # what `_value` makes
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    answer: str


def _kind(name: str, values: str, tell: str, ask: str, answer: str) -> Kind:
    return Kind(name, values, tuple(tell.split("|")), tuple(ask.split("|")), answer)


KINDS = (
    _kind("name", "name", "people call me {v}|My name is {v}|I'm {v}|this is {v}|{v} here|you can call me {v}",
          "do you recall how I am called?|What is my name?|who am i|what was my name again|do you remember my name", "Your name is {v}."),
    _kind("town", "name", "home for me is {v}|I live in {v}|I'm writing from {v}|we are based in {v}|i moved to {v} last year",
          "which town did I say is home?|Where do I live?|where am i writing from|what place did i mention I live in", "You live in {v}."),
    _kind("order", "number", "the order is {v}|My order number is {v}|it is about order {v}|order no. {v}|I ordered something, number {v}",
          "which order was it about?|What is my order number?|which order number did i give you|remind me of my order number",
          "Your order number is {v}."),
    _kind("company", "name", "my employer is {v}|I work for {v}|I'm with {v}|we at {v} use your product|i run a small firm called {v}",
          "who employs me?|Which company do I work for?|what is my company called|the firm I mentioned was?", "You work for {v}."),
    _kind("pet", "name", "there is my dog, {v}|My dog is called {v}|our dog {v} comes too|i have a dog named {v}",
          "how is my dog called?|What is my dog's name?|do you know the name of my dog|my dog was called what", "Your dog is called {v}."),
    _kind("budget", "price", "more than {v} is not in it|My budget is {v}|I can spend {v}|at most {v}, no more|we have set aside {v}",
          "how much was I ready to pay?|What is my budget?|how much can i spend|what did I say I can spend", "Your budget is {v}."),
    _kind("date", "date", "{v} suits me|I will come on {v}|we arrive on {v}|my appointment is on {v}|I'd like to book {v}",
          "for when did I announce myself?|When will I come?|which date did i give|what day did we settle on", "You will come on {v}."),
    _kind("people", "count", "{v} persons altogether|There are {v} of us|we are {v} people|a table for {v}|our group has {v} members",
          "of how many persons did I speak?|How many people are we?|how many of us are there|what size is our group", "You are {v}."),
    _kind("version", "version", "on my side it is version {v}|I have version {v}|it's version {v}|we still run {v} of it|upgraded to {v} yesterday",
          "on which release am I?|Which version do I have?|what version am i running|which version did I mention", "You have version {v}."),
    _kind("error", "code", "the display reads {v}|I get error {v}|it stops with code {v}|the message says {v}|it shows {v} every time",
          "what does my display read?|Which error do I get?|what was the error code|which code did I report", "You get the error {v}."),
    _kind("wants", "thing", "what I am after is a {v}|I'm looking for a {v}|I need a {v}|i want to buy a {v}|we would like a {v}",
          "after what thing am I?|What am I looking for?|what did i want to buy|what did I say I need", "You are looking for a {v}."),
    _kind("owns", "thing", "at my place there is a {v}|I have a {v}|mine is a {v}|i bought a {v} from you|we own a {v}",
          "what is at my place?|What do I have?|which thing did i buy|what did I say I own", "You have a {v}."),
    _kind("phone", "phone", "ring me at {v}|My phone number is {v}|you can reach me at {v}|call {v}|my number's {v}",
          "at which number can one ring me?|What is my phone number?|which number did i give you|how can you reach me by phone",
          "Your phone number is {v}."),
    _kind("contact", "name", "{v} at your place looked after me|I spoke to {v} before|my contact is {v}|{v} helped me last time",
          "who of you looked after me?|Who is my contact?|who did i speak to|the person who helped me was?", "Your contact is {v}."),
    _kind("room", "number", "they put us into {v}|I am in room {v}|our room is {v}|staying in number {v}|room {v} here",
          "where did they put us?|What is my room number?|which room am i in|what room did I say", "Your room number is {v}."),
    _kind("system", "name", "at work everything is on {v}|I use {v}|my computer runs {v}|we are on {v}|it's installed on {v}",
          "what is everything on at work?|Which system do I use?|what am i using|what does my computer run", "You use {v}."),
    _kind("deadline", "date", "after {v} it is too late|I need it by {v}|my deadline is {v}|it has to be here by {v}",
          "when would it be too late?|When is my deadline?|by when do i need it|what deadline did I give", "You need it by {v}."),
    _kind("address", "address", "send it over to {v}|My address is {v}|deliver it to {v}|we're at {v}|the parcel goes to {v}",
          "where should it be sent?|What is my address?|where do i want it delivered|which address did I give", "Your address is {v}."),
)  # fmt: skip
THANKS = (
    "Noted.", "Thank you, I have noted that.", "Thanks, I will keep that in mind.", "Thank you.", "All right, I will remember that.",
    "Good to know, thank you.", "Thank you, I have taken note of that.",
)  # fmt: skip
NOT_TOLD = ("You have not told me that.", "You have not told me that yet.")
_OPENINGS = (
    "",
    "",
    "",
    "hi, ",
    "Hello, ",
    "by the way, ",
    "just so you know, ",
    "ok so ",
    "hey ",
    "Good morning. ",
    "for your records: ",
    "also, ",
)
_CLOSINGS = ("", "", "", ".", ".", " thanks", ", if that matters", ", just to mention it", "!", " btw")


def _value(kind: Kind, words: Words, drawn: random.Random) -> str:
    makers = {
        "name": lambda: words.name(drawn),
        "thing": lambda: words.thing(drawn),
        "number": lambda: digits(drawn, drawn.randint(3, 7)),
        "price": lambda: f"{drawn.randint(10, 9000)} {drawn.choice(('euros', 'dollars', 'pounds', 'francs'))}",
        "date": lambda: value(words, drawn, drawn.choice((4, 9))),
        "count": lambda: str(drawn.randint(2, 60)),
        "version": lambda: value(words, drawn, 8),
        "code": lambda: value(words, drawn, drawn.choice((0, 1))),
        "phone": lambda: " ".join(digits(drawn, drawn.randint(2, 4)) for _ in range(3)),
        "address": lambda: value(words, drawn, 10),
    }
    return makers[kind.values]()


@dataclass(frozen=True, slots=True)
class Fact:
    """A kind with its value."""

    kind: Kind
    value: str

    def told(self, drawn: random.Random, *, measuring: bool = False) -> str:
        if measuring:
            return self.kind.tell[0].format(v=self.value) + "."
        said = drawn.choice(self.kind.tell[1:]).format(v=self.value)
        return drawn.choice(_OPENINGS) + said + drawn.choice(_CLOSINGS)

    def asked(self, drawn: random.Random, *, measuring: bool = False) -> str:
        return self.kind.ask[0] if measuring else drawn.choice(self.kind.ask[1:])

    @property
    def answer(self) -> str:
        return self.kind.answer.format(v=self.value)


def facts(words: Words, drawn: random.Random, count: int) -> list[Fact]:
    """So many facts, each of a kind of its own."""
    return [Fact(kind, _value(kind, words, drawn)) for kind in drawn.sample(KINDS, count)]
