"""What is printed while work goes on."""

import io

from rich.console import Console

from xuebu.progress import TerminalProgress


def test_a_note_shows_control_characters_of_file_names():
    stream = io.StringIO()
    TerminalProgress(Console(file=stream, force_terminal=True)).note("a\x1b[31m\x9b\udcff.txt: [b]passed over")
    assert stream.getvalue() == "a\\x1b[31m\\x9b\\udcff.txt: [b]passed over\n"
