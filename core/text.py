"""Names of strangers' files as text that can be shown: encodable, and nothing in it that steers a terminal."""


def decodable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become escapes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def visible(name: str) -> str:
    """A name that cannot steer a terminal: characters that are not printable are shown as escapes."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decodable(name))
