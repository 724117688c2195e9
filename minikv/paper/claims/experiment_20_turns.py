"""Twenty turns: bytes by formula and measured, and what the printed megabytes can mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...experiments import read_conversation
from ...experiments.accounting import PAPER_DIRECT, PAPER_FULL, paper_budget, shape_bytes
from ...experiments.memory import Turn, converse, memory
from ...experiments.plots import below, labelled, lines, printed
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from .equation_28 import held

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYSTEM = "You are a concise assistant."
REPLY = 30
SHAPE = "gemma-3-4b"
OTHER = "deepseek-r1-distill-qwen-1.5b"
OTHER_BUDGET = 150
OTHER_RATIO = 4.7
MEGABYTES = {"10^6": 10**6, "2^20": 2**20}


def counted(megabyte: int) -> dict[str, int | float]:
    """The paper's figures by its formulas: tokens of 103 MB, and what 42 MB leaves for a budget."""
    tokens = paper_budget(megabyte)["tokens"]
    kv = shape_bytes(SHAPE, "K/V")
    residual = shape_bytes(SHAPE, "embedding")
    budget = budget_of(PAPER_DIRECT * megabyte, kv, residual, tokens)
    return {
        "tokens": tokens,
        "budget": budget,
        "budget_with_all_residuals": paper_budget(megabyte)["budget"],
        "tokens_a_turn": tokens / 20,
        "none_kept": held(SHAPE, tokens, 0, "embedding") / megabyte,
        "budget_kept": held(SHAPE, tokens, budget, "embedding") / megabyte,
        "per_layer_none_kept": held(SHAPE, tokens, 0, "every") / megabyte,
        "other_full": tokens * shape_bytes(OTHER, "K/V") / megabyte,
        "other_tokens": OTHER_RATIO * OTHER_BUDGET * megabyte / shape_bytes(OTHER, "K/V"),
    }


