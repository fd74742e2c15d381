"""The commands on the streams: a tagged union of Structs over flat text fields.

A command is one stream entry; ``type`` says which. Payloads (``input``, ``data``, ``result``,
``error``, ``output``) are JSON text. Fields that a type does not know are carried but not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from askel.durations import wire_duration_ms
from askel.errors import AskelError, InvalidNameError, InvalidOptionError, PayloadError
from askel.names import check_name, check_queue, check_run_id
from askel.state.arguments import as_policy
from askel.state.codec import MAX_INTEGER, PLAIN, Codec
from askel.state.durability import as_durability
from askel.state.ids import run_id_of_command

#: The only wire version so far.
VERSION = 1
#: Most fields of an entry, those that nobody reads included.
MAX_FIELDS = 32
#: Longest id of a command, in characters.
MAX_ID = 256
#: Longest name of a field, and longest value of one that holds no payload, in bytes.
MAX_FIELD_NAME, MAX_TEXT = 512, 4_096
#: Longest error that another program reports, in bytes of JSON: any that this library makes fits.
MAX_ERROR = 128 * 1024
# What a worker adds to a command that it puts back.
_INTERNAL = frozenset({b"unknown_since", b"tries", b"put_back", b"run_id"})


class CommandError(AskelError):
    """A stream entry is no command. ``reason`` is the word recorded with the dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the word and the sentence."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Command(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """What every command may carry."""

    v: int = VERSION
    id: str = ""
    at: int | None = None
    reply_to: str = ""
    traceparent: str = ""
    unknown_since: int | None = None
    tries: int = 0


class _NewRun(_Command, frozen=True):
    """A command that makes a run."""

    workflow: str
    input: str = "null"
    run_id: str = ""
    durability: str = ""

    @property
    def run(self) -> str:
        """The run id: given, or made from the command's id; empty where there is neither."""
        return self.run_id or (run_id_of_command(self.id) if self.id else "")


class RunStart(_NewRun, frozen=True, tag="run.start"):
    """Start a run of a registered workflow."""

    queue: str = ""
    if_exists: str = "reject"


class RunCreate(_NewRun, frozen=True, tag="run.create"):
    """Create a run that another program drives step by step."""


class RunComplete(_Command, frozen=True, tag="run.complete"):
    """Complete a run that another program drives."""

    run_id: str
    output: str = "null"


class RunFail(_Command, frozen=True, tag="run.fail"):
    """Fail a run that another program drives."""

    run_id: str
    error: str = '{"message":"failed by command"}'


class RunCancel(_Command, frozen=True, tag="run.cancel"):
    """Cancel a run: no further step begins."""

    run_id: str
    reason: str = ""


class RunTerminate(_Command, frozen=True, tag="run.terminate"):
    """End a run at once, without compensation."""

    run_id: str
    reason: str = ""


class RunSuspend(_Command, frozen=True, tag="run.suspend"):
    """Hold a run: running steps end, no further step begins."""

    run_id: str
    reason: str = ""


class RunResume(_Command, frozen=True, tag="run.resume"):
    """Let a suspended or stalled run go on."""

    run_id: str
    reason: str = ""


class RunSignal(_Command, frozen=True, tag="run.signal"):
    """Send a signal to a run."""

    run_id: str
    name: str
    data: str = "null"


class RunApprove(_Command, frozen=True, tag="run.approve"):
    """Decide an approval of a run."""

    run_id: str
    reason: str
    data: str
    decided_by: str = ""


class RunAdvance(_Command, frozen=True, tag="run.advance"):
    """Internal: the token by which somebody drives a run on."""

    run_id: str


class StepExecute(_Command, frozen=True, tag="step.execute"):
    """Execute one step of a run by the handler registered under ``rpc_name``.

    ``born`` is internal: when the run was created that the command was sent for. Nothing is done
    for a later run of the same id.
    """

    run_id: str
    step_name: str
    rpc_name: str
    data: str = "null"
    retries: int | None = None
    retry_delay: str = ""
    timeout: str = ""
    born: str = ""


class StepComplete(_Command, frozen=True, tag="step.complete"):
    """A worker in any language has executed a step."""

    run_id: str
    step_name: str
    attempt: int
    result: str = "null"


