"""The errors that minikv raises for input that it cannot use.

Each message is one line that says what was given, what was expected and what to do.
The command line prints that line and exits with status 2.
"""


class MinikvError(ValueError):
    """Base of every error that minikv raises on purpose."""


class ConfigError(MinikvError):
    """A configuration does not fit together, or names a feature that is not built."""


class WeightsError(MinikvError):
    """A checkpoint is missing, damaged, or does not fit its configuration."""


class FetchError(MinikvError):
    """A model could not be fetched: unknown name, lost network, wrong checksum, full disk."""


class TokenizerError(MinikvError):
    """A tokenizer or chat template is missing or cannot be used."""


class InputError(MinikvError):
    """Tokens, prompt, positions or sampling parameters that the model cannot take."""


class CacheError(MinikvError):
    """A cache parameter or saved cache state that cannot be used."""


class ArithmeticRangeError(MinikvError):
    """A value that the chosen arithmetic does not cover (NaN, infinity, scale overflow)."""


class MissingExtraError(MinikvError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class RankError(MinikvError):
    """Another rank of a parallel run failed or was lost, or the ranks do not fit together."""
