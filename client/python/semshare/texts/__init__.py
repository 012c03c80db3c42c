"""Documents, seeded edits and prompts for evaluating reuse.

`document(name)` loads a text that ships with Debian or with this package, the functions of
`semshare.texts.edits` change it by a seed, and `PairMaker` turns both into pairs of prompts: what
was served before (the reference) and what is asked now (the target). The same seed gives the same
text in every process and on every machine. Needs the standard library only.

`build_corpus` makes all pairs of the fidelity report; besides, it needs what `deploy/setup.sh
report` installs.
"""

from semshare.texts.chat import ChatPrompt, Conversation
from semshare.texts.corpus import CORPUS_CLASSES, CorpusPair, build_corpus
from semshare.texts.documents import (
    Document,
    DocumentError,
    document,
    document_license,
    document_names,
    fit,
    read_document,
)
from semshare.texts.edits import (
    delete_sentences,
    insert_passage,
    reorder_passages,
    replace_words,
)
from semshare.texts.pairs import CLASSES, PairMaker, PromptPair

__all__ = [
    "CLASSES",
    "CORPUS_CLASSES",
    "ChatPrompt",
    "Conversation",
    "CorpusPair",
    "Document",
    "DocumentError",
    "PairMaker",
    "PromptPair",
    "build_corpus",
    "delete_sentences",
    "document",
    "document_license",
    "document_names",
    "fit",
    "insert_passage",
    "read_document",
    "reorder_passages",
    "replace_words",
]
