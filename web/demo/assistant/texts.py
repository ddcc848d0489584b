"""What the simulator recites. Written for this demo; every fact about weather in it is invented."""

from __future__ import annotations

from typing import Final, NamedTuple


class Work(NamedTuple):
    """An artifact, and what is said around it."""

    kind: str
    title: str
    language: str
    media_type: str
    before: str
    content: str
    after: str


ANSWERS: Final = (
    """\
Here is what happens to a sentence like yours, from the key you press to the disk it ends on.

1. **The page** hands it to its client at once. Should the page die in this very moment, the sentence lies in the \
browser's own outbox.
2. **Web** checks it and writes it to the *buffer*. The little mark under your message turns to `buffered`: from here on \
a power cut may come.
3. **A worker** gathers what is due and writes it to Postgres in one go. The mark turns to `stored`.

| who dies | what you notice |
| --- | --- |
| the page | nothing, once you open it again |
| a worker | nothing |
| web | a second of waiting |
| Postgres | nothing; saving goes on |

> A blotter takes up the ink the moment it lands. The ledger can wait until evening.

Try it: press **Refresh** in the panel while I am still talking, or close this tab and come back in a minute. I write on \
the server, so I shall not even notice. 🙂
""",
    """\
Gladly. Three things to try, from harmless to rude:

- **Refresh** while this text is growing. It stands there again at once and goes on growing.
- **Go offline** for ten seconds and write something. It is marked as waiting, and leaves by itself when the line is back.
- **Kill a worker.** Celery starts another one; what the first had in its hands is written by the second.
    - The same row twice does no harm: a version decides, and the older one loses.
    - Nothing is taken out of the buffer before Postgres has said *committed*.

What you cannot do is make it forget. Not by accident, at least: deleting is a request like any other, and leaves a
tombstone, so that a late save does not bring the dead back.

```python
def acknowledged(save):
    buffer.write(save)      # with its fsync
    return 202              # and only then

def flush(partition):
    rows = buffer.peek(partition)
    store.upsert(rows)      # where stored.version < ours
    buffer.forget(rows)     # only what was written, and only now
```

That is nearly all of it. The rest is manners: limits that answer clearly, and a queue that never grows with the load.
""",
    """\
### An answer that is somewhat shorter

I only recite, so take this for a sample of what a model might say. It holds **bold** and *slanted* words, `code`, a ~~slip \
of the pen~~ correction, and a link to [the API's own page](/docs).

Every few words go to the server as an *append* with an offset: "what follows belongs at place 214". Sent twice, it is \
skipped; sent too early, it is refused with the length that is there. That one number makes a stream of words safe to \
repeat, and it is why two of me could not garble one reply.

---

You can edit your question: the old one stays, with its answers, as a branch beside the new one. The arrows under a \
message lead from one to the other. 📎
""",
)

STORY: Final = """\
## The clerk who would not wait for the ledger

In a harbour town that is on no map there was a counting house with two books. The **ledger** was bound in calf, and \
stood on a desk so high that one needed a ladder; to write in it took the whole of an afternoon, for the ink had to dry \
between the lines. The **blotter** lay on the counter. It was a poor thing of grey paper, it was never clean, and \
everybody wrote in it.

Ottoline had the counter. Captains came in dripping, shouted a number, and were gone before she could have climbed the \
ladder. So she wrote the number in the blotter, blew on it, said *"Noted"*, and meant it.

### The first winter

> "And if the house burns down tonight?" asked the owner, who had a talent for such questions.

"Then the grey book is in the iron box," said Ottoline, "as it is every evening, and every noon, and whenever I have \
written a line in it." The owner looked at the box. It stood open on the counter, one arm's length from her chair.

He was not content. He hired two ledger clerks. They came when a bell rang, took from the blotter whatever was ripe, \
climbed the ladder, and wrote it down. Neither trusted the other, which was useful: whoever had the key to a page was \
the only one to copy from it, and a key that nobody turned for ten breaths went back on its hook.

### The bell

The bell was the weakest part of the whole arrangement. It stuck in the damp. A boy was paid to pull it, and the boy had \
friends. After the third quiet afternoon Ottoline drew a conclusion that she wrote on the wall:

1. The bell is a **hint**.
2. What is ripe stands in the *book*.
3. Who has nothing to do shall look into the book.

From then on a boy who ran away cost nothing but his own wages.

### The night of the flood

In March the sea came in. One ledger clerk was carried out by the water with his pen in his hand and half a line \
written; the other found the half line in the morning, compared its number with the blotter's, and wrote the whole line \
over it. It was the same line. It did no harm to write it twice.

The ledger's desk was dry, being so high. The counter was not. But the iron box was, and in it lay the grey book with all \
that anybody had been told was *noted*, down to the last line, which read in Ottoline's hand, a little smeared:

    11.40  water at the door. Schooner Patience, 14 casks. Noted.

### What became of it

The owner had the wall painted over. He left the three sentences as they were, and had a frame put around them. If you \
ever come to that town you may see them still, and below them, on the counter, a sheet of grey paper that is never \
clean. Say a number. Somebody will blow on it. ⚓️
"""

