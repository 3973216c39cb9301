"""Near-duplicate texts within groups (the questions about one image) by b-bit MinHash: 132 bytes a text and some 150 a group.

Sources: Broder 1997, "On the resemblance and containment of documents"; Li & König 2010, "b-Bit Minwise Hashing" (arXiv 0910.3349).
A group is small, so its texts are compared one by one and no bands are needed; the usual library keeps kilobytes a text.
"""

import re
import zlib
from array import array

import numpy as np

from inbol_jax.extrinsic.facts import hash_texts

_WORD = re.compile(r"\w+")
SHINGLE = 3  # characters
HASHES = 128
# Multiply-shift (Dietzfelbinger 1996): 32 bits in, the upper 32 of 64 out. Fixed numbers: a run must be repeatable.
_A, _B = np.random.default_rng(20241217).integers(0, 1 << 64, (2, HASHES, 1), np.uint64)


def shingles(text: str) -> set[bytes]:
    """All runs of three characters of the text's words, case and punctuation aside."""
    line = f" {' '.join(_WORD.findall(text.lower()))} "
    return {
        line[i : i + SHINGLE].encode("utf-8", "replace")
        for i in range(max(1, len(line) - SHINGLE + 1))
    }


def signature(text: str) -> np.ndarray:
    """u8[HASHES]: for each hash function the low byte of its least value over the text's shingles."""
    hashes = np.fromiter(map(zlib.crc32, shingles(text)), np.uint64)
    return np.asarray(
        ((_A * hashes + _B) >> np.uint64(32)).min(axis=1).astype(np.uint8)
    )  # modulo 2^64, as it should be


class NearDuplicates:
    """Finds the text of a group that a new one is nearly the same as."""

    def __init__(self) -> None:
        self._signatures = np.empty((1024, HASHES), np.uint8)
        self._before = array("q")  # the text that its group had before, -1 for none
        self._last: dict[int, int] = {}  # by a hash of the group

    def similarity(self, group: str, text: str) -> float:
        """Estimate of the largest Jaccard similarity of the text's shingles to those of a text in the group, in [0, 1], to about 0.04."""
        rows, row = [], self._last.get(hash_texts(group), -1)
        while row >= 0:
            rows.append(row)
            row = self._before[row]
        if not rows:
            return 0.0
        equal = (self._signatures[rows] == signature(text)).mean(axis=1).max()
        return max(
            0.0, (float(equal) - 1 / 256) / (1 - 1 / 256)
        )  # low bytes are equal by chance once in 256

    def add(self, group: str, text: str) -> None:
        """Remembers a text."""
        n = len(self._before)
        if n == len(self._signatures):
            self._signatures = np.concatenate(
                [self._signatures, np.empty((n // 2, HASHES), np.uint8)]
            )
        self._signatures[n] = signature(text)
        key = hash_texts(group)
        self._before.append(self._last.get(key, -1))
        self._last[key] = n
