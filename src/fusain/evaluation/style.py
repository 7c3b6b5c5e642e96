"""How a report looks, on paper-white and in the dark, from a telephone to a wide screen."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --paper: #faf8f4; --card: #ffffff; --ink: #1f1d1b; --soft: #5f5a54;
  --line: #e2dcd2;
  --chalk: #a63d24; --chalk-soft: #f1ddd5; --tile: #ffffff;
  --shadow: 0 1px 2px rgb(60 40 20 / .06), 0 6px 24px rgb(60 40 20 / .05) }
@media (prefers-color-scheme: dark) { :root { --paper: #171615; --card: #201f1d; --ink: #f1ede6; --soft: #aea79d;
  --line: #37342f; --chalk: #ee9275; --chalk-soft: #47291f; --tile: #fbfaf7; --shadow: none } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums }
h1, h2, .value { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, serif;
  font-weight: 600;
  line-height: 1.15; letter-spacing: -.01em; text-wrap: balance }
h1 { font-size: clamp(2.1rem, 6vw, 3.4rem); margin: .2em 0 .35em }
h2 { font-size: clamp(1.5rem, 4vw, 2rem); margin: 0 0 .4em }
h3 { font-size: 1rem; margin: 0; font-weight: 650 }
p { margin: 0 0 1em; max-width: 66ch; text-wrap: pretty }
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 clamp(18px, 4vw, 40px) }
header { padding-top: clamp(36px, 7vw, 80px) }
.brand { display: flex; align-items: center; gap: .55em; color: var(--chalk); font-size: .82rem; font-weight: 650;
  letter-spacing: .09em; text-transform: uppercase }
.brand::before { content: ""; width: 2.1em; height: .5em; border-radius: 60% 20% 50% 30%; background: currentColor;
  transform: rotate(-9deg) }
.lead { font-size: 1.16rem; color: var(--soft); max-width: 60ch }
.soft { color: var(--soft) }
small, .small { font-size: .84rem }
section { padding: clamp(30px, 5vw, 52px) 0; border-top: 1px solid var(--line) }
header + main > section:first-child { border-top: 0 }
img { display: block; background: var(--tile); image-rendering: pixelated; max-width: 100%; border-radius: 4px }
.tiles { display: flex; flex-wrap: wrap; gap: 6px }
.sheet .tiles > img, .stage img { padding: 0; box-shadow: 0 0 0 1px var(--line) }
.ribbon { margin: 1.6em 0 .5em; padding: 16px; background: var(--tile); border: 1px solid var(--line);
  border-radius: 14px;
  box-shadow: var(--shadow) }
.ribbon .tiles { gap: 8px 10px; max-height: 160px; overflow: hidden }
.ribbon img { box-shadow: none; border-radius: 0; max-height: 72px; width: auto }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 18px;
  margin: 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 22px 24px;
  box-shadow: var(--shadow) }
.card p { margin: .5em 0 0; font-size: .94rem; line-height: 1.5 }
.card dt, .label { color: var(--soft); font-size: .84rem; font-weight: 600 }
.value { font-size: 2.9rem; margin: .1em 0 0; color: var(--ink) }
.range { position: relative; height: 22px; margin: 10px 0 2px }
.range::before { content: ""; position: absolute; inset: 10px 0 auto; height: 2px; background: var(--line) }
.range i { position: absolute; top: 8px; height: 6px; min-width: 3px; border-radius: 3px; background: var(--chalk);
  opacity: .45 }
.range b { position: absolute; top: 4px; width: 4px; height: 14px; margin-left: -2px; border-radius: 2px;
  background: var(--chalk) }
.range s { position: absolute; top: 2px; width: 2px; height: 18px; margin-left: -1px; background: var(--ink) }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: .78rem }
.key { display: inline-block; width: 2px; height: .95em; background: var(--ink); vertical-align: -.12em;
  margin: 0 .3em 0 .1em }
.sheet + .sheet { margin-top: 26px }
.sheet > .top { display: flex; justify-content: space-between; align-items: baseline; gap: 1em;
  margin-bottom: 10px }
.plot { display: grid; grid-template-columns: 3.6em 1fr; grid-template-rows: clamp(200px, 34vw, 330px) 1.8em;
  font-size: .8rem;
  color: var(--soft); margin: 6px 0 4px }
.plot .y, .plot .x { position: relative }
.plot .x { grid-column: 2 }
.plot .y span { position: absolute; right: .7em; transform: translateY(-50%) }
.plot .x span { position: absolute; top: .45em; transform: translateX(-50%); white-space: nowrap }
.plot .x span:last-child { transform: translateX(-100%) }
.plot .x span:first-child { transform: none }
.plot svg { width: 100%; height: 100%; display: block; overflow: visible }
.plot path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round }
.plot .grid { stroke: var(--line); stroke-width: 1 }
.plot .thin { stroke: var(--soft); stroke-width: 1; opacity: .65 }
.plot .main { stroke: var(--chalk); stroke-width: 3 }
.legend { display: flex; flex-wrap: wrap; gap: .2em 1.6em; font-size: .86rem; margin: 0 0 0 3.6em; padding: 0;
  list-style: none }
.legend li::before { content: ""; display: inline-block; width: 1.7em; height: 0;
  border-top: 3px solid var(--chalk);
  vertical-align: .28em; margin-right: .55em; border-radius: 2px }
.legend li.thin::before { border-top: 1px solid var(--soft) }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .5em 1.2em .5em 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400; overflow-wrap: anywhere }
thead th { color: var(--soft); font-size: .8rem; font-weight: 600; white-space: nowrap }
.settings th { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .84rem }
.counts th, .counts td { white-space: nowrap }
.counts td:nth-child(2) { width: 50%; min-width: 56px; vertical-align: middle }
.key-line { margin-top: 1em }
.bar { display: block; height: 8px; border-radius: 4px; background: var(--chalk-soft); min-width: 3px;
  overflow: hidden }
.bar i { display: block; height: 100%; background: var(--chalk) }
.stages td, .stages th { border: 0; padding: 8px 14px 8px 0; vertical-align: middle; white-space: nowrap }
.stages tbody th { white-space: normal; min-width: 9em; max-width: 14em }
.stages { width: auto }
.stage { display: grid; grid-template-columns: repeat(2, max-content); gap: 4px }
.stage img { max-width: 84px; height: auto }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 22px 18px }
.pair { margin: 0 }
.pair .tiles { flex-wrap: nowrap; gap: 4px }
.pair .tiles img { box-shadow: 0 0 0 1px var(--line); width: calc(50% - 2px); max-width: 80px; height: auto;
  aspect-ratio: 1 }
.pair figcaption { font-size: .8rem; line-height: 1.4; color: var(--soft); margin-top: 7px;
  overflow-wrap: anywhere }
h3.gap { margin: 28px 0 12px }
details { border: 1px solid var(--line); border-radius: 12px; background: var(--card); padding: 0 18px;
  margin-top: 16px }
summary { cursor: pointer; padding: 13px 0; font-weight: 600; font-size: .95rem }
summary:focus-visible { outline: 3px solid var(--chalk); outline-offset: 4px; border-radius: 4px }
details[open] { padding-bottom: 14px }
ul.plain { padding-left: 1.15em; max-width: 66ch; margin: 0 0 1em }
ul.plain li { margin-bottom: .7em }
ul.plain li::marker { color: var(--chalk) }
footer { color: var(--soft); font-size: .84rem; padding-top: 26px; padding-bottom: 60px }
@media (max-width: 560px) { body { font-size: 16px } .ribbon { padding: 12px } .ribbon .tiles { gap: 8px 6px }
  .card { padding: 18px } .plot { grid-template-columns: 2.9em 1fr } .legend { margin-left: 0 } th,
  td { padding-right: .8em } }
@media (min-width: 900px) { .stage { zoom: 1.5 } }
@media print { body { background: #fff } .card, .ribbon { box-shadow: none } section { break-inside: avoid } }
"""
