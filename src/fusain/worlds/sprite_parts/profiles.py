"""Characters seen from the side, walking to the right: one eye, a nose, legs in stride and a weapon held forward."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import Image, Stencil, colour_table, empty, lay, lay_apart, render, stencil
from fusain.worlds.sprite_parts.palettes import CLOTH, HAIR, METAL, SKIN, VIVID

# s skin, h hair, c clothes, a sleeve, d second cloth, m metal, l leather, p trousers, b boots, w wood, g gold, r jewel
_FACE: Final = stencil("...sssssss...... ...sssssess..... ...sssssesss.... ....ssssss......", 4)
_HAIRS: Final = (
    stencil("....hhhhhh...... ...hhhhhhhh..... ...hhhhhhhh..... ...hhhhsss...... ...hhhss........ ....hh..........", 1),
    stencil(
        "....hhhhhh...... ...hhhhhhhh..... ..hhhhhhhhhh.... ..hhhhhss....... ..hhhhs......... ..hhhh.......... "
        "..hhh........... ..hhh........... ..hh............",
        1,
    ),
    stencil("..h.hh.hhh...... ..hhhhhhhhhh.... .hhhhhhhhhh..... ..hhhhhs........ .hhhhs.......... ..hhh...........", 1),
    stencil(
        "....hhhhhh...... ...hhhhhhhh..... ..hhhhhhhh...... .hhhhhhss....... hh.hhs.......... hh.hh........... "
        ".h..............",
        1,
    ),
    stencil("....hhhhhh...... ...hhhhhhh...... .hhhhhhhhh...... .hhhhhs......... .hhhhs.......... ...hh...........", 1),
    stencil("....h.hhh....... ...hhhhhhh...... ..hhhh.......... ..hhs........... ..hh............", 0),
    stencil("...hhhhhhh...... ..hhhhhhhhh..... ..hhhhhhhhh..... ..hhhhhsss...... ..hhhhs......... ...hhh..........", 1),
    stencil("....ssssss...... ...ssssssss..... ...ssssssss..... ...hs........... ...hh#..........", 1),
)
_BEARDS: Final = (
    None,
    None,
    None,
    stencil("......hhhhh..... .....hhhhh...... .......hhh......", 7),
)
_HATS: Final = (
    stencil("...dd........... ...dddd......... ....ddddd....... ...dddddd....... .dddggggdddd....", 0),
    stencil(
        "....mmmmmm...... ...mmmmmmmm..... ...mmmmmmmm..... ...mmmmmmmm..... ...mmmm####..... ...mmmmmmmmm.... "
        "....mmmm#m......",
        1,
    ),
    stencil("....mmmmmm...... ...mmmmmmmm..... ...mmmmmmmm..... ...mmmm......... ...mmm.......... ...mm...........", 1),
    stencil("...g..g..g...... ...gggggggg..... ...ggrggrgg.....", 1),
    stencil(
        "....dddddd...... ...dddddddd..... ..ddddddddd..... ..dddd.......... ..ddd........... ..ddd........... "
        "..dddd..........",
        1,
    ),
    stencil("....dddddd...... ...ddddddddd.... ...dddddddd..... ...dddddddddd...", 1),
    stencil("................ ....dddddd...... ...dddddddd..... .ddddddddddddd..", 1),
    stencil("..rrr........... .rrmmmmmm....... .r.mmmmmmm...... .r.mmmmmmmm..... ...mmmm......... ...mmm..........", 0),
)
_HIDING_HATS: Final = (0, 1, 2, 4, 5, 6, 7)
_BODIES: Final = (
    stencil("....ccccc....... ....ccccc....... ....ccccc....... ....lllgl....... ....ccccc.......", 8),
    stencil("....ddddc....... ....ddccc....... ...dddccc....... ...dddlgl....... ...ddcccc.......", 8),
    stencil("....mmmmm....... ....mmmmm....... ....mmmmm....... ....ddggd....... ....ddddd.......", 8),
    stencil("..dddcccc....... ..ddccccc....... .dddccccc....... .dddlllgl....... .ddccccccc......", 8),
    stencil("....ccccc....... ....cdddc....... ....cdddc....... ....lllgl....... ...ccccccc......", 8),
)
_LEGS: Final = (
    stencil(".....pp.pp...... ....bb..bbb.....", 13),
    stencil("....pp..pp...... ...bb....bbb....", 13),
    stencil("....ppppp....... ..bbb.bbb.......", 13),
    stencil("...ppp.ppp...... ...bb....bb.....", 13),
    stencil("....pp.pp....... ....bb.bbb......", 13),
)
_ROBE: Final = stencil("...cccccc....... ...cccccccc..... ..ddddddddd.....", 12)
_ARMS: Final = (
    stencil(".....aa......... .....aaa........ ......aass......", 9),
    stencil(".....aaa........ ......aaass..... ................", 9),
    stencil(".....aa......... ......aa........ .......aass.....", 9),
)
_HELD: Final = (
    None,
    stencil(
        ".............m.. .............m.. .............m.. ............mm.. ............m... ............m... "
        "...........gggg. ...........l....",
        4,
    ),
    stencil(
        "............m... ............m... ............m... ............m... ............m... ............m... "
        "............m... ...........ggg.. ............l...",
        3,
    ),
    stencil(
        "............r... ...........rRr.. ............r... ............w... ............w... ............w... "
        "............w... ............w... ............w... ............w... ............w... ............w... "
        "............w...",
        2,
    ),
    stencil(
        "...........mmm.. ...........mmmm. ............wmm. ............w... ............w... ............w... "
        "............w... ............w...",
        4,
    ),
    stencil("..............m. .........wwwwwmm ..............m.", 9),
    stencil(
        "............w... .............w.. ............mww. ............m.w. ............m.w. ............m.w. "
        "............mww. .............w.. ............w...",
        5,
    ),
    stencil("...........gggg. ..........gdddg. ..........gdrdg. ..........gdddg. ...........ggg..", 8),
    stencil("............l... ...........rrr.. ...........rRr.. ...........rrr..", 8),
)


def draw_profile(dice: Dice) -> Image:
    codes = empty()
    body = dice.pick(_BODIES)
    lay(codes, dice.pick(_LEGS), body)
    if dice.chance(0.2):
        lay(codes, _ROBE)
    lay(codes, _FACE)
    _dress_head(codes, dice)
    lay_apart(codes, dice.pick(_HELD))
    lay(codes, dice.pick(_ARMS))
    return render(codes, _colours(dice))


def _dress_head(codes: Stencil, dice: Dice) -> None:
    hair, beard = dice.pick(_HAIRS), dice.pick(_BEARDS)
    hat = dice.below(len(_HATS)) if dice.chance(0.5) else None
    lay(codes, beard)
    if hat is None or hat not in _HIDING_HATS:
        lay(codes, hair)
    if hat is not None:
        lay(codes, _HATS[hat])


def _colours(dice: Dice) -> npt.NDArray[np.uint8]:
    cloth, second = dice.pick(CLOTH), dice.pick(CLOTH)
    families = {
        "s": dice.pick(SKIN),
        "h": dice.pick(HAIR),
        "c": cloth,
        "a": cloth,
        "d": second,
        "m": dice.pick(METAL),
        "l": "umber",
        "p": dice.pick(CLOTH),
        "b": dice.pick(("umber", "brown", "coal", "slate")),
        "w": "brown",
        "g": "gold",
        "r": dice.pick(VIVID),
    }
    return colour_table(families, dice)
