"""Replies' markdown: elements, never markup, and never slow."""

from __future__ import annotations

import pytest

from tests.browser.blotter import Blotter
from tests.browser.tab import AT_ONCE, Browser

pytestmark = pytest.mark.timeout(90)


MARKDOWN = [
    ("a *b* **c** ***d*** `e` ~~f~~", "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <code>e</code> <del>f</del></p>"),
    ("snake_case_name and 2*3*4", "<p>snake_case_name and 2<em>3</em>4</p>"),
    ("**bold `code` *slanted***", "<p><strong>bold <code>code</code> <em>slanted</em></strong></p>"),
    ("\\*plain\\* a\\", "<p>*plain* a\\</p>"),
    ("``a ` b``", "<p><code>a ` b</code></p>"),
    ("one\ntwo  \nthree", "<p>one\ntwo<br>three</p>"),
    ("# A\n#B\n###### C #", "<h3>A</h3><p>#B</p><h6>C</h6>"),
    ("- a\n- b\n  - c\n\n1. d\n2. e", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol><li>d</li><li>e</li></ol>"),
    ("7. a\n   more\n\n   again", '<ol start="7"><li><p>a\nmore</p><p>again</p></li></ol>'),
    ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
    ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
    ("<b>x</b> & <script>1</script>", "<p>&lt;b&gt;x&lt;/b&gt; &amp; &lt;script&gt;1&lt;/script&gt;</p>"),
    ("[x](javascript:alert(1)) [y](data:text/html,1) [z]( vbscript:1 )", "<p><span>x</span> <span>y</span> <span>z</span></p>"),
    ("|a|b|\n|:-|-:|\n|1|2\\|3|", None),
    ("```js\nx < 1\n```", None),
    ("```\nnever closed", None),
]  # fmt: skip

HOSTILE = [
    "*" * 20_000, "[" * 20_000, "`" * 20_000, "_a " * 7_000, "~~" * 10_000, "> " * 5_000, "- " * 5_000, "**a *b " * 3_000,
    "[a](" * 5_000, "![" * 9_000, "<a@" * 6_000, "http://" * 3_000, "|" * 20_000 + "\n" + "|-" * 9_000, "  \n" * 9_000,
    "\\" * 20_000, "#" * 20_000, ("- a\n" + " " * 2) * 3_000, "1. " * 6_000, "```" * 5_000, "a" * 200_000,
]  # fmt: skip


def test_markdown_becomes_elements_and_never_takes_long(blotter: Blotter, browser: Browser) -> None:
    render = """async (texts) => {
        const { Markdown } = await import("/static/demo/markdown.js");
        return texts.map((text) => {
            const root = document.createElement("div");
            const began = performance.now();
            const markdown = new Markdown(root);
            markdown.update(text);
            const ms = performance.now() - began;
            // What grew letter by letter is what was there at once.
            const grown = document.createElement("div");
            const growing = new Markdown(grown);
            if (text.length < 500) for (let at = 1; at <= text.length; at++) growing.update(text.slice(0, at));
            return { html: root.innerHTML, text: root.textContent, grown: text.length < 500 ? grown.innerHTML : root.innerHTML, ms };
        });
    }"""
    with browser.person(AT_ONCE) as person:
        tab = person.open(blotter)
        found = tab.page.evaluate(render, [text for text, _ in MARKDOWN])
        for (text, expected), shown in zip(MARKDOWN, found, strict=True):
            assert expected in (None, shown["html"]), text
            assert shown["grown"] == shown["html"], text
        assert '<th class="at-start">a</th>' in found[-3]["html"]
        assert '<td class="at-end">2|3</td>' in found[-3]["html"]
        assert "x &lt; 1" in found[-2]["html"]
        for text, shown in zip(HOSTILE, tab.page.evaluate(render, HOSTILE), strict=True):
            assert shown["ms"] < 1500, f"{text[:10]}…: {shown['ms']} ms"
        assert tab.errors == []
