"""The same decoder without its wider twin: nobody can say of what sort a difference is."""

from lecturer.projects.conform import good


class Decoder(good.Decoder):
    """It can neither be run wider nor be copied."""

    wide = None
    fork = None


decoder = Decoder
