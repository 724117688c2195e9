"""In-place rewriting: after each call, the values of all tokens so far are halved.

The cache has become a state of its own, which depends on the history of calls, not on the stream.
"""

from minikv.caches import Full

from . import call_by_call, same

THEOREM = "T3"


class Fading(Full):
    def advance(self, tokens):
        super().advance(tokens)
        for v in self._v:
            v[: self.seen] /= 2


def refuted(case) -> bool:
    return not same(call_by_call(case, Fading(case.model.weights)), case.logits)
