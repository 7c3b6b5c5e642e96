"""Food as it is made: bread, cheese, meat, fish, cakes, pies, sweets and drinks; with the harvest it makes a class."""

from __future__ import annotations

from typing import Final

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import Image, stencil
from fusain.worlds.sprite_parts.figures import Figure, draw_figure
from fusain.worlds.sprite_parts.harvest import HARVEST
from fusain.worlds.sprite_parts.palettes import EARTH, LEAVES, VIVID

_SWEET: Final = (*VIVID, "cream", "snow", "umber", "porcelain")
_BAKED: Final = ("tan", "brown", "amber", "sienna", "umber", "cream")

_LOAF: Final = Figure(
    stencil(
        ".........aaaa... ......aaaaaaaa.. ....aaaaacaaaaa. ...aaaaccaaaaaa. ..aaaaccaaaaaaa. .aaacaaaaacaaaa. "
        ".aaccaaaaccaaaa. .accaaaaccaaaab. .aaaaaaacaaaabb. .aaaaaaaaaaabb.. .aaaaaaaaaabb... ..aaaaaaabbb....",
        3,
    ),
    {"a": (*_BAKED, *_BAKED, "rose", "indigo"), "b": _BAKED, "c": ("cream", "bone", "lemon", "pink")},
    ((None, stencil("....A........... ...A............", 5)),),
    squash=(6, 10),
)
_CHEESE: Final = Figure(
    stencil(
        "..........aa.... ........aaaaa... ......aaaaaaaa.. ....aaaaaaaaaa.. ..aaaaaaaaaaaaa. .aaaaaaaaaaaaaa. "
        ".bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb.",
        2,
    ),
    {
        "a": ("lemon", "gold", "cream", "orange", "pink", "lime", "sky", "violet"),
        "b": ("gold", "amber", "lemon", "orange", "tan", "rose", "teal", "indigo"),
        "r": ("crimson", "navy", "leaf"),
    },
    (
        (
            stencil("................ ...##........... ...##.....##.... .......#..##.... ................", 8),
            stencil(".....##......... .....##...#..... ................ ..#......##..... ..........#.....", 8),
            stencil("..##............ ..##....##...... ........##...#.. .....#.......... ................", 8),
        ),
        (None, stencil(".rrrrrrrrrrrrrr.", 13)),
    ),
    squash=(10,),
)
_MEAT: Final = Figure(
    stencil(
        ".....aaaaa...... ...aaaaaaaaa.... ..aaaaaaaaaaa... .aaaaaaaaaaaaa.. .aaaaaaaaaaaaa.. .aaaaaaaaaaaaa.. "
        ".aaaaaaaaaaaaa.. ..aaaaaaaaaaa... ...aaaaaaaaa.... ....aaaaaaann... ..........nnn..n .............nnn "
        "............nnn."
        " .............n..",
        1,
    ),
    {
        "a": (*EARTH, *EARTH, "crimson", "rose", "amber", "orange", "violet"),
        "n": ("bone", "cream", "snow"),
        "c": ("pink", "peach", "rose", "tan"),
    },
    (
        (
            stencil("....AA.......... ...A............ ..AA............", 2),
            stencil("...AAA.......... ..AA............", 3),
        ),
        (
            None,
            stencil("....#..#........ .....#..#....... ......#..#......", 5),
            stencil("...ccc.......... ..ccccc......... ..ccncc......... ...ccc..........", 4),
        ),
    ),
    squash=(5,),
)
_FISH: Final = Figure(
    stencil(
        ".......bbb...... ......bbbb...... .....aaaaaa...b. ...aaaaaaaaa.bb. ..aaaaaaaaaabbb. .aaeaaaaaaaabb.. "
        ".aaaaaaaaaaaabb. ..aacccccccabbb. ...ccccccca..bb. .....cccc.....b. ......bb........",
        3,
    ),
    {"a": VIVID, "b": VIVID, "c": ("cream", "bone", "pink", "lemon", "sky"), "m": ("steel",)},
    (
        (
            None,
            stencil("......#......... .....#.......... ......#.........", 7),
            stencil("......a..a...... .....a..a....... ......a..a......", 7),
        ),
        (None, stencil("......A..A...... .....A..A.......", 6)),
        (None, stencil("...mmm..........", 13)),
    ),
    squash=(4,),
)
_CAKE: Final = Figure(
    stencil(
        ".......rr....... .......rr....... ....bbbbbbbb.... ..bbbbbbbbbbbb.. .bbbbbbbbbbbbbb. .bbbbbbbbbbbbbb. "
        ".bbabbabbbabbab. .aaaaaaaaaaaaaa. .cccccccccccccc. .aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa. ..aaaaaaaaaaaa..",
        2,
    ),
    {"a": _BAKED, "b": _SWEET, "c": _SWEET, "r": VIVID},
    (
        (
            None,
            stencil("................ ...r......r..... ......r......r.. ", 4),
            stencil("....A........... ...A............", 5),
        ),
        (None, stencil("....r..r........ ....r..r........", 2), stencil("....r... ....r...", 2)),
    ),
    squash=(11,),
)
_SLICE: Final = Figure(
    stencil(
        "..........rr.... ..........rr.... ........bbbbb... ......bbbbbbbb.. ....bbbbbbbbbbb. ..bbbbbbbbbbbbb. "
        ".bbbbbbbbbbbbbb. .aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa. .cccccccccccccc. .aaaaaaaaaaaaaa. .aaaaaaaaaaaaaa.",
        2,
    ),
    {"a": (*_BAKED, "porcelain", "rose"), "b": _SWEET, "c": _SWEET, "r": VIVID},
    (
        (None, stencil(".......A........ .....A.......... ...A............", 5)),
        (None, stencil(".bb.bbb.bb.bbbb. .b...b...b...bb.", 9)),
    ),
    squash=(10,),
)
_PIE: Final = Figure(
    stencil(".....aaa ...aaaaa ..aaccaa .aaccaac .aacaacc .aaaacca bbbbbbbb .bbbbbbb .bbbbbbb ..bbbbbb ..bbbbbb", 3),
    {"a": _BAKED, "b": _BAKED, "c": VIVID, "s": ("bone", "steel", "snow")},
    (
        (
            None,
            stencil(".....s.......... ......s......... .....s..........", 0),
            stencil(".....s..s....... ......s..s......", 0),
        ),
        (None, stencil(".bb.bb.b .bb.bb.b", 10)),
    ),
    squash=(5, 12),
)
_POTION: Final = Figure(
    stencil(
        "......ww ......ww .....ggg ......gg ......gg .....ggg ....gggg ...gaaaa ..gaaaaa ..gaaaaa ..gaaaaa ..gaaaaa "
        "...gaaaa ....gggg",
        1,
    ),
    {"a": VIVID, "w": EARTH, "g": ("steel", "sky", "bone", "aqua", "snow")},
    (
        (
            stencil("....AA.......... ...AA........... ...A............", 8),
            stencil("..........A..... .....A.......... ........A.......", 8),
        ),
        (None, stencil("...gaaaa", 7), stencil("...gggggggggg... ..gggggggggggg..", 8)),
    ),
    squash=(5, 11),
    narrow=(5,),
)
_MUG: Final = Figure(
    stencil(
        "....cc.ccc...... ..ccccccccc..... .ccccccccccc.... .ccccccccccc.... .aacaacaacaawww. .aaaaaaaaaaa.ww. "
        ".aabaabaabaa..w. .aabaabaabaa..w. .aabaabaabaa.ww. .aaaaaaaaaaawww. .aabaabaabaa.... .aabaabaabaa.... "
        ".aaaaaaaaaaa....",
        2,
    ),
    {
        "a": (*EARTH, "gold", "crimson", "azure", "forest", "violet", "teal"),
        "b": (*EARTH, "slate"),
        "c": ("cream", "snow", "lemon", "pink", "bone"),
        "w": ("steel", "slate", "gold", "umber"),
    },
    ((None, stencil(".wwwwwwwwwww....", 11)), (None, stencil("................ .....c.......... .....c..........", 5))),
    squash=(8, 12),
)
_PIZZA: Final = Figure(
    stencil(
        "....bbbbbbbb.... ..bbbbbbbbbbbb.. .bbaaaaaaaaaabb. .baaaaaaaaaaaab. ..aaaaaaaaaaaa.. ..aaaaaaaaaaaa.. "
        "...aaaaaaaaaa... ...aaaaaaaaaa... ....aaaaaaaa.... .....aaaaaa..... .....aaaaaa..... ......aaaa...... "
        "......aa........ .......a........",
        1,
    ),
    {"a": ("gold", "lemon", "amber", "cream", "orange", "leaf", "pink"), "b": _BAKED, "r": VIVID, "l": LEAVES},
    (
        (
            stencil(
                "....rr...rr..... ....rr...rr..... ................ ......rr........ ......rr........ "
                "................ .......rr.......",
                4,
            ),
            stencil(".....rr......... .....rr....rr... ...........rr... ......rr........ ......rr........", 4),
            stencil("...rr....rr..... ...rr....rr..... ................ .......rr....... .......rr.......", 4),
        ),
        (
            None,
            stencil(
                ".......l........ ................ .........l...... ....l........... ................ .......l........",
                4,
            ),
        ),
    ),
)
_EGG: Final = Figure(
    stencil(
        "....bbbbb....... ..bbbbbbbbbbb... .bbbbbbbbbbbbb.. .bbbccccbbbbbbb. .bbccccccbbbbbb. .bbccccccbbbbbb. "
        ".bbbccccbbbbbbb. ..bbbbbbbbbbbb.. ..bbbbbbbbbbb... ...bbbbbbbb..... .....bbbb.......",
        3,
    ),
    {
        "b": ("snow", "cream", "bone", "pink", "sky", "lime", "tan", "brown"),
        "c": ("gold", "orange", "amber", "scarlet", "violet"),
    },
    ((stencil("....CC.......... ...C............", 7),),),
    squash=(10,),
)
_DONUT: Final = Figure(
    stencil(
        ".....aaa ...aaaaa ..aaaaaa .aaaaaaa .aaaaaa. .aaaaa.. .aaaaa.. .baaaaaa .bbaabaa ..bbbbbb ...bbbbb .....bbb", 2
    ),
    {"a": _SWEET, "b": _BAKED, "r": VIVID, "s": VIVID},
    (
        (
            stencil(
                ".....r....s..... ...s....r...r... ................ ...r.........s.. ................ ....s......r....",
                3,
            ),
            stencil(
                "......s..r...... ....r......s.... ..s............. ............r... ................ ...r.......s....",
                3,
            ),
            stencil(".....AA......... ...AA........... ..AA............", 3),
        ),
    ),
)
_ICE: Final = Figure(
    stencil(
        "......bb ....bbbb ...bbbbb ...bbbbb ...bbbbb ..bbbbbb ..b.bb.b ....aaaa ....aaca .....aac .....aca ......ac "
        "......aa .......a",
        1,
    ),
    {"a": _BAKED, "b": _SWEET, "c": EARTH, "r": VIVID, "d": _SWEET},
    (
        (None, stencil(".......rr....... .......rr.......", 0), stencil("....dddd ...ddddd ...d.dd.", 2)),
        (
            stencil(".....AA......... ....A...........", 2),
            stencil(".....r.......... ........r....... ......r...r.....", 3),
        ),
    ),
)
_BURGER: Final = Figure(
    stencil(
        ".....aaa ...aaaaa ..aaaaaa .aaaaaaa .aaaaaaa lllrrrll .lllllll .mmmmmmm .mmmmmmm cc.ccc.c .aaaaaaa .aaaaaaa "
        "..aaaaaa",
        2,
    ),
    {
        "a": _BAKED,
        "l": LEAVES,
        "r": VIVID,
        "m": ("umber", "sienna", "crimson", "cocoa"),
        "c": ("gold", "lemon", "cream", "orange"),
        "s": ("cream", "snow"),
    },
    (
        (
            None,
            stencil("......s......... ....s....s...... .......s...s....", 3),
            stencil(".....AA......... ...AA...........", 3),
        ),
    ),
    squash=(5, 9),
)

_FOODS: Final = (
    *HARVEST,
    _LOAF,
    _CHEESE,
    _MEAT,
    _FISH,
    _CAKE,
    _SLICE,
    _PIE,
    _POTION,
    _MUG,
    _PIZZA,
    _EGG,
    _DONUT,
    _ICE,
    _BURGER,
)


def draw_food(dice: Dice) -> Image:
    return draw_figure(dice.pick(_FOODS), dice)
