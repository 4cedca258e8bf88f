"""The routes that both OpenAPI and the two applications are made of."""

from app.accounts.controllers import AccountController, KeyController, SignInController
from app.assistants.controllers import AssistantController
from app.chat.controllers import SessionController, VisitorController
from app.content.controllers import DocumentController, SourceController
from app.conversations.controllers import ConversationController
from app.http import operations

VISITORS = (SessionController, VisitorController)
MEMBERS = (
    SignInController,
    AccountController,
    KeyController,
    AssistantController,
    SourceController,
    DocumentController,
    ConversationController,
)
OPERATIONS = (operations.live, operations.ready, operations.status_page)
