"""What a decoder keeps between calls: one policy a file, one class a policy.

Each policy's file registers it by name (`register`); a new one needs its line among these imports.
"""

from .base import Cache as Cache
from .evicting import Evicting as Evicting
from .evicting import Rows as Rows
from .full import Full as Full
from .h2o import H2O as H2O
from .none import NoCache as NoCache
from .registry import POLICIES as POLICIES
from .registry import Example as Example
from .registry import evicting as evicting
from .registry import examples as examples
from .registry import make_cache as make_cache
from .registry import register as register
from .residual import Residual as Residual
from .scheduled import Scheduled as Scheduled
from .snapkv import SnapKV as SnapKV
from .streaming_llm import StreamingLLM as StreamingLLM
from .tova import TOVA as TOVA
from .window import Window as Window
