# SPDX-License-Identifier: Apache-2.0
"""How pages look: one style sheet for light and dark, wide and narrow screens, and for the plots on them."""

#: Names of colours, light and dark.
COLOURS = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f4f6f8; --text: #1b2026; --quiet: #57606a; --rule: #d5dae0; --grid: #dfe3e8;
  --accent: #1f5fa8; --warn: #8a5300; --warn-ground: #fff4df;
  --c1: #2563ad; --c2: #c2540a; --c3: #1b7f5c; --c4: #8b46a8; --c5: #8a6c00; --c6: #c03b72; --c7: #0e7792;
  --c8: #5d6672;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181d; --raised: #1e242b; --text: #e6eaef; --quiet: #a3adb8; --rule: #37404a; --grid: #2c343d;
    --accent: #7ab4ff; --warn: #f0c37a; --warn-ground: #33291a;
    --c1: #7ab4ff; --c2: #ffa057; --c3: #5fd0a5; --c4: #cf9bf0; --c5: #e3c04d; --c6: #ff8fb8; --c7: #62cde8;
    --c8: #b3bcc8;
  }
}
"""

_PAGE = """* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 75rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule);
  overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 50rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0; }
.note { background: var(--warn-ground); color: var(--warn); padding: .4rem .75rem; border-radius: .25rem;
  max-width: 50rem; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr));
  margin: 1rem 0; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
figure { margin: 0; padding: .5rem; background: var(--raised); border-radius: .375rem; min-width: 0; max-width: 40rem; }
figcaption { font-size: .875rem; color: var(--quiet); overflow-wrap: anywhere; }
figcaption b { color: var(--text); }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--quiet); font-size: .9rem; margin: .75rem 0 -.5rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: normal; min-width: 7rem; }
.n { text-align: right; white-space: nowrap; }
.long tbody th { white-space: nowrap; }
.long td { overflow-wrap: anywhere; min-width: 9rem; }
@media (max-width: 40rem) {
  .long thead { display: none; }
  .long tr { display: block; border-bottom: 1px solid var(--rule); padding: .25rem 0; }
  .long tbody th, .long td { display: block; border: 0; padding: 0 .6rem; white-space: normal;
    overflow-wrap: anywhere; }
  .long td::before { content: attr(data-column) ": "; color: var(--quiet); }
}
dl { display: grid; grid-template-columns: fit-content(45%) 1fr; gap: .15rem 1rem; margin: .75rem 0; font-size: .9rem; }
dt { color: var(--quiet); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--raised); padding: .75rem; border-radius: .375rem; font-size: .8rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--accent); margin: .5rem 0; }
"""

#: Plots, by the classes of their elements.
PLOT = """.plot { display: block; width: 100%; height: auto; }
.plot text { font-size: 13px; fill: var(--quiet); }
.plot text.label { fill: var(--text); }
.plot text.small { font-size: 12px; }
.plot .grid { stroke: var(--grid); stroke-width: 1; }
.plot path.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.plot .faint path.line { stroke-width: 1; opacity: .45; }
.plot .dashed path.line, .plot .again path.line { stroke-dasharray: 6 5; }
.plot .guide path.line { stroke: var(--rule); stroke-width: 1; }
.plot circle { fill: var(--c); }
.plot .points circle { stroke: var(--raised); }
.plot .bar rect { fill: var(--c); }
.plot .bar path.line { stroke-width: 9; stroke-linecap: butt; }
.plot .error { stroke: var(--text); stroke-width: 1.5; }
.plot .area { fill: var(--c); fill-opacity: .22; stroke: var(--c); stroke-width: 1.5; }
.plot .above rect { fill: var(--c1); }
.plot .below rect { fill: var(--c2); }
.plot .heat text { fill: var(--text); }
.plot .heat text.on { fill: var(--ground); }
.plot .c1 { --c: var(--c1); } .plot .c2 { --c: var(--c2); } .plot .c3 { --c: var(--c3); } .plot .c4 { --c: var(--c4); }
.plot .c5 { --c: var(--c5); } .plot .c6 { --c: var(--c6); } .plot .c7 { --c: var(--c7); } .plot .c8 { --c: var(--c8); }
"""

_PRINT = """@media print { nav { display: none; } figure { break-inside: avoid; } }
"""

STYLE = COLOURS + _PAGE + PLOT + _PRINT
