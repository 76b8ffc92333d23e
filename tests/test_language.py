"""American spelling in code, configs and documentation."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEMS = [
    "normal",
    "initial",
    "local",
    "optim",
    "organ",
    "general",
    "summar",
    "visual",
    "quant",
    "penal",
    "minim",
    "maxim",
    "serial",
    "recogn",
    "vector",
    "standard",
    "parametr",
    "regular",
    "discret",
    "categor",
    "priorit",
    "stabil",
    "symmetr",
    "synchron",
    "token",
    "util",
    "memor",
    "random",
    "custom",
    "final",
    "central",
    "equal",
    "orthogonal",
    "solar",
    "summar",
    "emphas",
]
BRITISH = re.compile(
    rf"(?:{'|'.join(STEMS)})is(?:e|ed|es|er|ers|ing|ation|ations|able)(?![a-z])"
    r"|colour|centre|grey|neighbour|behaviour|favour|honour|licence|labelled|labelling|modelled"
    r"|modelling|artefact|catalogue|travell(?:ed|ing)|cancell(?:ed|ing)|judgement|defence|learnt"
    r"|spelt|burnt|whilst|analyse|signall(?:ed|ing)|levelled",
    re.IGNORECASE,
)
# Old names that still work are spelled as they were: these files bridge or test them.
BRIDGES = re.compile(
    r"renamed_keys\(|renamed_names\(|def centre|\.centre\"|\{prefix\}centre|unlabelled"
)
WITH_OLD_NAMES = (
    "mixplug/renamed.py",
    "tests/test_language.py",
    "tests/test_renamed.py",
    "tests/test_moved.py",
)


def lines() -> Iterator[tuple[str, int, str]]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.split() or [
        str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*.*") if path.is_file()
    ]
    for name in names:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".jinja", ".css") and name not in WITH_OLD_NAMES:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield name, number, line


def test_spelling_is_american() -> None:
    found = [
        f"{name}:{number}: {match[0]}"
        for name, number, line in lines()
        if not BRIDGES.search(line)
        for match in BRITISH.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_british_spelling_is_found() -> None:
    for word in ("normalised", "colour", "centre_decay", "Neighbour", "initialisation", "grey"):
        assert BRITISH.search(word), word
    for word in ("precise", "localist", "realistic", "noise", "otherwise", "normalized", "center"):
        assert not BRITISH.search(word), word
