"""The weights of one rank: read, prepared and held are the rank's parts alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .. import __version__
from ..arithmetic import Arithmetic, Matrix
from ..backends import get_backend, keep_large_blocks
from ..build import Preparation, Tensors, digest_of
from ..config import ModelConfig
from ..decoder import Weights
from ..model import Model
from ..tokenizer import Tokenizer
from ..weights import load_tensors, release, resolve
from .comm import Comm
from .share import Share, even_shares
from .sums import SplitSums, Words, split_sums

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SplitModel(Model):
    """A rank's part of a model, which all ranks call together; its logits are the whole model's.

    Its caches hold the K and V of the rank's heads. They can be those of `POLICIES_BY_HEAD`: other
    policies look at all heads to decide what goes, and no rank has all.

    Attributes
    ----------
    share : Share
    comm : Comm
    """

    share: Share
    comm: Comm


class Parts(Mapping[str, np.ndarray]):
    """A rank's parts of tensors that lie in memory."""

    def __init__(self, whole: Tensors, share: Share) -> None:
        self.whole = whole
        self._share = share

    def __getitem__(self, name: str) -> np.ndarray:
        return self.whole[name][self._share.part(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)


@dataclass(frozen=True)
class RankPreparation(Preparation):
    """`Preparation` of a rank's parts, which knows what is split in which way."""

    share: Share

    def matrix(self, name: str, tied: bool = False) -> Matrix:
        if name.endswith("o_proj"):
            return self._columns(name, self.share.whole.attention_width)
        if name.endswith("down_proj"):
            return self._columns(name, self.share.whole.intermediate_size)
        return super().matrix(name, tied)

    def words(self, prepared: Matrix) -> Words:
        """The rank's rows of the embedding or the output matrix."""
        return Words(prepared, self.share.words.start)

    def _columns(self, name: str, terms: int) -> Matrix:
        tensor = self.given(f"{name}.weight")
        assert isinstance(self.arithmetic, SplitSums)
        prepared = self.arithmetic.columns(tensor, name, terms)
        release([tensor])
        return prepared


def build_rank(
    share: Share,
    tensors: Tensors,
    comm: Comm,
    arithmetic: str | Arithmetic = "exact",
    backend: str = "numpy",
) -> Weights:
    """A rank's weights; all ranks call it together.

    Parameters
    ----------
    share : Share
        Of this rank.
    tensors : mapping of str to ndarray
        The rank's parts by Hugging Face's names: `Parts`, or those of `load_tensors`.
    comm : Comm
    arithmetic, backend : str
        As in `minikv.build.build`.

    Returns
    -------
    Weights
        Of the shape ``share.config``: the decoder and the caches see a model with fewer heads. Its
        identity is that of the whole model.
    """
    keep_large_blocks()
    chosen = split_sums(get_backend(backend, arithmetic, share.whole.max_position_embeddings), comm)
    prepare = RankPreparation(share.config, tensors, chosen, share)
    tied = share.whole.tie_word_embeddings
    head = "model.embed_tokens" if tied else "lm_head"
    return Weights(
        share.config,
        prepare.arithmetic,
        embed_tokens=prepare.words(prepare.vector("model.embed_tokens.weight")),
        layers=prepare.layers(),
        norm=prepare.norm("model.norm"),
        lm_head=prepare.words(prepare.matrix(head, tied=tied)),
        digest=digest_of(share.whole, whole_of(tensors)),
    )


def whole_of(tensors: Tensors) -> Tensors:
    """The whole tensors of which these are parts: what a digest is of."""
    return tensors.whole if isinstance(tensors, Parts) else tensors


def split_model(
    config: ModelConfig,
    tensors: Tensors,
    comm: Comm,
    arithmetic: str | Arithmetic = "exact",
    backend: str = "numpy",
    shares: Sequence[Share] | None = None,
) -> SplitModel:
    """A rank of a model whose tensors lie in memory, for tests and theorems."""
    if shares is None:
        shares = even_shares(config, comm.size)
    share = shares[comm.rank]
    weights = build_rank(share, Parts(tensors, share), comm, arithmetic, backend)
    return SplitModel(weights, share=share, comm=comm)


def load_rank(
    name_or_folder: str | Path,
    comm: Comm,
    arithmetic: str | Arithmetic = "exact",
    backend: str = "numpy",
    shares: Sequence[Share] | None = None,
) -> SplitModel:
    """Load a rank's part of a fetched model; all ranks call it together.

    The ranks first compare their code and their weights, so that no other model takes part.

    Parameters
    ----------
    name_or_folder : str or Path
    comm : Comm
    arithmetic, backend : str
        As in `minikv.load`.
    shares : sequence of Share, optional
        Of all ranks; as even as can be by default.

    Returns
    -------
    SplitModel
        Of the rank's shape; its logits are those of the whole model, on every rank.

    Raises
    ------
    RankError
        If ranks have other weights or another version of minikv, or one of them fails.
    InputError
        If there are more ranks than heads.
    """
    comm.expect_alike("minikv's code", f"{__version__} {code_digest()}")
    folder = resolve(name_or_folder)
    config = ModelConfig.from_folder(folder)
    if shares is None:
        shares = even_shares(config, comm.size)
    share = shares[comm.rank]
    tensors = load_tensors(folder, config, share.part)
    comm.expect_alike("weights", digest_of(config, tensors)())
    tokenizer = Tokenizer.from_folder(folder) if (folder / "tokenizer.json").exists() else None
    weights = build_rank(share, tensors, comm, arithmetic, backend)
    return SplitModel(weights, tokenizer, folder, share=share, comm=comm)


@cache
def code_digest() -> str:
    """SHA-256 of minikv's own files, the first digits: two versions may compute two things."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
