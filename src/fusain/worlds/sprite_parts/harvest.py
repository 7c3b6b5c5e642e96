"""Food as it is picked: fruit, berries, vegetables and mushrooms."""

from __future__ import annotations

from typing import Final

from fusain.worlds.sprite_parts.canvas import stencil
from fusain.worlds.sprite_parts.figures import Figure
from fusain.worlds.sprite_parts.palettes import EARTH, LEAVES, VIVID

_STEM: Final = (*EARTH, "forest")

_APPLE: Final = Figure(
    stencil(
        "........t....... .......tt....... ..aaaaattaaaaa.. .aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa. "
        ".aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa. ..aaaaaaaaaaaa.. ..aaaaaaaaaaaa.. ...aaaaaaaaaa... ....aaaaaaaa.... "
        ".....aa..aa.....",
        2,
    ),
    {
        "a": (*VIVID, "crimson", "scarlet", "scarlet", "lime", "leaf"),
        "t": _STEM,
        "l": LEAVES,
        "c": ("cream", "bone", "lemon"),
    },
    (
        (stencil(".........lll.... ........lllll... .........lll....", 1), stencil("...lll.. ....lll.", 2), None),
        (stencil("...AA...........", 5), stencil("...AA........... ..AA............ ..A.............", 5)),
        (
            None,
            None,
            None,
            stencil(
                "............__.. ...........____. ..........cc____ ..........ccc___ ...........cc___ ............___.",
                6,
            ),
        ),
    ),
    squash=(8, 11),
    narrow=(5,),
)
_PEAR: Final = Figure(
    stencil(
        ".......tt....... .......t........ ......aaa....... .....aaaaa...... .....aaaaa...... .....aaaaaa..... "
        "....aaaaaaaa.... ...aaaaaaaaaa... ..aaaaaaaaaaaa.. ..aaaaaaaaaaaa.. ..aaaaaaaaaaaa.. ..aaaaaaaaaaaa.. "
        "...aaaaaaaaaa... ....aaaaaaaa....",
        1,
    ),
    {"a": (*VIVID, "lime", "lime", "leaf", "gold", "lemon", "amber"), "t": _STEM, "l": LEAVES, "r": VIVID},
    (
        (stencil("........lll..... .........lll....", 1), stencil("..lll........... ...llll.........", 1), None),
        (
            stencil("....A........... ...AA........... ...A............", 8),
            stencil(".....A.......... .....A..........", 5),
        ),
    ),
    squash=(6, 10),
)
_CARROT: Final = Figure(
    stencil(
        "...........ll... .........l.ll... .........llll.l. ..........llllll ........aaallll. ......aaaaaall.. "
        ".....aaaaaaaa... ....aaaaaaaaa... ...aaaaaaaaa.... ..aaaaaaaaa..... ..aaaaaaaa...... .aaaaaaa........ "
        ".aaaa........... .aa.............",
        1,
    ),
    {"a": (*VIVID, "cream", "orange", "orange", "orange", "orange"), "l": LEAVES},
    (
        (
            None,
            stencil("......##........ ........#....... ................ ....##.......... ................", 7),
            stencil(".......A........ ......A......... .....A.......... ....A...........", 6),
        ),
    ),
)
_TOADSTOOL: Final = Figure(
    stencil(
        ".....aaa ...aaaaa ..aaaaaa .aaaaaaa .aaaaaaa .aaaaaaa ..aaaaaa ....cccc .....ccc .....ccc .....ccc ....cccc "
        "....cccc",
        2,
    ),
    {
        "a": (*VIVID, "umber", "tan"),
        "c": ("cream", "bone", "tan", "porcelain"),
        "d": ("snow", "cream", "lemon"),
        "l": LEAVES,
    },
    (
        (
            stencil("....dd.......... ....dd....dd.... ..........dd.... ................ ......dd........", 3),
            stencil("......dd........ ...d..dd..dd.... ..dd......dd.... ................ ........dd......", 3),
            stencil(".....AA......... ...AA........... ...A............", 3),
        ),
        (None, stencil("...l.........l.. ..ll..........l.", 13)),
    ),
    squash=(5, 11),
)
_CHERRIES: Final = Figure(
    stencil(
        "..........lll... ........tlllll.. .......tttlll... ......t..t...... .....t...t...... ....t.....t..... "
        "..aaaa....t..... .aaaaaa.aaaaa... .aaaaaaaaaaaaa.. .aaaaaaaaaaaaa.. .aaaaaaaaaaaaa.. ..aaaa.aaaaaaa.. "
        ".........aaaaa..",
        2,
    ),
    {"a": (*VIVID, "crimson", "crimson", "scarlet", "scarlet"), "t": _STEM, "l": LEAVES},
    (
        (
            stencil("................ ................ ..A......A...... ..A......A......", 7),
            stencil("................ ................ ..AA.....AA.....", 7),
        ),
    ),
)
_BERRY: Final = Figure(
    stencil(
        ".......l ...l.lll ....llll ..aallll .aaaaall .aaaaaaa .aaaaaaa .aaaaaaa ..aaaaaa ..aaaaaa ...aaaaa ....aaaa "
        ".....aaa .......a",
        1,
    ),
    {"a": (*VIVID, "crimson", "scarlet", "scarlet", "scarlet", "rose"), "l": LEAVES, "s": ("lemon", "cream", "gold")},
    (
        (
            stencil("...s....s....... ......s....s.... ....s....s...... ................ .....s..s.......", 6),
            stencil("....s......s.... .......s........ ....s.....s..... ......s......... ........s.......", 6),
            stencil("...AA........... ...A............", 6),
        ),
    ),
    squash=(9,),
)
_GRAPES: Final = Figure(
    stencil(
        ".......t..ll.... .......tllll.... ..aaabbbaaall... .aaaabbbbaaaa... .aaaabbbbaaaa... ..aaabbbaaabb... "
        "...bbbaaabbbb... ..bbbbaaaabbb... ..bbbbaaaabb.... ...bbaaaaa...... .....abbbb...... ......bbbb...... "
        ".......bb.......",
        1,
    ),
    {"a": VIVID, "b": VIVID, "t": _STEM, "l": LEAVES},
    ((stencil("................ ..A...A..A...... ................ ................ ...A...A........", 3),),),
)
_MELON: Final = Figure(
    stencil(
        "..............b. .............abb ............aabb ..........aaaabb .........aaaaabb ........aaaaaabb "
        ".......aaaaaacb. .....aaaaaaacbb. ...aaaaaaaacbb.. .baaaaaaaacbb... .bbcccccccbb.... ..bbbbbbbbb..... "
        "....bbbbb.......",
        1,
    ),
    {"a": (*VIVID, "scarlet", "scarlet", "rose", "rose"), "b": LEAVES, "c": ("cream", "lime", "snow", "lemon")},
    (
        (
            stencil(
                "............#... ................ ..........#..... ............#... ........#....... .....#....#.....",
                4,
            ),
            stencil(
                "............#... ..........#..... ................ .........#...... ......#....#.... ........#.......",
                4,
            ),
        ),
    ),
)

HARVEST: Final = (
    _APPLE,
    _PEAR,
    _CARROT,
    _TOADSTOOL,
    _CHERRIES,
    _BERRY,
    _GRAPES,
    _MELON,
)
