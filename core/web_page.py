"""An HTML page in a single file: no network, no script, readable on a phone and in dark mode."""

import html

from .text import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --rule: #d6d9de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --rule: #3a3f47; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
figure { margin: 0; } figcaption { font-size: .9rem; } .faint { opacity: .75; }
"""
"""CSS of every page of rtk."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: nothing is loaded from elsewhere, even if a file name contains HTML."""


def web_page(title: str, body: str, *, style: str = "") -> str:
    """Return a whole page. `title`: plain text. `body`: HTML, its texts from `escaped`. `style`: more CSS."""
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style><body>{body}</body></html>\n"
    )


def escaped(text: str) -> str:
    """Escape text for HTML; characters that are not printable become visible escapes."""
    return html.escape(visible(text))
