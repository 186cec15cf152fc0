"""Which pieces of a tokenizer are whole words, and which of those say little: function words, as against content words.

    ["the</w>", "pol", "yp</w>"] -> ("the", None, None)        is_function_word("the") -> True

A word that is masked and must be told from the video had better be one that can be seen there. Taggers need trained models;
the closed classes of English (articles, prepositions, pronouns, conjunctions, modal verbs) are a short list that does not
grow. Every other word, in any language, counts as content, and so do parts of words.
"""

from collections.abc import Sequence

_CLOSED_CLASSES = """
a an the this that these those some any each every either neither no all both such another
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
we us our ours ourselves they them their theirs themselves who whom whose which what one someone somebody something
anyone anybody anything everyone everybody everything noone nobody nothing
about above across after against along amid among around as at before behind below beneath beside besides between beyond
by despite down during except for from in inside into near of off on onto out outside over past per since than through
throughout till to toward towards under underneath until unto up upon via with within without
and but or nor so yet if because although though unless whereas whether while when where why how
can could may might must shall should will would ought
's 're 've 'll 'd 'm n't s t
"""
_FUNCTION_WORDS = frozenset(_CLOSED_CLASSES.split())


def is_function_word(text: str | None) -> bool:
    """Also for numbers and punctuation. None, a part of a word, is none."""
    if text is None:
        return False
    word = text.casefold()
    return word in _FUNCTION_WORDS or not any(character.isalpha() for character in word)


def whole_words(pieces: Sequence[str]) -> tuple[str | None, ...]:
    """Spellings without the tokenizer's signs where a piece is a whole word, "" where it is (a mark), None for parts of
    words. Knows the signs of CLIP (end of word), of SentencePiece and GPT (begin), and of BERT (continuation)."""
    if any(piece.endswith("</w>") for piece in pieces):
        ends = [not piece or piece.endswith("</w>") for piece in pieces]
        begins = [True, *ends[:-1]]
    elif any(piece[:1] in _BEGIN_SIGNS for piece in pieces):
        begins = [not piece or piece[0] in _BEGIN_SIGNS for piece in pieces]
        ends = [*begins[1:], True]
    else:
        begins = [not piece.startswith("##") for piece in pieces]
        ends = [*begins[1:], True]
    return tuple(
        piece.removesuffix("</w>").lstrip("".join(_BEGIN_SIGNS)) if begin and end else None
        for piece, begin, end in zip(pieces, begins, ends, strict=True)
    )


_BEGIN_SIGNS = ("\u2581", "\u0120")
