"""README as a package index shows it: there, neither the images nor the files that it links to are at hand."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGE, LINK = r"!\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\[([^\]]+)\]\((?!https?://)([^)]*)\)"


class Readme(MetadataHookInterface):
    """Sets `readme`: an image becomes its caption, and a link to a file its text and the file's path."""

    def update(self, metadata):
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(LINK, r"\1 (`\2`)", re.sub(IMAGE, r"*(\1)*", text))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
