"""HTML of what others wrote: as text, or of Markdown, which runs nothing, loads nothing and stays in its place.

Markdown is rendered by markdown-it-py without raw HTML, and what comes of it is cut down by nh3 to a small set of tags
without images, styles or ids.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from xpander_magics.safety import plain

AS_IT_IS = "tex2jax_ignore mathjax_ignore"
"""The classes that keep front ends from typesetting what stands between two dollar signs; Markdown goes without."""
LONGEST_MARKDOWN = 200_000
"""Characters; a longer text is shown as it is, for rendering takes some seconds a megabyte."""
_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "blockquote", "code", "pre", "a", "ul", "ol", "li"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"),
}
# With a host: what has none, such as https:lab, leads to the page's own.
_ADDRESS = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
# All links of a text together: a reference repeats its address wherever it is named.
_MOST_ADDRESSES = 1_000_000
# A price's dollar, or two prices would be typeset as a formula; and what a formula has beyond itself: front ends keep
# definitions for all formulas of the page, and a link in one isn't ours to check.
_NO_FORMULA = re.compile(
    r"\$(?=\d)|\\(?=(?:[gex]?def|let|(?:re)?new(?!line(?![A-Za-z]))\w+|provide\w+|Declare\w+|define\w+|require|label"
    r"|(?:eq)?ref|[hH]ref|url|class|cssId|style|data|unicode|mmlToken)(?![A-Za-z]))"
)


def escape(text: str) -> str:
    """Text as HTML that shows it, harmless."""
    return html.escape(plain(text))


def safe_html(markdown: str) -> str:
    """Markdown that a model wrote, as HTML that runs nothing, loads nothing and stays in its place."""
    import nh3

    if len(markdown) > LONGEST_MARKDOWN:
        return f'<div class="{AS_IT_IS}" style="white-space:pre-wrap;overflow-wrap:anywhere">{escape(markdown)}</div>'
    cleaned = nh3.clean(
        _markdown().render(plain(markdown)),
        tags=_TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        attribute_filter=_filtered,
        set_tag_attribute_values={"span": {"class": AS_IT_IS}},
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer",
    )
    return plain(cleaned)  # a character that was written as an entity is one by now


def _filtered(_tag: str, name: str, value: str) -> str | None:
    return value if name != "href" or _ADDRESS.match(value) else None


@functools.lru_cache(maxsize=1)
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    found = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    for name, rule in {"text": _text, "link_open": _link, "image": _image}.items():
        found.add_render_rule(name, rule)
    return found


def _text(_renderer: Any, tokens: Sequence[Any], index: int, _options: Any, _env: Any) -> str:
    """Text as HTML; what is to be no formula has a character that stands by itself."""
    return _NO_FORMULA.sub(r"<span>\g<0></span>", html.escape(tokens[index].content))


def _link(_renderer: Any, tokens: Sequence[Any], index: int, _options: Any, env: MutableMapping[str, Any]) -> str:
    address = str(tokens[index].attrs.get("href", ""))
    env["addresses"] = env.get("addresses", 0) + len(address)
    return f'<a href="{html.escape(address)}">' if env["addresses"] <= _MOST_ADDRESSES else "<a>"


def _image(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Mapping[str, Any]) -> str:
    """What a picture is said to show; the picture itself would be fetched."""
    return html.escape(renderer.renderInlineAsText(tokens[index].children, options, env))
