"""The systems that nothing here runs, and why: they are hardware, or training, or no systems."""

from __future__ import annotations

from .entry import Entry, Exactness, Kind

UNKNOWN = "a summary of its card; no paper was found"


def _entry(name: str, title: str, kind: Kind, state: str, reason: str, arxiv: str = "") -> Entry:
    read = "a summary of the abstract" if arxiv else UNKNOWN
    return Entry(
        name=name,
        title=title,
        arxiv=arxiv,
        kind=kind,
        state=state,
        verdict=Exactness.NOT_BUILT,
        reason=reason,
        read=read,
    )


NOT_BUILT: tuple[Entry, ...] = (
    _entry(
        "spe_context",
        "SpeContext",
        Kind.SELECTING,
        "the full cache; a small model says what is read",
        "Training: the model that retrieves is distilled. All read would be the full cache.",
        "2512.00722",
    ),
    _entry(
        "chunk_llm",
        "ChunkLLM",
        Kind.SELECTING,
        "the full cache; adapters say what is read",
        "Training: adapters of queries, keys and borders. All chunks would be the full cache.",
        "2510.02361",
    ),
    _entry(
        "superlinear_attention",
        "Superlinear attention",
        Kind.SELECTING,
        "the full cache, searched in spans",
        "Training: the search is part of an architecture that is trained; on other weights it "
        "means nothing.",
        "2601.18401",
    ),
    _entry(
        "vita_llm",
        "VitaLLM",
        Kind.SELECTING,
        "the full cache; scores from leading digits say what is fetched",
        "Hardware: an accelerator of ternary weights.",
        "2604.27396",
    ),
    _entry(
        "gpt_oss_puzzle",
        "gpt-oss-puzzle-88B",
        Kind.QUANTISING,
        "rows of eight bits, and windows in some layers",
        "Training: layers are searched for, and recovered by reinforcement learning. Its parts, "
        "windows and rounded rows, are in other entries.",
    ),
    _entry(
        "flash_vggt",
        "FlashVGGT",
        Kind.MERGING,
        "descriptors of images, many tokens to one",
        "Training, and images in three dimensions.",
        "2512.01540",
    ),
    _entry(
        "edge_reasoning",
        "Efficient Reasoning on the Edge",
        Kind.REUSING,
        "the cache of the prompt, shared by two sets of weights",
        "Training: adapters and forced budgets. Shared rows are exact where the prompt was read "
        "with the same weights: T1 is of one set of weights.",
        "2603.16867",
    ),
    _entry(
        "block_llm",
        "BlockLLM",
        Kind.REUSING,
        "each block's rows, by model and request",
        "A serving system for many tuned models. An equal block that reads an equal stream makes "
        "equal rows: T1.",
        "2404.18322",
    ),
    _entry(
        "molmo_act",
        "MolmoAct2",
        Kind.REUSING,
        "the rows of each layer, read by another network",
        "Training, and robots: an expert is grafted onto the cache.",
        "2605.02881",
    ),
    _entry(
        "tays",
        "TaYS",
        Kind.SPLITTING,
        "two caches, one of what is seen and one of what is thought",
        "Training, and films. Two caches that are merged are one where the mask says so: see "
        "TokenRing.",
        "2603.02872",
    ),
    _entry(
        "tnt",
        "TNT",
        Kind.STATE,
        "weights that are trained while reading, some of them reset",
        "Training: the memory itself is learnt, in two stages.",
        "2511.07343",
    ),
    _entry(
        "hsa",
        "HSA",
        Kind.STATE,
        "streams of tokens at different steps of denoising",
        "A diffusion transformer for films, which is no decoder.",
        "2605.06892",
    ),
    _entry(
        "kv_survey",
        "KV Cache Optimization survey",
        Kind.STUDY,
        "none",
        "No system: it sorts others in five directions, and names no single best.",
        "2603.20397",
    ),
    _entry(
        "serving_study",
        "Reasoning-LLM serving study",
        Kind.STUDY,
        "none",
        "No system: measurements. They warn that reuse and few bits may cost small models "
        "accuracy.",
        "2510.18672",
    ),
    _entry(
        "prefill_token_equivalents",
        "PTE",
        Kind.STUDY,
        "none",
        "No system: a measure of cost on hardware. `minikv.parallel.cost` and `minikv memory` "
        "count bytes and operations here.",
        "2604.05404",
    ),
)
