"""The template of a survey's page, which looks like a study's report."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --faint: #57606a; --line: #d0d7de; --band: #f6f8fa;
  --warn: #9a3412; --link: #0b5cad; --bar: #2a8fbf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --ink: #e6edf3; --faint: #9aa5b1; --line: #3d444d; --band: #161b22;
    --warn: #ffb38a; --link: #7cb7ff; --bar: #2f6f96;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: .75rem 1rem 3rem; background: var(--paper);
  color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; background: var(--paper); padding: .5rem 1rem;
  z-index: 3; }
.skip:focus { left: 0; top: 0; }
.note { border-left: .25rem solid var(--warn); padding: .25rem .75rem; margin: 0 0 .5rem;
  background: var(--band); font-size: .8125rem; line-height: 1.35; font-weight: 600; }
h1 { font-size: 1.125rem; line-height: 1.25; margin: 0 0 .25rem; font-weight: 600;
  color: var(--faint); }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0; }
.answer { font-size: 1.375rem; line-height: 1.35; margin: 0 0 .5rem; text-wrap: pretty; }
.faint { color: var(--faint); font-size: .875rem; line-height: 1.4; max-width: 60rem;
  margin: .25rem 0 1rem; }
.limits { color: var(--faint); font-size: .8125rem; line-height: 1.4; margin: 0 0 .5rem; }
section { border-top: 1px solid var(--line); margin-top: 1rem; padding-top: .5rem; }
.changes { margin: .25rem 0 .75rem; display: grid; grid-template-columns: minmax(6rem, 14rem) 1fr;
  gap: .3rem 1.25rem; }
.changes dt { font-weight: 600; } .changes dd { margin: 0; grid-column: 2; min-width: 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .125rem 1.25rem; list-style: none; margin: 0;
  padding: 0; font-size: .9375rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
.scroll table { border-collapse: separate; border-spacing: 0; font-size: .8125rem;
  line-height: 1.35;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.scroll th, .scroll td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: top; }
.scroll thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; min-width: 4rem;
  max-width: 9rem; }
.scroll tbody th { font-weight: 400; min-width: 9rem; max-width: 16rem; text-align: left; }
.scroll td.track { padding-top: .5rem; width: 8rem; min-width: 8rem; }
.track svg { display: block; width: 100%; height: .75rem; }
.track rect { fill: var(--bar); }
@media (max-width: 48rem) {
  .answer { font-size: 1rem; }
  .changes { grid-template-columns: 1fr; gap: .1rem; } .changes dd { grid-column: 1;
  margin-bottom: .4rem; }
  .scroll tbody th { min-width: 6.5rem; max-width: 8rem; }
  .scroll td.track { width: 4rem; min-width: 4rem; }
  .scroll th, .scroll td { padding-right: .6rem; }
}
@media print { .skip, nav { display: none; } .scroll { overflow: visible; }
tr { break-inside: avoid; } }
</style>
</head>
<body>
<a class="skip" href="#main">Skip to the figures</a>
{% if synthetic %}
<header><p class="note">{{ synthetic }}</p></header>
{% endif %}
<main id="main">
<h1>{{ title }}</h1>
<p class="answer">{{ headline }}</p>
<p class="limits">{{ use }}</p>
<nav aria-label="Contents"><ul>
<li><a href="#change">What to change</a></li>
{% for table in tables %}
<li><a href="#table-{{ loop.index }}">{{ table.title.split(" (")[0] }}</a></li>
{% endfor %}
</ul></nav>
<section id="change">
<h2>What to change</h2>
{% if remarks %}
<dl class="changes">
{% for site, found in remarks %}
<dt>{{ site }}</dt>
{% for line in found %}
<dd>{{ line }}</dd>
{% endfor %}
{% endfor %}
</dl>
{% else %}
<p>Nothing.</p>
{% endif %}
{% if lacking %}
<p class="faint">{{ lacking }}</p>
{% endif %}
</section>
{% for table in tables %}
<section id="table-{{ loop.index }}">
<h2>{{ table.title }}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}"><table>
<thead><tr>
<td></td>
{% if table.shares %}
<td></td>
{% endif %}
{% for cell in table.header[1:] %}
<th scope="col">{{ cell }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>
<th scope="row">{{ row[0] }}</th>
{% if table.shares %}
<td class="track"><svg aria-hidden="true">
<rect width="{{ "%.1f" | format(100 * table.shares[loop.index0]) }}%" height="100%"/>
</svg></td>
{% endif %}
{% for cell in row[1:] %}
<td>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% if table.note %}
<p class="faint">{{ table.note }}</p>
{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
