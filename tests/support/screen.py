"""What a terminal shows: an interpreter of the control sequences that the command line uses."""

import re

_PIECE = re.compile(
    r"\x1b\[([0-9;]*)([A-Za-z])|\x1b\](?:[^\x1b\x07])*(?:\x07|\x1b\\)|([\r\n])|([^\x1b\r\n]+)"
)


class Screen:
    """A screen of `rows` x `columns` cells, without colours, and the lines that have left it at the top."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.lines = [""]
        """All lines so far; the screen is the last `rows` of them."""
        self._row = self._column = 0

    def feed(self, output: bytes) -> None:
        """Show output; AssertionError if it holds a sequence that is not known here."""
        text = output.decode()
        at = 0
        while at < len(text):
            piece = _PIECE.match(text, at)
            assert piece is not None, text[at : at + 20]
            at = piece.end()
            number, command, control, plain = piece.groups()
            if control == "\r":
                self._column = 0
            elif control == "\n":
                self._feed_line()
            elif plain is not None:
                self._put(plain)
            elif command == "A":
                top = max(0, len(self.lines) - self.rows)
                self._row = max(top, self._row - int(number or 1))
            elif command == "J":
                assert number in ("", "0")
                self.lines[self._row] = self.lines[self._row][: self._column]
                del self.lines[self._row + 1 :]
            elif command is not None:
                assert command == "m", command

    def _put(self, text: str) -> None:
        for character in text:
            if self._column == self.columns:
                self._feed_line()
                self._column = 0
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    def _feed_line(self) -> None:
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")