def budget_of(size: float, kv: int, residual: int, tokens: int) -> int:
    """The largest budget at which equation 28 holds no more than `size` bytes.

    Examples
    --------
    >>> budget_of(42e6, 139264, 5120, 740)
    284
    """
    return int((size - tokens * residual) // (kv - residual))


def run(setting: Setting) -> Finding:
    """Hold the conversation, and feed it to a full cache, and at once to KV-Direct."""
    model = setting.model(setting.names[0])
    questions = read_conversation("conversation-france")[: setting.choose(20, 3)]
    turns = converse(model, questions, setting.choose(REPLY, 8), setting.progress, SYSTEM)
    tokens = sum(len(asked) + len(reply) for asked, reply in turns)
    config = model.config
    dtype = f"float{8 * model.arithmetic.itemsize}"
    kv = config.kv_bytes_per_token(dtype)
    residual = config.residual_bytes_per_token(dtype)
    wanted = PAPER_DIRECT / PAPER_FULL * tokens * kv
    budget = max(1, budget_of(wanted, kv, residual, tokens))
    share = f"residual:embedding@{budget}"
    none = "residual:embedding@0"
    rows = memory(model, turns, ("full",), setting.progress)
    at_end = memory(model, [joined(turns)], (share, none), setting.progress)
    counted_rows = [
        {
            "setting": kept,
            "turn": row["turn"],
            "bytes": by_formula(kept, row["tokens"], budget, kv, residual),
        }
        for kept in ("full", share, none)
        for row in rows
    ]
    rows += [{**row, "turn": len(turns)} for row in at_end]
    for row in rows:
        row["formula"] = by_formula(row["setting"], row["tokens"], budget, kv, residual)
    last = [row for row in rows if row["turn"] == len(turns)]
    base = last[0]["seconds_per_token"]
    figures = {
        "counted": {said: counted(megabyte) for said, megabyte in MEGABYTES.items()},
        "turns": rows,
        "formula": counted_rows,
        "tokens": tokens,
        "budget": budget,
        "bytes_per_token": {"kv": kv, "residual": residual},
        "times_full": {row["setting"]: row["seconds_per_token"] / base for row in last},
        "as_formula": all(row["bytes"] == row["formula"] for row in rows),
    }
    return told_of(figures)


def joined(turns: Sequence[Turn]) -> Turn:
    """The whole conversation as one turn, to measure its end alone, which takes less long."""
    *_, (_, reply) = turns
    ids = [token for asked, answer in turns for token in [*asked, *answer]]
    return ids[: len(ids) - len(reply)], reply


def by_formula(setting: str, tokens: int, budget: int, kv: int, residual: int) -> int:
    """Bytes that a cache of these settings should count: K and V of the newest, all residuals.

    Equation 28 has no residual for the `budget` newest; this cache, and the theorems, keep theirs.
    """
    if setting == "full":
        return tokens * kv
    kept = 0 if setting.endswith("@0") else min(budget, tokens)
    return kept * kv + tokens * residual


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    rows = [
        *_counted_rows(figures["counted"]),
        *_measured_rows(figures["turns"], figures["times_full"]),
    ]
    columns = ("what", "paper", "ours", "measured (tracemalloc)", "time a token / full cache's")
    return Finding(*told(figures), columns, tuple(rows), figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether caches count as equation 28 does, and which settings have the paper's figures."""
    small = figures["counted"]["10^6"]
    times = figures["times_full"]
    share, none = (name for name in times if name != "full")
    verdict = Verdict.DIFFERS
    if figures["as_formula"] and round(small["budget_kept"]) == PAPER_DIRECT:
        verdict = Verdict.ONE_READING
    return verdict, (
        f"At {SHAPE}'s shape {PAPER_FULL} MB (10^6 bytes) are K and V of {small['tokens']} tokens, "
        f"{small['tokens_a_turn']:.0f} a turn, and {PAPER_DIRECT} MB are equation 28 with a budget "
        f"of {small['budget']} tokens. But section 6 says B = 0, which by the same equation holds "
        f"{small['none_kept']:.1f} MB, and {small['per_layer_none_kept']:.0f} with a vector at "
        "every layer (algorithm 1). With B = 0 a new token took "
        f"{times[none]:.0f} times the full cache's time here at the end, with {figures['budget']} "
        f"kept {times[share]:.0f} times, in one run. The other setting's {OTHER_BUDGET} MB are "
        f"above the full cache of such a conversation at {OTHER}'s shape, "
        f"{small['other_full']:.0f} MB: a ratio of {OTHER_RATIO} needs "
        f"{small['other_tokens']:,.0f} tokens."
    )


def _counted_rows(told: Figures) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for said, of in told.items():
        where = f"{SHAPE}, MB = {said}"
        rows += [
            (f"{where}: tokens of full K and V", f"{PAPER_FULL} MB", of["tokens"], None, None),
            (f"{where}: budget B, equation 28", f"{PAPER_DIRECT} MB", of["budget"], None, None),
            (f"{where}: B = 0 (MB)", f"{PAPER_DIRECT} MB", of["none_kept"], None, None),
        ]
    return rows


def _measured_rows(turns: Sequence[dict[str, Any]], times: Figures) -> list[tuple[Cell, ...]]:
    last = max(row["turn"] for row in turns)
    return [
        (
            f"turn {row['turn']}, {row['tokens']} tokens, {row['setting']} (bytes)",
            None,
            row["bytes"],
            row["allocated"],
            times[row["setting"]] if row["turn"] == last else None,
        )
        for row in turns
        if row["turn"] in (1, last // 2, last)
    ]


def plot(figure: Figure, figures: Figures) -> None:
    """Bytes by turn, as counted and as measured; and the paper's two, at its shape, by formula."""
    left, right = figure.subplots(1, 2)
    turn = "turn of the conversation"
    labelled(left, turn, "held by the cache (MB = 10⁶ bytes)", "here: counted, and measured")
    labelled(right, turn, "", f"the paper: {SHAPE}, equation 28")
    points = [
        (_label(row["setting"]), row["turn"], row["bytes"] / 1e6) for row in figures["formula"]
    ]
    points += [
        (f"{_label(row['setting'])}, measured", row["turn"], row["allocated"] / 1e6)
        for row in figures["turns"]
    ]
    lines(left, points, x_ticks=(1, 5, 10, 15, 20), bottom=0)
    told = figures["counted"]["10^6"]
    budgets = {"full": told["tokens"], _label("@B"): told["budget"], _label("@0"): 0}
    theirs = []
    for name, budget in budgets.items():
        for number in range(1, 21):
            tokens = round(told["tokens_a_turn"] * number)
            size = held(SHAPE, tokens, min(budget, tokens), "embedding")
            theirs.append((name, number, size / 1e6))
    printed(right, "the paper, full cache", [(20, PAPER_FULL)], "^")
    printed(right, "the paper, KV-Direct", [(20, PAPER_DIRECT)], "v")
    lines(right, theirs, x_ticks=(1, 5, 10, 15, 20), bottom=0)
    below(figure, (left, right), 3)


def _label(setting: str) -> str:
    """A setting as the legend has it."""
    if setting == "full":
        return "full"
    return "KV-Direct, B = 0" if setting.endswith("@0") else "KV-Direct, its budget"


CLAIM = Claim(
    id="experiment-20-turns",
    where="The experiment of 20 turns",
    title="Memory of a conversation is 42 MB in place of 103, at the same latency",
    says=(
        f"after 20 turns of {REPLY} tokens at Gemma 3-4B, {PAPER_FULL} MB of cache are "
        f"{PAPER_DIRECT} MB, with equal time a turn (0.07 to 0.26 s); elsewhere a budget of "
        f"{OTHER_BUDGET} MB and a ratio of {OTHER_RATIO} on DeepSeek-R1-1.5B; section 6 says that "
        "the prototype has B = 0 and recomputes everything. It quotes another's program on a model "
        "of 12B, 978 MB to 150 and 13 s a turn to 4."
    ),
    protocol=(
        f'the system prompt "{SYSTEM}", 20 questions of ours on the paper\'s topics (France, the '
        f"Eiffel Tower), {REPLY} tokens a turn, greedily, float32; a full cache, KV-Direct with "
        "the budget that has the paper's share of it by equation 28, and KV-Direct with B = 0, "
        "both measured at the end alone. Bytes as the cache counts them and as tracemalloc "
        "finds them allocated; the median time of the last three tokens of the last turn, all "
        "settings in one run. The paper's megabytes are counted at its shapes in bfloat16. The "
        "program that it quotes is not run."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
    exact=("counted",),
)
