"""The atlas: sixty-two ways of treating a decoder's cache, and what each keeps and loses.

Nothing of the library imports it unless it is asked for: ``minikv atlas``, ``atlas:NAME`` where a
cache policy is named, or ``import minikv.atlas``. Weights are never trained here: where a system
learns something, its rule runs with what it is given, and its entry says so.
"""

from .entry import Comparison as Comparison
from .entry import Entry as Entry
from .entry import Exactness as Exactness
from .entry import Kind as Kind
from .registry import atlas_policies as atlas_policies
from .registry import entries as entries
from .registry import entry_named as entry_named
from .registry import policy_named as policy_named