class StepFail(_Command, frozen=True, tag="step.fail"):
    """A worker in any language has failed to execute a step."""

    run_id: str
    step_name: str
    attempt: int
    error: str = '{"message":"failed"}'


class StepHeartbeat(_Command, frozen=True, tag="step.heartbeat"):
    """A worker in any language is still at work on a step."""

    run_id: str
    step_name: str
    attempt: int


class TimerFire(_Command, frozen=True, tag="timer.fire"):
    """Internal: a sleep is over, or a retry may begin. ``born``: see ``StepExecute``."""

    run_id: str
    step_name: str
    attempt: int = 1
    born: str = ""


Command: TypeAlias = (
    RunStart
    | RunCreate
    | RunComplete
    | RunFail
    | RunCancel
    | RunTerminate
    | RunSuspend
    | RunResume
    | RunSignal
    | RunApprove
    | RunAdvance
    | StepExecute
    | StepComplete
    | StepFail
    | StepHeartbeat
    | TimerFire
)

_NAMES = ("workflow", "step_name", "rpc_name", "name")
_PAYLOADS = ("input", "data", "result", "error", "output")
_NUMBERS = ("at", "attempt", "retries", "tries", "unknown_since")
_PAYLOAD_FIELDS = frozenset(name.encode() for name in _PAYLOADS)


def decode_command(
    fields: Sequence[bytes], *, limit: int | None = None, codec: Codec = PLAIN
) -> Command:
    """Return the command in the flat *fields* of a stream entry, checked whole.

    Payloads are left as they are; *codec* opens them to see that they are acceptable.

    Raises:
        CommandError: With the word and the sentence for the dead letter.
    """
    if not fields:
        raise CommandError("body_lost", "the entry was deleted before it was read")
    if len(fields) > 2 * MAX_FIELDS + 2 * sum(name in _INTERNAL for name in fields[::2]):
        raise CommandError("invalid_command", f"more than {MAX_FIELDS} fields")
    if max(map(len, fields)) > MAX_FIELD_NAME:  # almost never
        _check_lengths(fields)
    try:
        texts = [field.decode() for field in fields]
    except UnicodeDecodeError:
        raise CommandError("invalid_command", "a field is not valid UTF-8") from None
    given = dict(zip(texts[::2], texts[1::2], strict=True))
    if len(given) != len(texts) // 2:
        raise CommandError("invalid_command", "a field is given twice")
    if given.get("v", "1") != str(VERSION):  # first: another version may have other fields
        shown = ascii(given["v"][:64]).strip("'")
        detail = f"v {shown} is not known here; this is v {VERSION}"
        raise CommandError("unknown_version", detail)
    try:
        # The one Struct that the tag names: converting to the union costs thirty times as much.
        wanted = _BY_TYPE.get(given.get("type", ""), Command)
        command: Command = msgspec.convert(given, wanted, strict=False)
    except msgspec.ValidationError as error:
        known = given.get("type", "run.start") in _TYPES
        reason = "invalid_command" if known else "unknown_command"
        raise CommandError(reason, _explain(given, str(error))) from None
    _check(command, given, limit, codec)
    return command


def check_command(command: Command, codec: Codec = PLAIN) -> list[str]:
    """Return the fields of *command*, checked as the daemon that reads them will check.

    Raises:
        PayloadError, InvalidNameError, InvalidOptionError: It would become a dead letter.
    """
    words = encode_command(command)
    try:
        decode_command([word.encode("utf-8", "surrogatepass") for word in words], codec=codec)
    except CommandError as error:
        kind = _INVALID.get(error.reason, InvalidOptionError)
        raise kind(error.detail) from None
    return words


_INVALID: dict[str, type[AskelError]] = {
    "invalid_payload": PayloadError,
    "invalid_name": InvalidNameError,
}


def _check_lengths(fields: Sequence[bytes]) -> None:
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if len(name) > MAX_FIELD_NAME:
            detail = f"the name of a field is longer than {MAX_FIELD_NAME} bytes"
            raise CommandError("invalid_command", detail)
        if len(value) > MAX_TEXT and name not in _PAYLOAD_FIELDS:
            shown = ascii(name.decode(errors="replace")[:64])
            detail = f"field {shown} is longer than {MAX_TEXT} bytes"
            raise CommandError("invalid_command", detail)


