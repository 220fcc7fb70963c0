"""How the report looks."""

STYLE = """
:root { --ink:#1f2430; --faint:#6b7280; --line:#e5e7eb; --paper:#fff; --ground:#f6f7f9; --red:#d6224a; --tint:#fcecef; }
* { box-sizing:border-box; }
body { margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1240px; margin:0 auto; padding:36px 24px 80px; }
h1 { font-size:30px; margin:0; letter-spacing:-.02em; }
h1 b { color:var(--red); }
h2 { font-size:19px; margin:0 0 4px; letter-spacing:-.01em; }
h3 { font-size:14px; margin:18px 0 6px; }
p { margin:0 0 14px; color:var(--faint); max-width:88ch; }
img { max-width:100%; display:block; }
section { background:var(--paper); border:1px solid var(--line); border-radius:14px; padding:22px 24px;
  margin-top:20px; }
footer { color:var(--faint); font-size:13px; margin-top:26px; }
.wide { overflow-x:auto; }
.pair { display:grid; grid-template-columns:repeat(auto-fit,minmax(430px,1fr)); gap:24px; }

.facts { display:flex; flex-wrap:wrap; gap:10px; margin-top:16px; }
.facts div { background:var(--paper); border:1px solid var(--line); border-radius:12px; padding:9px 16px;
  min-width:110px; }
.facts b { display:block; font-size:20px; font-variant-numeric:tabular-nums; }
.facts span { color:var(--faint); font-size:13px; }

table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th { text-align:right; font-weight:600; color:var(--faint); font-size:13px; padding:6px 12px; white-space:nowrap;
  border-bottom:1px solid var(--line); }
td { text-align:right; padding:7px 12px; border-bottom:1px solid var(--line); white-space:nowrap; }
th:first-child, td:first-child { text-align:left; }
tr:last-child td { border-bottom:0; }
td small { display:block; color:var(--faint); font-size:11.5px; font-weight:400; }
td.best { font-weight:700; }
tr.ours { background:var(--tint); }
tr.ours td:first-child { font-weight:650; color:var(--red); }
td.bar { width:75%; }
td.bar div { height:9px; border-radius:5px; background:var(--red); min-width:2px; }

.query { display:grid; grid-template-columns:180px 1fr; gap:18px; padding:16px 0; border-top:1px solid var(--line); }
.columns { display:grid; grid-auto-flow:column; grid-auto-columns:minmax(150px,1fr); gap:14px; overflow-x:auto; }
h4 { margin:0 0 6px; font-size:12.5px; color:var(--faint); font-weight:600; }
h4.ours { color:var(--red); }
.card { display:block; font-size:12.5px; line-height:1.35; padding:6px 8px; border-radius:8px; margin-bottom:5px;
  background:var(--ground); overflow-wrap:anywhere; }
.card b { font-weight:500; display:-webkit-box; -webkit-line-clamp:3; -webkit-box-orient:vertical; overflow:hidden; }
.card i { font-style:normal; color:var(--faint); font-size:11px; display:-webkit-box; -webkit-line-clamp:2;
  -webkit-box-orient:vertical; overflow:hidden; }
.card img { border-radius:6px; margin-bottom:4px; width:100%; max-width:112px; }
.card.answer { background:#e3f4e6; box-shadow:inset 3px 0 0 #4c9a4e; }
.card.asked { background:var(--tint); }
.pictures { display:grid; grid-template-columns:1fr 1fr; gap:5px; }
.pictures .card { margin:0; padding:5px; font-size:11px; line-height:1.25; }
.pictures .card b { -webkit-line-clamp:2; }
.pictures .card i { display:none; }

pre { margin:8px 0 0; background:var(--ground); border-radius:10px; padding:14px 16px; overflow-x:auto;
  font-size:12.5px; }
summary { cursor:pointer; font-weight:600; margin-top:14px; }
@media (max-width:760px) { .query, .pair { grid-template-columns:1fr; } }
@media print { section { break-inside:avoid; } body { background:#fff; } }
"""
