"""Tokenizers of every kind that the supported encoders have, trained on a few words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sentencepiece
from tokenizers import ByteLevelBPETokenizer, normalizers, pre_tokenizers  # type: ignore[import-untyped]
from transformers import (
    BertTokenizerFast,
    DebertaV2TokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    T5TokenizerFast,
    XLMRobertaTokenizerFast,
)

from er.testing import tiny_config, tiny_tokenizer

TEXT = [
    "the cell binds the protein",
    "alpha-1 inhibits beta, and it's (not) 25 % of them",
    "an ähnlich naïve 语言",
] * 20


def wordpiece(folder: Path) -> PreTrainedTokenizerBase:
    """BERT's: single letters, lower case, without accents."""
    return tiny_tokenizer(tiny_config("bert"))


def cased_wordpiece(folder: Path) -> PreTrainedTokenizerBase:
    """As SciBERT's cased one."""
    file = folder / "vocab.txt"
    letters = sorted({letter for text in TEXT for letter in text if not letter.isspace()})
    pieces = [mark + each for each in [*letters, "the", "cell"] for mark in ("", "##")]
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]), encoding="utf-8")
    return BertTokenizerFast(str(file), do_lower_case=False)


def byte_bpe(folder: Path, prefix: bool = False) -> PreTrainedTokenizerBase:
    """RoBERTa's; `prefix` puts a space before the first word, too."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXT, vocab_size=320, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    return RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=prefix)


def byte_bpe_with_prefix(folder: Path) -> PreTrainedTokenizerBase:
    """RoBERTa's, as its own documentation wants it for words."""
    return byte_bpe(folder, prefix=True)


def modern_bpe(folder: Path) -> PreTrainedTokenizerBase:
    """ModernBERT's: bytes again, but no class of its own, and other special tokens."""
    backend = byte_bpe(folder).backend_tokenizer
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


def sentence_model(folder: Path, kind: str) -> str:
    """Train a SentencePiece model; return its file."""
    (folder / "text").write_text("\n".join(TEXT), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "spm"),
        vocab_size=70,
        model_type=kind,
        hard_vocab_limit=False,
        pad_id=3,
        minloglevel=2,
    )
    return str(folder / "spm.model")


def t5(folder: Path) -> PreTrainedTokenizerBase:
    """T5's: Unigram, one special token, behind the text."""
    return T5TokenizerFast(sentence_model(folder, "unigram"), extra_ids=0)


def deberta(folder: Path) -> PreTrainedTokenizerBase:
    """DeBERTa-v2's: Unigram."""
    return DebertaV2TokenizerFast(sentence_model(folder, "unigram"))


def xlmr(folder: Path) -> PreTrainedTokenizerBase:
    """XLM-RoBERTa's: Unigram, other special tokens."""
    return XLMRobertaTokenizerFast(sentence_model(folder, "unigram"))


KINDS: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
    make.__name__: make
    for make in (wordpiece, cased_wordpiece, byte_bpe, byte_bpe_with_prefix, modern_bpe, t5, deberta, xlmr)
}
