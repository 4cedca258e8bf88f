"""Every model, imported once, so that `Base.metadata` is whole for migrations and for the check that both agree."""

from app.accounts.models import ApiKey, Member, MemberSession, SignInLink, Workspace
from app.assistants.models import Assistant, AssistantSource
from app.content.models import Document, Passage, Source
from app.conversations.models import Conversation, Message, StateSnapshot, Visitor
from app.db.base import Base

__all__ = [
    "ApiKey",
    "Assistant",
    "AssistantSource",
    "Base",
    "Conversation",
    "Document",
    "Member",
    "MemberSession",
    "Message",
    "Passage",
    "SignInLink",
    "Source",
    "StateSnapshot",
    "Visitor",
    "Workspace",
]