WEATHER_BEFORE: Final = "Let me look that up for **{place}**.\n\n"
WEATHER_AFTER: Final = """\
Here is the forecast for **{place}** (invented, like the tool itself):

| | sky | high | low |
| --- | --- | ---: | ---: |
{rows}
Take a coat; it is what one always says. The call above was saved three times on its way: as it was written, when it was \
sent, and with its result.
"""
SKIES: Final = (
    "clear", "high cloud", "sea fog until noon", "showers", "steady rain", "wind and sun", "thunder late", "frost, then sun"
)  # fmt: skip

DRAWING: Final = Work(
    kind="svg",
    title="Lighthouse at dusk",
    language="svg",
    media_type="image/svg+xml",
    before="A lighthouse, then. I write it as SVG, line by line; open it beside the chat and watch.\n\n",
    content="""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 420" role="img" aria-label="A lighthouse at dusk">
  <defs>
    <linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">
      <stop offset="0" stop-color="#1d2b4f"/>
      <stop offset="0.55" stop-color="#8a5a83"/>
      <stop offset="1" stop-color="#f2a65e"/>
    </linearGradient>
    <linearGradient id="beam" x1="0" y1="0" x2="1" y2="0">
      <stop offset="0" stop-color="#fff3c4" stop-opacity="0.85"/>
      <stop offset="1" stop-color="#fff3c4" stop-opacity="0"/>
    </linearGradient>
    <linearGradient id="back" x1="1" y1="0" x2="0" y2="0">
      <stop offset="0" stop-color="#fff3c4" stop-opacity="0.85"/>
      <stop offset="1" stop-color="#fff3c4" stop-opacity="0"/>
    </linearGradient>
  </defs>
  <rect width="640" height="420" fill="url(#sky)"/>
  <g fill="#fff" opacity="0.8">
    <circle cx="90" cy="50" r="1.6"/><circle cx="180" cy="90" r="1.2"/><circle cx="300" cy="40" r="1.5"/>
    <circle cx="520" cy="60" r="1.3"/><circle cx="590" cy="120" r="1.1"/><circle cx="40" cy="130" r="1.2"/>
  </g>
  <circle cx="150" cy="300" r="46" fill="#ffd18a" opacity="0.9"/>
  <path d="M0 300 H640 V420 H0 Z" fill="#27375f"/>
  <path d="M0 316 q40 -8 80 0 t80 0 t80 0 t80 0 t80 0 t80 0 t80 0 t80 0 V420 H0 Z" fill="#1f2d52"/>
  <path d="M96 322 h108 M112 338 h76 M128 354 h46" stroke="#ffd18a" stroke-width="3" opacity="0.5"/>
  <path d="M436 138 L640 78 V206 Z" fill="url(#beam)"/>
  <path d="M436 138 L236 92 V184 Z" fill="url(#back)" opacity="0.5"/>
  <path d="M350 330 q60 -46 170 -10 q60 6 120 34 V420 H330 Z" fill="#12182c"/>
  <path d="M414 318 L424 160 H448 L458 318 Z" fill="#f4efe6"/>
  <path d="M419.5 232 L422 192 H450 L452.5 232 Z M415 300 L417.5 262 H454.5 L457 300 Z" fill="#c8403a"/>
  <rect x="420" y="152" width="32" height="8" fill="#2a2f45"/>
  <rect x="425" y="126" width="22" height="26" fill="#ffe9a3"/>
  <path d="M421 126 L436 108 L451 126 Z" fill="#c8403a"/>
  <path d="M425 126 v26 M436 126 v26 M447 126 v26" stroke="#2a2f45" stroke-width="2"/>
  <rect x="431" y="296" width="11" height="22" rx="5" fill="#2a2f45"/>
  <path d="M210 352 l14 -26 v26 Z M227 352 v-32 l16 32 Z M202 355 h48 l-8 9 h-32 Z" fill="#0e1426"/>
</svg>
""",
    after="There it is. The picture lies in a frame of its own, without scripts, without network and without an origin: \
whatever a reply writes there, this page is out of its reach.",
)

