"""DenseFormer: each block's output is averaged with the streams of all earlier layers.

Pagliardini et al. 2024, arXiv 2402.02622. The stream at layer l is not the whole state: the earlier
layers' streams are read again. The cure is to carry all of them.
"""

from . import one_pass, record, replace, same

THEOREM = "T2"


def architecture():
    history = []

    def hook(name, value):
        if name == "hook_embed" or name.endswith("hook_resid_post"):
            history.append(value)
            return sum(history) / len(history)
        return value

    return hook


def _patched(case, whole_history: bool) -> bool:
    donor: dict = {}
    expected = one_pass(case, case.ids, record(donor), architecture())
    for layer in range(1, case.model.config.num_hidden_layers):
        raw = {"hook_embed", *(f"blocks.{below}.hook_resid_post" for below in range(layer))}
        names = raw if whole_history else {f"blocks.{layer - 1}.hook_resid_post"}
        patch = replace(**{name: donor[name] for name in names})
        if not same(one_pass(case, case.other, patch, architecture()), expected):
            return False
    return True


def refuted(case) -> bool:
    return not _patched(case, whole_history=False)


def cured(case) -> bool:
    return _patched(case, whole_history=True)
