"""A reply under way, as pure state: what is to be sent next, and what an answer means. No I/O, no clock, no threads.

    app -> add / put_part / finish -> [queue] -> next() -> Step -> (somebody sends it) -> acknowledged() / refused()

Laws:
- One step at a time: the next one is made after the last was answered.
- Text goes out when about ``batch`` units wait, or the oldest of them waited ``linger_s``, or something stands behind it.
- What was added is never dropped: all of the text stays here until the reply is over (the server's bound on one item, 4
  MiB, bounds it), because a buffer that was rolled back needs the acknowledged part again.
- A step may be sent twice, and arrive after later ones. Appends carry offsets; a part that the server could not tell from an
  older one carries a revision of its own.

What an answer other than a success leads to:
    append-gap       less is there than was acknowledged: go on from ``length``
    part-gap, 404    parts, or the message itself, are missing: state all of it once more (an upsert), then go on
    new bufferEpoch  the buffer was lost or rolled back: the same; where that put is passed over (a part there is longer,
                     because it was shortened here since), in single steps
    append-mismatch  other text is there: state all of it under a higher revision, if ``on_conflict`` is "replace"
    terminal         the message was finished meanwhile (Stop): likewise if it is "reopen" or "replace"
    stale-revision   somebody else writes it too: the part once more under that; where it is finished, as with terminal
    anything else    the reply has failed; the error reaches the caller at the next append, or at the end
Without progress in between, that is done five times at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from blotter_client import calls
from blotter_client.calls import Request
from blotter_client.errors import (
    ApiError,
    AppendGap,
    AppendMismatch,
    BlotterError,
    NotFound,
    PartGap,
    StaleRevision,
    SurrogateSplit,
    Terminal,
)
from blotter_client.steps import Channel, Done, Pace, PartOp, Restate, Step, TextOp, Wait, leads_on
from blotter_client.text import REPLACEMENT, Growing, units, whole
from blotter_client.types import Saved, Status

OnConflict: TypeAlias = Literal["raise", "reopen", "replace"]
_MOST_RECOVERIES: Final = 5


@dataclass
class Writer:
    """The state of one reply. ``stub``: the message's fields as it was first saved (API names, without text and parts)."""

    path: str
    put_path: str
    stub: Mapping[str, Any]
    pace: Pace = field(default_factory=Pace)
    on_conflict: OnConflict = "raise"

    def __post_init__(self) -> None:
        self._content = Channel(None, Growing())
        self._has_content = self.stub.get("content") is not None
        self._parts: list[PartOp] = []
        self._queue: deque[TextOp | PartOp] = deque()
        self._restate: Restate | None = None
        self._held: dict[int | None, str] = {}
        self._closing: tuple[Status, str | None] | None = None
        self._done = False
        self._hurry = False
        self._sent_s = 0.0
        self._recoveries = 0
        self._epoch: str | None = None
        self._revision: int | None = self.stub.get("revision")
        self._overrules = self._revision is not None  # what is stated once more goes over what is there
        #: Units added and not yet acknowledged.
        self.waiting = 0

    # ------------------------------------------------------------------ what the app does
    @property
    def parts(self) -> int:
        """The number of parts so far."""
        return len(self._parts)

    @property
    def idle(self) -> bool:
        """Everything added so far is acknowledged (half a character that is held back aside)."""
        return not self._queue and self._restate is None

    @property
    def full(self) -> bool:
        """More waits than the pace allows."""
        return self.waiting > self.pace.waiting

    def add(self, text: str, now_s: float, part: int | None = None) -> None:
        """Text for the end of the content, or of a part. Raises ValueError where that part has no text."""
        self._check_open()
        channel = self._content if part is None else self._part_channel(part)
        text, held = whole(self._held.pop(part, "") + text)
        if held:
            self._held[part] = held
        if text:
            self._extend(channel, text, now_s)

    def put_part(self, index: int, value: Mapping[str, Any]) -> None:
        """Set part ``index`` (0 … number of parts). A newer value replaces one that still waits to be sent."""
        self._check_open()
        if not 0 <= index <= len(self._parts):
            raise ValueError(f"part {index}: there are {len(self._parts)}")
        text = value.get("text")
        channel = None
        if value.get("type") in ("text", "reasoning") and isinstance(text, str):
            channel = Channel(index, Growing(text))
        new = index == len(self._parts)
        op = PartOp(
            index, dict(value), channel, leads_on(None if new else _with_text(self._parts[index]), value)
        )
        self._held.pop(index, None)
        last = self._queue[-1] if self._queue else None
        if isinstance(last, PartOp) and last.index == index and not last.taken:
            self._queue.pop()
            op.forward = last.forward and op.forward
        self._queue.append(op)
        if index == len(self._parts):
            self._parts.append(op)
        else:
            self._parts[index] = op

    def finish(self, status: Status, reason: str | None, now_s: float) -> None:
        """Nothing more will come. A second call says nothing new."""
        if self._closing is None:
            for part in list(self._held):
                self._extend(self._content if part is None else self._part_channel(part), REPLACEMENT, now_s)
            self._held.clear()
            self._closing = (status, reason)

    def hurry(self) -> None:
        """Send what waits without waiting for more."""
        self._hurry = True

    # ------------------------------------------------------------------ what is next
    def started(self, saved: Saved, now_s: float) -> None:
        """The stub was acknowledged."""
        self._epoch = saved.get("bufferEpoch")
        self._sent_s = now_s

    def next(self, now_s: float) -> Step | Wait | Done:
        """The next step. Nothing counts as sent before `acknowledged`."""
        if self._done:
            return Done()
        if self._restate is not None:
            return self._restatement(self._restate)
        head = self._queue[0] if self._queue else None
        if isinstance(head, PartOp):
            head.taken = True
            last = self._is_last(head)
            alongside = self._alongside(last)
            if not head.forward:
                self._revision = (self._revision or 0) + 1
                alongside["revision"] = self._revision
            elif not last:
                alongside["status"] = "streaming"
            request = calls.set_part(self.path, head.index, _with_text(head), alongside=alongside)
            ends = () if head.channel is None else ((head.channel, head.channel.text.length),)
            return Step(request, head, ends, final=last)
        if head is not None:
            return self._text_step(head, now_s)
        self._hurry = False
        if self._closing is not None:
            return Step(self._beat(final=True), None, final=True)
        silent_s = now_s - self._sent_s
        if silent_s >= self.pace.heartbeat_s:
            return Step(self._beat(final=False), None)
        return Wait(self.pace.heartbeat_s - silent_s)

    def acknowledged(self, step: Step, saved: Saved, now_s: float) -> None:
        """``step`` got a success."""
        self._sent_s = now_s
        if isinstance(step.op, (TextOp, PartOp)):
            self._recoveries = 0
        covered: tuple[object, ...] = (step.op,)
        if isinstance(step.op, Restate):
            self._restate = None
            covered = step.op.covers
        elif isinstance(step.op, TextOp):
            covered = ()
            step.op.since_s = step.op.taken_s
        passed_over = isinstance(step.op, Restate) and saved.get("outcome") == "noop"
        if not passed_over:
            for channel, end in step.ends:
                channel.sent = max(channel.sent, end)
        self._queue = deque(
            op
            for op in self._queue
            if not any(op is one for one in covered)
            and not (isinstance(op, TextOp) and op.channel.sent >= op.end)
        )
        if passed_over:
            self._replay()
        self._count()
        epoch = saved.get("bufferEpoch")
        if self._epoch is not None and epoch != self._epoch and not isinstance(step.op, Restate):
            self._restate = Restate()
        elif step.final:
            self._done = True
        self._epoch = epoch

    def refused(self, step: Step, error: BlotterError) -> bool:
        """``step`` got ``error``. True: go on with `next`; False: the reply has failed."""
        self._recoveries += 1
        if self._recoveries > _MOST_RECOVERIES or not isinstance(error, ApiError):
            return False
        if isinstance(error, AppendGap) and error.length is not None:
            channel = step.op.channel if isinstance(step.op, TextOp) else self._content
            if channel.text.is_boundary(error.length):
                channel.sent = error.length
                self._resend(channel)
                return True
            return self._overrule(error)
        if isinstance(error, (PartGap, NotFound)) and not isinstance(step.op, Restate):
            self._restate = Restate()
            return True
        if isinstance(error, (AppendMismatch, SurrogateSplit)):
            return self._overrule(error)
        if isinstance(error, StaleRevision) and isinstance(step.op, PartOp):
            return self._outbid(step.op, error)
        if isinstance(error, Terminal):
            return self.on_conflict != "raise" and self._overrule(error, reopen=True)
        return False

    # ------------------------------------------------------------------ inside
    def _check_open(self) -> None:
        if self._closing is not None:
            raise ValueError("the reply is finished")

    def _part_channel(self, part: int) -> Channel:
        op = self._parts[part] if 0 <= part < len(self._parts) else None
        if op is None or op.channel is None:
            raise ValueError(f"part {part} is no text: set it first")
        return op.channel

    def _extend(self, channel: Channel, text: str, now_s: float) -> None:
        before = channel.text.length
        channel.text.add(text)
        self.waiting += channel.text.length - before
        last = self._queue[-1] if self._queue else None
        if isinstance(last, TextOp) and last.channel is channel:
            last.end = channel.text.length
        elif not (isinstance(last, PartOp) and last.channel is channel and not last.taken):
            self._queue.append(TextOp(channel, channel.text.length, now_s))
        # else: the part that still waits takes the text along

    def _text_step(self, head: TextOp, now_s: float) -> Step | Wait:
        channel = head.channel
        ready = head.end - channel.sent
        due_s = head.since_s + self.pace.linger_s - now_s
        at_once = self._hurry or len(self._queue) > 1 or self._closing is not None
        if ready < self.pace.batch and not at_once and due_s > 0:
            return Wait(due_s)
        text = channel.text.piece(channel.sent, min(self.pace.most, ready))
        head.taken_s = now_s
        end = channel.sent + units(text)
        last = end >= head.end and self._is_last(head)
        request = calls.append(
            self.path, channel.sent, text, part=channel.part, alongside=self._alongside(last)
        )
        return Step(request, head, ((channel, end),), final=last)

    def _is_last(self, op: TextOp | PartOp) -> bool:
        return self._closing is not None and len(self._queue) == 1 and self._queue[0] is op

    def _alongside(self, last: bool) -> dict[str, Any]:
        if not last or self._closing is None:
            return {}
        status, reason = self._closing
        return {"status": status} if reason is None else {"status": status, "status_reason": reason}

    def _beat(self, *, final: bool) -> Request:
        return calls.append(self.path, self._content.sent, "", alongside=self._alongside(final))

    def _restatement(self, restate: Restate) -> Step:
        """All of it in one put. Over what is there only with a revision; else never shorter than what is there."""
        body = {name: value for name, value in self.stub.items() if name != "revision"}
        if self._has_content or self._content.text.length:
            body["content"] = str(self._content.text)
        ends = [(self._content, self._content.text.length)]
        if self._parts:
            body["parts"] = [_with_text(op) for op in self._parts]
            ends += [(op.channel, op.channel.text.length) for op in self._parts if op.channel is not None]
        if restate.over is not None or self._overrules:
            self._overrules = True
            self._revision = max(restate.over or 0, self._revision or 0) + 1
            body["revision"] = self._revision
            restate.over = self._revision - 1
        restate.covers = tuple(op for op in self._queue if isinstance(op, PartOp))
        for op in restate.covers:
            op.taken = True
        if self._closing is not None:
            body |= calls.fields(self._alongside(last=True))
        return Step(
            calls.request("PUT", self.put_path, body), restate, tuple(ends), self._closing is not None
        )

    def _overrule(self, error: ApiError, *, reopen: bool = False) -> bool:
        if self.on_conflict != "replace" and not reopen:
            return False
        revision = (error.current or {}).get("revision")
        self._restate = Restate(revision if isinstance(revision, int) else 0)
        return True

    def _outbid(self, op: PartOp, error: ApiError) -> bool:
        """Another writer's revision is higher: the part takes that one, so that it still leaves alone what has come further.

        Unless that writer has finished the message.
        """
        current = error.current or {}
        if current.get("status") not in ("pending", "streaming") and self._closing is None:
            return self.on_conflict != "raise" and self._overrule(error, reopen=True)
        revision = current.get("revision")
        self._revision = (revision if isinstance(revision, int) else 0) - 1
        return True

    def _replay(self) -> None:
        """A put was passed over, because some text there is longer than here: say everything once more, step by step."""
        for op in self._parts:
            op.forward, op.taken = False, True
        self._queue = deque(self._parts)
        self._content.sent = 0
        self._resend(self._content)

    def _resend(self, channel: Channel) -> None:
        """``channel.sent`` went back: its text is sent again before anything else."""
        for op in self._queue:
            if isinstance(op, TextOp) and op.channel is channel:
                break
        else:
            self._queue.appendleft(TextOp(channel, channel.text.length, float("-inf")))
        self._count()

    def _count(self) -> None:
        texts = {id(op.channel): op.channel for op in self._queue if op.channel is not None}
        self.waiting = sum(channel.text.length - channel.sent for channel in texts.values())


def _with_text(op: PartOp) -> dict[str, Any]:
    return op.value if op.channel is None else {**op.value, "text": str(op.channel.text)}