PAGE: Final = Work(
    kind="html",
    title="An invitation",
    language="html",
    media_type="text/html",
    before="A small page, with nothing but HTML and a style sheet. It grows beside the chat as I write it.\n\n",
    content="""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>An invitation</title>
<style>
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: #efe7d8;
         font: 17px/1.6 Georgia, "Times New Roman", serif; color: #2b2620; }
  article { width: min(30rem, 82vw); padding: 2.4rem 2.2rem; background: #fffdf8; border: 1px solid #d9cdb6;
            box-shadow: 0 14px 40px rgb(60 45 20 / 18%); }
  h1 { margin: 0 0 .2rem; font-size: 1.9rem; font-weight: 400; letter-spacing: .02em; }
  .when { margin: 0 0 1.4rem; color: #9c5a2e; font-variant: small-caps; letter-spacing: .08em; }
  dl { display: grid; grid-template-columns: auto 1fr; gap: .3rem 1.2rem; margin: 1.4rem 0; }
  dt { color: #8d8170; }
  dd { margin: 0; }
  .ink { width: 54px; height: 40px; margin: 0 0 1.2rem; border-radius: 58% 42% 61% 39% / 55% 48% 52% 45%;
         background: #26335e; animation: dry 6s ease-in-out infinite alternate; }
  @keyframes dry { to { border-radius: 42% 58% 39% 61% / 45% 55% 45% 55%; transform: scale(.94); } }
  footer { border-top: 1px solid #e6dcc8; padding-top: 1rem; color: #8d8170; font-size: .9rem; }
</style>
<article>
  <div class="ink"></div>
  <h1>An evening of ink and paper</h1>
  <p class="when">Thursday, when the lamps are lit</p>
  <p>Bring a pen that leaks, a letter you never sent, and somebody who writes a better hand than you do.</p>
  <dl>
    <dt>Where</dt><dd>The counting house, first floor, mind the ladder</dd>
    <dt>Supper</dt><dd>Soup, and bread to blot it with</dd>
    <dt>Prize</dt><dd>For the finest blot of the evening</dd>
  </dl>
  <p>No need to answer. It has been noted.</p>
  <footer>Ottoline, at the counter</footer>
</article>
</html>
""",
    after="Change your question and I write it once more; each finished version of an artifact is kept.",
)

CODE: Final = Work(
    kind="code",
    title="growing.py",
    language="python",
    media_type="text/x-python",
    before="Here is a small function with the reason beside it. The whole file lies in the pane.\n\n",
    content='''\
"""Text that arrives in pieces, some of them twice and some too early."""

from __future__ import annotations


class Gap(Exception):
    """Something before this piece is missing; `have` is what there is."""

    def __init__(self, have: int) -> None:
        super().__init__(f"only {have} characters are here")
        self.have = have


class Growing:
    """A text to which pieces are appended, each with the place where it belongs."""

    def __init__(self) -> None:
        self.text = ""

    def append(self, offset: int, piece: str) -> None:
        """Add what is new of `piece`. A piece that came before changes nothing."""
        have = len(self.text)
        if offset > have:
            raise Gap(have)
        overlap = self.text[offset : offset + len(piece)]
        if not piece.startswith(overlap):
            raise ValueError("this is another text")
        self.text += piece[len(overlap) :]


if __name__ == "__main__":
    text = Growing()
    for offset, piece in [(0, "Noted"), (5, ", and "), (5, ", and kept."), (0, "Noted")]:
        text.append(offset, piece)
    print(text.text)
''',
    after="""\
The point is in one line:

```python
self.text += piece[len(overlap) :]
```

A piece that comes twice has nothing new in it, so nothing is added. That is all it takes to make sending again harmless.
""",
)
