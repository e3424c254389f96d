"""Masking: what is an address, what only looks like one, and that masking twice changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instpt_assets.corpus.masking import Mask, Masker
from instpt_assets.corpus.normalizing import normalize
from instpt_assets.recipe.cleaning import Masks
from instpt_assets.synthesis.prompt import RESERVED

MASKER = Masker(Masks(email="[EMAIL]", ipv4="[IPv4]", ipv6="[IPv6]"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+lists@mail.example.co.uk.", "Write to [EMAIL]."),
        ("<a@b.org>, 'c_d@e.fr'; mailto:F@G.DE?x", "<[EMAIL]>, '[EMAIL]'; mailto:[EMAIL]?x"),
        ("jörg@münchen.de1 corresponds", "[EMAIL]1 corresponds"),
        ("a@b.com@c.org", "[EMAIL]@c.org"),
        ("x" * 64 + "@b.com " + "y" * 65 + "@b.com", "[EMAIL] " + "y" * 65 + "@b.com"),
        ("at 8.8.8.8, 8.8.4.4:53 and 1.1.1.1/24.", "at [IPv4], [IPv4]:53 and [IPv4]/24."),
        ("2001:4860:4860::8888 or [2606:4700::1111]:443; 2a00::.", "[IPv6] or [[IPv6]]:443; [IPv6]."),
        ("root@8.8.8.8", "root@[IPv4]"),
        ("8.8.8.8@b.org 2a00::1a@b.org", "[EMAIL] [IPv6]"),
    ],
)
def test_addresses_are_masked(text: str, masked: str) -> None:
    assert MASKER.mask(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "Vital@Work @user x@ y.org name@host a @ b.com",
        "localhost 127.0.0.1, 10.0.0.1, 192.168.1.1, 203.0.113.9 and 256.1.1.1",
        "1.2.3.4.5 v8.8.8.8 8.8.8.8a 8.8.8 .8.8.8.8",
        "trypsin (EC 3.4.21.4), E.C. 1.1.1.27, version 5.1.2.3, Section 4.3.2.1 and §4.3.2.1",
        "3.2.1.1 Participants\n## 3.2.1.2. Measures",
        "558.1 ± 85.80.10.92 and 12.70.20.3 ± 1.4",
        "std::vector a::b 12:30:45 ::1 fe80::1 2001:db8::7 00:1B:44:11:3A:B7 1:2:3:4:5:6:7:8",
    ],
)
def test_what_only_looks_like_a_public_address_stays(text: str) -> None:
    assert MASKER.mask(text) == (text, [])


def test_places_are_those_of_the_text_before_masking() -> None:
    text = "é 9.9.9.9, a@b.org"
    assert MASKER.mask(text)[1] == [Mask("ipv4", 2, 7), Mask("email", 11, 7)]
    assert Masker(Masks(ipv4=None)).mask(text) == ("é 9.9.9.9, email@example.com", [Mask("email", 11, 7)])


PIECES = [
    "a@b.org",
    "8.8.8.8",
    "2a00::1",
    "@",
    ".",
    ":",
    "::",
    "-",
    "+",
    "<",
    ">",
    "</",
    "\n",
    " ",
    "é",
    "Q",
    "8",
    "a" * 62,
    "e\u0301",
    "EC ",
]
TEXTS = st.lists(st.one_of(st.sampled_from([*PIECES, *RESERVED]), st.text(max_size=4)), max_size=12).map("".join)


@given(text=TEXTS, masks=st.sampled_from([Masks(), Masks(email="[EMAIL]", ipv4="[IP]", ipv6="[IP]")]))
def test_masking_twice_changes_nothing_keeps_text_normalised_and_makes_no_marker(text: str, masks: Masks) -> None:
    text, masker = normalize(text), Masker(masks)
    masked, found = masker.mask(text)
    assert masker.mask(masked) == (masked, [])
    assert normalize(masked) == masked
    assert all(masked.count(marker) <= text.count(marker) for marker in RESERVED)
    assert len(masked) == len(text) + sum(len(masker.kinds[mask.kind]) - mask.length for mask in found)


def test_hostile_texts_take_no_time() -> None:
    for text in ("a" * 200_000 + "@", "a@" * 50_000, "a." * 100_000 + "@" + "b." * 100_000, "1." * 100_000, "a:" * 100_000, "::" * 100_000):
        MASKER.mask(text)


@pytest.mark.parametrize("placeholder", ["QUE", "/END", "s", "<MAIL>", "", " [x]", "[x] ", "[\n]", "é[]"])
def test_placeholders_that_could_make_a_marker_or_change_normalising_are_refused(placeholder: str) -> None:
    with pytest.raises(ValueError, match="email"):
        Masks(email=placeholder)


def test_a_placeholder_that_holds_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cleaning.mask.ipv4: '\[a@b.org\]' holds an address"):
        Masker(Masks(ipv4="[a@b.org]"))