def _check(command: Command, given: dict[str, str], limit: int | None, codec: Codec) -> None:
    if command.reply_to:
        raise CommandError("unsupported", "reply_to is not supported by this version")
    if len(command.id) > MAX_ID:
        raise CommandError("invalid_command", f"id is longer than {MAX_ID} characters")
    try:
        _check_names(command, given)
        _check_numbers(command, given)
        if isinstance(command, RunStart):
            as_policy(command.if_exists)
        for field in _PAYLOADS:
            if field in given:
                most = codec.limit if limit is None else limit
                if field == "error":
                    most = min(most, MAX_ERROR)
                codec.check_json(given[field], what=field, limit=most)
    except PayloadError as error:
        raise CommandError("invalid_payload", str(error)) from error
    except InvalidNameError as error:
        raise CommandError("invalid_name", str(error)) from error
    except InvalidOptionError as error:
        raise CommandError("invalid_command", str(error)) from error


def _check_names(command: Command, given: dict[str, str]) -> None:
    if run_id := given.get("run_id"):
        check_run_id(run_id)
    elif not isinstance(command, RunStart | RunCreate):
        raise CommandError("invalid_command", "run_id is empty")
    for field in _NAMES:
        if field in given:
            check_name(given[field], field)
    if queue := given.get("queue"):
        check_queue(queue)
    if isinstance(command, _NewRun):
        as_durability(command.durability)


def _check_numbers(command: Command, given: dict[str, str]) -> None:
    for field in _NUMBERS:
        if field in given and abs(getattr(command, field, None) or 0) > MAX_INTEGER:
            raise CommandError("invalid_command", f"{field} is beyond 2^53")
    if timeout := given.get("timeout"):
        wire_duration_ms(timeout)
    delay = given.get("retry_delay")
    if delay and delay != "exponential":
        wire_duration_ms(delay)
    if isinstance(command, StepExecute) and command.retries is not None and command.retries < 0:
        raise CommandError("invalid_command", "retries must not be negative")


def _explain(given: dict[str, str], why: str) -> str:
    kind = given.get("type")
    if kind is None:
        return f"field type is missing; it is one of {', '.join(SENDABLE)}"
    if kind not in _TYPES:
        return f"type {kind[:64]!r} is unknown; it is one of {', '.join(SENDABLE)}"
    if missing := _MISSING.fullmatch(why):
        return f"{kind}: field {missing[1]!r} is missing"
    if wrong := _WRONG_TYPE.match(why):
        return f"{kind}: field {wrong[1]!r} must be a number"
    return f"{kind}: {why}"


def encode_command(command: Command) -> list[str]:
    """Return the flat text fields of *command*, ``type`` first, defaults left out."""
    words: list[str] = []
    for name, value in msgspec.to_builtins(command).items():
        words += [name, value if isinstance(value, str) else str(value)]
    return words


def encode_timer(queue: str, words: Sequence[str]) -> bytes:
    """Return the timer that sends a command with the fields *words* to *queue* when due."""
    return msgspec.json.encode([queue, *words])


def decode_timer(member: bytes) -> tuple[str, list[str]]:
    """Return the queue and the fields of a timer.

    Raises:
        CommandError: Somebody else wrote it.
    """
    try:
        queue, *words = msgspec.json.decode(member, type=list[str])
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommandError("invalid_timer", "not a timer of askel") from error
    if not words or len(words) % 2 or len(words) > 2 * MAX_FIELDS + 2 * len(_INTERNAL):
        raise CommandError("invalid_timer", "its fields are not pairs")
    return queue, words


_BY_TYPE: dict[str, Any] = {str(kind.__struct_config__.tag): kind for kind in Command.__args__}
_TYPES = frozenset(_BY_TYPE)
#: Commands that only askel sends, and those that no worker of this version applies.
OF_ASKEL, UNSUPPORTED = ("run.advance", "timer.fire"), ("run.approve", "step.heartbeat")
#: What anybody may send.
SENDABLE = tuple(sorted(_TYPES - {*OF_ASKEL, *UNSUPPORTED}))
#: What msgspec says, in the words of Python.
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WRONG_TYPE = re.compile(r"Expected `(?:int|int \| null)`, got `str` - at `\$\.(\w+)`")
