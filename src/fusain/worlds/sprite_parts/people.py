"""People seen from the front: a face with two eyes, hair or a hat, clothes or armour, and what the hands hold."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fusain.worlds.dice import Dice
from fusain.worlds.sprite_parts.canvas import Image, Stencil, colour_table, empty, lay, lay_apart, render, stencil
from fusain.worlds.sprite_parts.palettes import CLOTH, HAIR, METAL, SKIN, VIVID

# s skin, h hair, c and a clothes, d second cloth, m metal, l leather, p trousers, b boots, w wood, g gold,
# r jewel, n horn
_FACE: Final = stencil(".....sss ....ssss ....sses ....sses .....sss", 3)
_HAIRS: Final = (
    stencil(".....hhhhhh..... ....hhhhhhhh.... ....hhhhhhhh.... ....hhsshhsh.... ....h......h....", 1),
    stencil(".....hhh ....hhhh ...hhhhh ...hhhhs ...hh... ...hh... ...hhh.. ...hh...", 1),
    stencil("....h.hh.hh.h... ...hhhhhhhhhh... ....hhhhhhhh.... ....hshhshsh.... ....h......h....", 1),
    stencil(".....hhh ....hhhh ...hhhhh ...hhhss ...hh... ...hhh.. ....h...", 1),
    stencil("......hh ......hh ....hhhh ....hhhh ....hhss ....h...", 0),
    stencil("....hhhh ...hhhhh ..hhhhhh ..hhhsss ..hh.... ..hhh... ...h....", 1),
    stencil(".......h .......h ......hh ......hh", 0),
    stencil(".....hhh ....hhhh ....hhhh ....hhhs ..hhh... ..hh.... ..hh.... ..h.....", 1),
    stencil(".....hhhhhhh.... ....hhhhhhhhh... ....hhhhhhhhhh.. ....hhhhss.hhh.. ....h......hhh.. ............hh..", 1),
)
_BEARDS: Final = (
    stencil("....h... ....hhhh .....hhh", 6),
    stencil("....hhhh .....hhh ......hh .......h", 7),
    None,
    None,
    None,
    None,
)
_HATS: Final = (
    stencil(".........dd..... .......ddd...... ......dddd...... .....dddddd..... ..ddddggggdddd..", 0),
    stencil(".....mmm ....mmmm ....mmmm ....mmmm ....m### ....mmm# .....mmm", 1),
    stencil(".....mmm ....mmmm ....mmmm ....mmmm ....m... ....m...", 1),
    stencil("..n..mmm ..n.mmmm ..nnmmmm ...nmmmm ....ggmm ....m...", 1),
    stencil("....g..g ....gggg ....grgg", 1),
    stencil(".....ddd ....dddd ...ddddd ...ddd.. ...dd... ...dd... ...dd... ....dddd", 1),
    stencil(".....dddddd..... ....dddddddd.... ....dddddddd.... ..ddddddddd.....", 1),
    stencil(".....ddd ....dddd ....dddd .ddddddd", 1),
    stencil(".......r .......d .....mdd ....mmdd ....mmmm ....m... ....m...", 0),
)
_HIDING_HATS: Final = (0, 1, 2, 3, 5, 7, 8)
_BODIES: Final = (
    stencil(".....ccc ...aaccc ...aaccc ...ssllg .....ccc .....pp# .....bb#", 8),
    stencil(".....ccc ...aaccd ...aaccd ...ssccd ....cccd ....cccd ....dddd", 8),
    stencil(".....mmm ..mmmmmg ..mmmmmm ...ssmmm .....ddg .....mm# .....mm#", 8),
    stencil(".....dcc ...aadcc ...aaccc ...ssllr ....cccc ...ccccc ...ddddd", 8),
    stencil(".....cdd ...aacdd ...aacdd ...sslll .....ppp .....pp# .....bb#", 8),
    stencil(".....mmm ...ddmmm ...ddmmm ...ddllg ...ddmmm ...ddpp# ....dbb#", 8),
    stencil(".....css ...sscss ...ssccs ...ssllg .....ppp .....pp# .....bb#", 8),
    stencil("....ddgd ...ddccg ..dddccc ..ddsccc ..ddlllg ..ddcccc ...ddccc", 8),
)
_STEPS: Final = (
    None,
    None,
    stencil(".....pp.._bb_... .....bb..____...", 13),
    stencil("...._bb_..pp.... ....____..bb....", 13),
)
_SLENDER: Final = (0, 4, 6)
_RIGHT_HANDS: Final = (
    None,
    stencil(
        ".............m.. .............m.. .............m.. .............m.. .............m.. .............m.. "
        ".............m.. ............ggg. ...........ssl.. .............l..",
        3,
    ),
    stencil(
        "............mm.. ............mm.. ............mm.. ............mm.. ............mm.. ............mm.. "
        "...........gggg. ............ll.. ............ll..",
        4,
    ),
    stencil(
        ".............r.. ............rRr. .............r.. .............w.. .............w.. .............w.. "
        ".............w.. .............w.. .............w.. ............sw.. .............w.. .............w.. "
        ".............w..",
        2,
    ),
    stencil(
        "............mm.. ...........mmwm. ...........mmwm. ............mwm. .............w.. .............w.. "
        ".............w.. ............sw.. .............w..",
        4,
    ),
    stencil(
        ".............m.. ............mmm. .............m.. .............w.. .............w.. .............w.. "
        ".............w.. .............w.. .............w.. ............sw.. .............w.. .............w.. "
        ".............w..",
        2,
    ),
    stencil(
        "............w... .............w.. .............mw. .............mw. .............mw. ............smw. "
        ".............mw. .............w.. ............w...",
        6,
    ),
    stencil("...........rrrr. ...........rggr. ...........rrrr. ...........iiii.", 9),
    stencil(
        "............mmm. ............mmm. ............mmm. .............w.. .............w.. ............sw.. "
        ".............w..",
        6,
    ),
)
_LEFT_HANDS: Final = (
    None,
    None,
    stencil(".ggggg.......... .gdddg.......... .gdrdg.......... .gdddg.......... ..gdg........... ...g............", 8),
    stencil("..ddd........... .drrrd.......... .drgrd.......... .drrrd.......... ..ddd...........", 9),
    stencil(".mmmmm.......... .mdmdm.......... .mdddm.......... .mmdmm.......... ..mmm...........", 8),
    stencil("..w............. ..rr............ ..rr............", 9),
)


def draw_person(dice: Dice) -> Image:
    codes = empty()
    body = dice.below(len(_BODIES))
    lay(codes, _BODIES[body])
    if body in _SLENDER:
        lay(codes, dice.pick(_STEPS))
    lay(codes, _FACE, dice.pick(_BEARDS))
    _dress_head(codes, dice)
    lay_apart(codes, dice.pick(_RIGHT_HANDS))
    lay_apart(codes, dice.pick(_LEFT_HANDS))
    if dice.chance(0.35):
        codes = codes[:, ::-1]
    return render(codes, _colours(dice))


def _dress_head(codes: Stencil, dice: Dice) -> None:
    hair = dice.pick(_HAIRS)
    hat = dice.below(len(_HATS)) if dice.chance(0.5) else None
    if hat is None or hat not in _HIDING_HATS:
        lay(codes, hair)
    if hat is not None:
        lay(codes, _HATS[hat])


def _colours(dice: Dice) -> npt.NDArray[np.uint8]:
    cloth, second = dice.pick(CLOTH), dice.pick(CLOTH)
    return colour_table(
        {
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
            "n": "bone",
        },
        dice,
    )
