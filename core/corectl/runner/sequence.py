"""From the text of a prompt to the tokens of a sequence, with its images in their places."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Prompt
from corectl.prompt.images import place_images
from corectl.runner.abilities import PromptRecall
from corectl.runner.engine import Tokenizer
from corectl.runner.images import check_pixels, open_images
from corectl.runner.vision import IMAGE, ImageSpan, Picture, Seen, Vision


class SequenceBuilder:
    """Reads the renderings of one prompt. `context` are tokens that go in front of each, `salt` is its `cache_salt`.

    Raises `BadRequest` for images that are no good, or that the model cannot see (`vision` is None).
    """

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: Tokenizer,
        vision: Vision | None,
        *,
        context: Sequence[int] = (),
        salt: str = "",
    ) -> None:
        self.placed = place_images(prompt)
        self._tokenizer = tokenizer
        self._vision = vision
        self._context = context
        self._salt = salt
        self._pictures = open_images(self.placed.images, self.placed.fields, salt=salt)
        self._seen = [
            self._see(picture, field)
            for picture, field in zip(self._pictures, self.placed.fields, strict=True)
        ]

    def _see(self, picture: Picture, field: str) -> Seen:
        if self._vision is None:
            raise BadRequest(
                f"{field}: this model does not support images: it has no projector that can be used here"
            )
        try:
            return self._vision.see(picture)
        except BadRequest as error:
            raise BadRequest(f"{field}: {error.message}") from error

    def tokens(self, text: str) -> list[int]:
        """The tokens of a rendered text, with `IMAGE` in the cells of images."""
        pieces = self.placed.split(text)
        if len(pieces) == 1:
            tokens = self._encode(_without_bos(self._tokenizer, text))
            # The begin token stands in front of the earlier context already.
            return [*self._context, *(tokens[self._tokenizer.adds_bos :] if self._context else tokens)]
        begin = self._tokenizer.encode("")[: self._tokenizer.adds_bos]
        tokens = list(self._context or begin)
        pieces[0] = _without_bos(self._tokenizer, text=str(pieces[0]))
        for piece in pieces:
            if isinstance(piece, int):
                tokens += self._seen[piece].tokens
            elif piece:
                tokens += self._encode(piece, add_special=False)
        return tokens

    def _encode(self, text: str, *, add_special: bool = True) -> list[int]:
        if isinstance(self._tokenizer, PromptRecall):
            return self._tokenizer.encode_prompt(text, salt=self._salt, add_special=add_special)
        return self._tokenizer.encode(text, add_special=add_special)

    def has_images(self, text: str) -> bool:
        """Whether any image is in a rendered text."""
        return len(self.placed.split(text)) > 1

    def spans(self, text: str, tokens: list[int]) -> tuple[ImageSpan, ...]:
        """The images in the tokens of a rendered text, decoded. Raises `BadRequest` for one that cannot be."""
        numbers = [piece for piece in self.placed.split(text) if isinstance(piece, int)]
        if not numbers or self._vision is None:
            return ()
        if tokens[-1] == IMAGE:
            raise BadRequest("the prompt ends in an image; put some text after it")
        check_pixels([self._pictures[number] for number in set(numbers)])
        spans: list[ImageSpan] = []
        end = 0
        for number in numbers:
            for span in self._seen[number].spans:
                self._vision.load(span)
                start = tokens.index(IMAGE, end)
                end = start + span.cells
                spans.append(msgspec.structs.replace(span, start=start))
        return tuple(spans)


def _without_bos(tokenizer: Tokenizer, text: str) -> str:
    """A rendered prompt to tokenise; a begin token that the template wrote itself is not to be doubled."""
    return text.removeprefix(tokenizer.bos_token) if tokenizer.adds_bos and tokenizer.bos_token else text
