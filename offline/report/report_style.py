"""How the report looks: dark on light, from a phone to a wide screen, on paper too."""

STYLE = """
:root { color-scheme:light; --ink:#1f2430; --faint:#5b6472; --line:#e5e7eb; --paper:#fff; --ground:#f6f7f9;
  --red:#c01a40; --tint:#fdf0f3; --green:#2f7d33; --blue:#2f63a8; --orange:#a05a00; }
* { box-sizing:border-box; }
html { scroll-behavior:smooth; -webkit-text-size-adjust:100%; }
body { margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1240px; margin:0 auto; padding:36px 24px 80px; }
h1 { font-size:30px; line-height:1.2; margin:0; letter-spacing:-.02em; overflow-wrap:anywhere; }
h2 { font-size:21px; margin:0 0 6px; letter-spacing:-.01em; }
h3 { font-size:14px; margin:0 0 6px; }
h3.group { font-size:15px; margin:24px 0 8px; }
h4 { margin:0 0 6px; font-size:12.5px; color:var(--faint); font-weight:600; }
h4.ours { color:var(--red); }
p { margin:0 0 14px; color:var(--faint); max-width:88ch; }
p.note { margin:10px 0 0; font-size:13px; }
img { max-width:100%; display:block; }
section { background:var(--paper); border:1px solid var(--line); border-radius:14px; padding:22px 24px;
  margin-top:20px; scroll-margin-top:12px; }
footer { color:var(--faint); font-size:13px; margin-top:26px; }
:focus-visible { outline:2px solid var(--blue); outline-offset:2px; }

nav { margin-top:20px; }
nav ul, .legend { display:flex; flex-wrap:wrap; gap:6px 8px; list-style:none; margin:0; padding:0; }
nav a { display:block; padding:4px 12px; border:1px solid var(--line); border-radius:999px; background:var(--paper);
  color:var(--ink); font-size:13.5px; text-decoration:none; }
nav a:hover { border-color:var(--red); color:var(--red); }
.legend { gap:4px 18px; margin:0 0 12px; color:var(--faint); font-size:13px; }
.legend span:not(.mark) { display:inline-block; width:11px; height:11px; border-radius:50%; margin-right:6px; }

.facts { display:flex; flex-wrap:wrap; gap:10px; margin:16px 0 0; }
.facts div { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:9px 16px;
  min-width:104px; display:flex; flex-direction:column-reverse; }
.facts dd { margin:0; font-size:20px; font-weight:650; font-variant-numeric:tabular-nums; }
.facts dt { color:var(--faint); font-size:13px; }

.wide { overflow-x:auto; }
.wide + .wide { margin-top:18px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
caption { text-align:left; font-weight:650; font-size:14px; padding:0 0 4px; }
th { font-weight:600; text-align:right; padding:7px 10px; white-space:nowrap; border-bottom:1px solid var(--line); }
thead th { color:var(--faint); font-size:13px; }
td { text-align:right; padding:7px 10px; border-bottom:1px solid var(--line); white-space:nowrap; vertical-align:top; }
th:first-child { text-align:left; }
tbody th { font-weight:500; vertical-align:top; position:sticky; left:0; background:var(--paper); }
tr:last-child td, tbody tr:last-child th { border-bottom:0; }
td small, th small { display:block; color:var(--faint); font-size:11.5px; font-weight:400; }
td small { padding-right:1.35em; }
td.best { font-weight:700; }
tr.ours td, tr.ours th { background:var(--tint); }
tr.ours th { font-weight:650; color:var(--red); }
td.names { text-align:left; white-space:normal; min-width:130px; }
.verdicts caption { font-size:21px; letter-spacing:-.01em; }
.verdicts thead th:nth-child(n+3) { text-align:left; }
.claims { margin-top:18px; }
.claims thead th:last-child { text-align:left; }
.verdicts td.names { width:25%; }
td.bar { width:75%; vertical-align:middle; }
td.bar div { height:9px; border-radius:5px; background:var(--red); min-width:2px; }
.mark { display:inline-block; width:1.35em; text-align:center; color:var(--faint); font-weight:400; }
.mark.above { color:var(--orange); }
.mark.below { color:var(--blue); }
.chip { display:inline-block; padding:1px 9px; margin:1px 5px 1px 0; border-radius:999px; font-size:13px;
  background:var(--ground); color:var(--ink); white-space:nowrap; }
.chip.good { background:#e3f4e6; color:#1d5a21; }
.chip.bad { background:#fdeedb; color:#7a4300; }

figure { margin:0; }
figcaption { color:var(--faint); font-size:12px; line-height:1.4; margin-top:2px; }
.grid { display:grid; gap:24px; margin-top:20px; }
.pair { grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr)); }
.small { grid-template-columns:repeat(auto-fill,minmax(min(200px,46%),1fr)); gap:20px 16px; margin-top:8px; }
.triple { grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr)); margin-top:8px; }
.half { max-width:620px; }
section > figure { margin-top:8px; }

.query { display:grid; grid-template-columns:170px minmax(0,1fr); gap:18px; padding:16px 0;
  border-top:1px solid var(--line); }
.columns { display:grid; grid-auto-flow:column; grid-auto-columns:minmax(150px,1fr); gap:14px; overflow-x:auto; }
ol { list-style:none; margin:0; padding:0; }
li > .card { margin-bottom:5px; }
.card { hyphens:auto; font-size:12.5px; line-height:1.35; padding:6px 8px; border-radius:8px; background:var(--ground);
  overflow-wrap:anywhere; }
.card b { font-weight:500; unicode-bidi:isolate; display:-webkit-box; -webkit-line-clamp:3;
  -webkit-box-orient:vertical; overflow:hidden; }
.card i { font-style:normal; unicode-bidi:isolate; color:var(--faint); font-size:11px; display:-webkit-box;
  -webkit-line-clamp:2; -webkit-box-orient:vertical; overflow:hidden; }
.card em { display:block; font-style:normal; font-size:11px; font-weight:600; color:var(--green); }
.card img { border-radius:6px; margin-bottom:4px; width:100%; max-width:112px; }
.card.answer { background:#e3f4e6; box-shadow:inset 3px 0 0 #4c9a4e; }
.card.asked { background:var(--tint); }
.pictures { display:grid; grid-template-columns:1fr 1fr; gap:5px; }
.pictures .card { margin:0; padding:5px; font-size:11px; line-height:1.25; height:100%; }
.pictures .card b { -webkit-line-clamp:2; }
.pictures .card i { display:none; }

code { font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; background:var(--ground); color:var(--ink);
  border-radius:6px; padding:3px 8px; overflow-wrap:anywhere; }
.todo { background:var(--ground); border-left:3px solid var(--line); border-radius:6px; padding:10px 14px; }
.todo code { display:block; padding:4px 0 0; }
pre { margin:8px 0 0; background:var(--ground); border-radius:10px; padding:14px 16px; overflow-x:auto;
  font-size:12.5px; }
summary { cursor:pointer; font-weight:600; margin:14px 0 6px; }
@media (max-width:760px) {
  main { padding:20px 12px 60px; }
  section { padding:16px 14px; border-radius:10px; }
  h1 { font-size:24px; }
  .query { grid-template-columns:minmax(0,1fr); }
  .facts div { flex:1 1 28%; padding:7px 10px; min-width:0; }
  th, td { padding:6px 7px; }
  .verdicts thead { display:none; }
  .verdicts tr { display:grid; grid-template-columns:1fr auto; border-bottom:1px solid var(--line); padding:6px 0; }
  .verdicts th, .verdicts td { border:0; padding:2px 0; white-space:normal; }
  .verdicts td.names { grid-column:1/-1; width:auto; }
  .verdicts td.names:empty { display:none; }
  .verdicts td.names::before { content:attr(data-heading) " "; color:var(--faint); font-size:13px; }
}
@media print { section { break-inside:avoid; } body { background:#fff; } nav { display:none; } }
"""
