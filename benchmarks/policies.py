"""What a policy's bookkeeping costs: decoding at its budget beside a full cache of as many tokens.

    python -m benchmarks.policies             # needs  minikv fetch smollm2-135m-instruct
    python -m benchmarks.policies --random    # random weights of the same shape, nothing fetched
    OMP_NUM_THREADS=1 python -m benchmarks.policies --random --cpu

A token that is fed to a policy at its budget attends to `budget` tokens and itself, and then one is
dropped. Beside it the full cache is cut back to `budget` tokens before each token, so that both
attend to as many. The two take turns, step by step; printed is the median, over the steps, of
the ratio of their times, with its quartiles. Targets: at most 1.10 on one thread, 1.15 on more.
"""

from __future__ import annotations

import argparse
import statistics
import time

import minikv
from minikv.environment import environment
from minikv.experiments import machine
from minikv.experiments.timing import Clock, samples
from minikv.progress import Progress, silent, status

from .contenders import prompt
from .protocol import SMOLLM2_135M

POLICIES = ("h2o", "tova", "streaming_llm")
ONE_THREAD = 1.10
MORE_THREADS = 1.15
WARM_UP = 3  # steps that are not counted


def ratios(
    model: minikv.Model,
    policy: str,
    budget: int,
    steps: int,
    clock: Clock,
    progress: Progress = silent,
) -> list[float]:
    """Time of a step with a policy at its budget over that of one with `Full`, step by step."""
    text = prompt(budget + WARM_UP + steps, model.config.vocab_size)
    cache = model.new_cache(policy, budget=budget)
    full = model.new_cache()
    for each in (cache, full):
        model.forward([text[:budget]], [each], logits="none")
    tokens = iter(text[budget:])

    def step() -> None:
        model.forward([[next(tokens)]], [cache])

    def step_with_all() -> None:
        full.truncate(budget)
        model.forward([[text[-1]]], [full])

    calls = {policy: step, "full": step_with_all}
    times = samples(calls, WARM_UP + steps, progress, clock)
    found = [x / y for x, y in zip(times[policy], times["full"], strict=True)]
    return found[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policies", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--random", action="store_true", help="random weights of the same shape")
    parser.add_argument("--arithmetic", default="float32")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--budget", type=int, default=512, help="tokens kept (default 512)")
    parser.add_argument("--steps", type=int, default=100, help="tokens decoded (default 100)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for a busy machine")
    args = parser.parse_args()
    if args.random:
        config = minikv.ModelConfig(**SMOLLM2_135M)
        model = minikv.random_model(config, arithmetic=args.arithmetic, backend=args.backend)
    else:
        model = minikv.load(args.model, args.arithmetic, args.backend)
    target = ONE_THREAD if environment()["threads"] == 1 else MORE_THREADS
    clock = time.process_time if args.cpu else time.perf_counter
    for policy in args.policies:
        with status(f"{policy} and the full cache") as progress:
            found = ratios(model, policy, args.budget, args.steps, clock, progress)
        low, middle, high = statistics.quantiles(found, n=4)
        sign = "<=" if middle <= target else ">"
        quartiles = f"quartiles {low:.3f} to {high:.3f}"
        print(f"{policy} / full: {middle:.3f} {sign} {target} ({quartiles})", flush=True)
    kind = "processor" if args.cpu else "wall"
    print(f"{kind} time of {args.steps} steps at {args.budget} tokens; {args.arithmetic}")
    print(machine())


if __name__ == "__main__":
    main()
