"""One tree of errors; the class of an error fixes the exit code of the command that met it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DecentralError(Exception):
    """Anything this project refuses or reports. The message gives value, expectation and next step.

    Attributes:
        exit_code: what ``decentral`` exits with when this error ends it.
        run_folder: where the report of what was measured lies, if there is one.
    """

    exit_code = 1
    run_folder: Path | None = None


class ConfigError(DecentralError):
    """The experiment file, a flag or a hyper-parameter is impossible. Nothing has been started.

    Args:
        problems: one sentence each: ``key.path = value: expectation; next step``.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class PreflightError(DecentralError):
    """This machine lacks something that the experiment needs (space, memory, a port, a version)."""

    exit_code = 3


class CheckpointError(PreflightError):
    """A checkpoint is missing, damaged, half written or of another version; the message names the file."""


class DataError(ConfigError):
    """A data set is missing, incomplete or damaged; the message says which files to put where."""


class RunFailed(DecentralError):
    """A node or host failed; the message starts with the first cause."""

    exit_code = 4


class Deadlock(RunFailed):
    """Every node waits for another; the message lists who waits for what.

    Args:
        message: the list.
        node: who waits longest, so that its wait is no consequence of another; None where that is unknown.
        senders: whose messages have arrived for it meanwhile.
    """

    def __init__(self, message: str, node: int | None = None, senders: Sequence[int] = ()) -> None:
        self.node = node
        self.senders = tuple(senders)
        super().__init__(message)

    def at(self, node: int, what: str) -> Deadlock:
        """The same as node ``node`` sees it, which knows best what it waits for."""
        here = f"; of nodes {', '.join(map(str, self.senders))} they are here" if self.senders else ""
        return Deadlock(f"{self}\nnode {node} waits for {what}{here}", node, self.senders)


class StalledError(RunFailed):
    """A node waited longer than the liveness timeout; the message says for whom and which round."""

    @classmethod
    def after(cls, timeout_s: float, node: int, what: str) -> StalledError:
        """``node`` heard nothing for ``timeout_s`` while it waited for ``what``."""
        return cls(
            f"node {node} heard nothing for {timeout_s:g} s while it waited for {what}; look for a slow or "
            f"stopped node, or raise run.liveness_timeout_s"
        )


class Interrupted(DecentralError):
    """The user ended the run; what was measured so far is kept."""

    exit_code = 5


class NotTrustworthy(DecentralError):
    """Under ``--strict``: paced links did not keep their promises; the report says which."""

    exit_code = 6


class WireError(DecentralError):
    """A frame that is not ours, malformed, oversized, foreign or replayed.

    Args:
        reason: one short word per kind of refusal; refusals are counted under it.
        detail: what was found.
    """

    exit_code = 4

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")
