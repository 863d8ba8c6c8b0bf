"""The one exception that means: the user can mend this."""

from hydra.errors import CompactHydraException


class UserError(CompactHydraException, ValueError):
    """A mistake outside the program: the message says what is wrong, where, and what to do.

    Hydra prints exceptions of this kind without a traceback and exits with 1, in single runs and
    in sweeps alike, so no command needs error handling of its own.
    """
