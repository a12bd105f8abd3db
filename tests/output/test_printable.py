from hypothesis import given
from hypothesis import strategies as st

from matir_cli.output.printable import printable


@given(st.text())
def test_printable_text_has_nothing_to_steer_with_and_keeps_the_rest(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or all(c.isprintable() or c in "\xa0\u3000 " or c.isspace() for c in shown)
    assert "\x1b" not in shown
    shown.encode()
    if text.isascii() and text.isprintable():
        assert shown == text
