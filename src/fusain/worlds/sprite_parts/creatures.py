"""Creatures that are not people: slimes, bats, skulls, spiders, dragons, ghosts, snakes, golems, wolves and more."""

from __future__ import annotations

from typing import Final

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import Image, stencil
from fusain.worlds.sprite_parts.figures import Figure, draw_figure
from fusain.worlds.sprite_parts.palettes import CLOTH, EARTH, VIVID

_BEAST: Final = (*EARTH, "slate", "coal", "steel", "cream", "crimson", "navy")
_BONES: Final = ("bone", "cream", "snow", "tan", "steel", "pink", "lime", "sky")
_GLOW: Final = ("scarlet", "lemon", "lime", "aqua", "magenta", "orange")
_STONES: Final = ("slate", "steel", "tan", "brown", "umber", "forest", "crimson", "navy", "sky", "indigo")

_SLIME: Final = Figure(
    stencil("......aa ....aaaa ...aaaaa ..aaaaaa ..aaaiia .aaaaiea .aaaaiea .aaaaaaa .aaaaaaa .aaaaaaa ..aaaaaa", 4),
    {"a": VIVID, "b": VIVID, "g": ("gold",), "r": ("rose", "crimson")},
    (
        (None, stencil(".....AA......... ....A...........", 6), stencil("....AA.......... ....A...........", 6)),
        (
            stencil("......## .......r", 11),
            stencil(".......#", 12),
            stencil("......#i ......##", 11),
            stencil(".....##r ......##", 11),
        ),
        (
            None,
            None,
            stencil("....g..g ....gggg", 2),
            stencil("........b....... .......bb.......", 1),
            stencil("...b.... ....b...", 3),
        ),
    ),
    squash=(7, 13),
    narrow=(4,),
)
_BAT: Final = Figure(
    stencil("..a..... .aa..b.. .aaa.bb. .aaaabbb .aaaabeb .aaaabbb .aa.abib .a..a.bb ......b.", 3),
    {"a": VIVID, "b": CLOTH},
    (
        (
            None,
            stencil("..a..... .aa..... .aaa....", 2),
            stencil("........ ........ ........ ........ ........ ........ ........ .aa..a.. ..a..... ..a.....", 3),
        ),
    ),
    squash=(6,),
)
_SKULL: Final = Figure(
    stencil(
        "....nnnn ...nnnnn ..nnnnnn ..nnnnnn ..n###nn ..n#r#nn ..n###nn ..nnnnn# ...nnnn# ....nnnn ....n#n# ....n#n# "
        ".....nnn",
        2,
    ),
    {"n": _BONES, "r": _GLOW, "h": _BONES, "f": _GLOW},
    (
        (None, stencil(".h...... .hh..... ..hh....", 1), stencil("......f. .....ff. ....fff.", 0)),
        (None, stencil(".........#...... ..........#..... .........##.....", 2), stencil("....##.. ...####.", 7)),
    ),
    squash=(4, 13),
)
_SKELETON: Final = Figure(
    stencil(
        ".....nnn ....nnnn ....n##n ....n##n .....nn# ......nn .......n ...nnnnn ..n..#n# ..n.nnnn ..n..#n# ..n..nnn "
        ".....n.. .....n.. ....nn..",
        0,
    ),
    {"n": _BONES, "m": ("steel", "gold", "slate"), "w": EARTH, "r": VIVID},
    (
        (
            None,
            stencil(
                "...m............ ..mm............ ..mm............ ..mm............ ..mm............ .wwww...........",
                3,
            ),
            stencil(
                ".............m.. ............mmm. ............mwm. .............w.. .............w.. .............w..",
                4,
            ),
        ),
        (None, stencil("....rrrr", 1), stencil("...n....", 1)),
    ),
)
_SPIDER: Final = Figure(
    stencil(
        "..b..... .bbb..aa .b.bbaaa bb..aaaa ...baaaa .bbbaaaa .b...aaa .b..cccc ..bbciec .bb.ciec .b..cccc .b...n..", 2
    ),
    {"a": VIVID, "b": (*VIVID, "coal", "slate", "umber"), "c": CLOTH, "r": VIVID, "n": ("bone", "lemon")},
    (
        (
            None,
            stencil(".......r ......rr .......r", 4),
            stencil(".......r ........ .......r", 4),
            stencil("......r. ........ ......r.", 4),
            stencil(".....AA......... .....A..........", 4),
        ),
    ),
    squash=(6,),
    flips=False,
)
_DRAGON: Final = Figure(
    stencil(
        "................ .......nn.nn.... .......aaaa..... ......aaeaaa.... bb....aaaaaaaa.. bbbb..aaaa##aa.. "
        ".bbbbbaaaaaa.... .bbbbbbaaacc.... ..bbbbaaaccc.... a..bbaaaaccc.... aa.aaaaaacccc... .aaaaaaaacccca.. "
        "..aaaaaaacccaa.. ...aa.aaa...aaa. ......nan...nan."
    ),
    {
        "a": VIVID,
        "b": VIVID,
        "c": ("cream", "lemon", "tan", "bone", "pink"),
        "n": ("bone", "gold", "coal"),
        "f": ("scarlet", "orange", "lemon", "sky"),
    },
    (
        (None, None, stencil("..............f. .............fff ..............f.", 5)),
        (None, stencil("b............... bb.............. bbb............. .bbb............", 2)),
    ),
)
_GHOST: Final = Figure(
    stencil(
        "......aa ....aaaa ...aaaaa ...aaaaa ..aaa##a ..aaa##a ..aaaaaa .aaaaaaa .aaaaaa# .aaaaaaa ..aaaaaa ..aaaaaa "
        "..aa.aaa ..a...a.",
        1,
    ),
    {
        "a": ("bone", "snow", "sky", "pink", "steel", "lime", "lemon", "violet", "aqua"),
        "r": ("rose", "pink"),
        "b": CLOTH,
        "g": ("gold", "steel"),
    },
    (
        (
            None,
            None,
            stencil(".....bbb ....bbbb ....gggg", 0),
            stencil("....g..g ....gggg", 0),
            stencil("........b....... .......bb.......", 0),
        ),
        (None, stencil("....rr..", 7), stencil(".......# .......#", 8)),
        (
            None,
            stencil("................ .aa............. .aa............. ..a.............", 5),
            stencil("aa...... .aa.....", 6),
        ),
    ),
    squash=(11,),
)
_SNAKE: Final = Figure(
    stencil(
        ".....aaaaa...... ....aaaaaaa..... ....aeaaaea..... ....aaaaaaa..... .....aacaa...... ......ccaa...... "
        "......ccaaa..... .......ccaaa.... ..aaaa..ccaaa... .aaaaaaa.ccaaa.. .aa...aaaccaaa.. .aaa...aacccaa.. "
        "..aaaaaaaccaaa.. ....aaaaaaaaa...",
        1,
    ),
    {"a": VIVID, "c": ("cream", "lemon", "bone", "pink", "tan"), "r": ("crimson", "rose"), "b": VIVID},
    (
        (None, stencil(".......r........ ......r.r.......", 6), stencil(".......i........", 5)),
        (None, stencil("..b.........b... ..bb.......bb... ...b.......b....", 1)),
        (None, stencil("..........b..... ...........b.... ................ ............b... .............b..", 7)),
    ),
    squash=(7,),
)
_GOLEM: Final = Figure(
    stencil(
        ".....aaa ....aaaa ....a#ra ....aaaa .dddaa## ddddaaaa ddddcccc .dd.cccc .dd..ccc dddd.aaa dddd.aaa .dd.aaaa "
        "....aaa. ...aaaa.",
        1,
    ),
    {"a": _STONES, "b": CLOTH, "r": _GLOW, "c": CLOTH},
    (
        (None, stencil("..b..... .bbb.... ..b.....", 3), stencil("......b. .....bb.", 0)),
        (None, stencil(".........#...... ........#....... .........#......", 6)),
    ),
    same={"d": "a"},
)
_WOLF: Final = Figure(
    stencil(
        "...........a..a. ...........aa.a. ..........aaaaa. .........aaaaea. a........aaaaaaa aa......aaaaac## "
        ".aa..aaaaaaaccc. ..aaaaaaaaaac... ..aaaaaaaaaaa... ..aaaaaaaaaaa... ..aaaacccaaa.... .aaa.....aaa.... "
        ".aa.a....aa.a... .a..aa...a..aa..",
        1,
    ),
    {"a": (*_BEAST, "azure", "violet", "scarlet"), "c": ("cream", "bone", "tan", "snow"), "r": VIVID},
    (
        (None, stencil("..........rrr...", 8), stencil("....#..#........ ................ ...#..#..#......", 7)),
        (None, stencil("a............... aa.............. .aa.............", 3)),
    ),
)
_EYE: Final = Figure(
    stencil(
        ".....aaa ...aaaaa ..aaaaii ..aaiiii .aaaiicc .aaiicc# .aaiicc# .aaaiicc ..aaiiii ..aaaaii ...aaaaa .....aaa", 2
    ),
    {"a": VIVID, "c": VIVID, "b": VIVID},
    (
        (stencil(".......C........", 6), stencil("......C.........", 7)),
        (None, stencil("..b..... ..bb....", 1), stencil("....b... .b..bb.b", 0), stencil("b....... bb......", 7)),
        (stencil("...a..a. ...a....", 13), stencil("....#i#i", 12), None),
    ),
)
_ORC: Final = Figure(
    stencil(
        ".....aaa ....aaaa ....aaaa aa..a##a .aaaarea ..aaaaaa ....aaaa ....n### ....naaa ..ddaaaa .adddddd .aaddddd "
        ".aa.llll ....bbb.",
        1,
    ),
    {
        "a": ("leaf", "forest", "lime", "olive", "teal", "slate", "crimson", "violet", "azure"),
        "n": ("bone", "cream"),
        "d": CLOTH,
        "l": EARTH,
        "b": EARTH,
        "h": ("coal", "scarlet", "umber", "gold"),
        "r": ("lemon", "bone", "scarlet"),
        "m": ("steel", "slate", "gold"),
    },
    (
        (
            None,
            stencil(".......h ......hh ......hh", 0),
            stencil(".....mmm ....mmmm ...mmmmm", 0),
            stencil("..n..... ..nn.... ...n....", 0),
        ),
        (None, stencil(".............mm. .............mm. .............mm. .............l.. .............l..", 9)),
    ),
)
_IMP: Final = Figure(
    stencil(
        "...n.... ...nn... ....aaaa ...aaaaa ...aieaa b..aieaa bb.aaaaa bbb.a#i# bbb..aaa .bbaaacc ..baaacc ....aacc "
        "....aaa. ...aaa..",
        1,
    ),
    {"a": VIVID, "b": VIVID, "c": ("cream", "pink", "lemon", "tan"), "n": ("bone", "coal", "gold")},
    (
        (None, stencil("b....... b....... bb......", 4)),
        (None, stencil("............a... .............a.. .............aa. ..............a.", 11)),
    ),
)
_CRAB: Final = Figure(
    stencil(
        ".aa.a... .aa.aa.. .aaaaa.. ..aaa... ...a..aa ...aaaaa ..aaaiea .aaaaiea .aaaaaaa ..aaaa## .a.aaaaa a..a.a.. "
        ".a.a.a..",
        1,
    ),
    {"a": VIVID, "b": VIVID},
    ((None, stencil("......bb", 6), stencil(".......b ......b.", 5)), (None, stencil("......#i", 10))),
    squash=(9,),
    flips=False,
)
_OWL: Final = Figure(
    stencil(
        "...a.... ...aa... ...aaaaa ...iiiaa ..aieiab ..aiiiab ..aaaabb ..aaaaac .aaaaccc .aaacccc .aaacccc .aaaaccc "
        "..aaaaac ....aaaa ....bb..",
        1,
    ),
    {
        "a": (*_BEAST, "azure", "violet", "teal", "scarlet"),
        "b": ("orange", "gold", "amber"),
        "c": ("cream", "tan", "bone", "pink", "lemon"),
    },
    ((None, stencil("......#. .......# ......#.", 9), stencil("b...............", 4)),),
    squash=(9,),
)
_OCTOPUS: Final = Figure(
    stencil(
        ".....aaa ....aaaa ...aaaaa ...aaaaa ...aiiaa ...aieaa ...aaaaa ....aaa# ....aaaa ..aaaaaa aaa.aa.a a..aa.aa "
        "a..a..a. .aaa..aa",
        1,
    ),
    {"a": VIVID, "b": VIVID},
    ((None, stencil(".....b.......b.. .........b......", 2), stencil("......b. ....b...", 2)),),
    squash=(3,),
)
_TREANT: Final = Figure(
    stencil(
        ".....bbb ...bbbbb ..bbbbbb .bbbbbbb .bbbbbbb ..bbabba ....aaaa .a..arra .aa.area ..aaaaaa ....aa## ....aa## "
        "....aaaa ..aaa.aa",
        1,
    ),
    {
        "a": EARTH,
        "b": ("leaf", "forest", "lime", "orange", "amber", "crimson", "pink", "teal", "violet"),
        "r": _GLOW,
        "c": VIVID,
    },
    ((None, stencil(".....c.. ........ ...c...c", 2), stencil("......c. ..c.....", 3)),),
)
_PLANT: Final = Figure(
    stencil(
        "...aaaaa ..aaaaaa .aaaaaaa .aaaaaaa .aaiaiai .a###### .a###### .aaiaiai ..aaaaaa ...aaaaa ......bb .......b "
        ".bb...bb ..bbbbbb",
        1,
    ),
    {
        "a": VIVID,
        "b": ("leaf", "forest", "lime", "teal"),
        "r": ("rose", "crimson"),
        "c": ("cream", "lemon", "pink", "snow"),
    },
    (
        (None, stencil("....c... .......c ...c....", 2), stencil(".....c..", 2)),
        (None, stencil(".......r ......rr", 6)),
    ),
)
_RAT: Final = Figure(
    stencil(
        "..........aa.... .........acca.a. .........accaaa. ..........aaaaa. ....aaaaaaaaeaa. ...aaaaaaaaaaaac "
        "..aaaaaaaaaaaa#. ..aaaaaaaaaaai.. .aaaaaaaaaaaa... caaaaaaaaaaa.... c.aaaaaaaaaa.... .c.cc....cc.....",
        3,
    ),
    {"a": (*_BEAST, "violet", "forest", "rose"), "c": ("pink", "rose", "peach", "tan")},
    (
        (
            None,
            stencil("....#..#........ ................ ...#..#.........", 9),
            stencil("cc.............. c...............", 7),
        ),
    ),
)
_FLAME: Final = Figure(
    stencil(
        ".......a........ ......aa...a.... ..a...aaa..aa... ..aa.aaaa.aaa... ..aaaaaaaaaaa... .aaaabbbbbaaaa.. "
        ".aaabbbbbbbaaaa. .aab#bbbb#bbaaa. .aab##bb##bbbaa. .aabbbbbbbbbbaa. .aabbb####bbbaa. .aaabbb##bbbaaa. "
        "..aaaabbbbaaaa.. ....aaaaaaaa....",
        1,
    ),
    {"a": VIVID, "b": ("lemon", "cream", "snow", "pink", "gold", "sky")},
    ((None, stencil(".............a.. .............aa.", 2), stencil("....a........... ...aa...........", 0)),),
)

_CREATURES: Final = (
    _SLIME,
    _BAT,
    _SKULL,
    _SKELETON,
    _SPIDER,
    _DRAGON,
    _GHOST,
    _SNAKE,
    _GOLEM,
    _WOLF,
    _EYE,
    _ORC,
    _IMP,
    _CRAB,
    _OWL,
    _OCTOPUS,
    _TREANT,
    _PLANT,
    _RAT,
    _FLAME,
)


def draw_creature(dice: Dice) -> Image:
    return draw_figure(dice.pick(_CREATURES), dice)
