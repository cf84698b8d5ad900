"""What a client call can raise.

ClientError
├── ApiError           the gateway answered with a problem
├── UnreachableError   no gateway answered
├── ProtocolError      the answer isn't one of this interface's
└── TaskTimeoutError   the task hadn't ended in time
"""

from ovis_fleet.records import Problem


class ClientError(Exception):
    """Any failure of a client call that isn't a mistake in its arguments."""


class ApiError(ClientError):
    """The gateway refused; the message is one line for people.

    Attributes:
        problem: all that it said.
        retry_after_s: after how many seconds it may be asked again; None when it named no time.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        """Words the problem.

        Args:
            problem: what the gateway said.
            retry_after_s: the pause that it asked for.
        """
        super().__init__(problem.summary())
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """The stable name of the error."""
        return self.problem.code

    @property
    def detail(self) -> str:
        """What is wrong this time, for people."""
        return self.problem.detail

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.problem.retryable

    @property
    def request_id(self) -> str | None:
        """What the operator finds the call by."""
        return self.problem.request_id

    @property
    def errors(self) -> tuple[dict[str, object], ...]:
        """One entry for each invalid value, with a JSON pointer."""
        return self.problem.errors


class UnreachableError(ClientError):
    """No gateway answered at the address, or the connection broke, also when tried again."""


class ProtocolError(ClientError):
    """The answer isn't one of this interface's: most likely the address is another service's."""


class TaskTimeoutError(ClientError, TimeoutError):
    """The task hadn't ended when the caller's time was up; it goes on."""
