"""The verb meant by an unknown word: one of the same meaning, or one misspelt by a single slip."""

from __future__ import annotations

from collections.abc import Collection

from convrun.text.wording import is_one_slip

# Verb -> what other tools call it. A word that only looks like a verb gets no suggestion: `evaluate` is not `validate`,
# and `export` is not `import`.
SYNONYMS = {
    "run": "train fit start resume continue finetune fine-tune",
    "validate": "check lint verify plan",
    "launch": "submit sbatch sweep",
    "list": "ls search find",
    "list runs": "runs jobs",
    "list recipes": "recipes",
    "list components": "components",
    "describe": "info inspect explain",
    "show": "cat print view",
    "copy": "cp new init create clone",
    "import": "convert",
    "status": "ps state queue squeue",
    "logs": "tail follow watch",
    "cancel": "stop kill abort scancel",
    "--help": "help",
    "--version": "version",
}
# A shorter word is one slip away from too many others.
SHORTEST_MISSPELT = 4


def meant(word: str, verbs: Collection[str]) -> str | None:
    """What to type after `convrun` in place of a word: a verb that means the same, or that was misspelt by one slip."""
    word = word.lower()
    verb_of = {synonym: verb for verb, synonyms in SYNONYMS.items() for synonym in synonyms.split()}
    verb_of |= {verb: verb for verb in verbs}
    if word in verb_of:
        return verb_of[word]
    misspelt = [verb for verb in verbs if is_one_slip(word, verb)]
    if not misspelt and len(word) >= SHORTEST_MISSPELT:
        misspelt = [verb for synonym, verb in verb_of.items() if is_one_slip(word, synonym)]
    return misspelt[0] if len(set(misspelt)) == 1 else None
