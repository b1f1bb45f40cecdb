"""A page read as a browser would: which elements it has, what they say, and what it may load."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
KNOWN = {"class", "src", "alt", "lang", "charset", "content", "name", "http-equiv"}


class Read(HTMLParser):
    """The parts of a page. Fails for tags that are not closed, and for whatever could be loaded."""

    def __init__(self, page: bytes):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.images = [], [], [], []
        self.feed(page.decode())
        self.close()
        assert self.open == []
        assert not {"script", "iframe", "link", "object", "a", "base", "form"} & {*self.tags}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert name in {
                "class",
                "src",
                "alt",
                "lang",
                "charset",
                "content",
                "name",
                "http-equiv",
            }
            if name == "src":
                assert value.startswith("data:image/png;base64,")
                self.images.append(dict(attrs)["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(data.strip())

    @property
    def said(self):
        """All words."""
        return "\n".join(self.words)
