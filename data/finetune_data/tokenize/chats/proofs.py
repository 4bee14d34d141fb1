"""Proves that what a template writes around the texts of a conversation holds for other texts."""

from __future__ import annotations

from finetune_data.read.examples import Conversation, Message
from finetune_data.tokenize.chats.rendering import Form, Renderer, RenderError, compiled
from finetune_data.tokenize.chats.unknown_texts import (
    GAP,
    Proof,
    UnknownTemplate,
    UnknownText,
)


class ProvingRenderer(Renderer):
    """Renders conversations of placeholders twice: as they are, and with unknown texts.

    Both must agree. `proof` has a doubt if one rendering can depend on the texts.
    """

    def __init__(self, original: Renderer) -> None:
        super().__init__(original.source, original.names, original.model)
        self.proof = Proof()
        self._templates: dict[str, UnknownTemplate] = {}

    def render(
        self, chat: Conversation, form: Form, until: int | None = None, *, is_prompt: bool = False
    ) -> str:
        """The text with placeholders. Raises RenderError."""
        try:
            text = super().render(chat, form, until, is_prompt=is_prompt)
        except RenderError as error:
            self._prove(chat, form, until, error.__cause__, is_prompt=is_prompt)
            raise
        self._prove(chat, form, until, text, is_prompt=is_prompt)
        return text

    def _prove(
        self,
        chat: Conversation,
        form: Form,
        until: int | None,
        found: str | BaseException | None,
        *,
        is_prompt: bool,
    ) -> None:
        """Compare what was found with what is written around unknown texts."""
        from jinja2 import TemplateError

        proof = self.proof
        if proof.doubt is not None:
            return
        if not isinstance(found, str) and type(found) is not TemplateError:
            proof.doubt = "an error that is not of the template"
            return
        messages = [_with_unknown_text(message, proof) for message in chat.messages]
        unknown = chat._replace(messages=messages)
        try:
            with self.section.at(chat.line):
                written = self._template(self.source_for(chat)).render(
                    self.variables(unknown, form, until, is_prompt=is_prompt)
                )
        except Exception as error:  # a template can raise any type
            proof.doubt = proof.doubt or f"{type(error).__name__}: {error}"
            return
        if written != (found if isinstance(found, str) else None):
            proof.doubt = proof.doubt or "it is written differently"

    def _template(self, source: str) -> UnknownTemplate:
        if source not in self._templates:
            original = compiled(source).environment
            self._templates[source] = UnknownTemplate(source, original, self.proof)
        return self._templates[source]


def _with_unknown_text(message: Message, proof: Proof) -> Message:
    text = message["content"]
    return message | {"content": UnknownText(text, proof)} if GAP.fullmatch(text) else message
